#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "boost/scoped_ptr.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"

#include "caffe/test/test_caffe_main.hpp"

// 10^8 random elements with every feature of the layer in use, in float, each
// gradient and each loss against double, whose errors are far below those that
// are looked for.

namespace caffe {

namespace {

const double kFloatUlp = std::ldexp(1., -23);
const double kFloor = FLT_MIN;
const double kLossWeight = 2.5;
const int64_t kElements = 100000000;

/// How the scores or the element weights lie in memory: along an axis of stride
/// 0 they do not differ.
struct Strides {
  explicit Strides(const vector<int>& shape) {
    int stride = 1;
    for (int k = 2; k >= 0; --k) {
      of[k] = shape[k] == 1 ? 0 : stride;
      stride *= shape[k];
    }
  }
  int At(int n, int c, int i) const {
    return n * of[0] + c * of[1] + i * of[2];
  }
  int of[3];
};

/// softplus(x) and sigmoid(x) for x and -x.
struct Functions {
  explicit Functions(double x) {
    const double u = std::exp(-std::abs(x));
    const double log1p_u = std::log1p(u);
    softplus = std::max(x, 0.) + log1p_u;
    softplus_neg = std::max(-x, 0.) + log1p_u;
    sigmoid = (x < 0 ? u : 1) / (1 + u);
    sigmoid_neg = (x < 0 ? 1 : u) / (1 + u);
  }
  double softplus, softplus_neg, sigmoid, sigmoid_neg;
};

/// error in ulp of scale, but for what is within floor; also NaN is an error.
double Ulp(double error, double scale, double floor) {
  const double excess = std::abs(error) - floor;
  return excess <= 0 ? 0 : excess / (kFloatUlp * scale);
}

/// For the largest of errors, of which NaN is the largest.
void Enlarge(double* largest, double error) {
  if (!std::isnan(*largest) && !(error <= *largest)) {
    *largest = error;
  }
}

}  // namespace

template <typename TypeParam>
class WeightedSigmoidLossRandomTest : public MultiDeviceTest<TypeParam> {
 protected:
  typedef SigmoidCrossEntropyWeightLossParameter Parameter;

  WeightedSigmoidLossRandomTest()
      : random_(1701), elements_(0), worst_loss_(0), worst_grad_(0) {
    bottoms_.push_back(&scores_);
    bottoms_.push_back(&targets_);
    bottoms_.push_back(&weights_);
    tops_.push_back(&loss_);
  }

  /// A layer with every parameter, for bottoms of these shapes.
  void SetUpLayer(const vector<int>& shape, const vector<int>& weights_shape,
                  int ignore_label, bool ignore_soft_targets,
                  Parameter::ClassBalance class_balance) {
    scores_.Reshape(shape);
    targets_.Reshape(shape);
    weights_.Reshape(weights_shape);
    LayerParameter layer_param;
    layer_param.add_loss_weight(kLossWeight);
    layer_param.mutable_loss_param()->set_ignore_label(ignore_label);
    layer_param.mutable_loss_param()->set_normalization(
        LossParameter_NormalizationMode_VALID);
    Parameter* param =
        layer_param.mutable_sigmoid_cross_entropy_weight_loss_param();
    for (int c = 0; c < shape[1]; ++c) {
      param->add_cls_weight(std::uniform_real_distribution<>(0, 100)(random_));
      param->add_neg_weight(std::uniform_real_distribution<>(0, 2)(random_));
    }
    param->set_neg_weight(0, 0);
    param->set_class_balance(class_balance);
    param->set_ignore_soft_targets(ignore_soft_targets);
    layer_.reset(new SigmoidCrossEntropyWeightLossLayer<float>(layer_param));
    layer_->SetUp(bottoms_, tops_);
  }

  const Parameter& param() const {
    return layer_->layer_param().sigmoid_cross_entropy_weight_loss_param();
  }
  float ignore_label() const {
    return layer_->layer_param().loss_param().ignore_label();
  }
  bool IsIgnored(float target) const {
    const bool is_soft = target >= 1 / 1048576. && target <= 1 - 1 / 1048576.;
    return target == ignore_label() ||
           (param().ignore_soft_targets() && is_soft);
  }

  /// huge: scores up to the largest, too, which hide the others in the loss.
  void FillBottoms(bool huge) {
    float* scores = scores_.mutable_cpu_data();
    float* targets = targets_.mutable_cpu_data();
    for (int i = 0; i < scores_.count(); ++i) {
      const uint64_t bits = random_();
      scores[i] = Score(bits, huge);
      targets[i] = Target(bits);
    }
    float* weights = weights_.mutable_cpu_data();
    std::uniform_real_distribution<float> weight(-0.1, 2);
    for (int i = 0; i < weights_.count(); ++i) {
      weights[i] = std::max(0.f, weight(random_));
    }
  }

  /// From bits 0 to 43: half of them as of a net in training, most others where
  /// the exponential is small, and some of any magnitude.
  static float Score(uint64_t bits, bool huge) {
    const float uniform = static_cast<int32_t>(bits >> 12);  // [-2^31, 2^31)
    const int kind = bits % 16;
    if (kind < 8) {
      return std::ldexp(uniform, 4 - 31);
    }
    if (kind < 14) {
      return std::ldexp(uniform, 7 - 31);
    }
    const int smaller = bits / 16 % 256;
    return std::ldexp(uniform, (huge ? 96 : 7 - 31) - smaller);
  }

  /// From bits 44 to 63: 0, 1, ignored, or soft.
  float Target(uint64_t bits) const {
    const int kind = (bits >> 44) % 8;
    return kind < 3    ? 0
           : kind < 5  ? 1
           : kind == 5 ? ignore_label()
                       : std::ldexp(static_cast<float>(bits >> 47), -17);
  }

  int Scope(int n, int c) const {
    switch (param().class_balance()) {
      case Parameter::INSTANCE:
        return n;
      case Parameter::CHANNEL:
        return c;
      case Parameter::INSTANCE_CHANNEL:
        return n * targets_.shape(1) + c;
      default:
        return 0;
    }
  }

  /// Calls visit(n, c, i) for the elements that are not ignored.
  template <typename Visit>
  void ForEach(Visit visit) const {
    const float* targets = targets_.cpu_data();
    for (int n = 0; n < targets_.shape(0); ++n) {
      for (int c = 0; c < targets_.shape(1); ++c) {
        for (int i = 0; i < targets_.shape(2); ++i, ++targets) {
          if (!IsIgnored(*targets)) {
            visit(n, c, i);
          }
        }
      }
    }
  }

  /// P and Q of each scope; returns the number of elements.
  int CountTargets(vector<double>* positives, vector<double>* negatives) const {
    const Strides strides(targets_.shape());
    const float* targets = targets_.cpu_data();
    int valid = 0;
    ForEach([&](int n, int c, int i) {
      const double t = targets[strides.At(n, c, i)];
      (*positives)[Scope(n, c)] += t;
      (*negatives)[Scope(n, c)] += 1 - t;
      ++valid;
    });
    return valid;
  }

  /// Forward and Backward, and all that they give against double.
  void Check() {
    layer_->Forward(bottoms_, tops_);
    // An ignored element's 0 is there because it was written.
    std::fill_n(scores_.mutable_cpu_diff(), scores_.count(), 99.f);
    layer_->Backward(tops_, {true, false, false}, bottoms_);

    const int scopes = scores_.shape(0) * scores_.shape(1);
    vector<double> positives(scopes), negatives(scopes);
    const double normalizer = CountTargets(&positives, &negatives);
    const double top_diff = kLossWeight / normalizer;
    const Strides strides(scores_.shape()), weight_strides(weights_.shape());
    const float* scores = scores_.cpu_data();
    const float* targets = targets_.cpu_data();
    const float* weights = weights_.cpu_data();
    const float* grad = scores_.cpu_diff();
    double loss = 0, loss_floor = 0;
    ForEach([&](int n, int c, int i) {
      const int at = strides.At(n, c, i);
      const int s = Scope(n, c);
      const double e = weights[weight_strides.At(n, c, i)];
      const double share = e / (positives[s] + negatives[s]);
      const double a = param().cls_weight(c) * negatives[s] * share;
      const double b = param().neg_weight(c) * positives[s] * share;
      const double t = targets[at];
      const Functions f(scores[at]);
      loss += a * t * f.softplus_neg + b * (1 - t) * f.softplus;
      loss_floor += kFloor * std::max(a, b);
      const double up = b * (1 - t) * f.sigmoid * top_diff;
      const double down = a * t * f.sigmoid_neg * top_diff;
      Enlarge(&worst_grad_,
              Ulp(grad[at] - (up - down), std::max(up, down),
                  kFloor * std::max(1., std::max(a, b) * top_diff)));
    });
    CheckLoss(loss / normalizer, loss_floor / normalizer);
    EXPECT_EQ(scores_.count() - normalizer, IgnoredWithoutGradient());
    elements_ += scores_.count();
  }

  void CheckLoss(double expected, double floor) {
    const double got = loss_.cpu_data()[0];
    if (expected > FLT_MAX) {
      EXPECT_TRUE(std::isinf(got));
    } else {
      Enlarge(&worst_loss_,
              Ulp(got - expected, expected, std::max(kFloor, floor)));
    }
  }

  int IgnoredWithoutGradient() const {
    int number = 0;
    for (int i = 0; i < scores_.count(); ++i) {
      number += IsIgnored(targets_.cpu_data()[i]) && scores_.cpu_diff()[i] == 0;
    }
    return number;
  }

  std::mt19937_64 random_;
  int64_t elements_;
  double worst_loss_, worst_grad_;
  Blob<float> scores_, targets_, weights_, loss_;
  vector<Blob<float>*> bottoms_, tops_;
  boost::scoped_ptr<SigmoidCrossEntropyWeightLossLayer<float>> layer_;
};

#ifdef CPU_ONLY
typedef ::testing::Types<CPUDevice<float>> FloatOnDevices;
#else
typedef ::testing::Types<CPUDevice<float>, GPUDevice<float>> FloatOnDevices;
#endif
TYPED_TEST_CASE(WeightedSigmoidLossRandomTest, FloatOnDevices);

TYPED_TEST(WeightedSigmoidLossRandomTest, TestEverything) {
  typedef SigmoidCrossEntropyWeightLossParameter Parameter;
  const vector<int> kShapes[] = {
      {999, 35, 1}, {1, 8, 4099}, {64, 2, 256}, {5, 7, 1000}, {17, 300, 7}};
  const int kIgnoreLabels[] = {2, -1, 0};  // 0: all negatives, no soft target
  const Parameter::ClassBalance kScopes[] = {
      Parameter::BATCH, Parameter::INSTANCE, Parameter::CHANNEL,
      Parameter::INSTANCE_CHANNEL};
  const int kLayers = 5 * 8 * 4 - 8;
  int layer = 0;
  for (const vector<int>& shape : kShapes) {
    for (int broadcast = 0; broadcast < 8; ++broadcast) {
      // Element weights along each set of axes.
      vector<int> weights_shape(shape);
      for (int k = 0; k < 3; ++k) {
        weights_shape[k] = broadcast >> k & 1 ? 1 : shape[k];
      }
      for (const Parameter::ClassBalance scope : kScopes) {
        if (scope == Parameter::INSTANCE_CHANNEL && shape[2] == 1) {
          continue;  // no scope has more than one element
        }
        this->SetUpLayer(shape, weights_shape, kIgnoreLabels[broadcast % 3],
                         broadcast % 4 == 3, scope);
        ++layer;
        for (int round = 0; this->elements_ < kElements * layer / kLayers;
             ++round) {
          this->FillBottoms(round % 8 == 7);
          this->Check();
        }
      }
    }
  }
  EXPECT_GE(this->elements_, kElements);
  EXPECT_LE(this->worst_loss_, 4);
  EXPECT_LE(this->worst_grad_, 4);
  // Errors that are too good to be true come from a test that compares nothing.
  EXPECT_GT(this->worst_loss_, 0.1);
  EXPECT_GT(this->worst_grad_, 0.5);
  std::printf("%lld random elements: loss %.2f ulp, gradient %.2f ulp\n",
              static_cast<long long>(this->elements_),  // NOLINT(runtime/int)
              this->worst_loss_, this->worst_grad_);
}

}  // namespace caffe
