#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "boost/scoped_ptr.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/filler.hpp"
#include "caffe/layers/sigmoid_cross_entropy_loss_layer.hpp"
#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"
#include "caffe/net.hpp"

#include "caffe/test/log_capture.hpp"
#include "caffe/test/test_caffe_main.hpp"
#include "caffe/test/test_gradient_check_util.hpp"
#include "caffe/test/weighted_sigmoid_loss_walk.hpp"

namespace caffe {

template <typename TypeParam>
class SigmoidCrossEntropyWeightLossLayerTest
    : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  typedef SigmoidCrossEntropyWeightLossLayer<Dtype> WeightLossLayer;

  SigmoidCrossEntropyWeightLossLayerTest()
      : scores_(2, 3, 2, 2), targets_(2, 3, 2, 2) {
    Caffe::set_random_seed(1701);
    bottoms_.push_back(&scores_);
    bottoms_.push_back(&targets_);
    tops_.push_back(&loss_);
    Fill();
  }

  /// Scores of a net in training and soft targets, some of them hard.
  void Fill() {
    FillerParameter scores_param;
    scores_param.set_std(3);
    GaussianFiller<Dtype>(scores_param).Fill(&scores_);
    FillerParameter targets_param;
    targets_param.set_min(0);
    targets_param.set_max(1);
    UniformFiller<Dtype>(targets_param).Fill(&targets_);
    Dtype* targets = targets_.mutable_cpu_data();
    for (int i = 0; i < targets_.count(); i += 2) {
      targets[i] = targets[i] > 0.5;
    }
  }

  void Set(const vector<Dtype>& scores, const vector<Dtype>& targets) {
    const vector<int> shape(1, scores.size());
    scores_.Reshape(shape);
    targets_.Reshape(shape);
    std::copy(scores.begin(), scores.end(), scores_.mutable_cpu_data());
    std::copy(targets.begin(), targets.end(), targets_.mutable_cpu_data());
  }

  static LayerParameter Param(const string& text) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
    return param;
  }

  /// The layer of these parameters, after a forward pass.
  Dtype Forward(const string& text) {
    layer_.reset(new WeightLossLayer(Param("name: 'loss' " + text)));
    layer_->SetUp(bottoms_, tops_);
    return layer_->Forward(bottoms_, tops_);
  }

  void SetUpLayer(const string& text) {
    WeightLossLayer layer(Param("name: 'loss' " + text));
    layer.SetUp(bottoms_, tops_);
  }

  void Backward() { layer_->Backward(tops_, ScoresOnly(), bottoms_); }

  /// Adds the third bottom, or reshapes it, with weights from 0 to 2.
  void Weigh(const vector<int>& shape) {
    weights_.Reshape(shape);
    FillerParameter param;
    param.set_min(0);
    param.set_max(2);
    UniformFiller<Dtype>(param).Fill(&weights_);
    weights_.mutable_cpu_data()[0] = 0;
    if (bottoms_.size() < 3) {
      bottoms_.push_back(&weights_);
    }
  }

  vector<bool> ScoresOnly() const {
    vector<bool> propagate_down(bottoms_.size(), false);
    propagate_down[0] = true;
    return propagate_down;
  }

  /// The loss of Caffe's layer, whose gradient is then in the scores' diff.
  Dtype Upstream(const string& text) {
    SigmoidCrossEntropyLossLayer<Dtype> layer(Param(text));
    layer.SetUp(bottoms_, tops_);
    const Dtype loss = layer.Forward(bottoms_, tops_);
    layer.Backward(tops_, ScoresOnly(), bottoms_);
    return loss;
  }

  void CheckAgainstUpstream(const string& text) {
    SCOPED_TRACE(text);
    const Dtype expected = Upstream(text);
    Blob<Dtype> expected_diff;
    expected_diff.CopyFrom(scores_, true, true);
    EXPECT_NEAR(expected, Forward(text), 1e-5 * expected);
    Backward();
    for (int i = 0; i < scores_.count(); ++i) {
      EXPECT_NEAR(expected_diff.cpu_diff()[i], scores_.cpu_diff()[i], 1e-6);
    }
  }

  /// Forward and Backward of the layer against the textbook in double.
  void CheckAgainstReference(const string& text) {
    SCOPED_TRACE(text);
    const LayerParameter param = Param(text);
    const Dtype loss = Forward(text);
    Backward();
    const double loss_weight =
        param.loss_weight_size() ? param.loss_weight(0) : 1;
    const double normalizer = ReferenceNormalizer(param);
    const double eps = sizeof(Dtype) == sizeof(float) ? 1e-5 : 1e-12;
    double expected_loss = 0;
    for (int i = 0; i < scores_.count(); ++i) {
      double a, b;
      ReferenceWeights(param, i, &a, &b);
      const double t = targets_.cpu_data()[i];
      const double p =
          1 / (1 + std::exp(-static_cast<double>(scores_.cpu_data()[i])));
      double grad = 0;
      if (!IsIgnored(param, i)) {
        expected_loss -= a * t * std::log(p) + b * (1 - t) * std::log(1 - p);
        grad = b * (1 - t) * p - a * t * (1 - p);
      }
      EXPECT_NEAR(grad * loss_weight / normalizer, scores_.cpu_diff()[i],
                  eps * loss_weight * (a + b))
          << "element " << i;
    }
    expected_loss /= normalizer;
    EXPECT_NEAR(expected_loss, loss_.cpu_data()[0], eps * expected_loss);
    EXPECT_NEAR(expected_loss * loss_weight, loss,
                eps * expected_loss * loss_weight);
  }

  bool IsIgnored(const LayerParameter& layer, int i) const {
    const Dtype t = targets_.cpu_data()[i];
    const LossParameter& param = layer.loss_param();
    const bool is_soft = t >= 1 / 1048576. && t <= 1 - 1 / 1048576.;
    return (param.has_ignore_label() && t == param.ignore_label()) ||
           (layer.sigmoid_cross_entropy_weight_loss_param()
                .ignore_soft_targets() &&
            is_soft);
  }

  /// Index of element i along an axis of the scores.
  int Index(int i, int axis) const {
    axis = scores_.CanonicalAxisIndex(axis);
    return i / scores_.count(axis + 1) % scores_.shape(axis);
  }

  void ReferenceWeights(const LayerParameter& layer, int i, double* a,
                        double* b) const {
    const SigmoidCrossEntropyWeightLossParameter& param =
        layer.sigmoid_cross_entropy_weight_loss_param();
    *a = param.cls_weight_size() == 0 ? 1
         : param.cls_weight_size() == 1
             ? param.cls_weight(0)
             : param.cls_weight(Index(i, param.axis()));
    *b = param.neg_weight_size() == 0 ? 1
         : param.neg_weight_size() == 1
             ? param.neg_weight(0)
             : param.neg_weight(Index(i, param.axis()));
    if (bottoms_.size() > 2) {
      vector<int> index(weights_.num_axes());
      for (int k = 0; k < weights_.num_axes(); ++k) {
        index[k] = weights_.shape(k) > 1 ? Index(i, k) : 0;
      }
      const double e = weights_.cpu_data()[weights_.offset(index)];
      *a *= e;
      *b *= e;
    }
    if (param.class_balance() != SigmoidCrossEntropyWeightLossParameter::NONE) {
      double positives = 0, negatives = 0;
      for (int j = 0; j < scores_.count(); ++j) {
        if (SameScope(param, i, j) && !IsIgnored(layer, j)) {
          positives += targets_.cpu_data()[j];
          negatives += 1 - static_cast<double>(targets_.cpu_data()[j]);
        }
      }
      const double total = positives + negatives;
      *a *= total ? negatives / total : 0;
      *b *= total ? positives / total : 0;
    }
  }

  bool SameScope(const SigmoidCrossEntropyWeightLossParameter& param, int i,
                 int j) const {
    switch (param.class_balance()) {
      case SigmoidCrossEntropyWeightLossParameter::INSTANCE:
        return Index(i, 0) == Index(j, 0);
      case SigmoidCrossEntropyWeightLossParameter::CHANNEL:
        return Index(i, param.axis()) == Index(j, param.axis());
      case SigmoidCrossEntropyWeightLossParameter::INSTANCE_CHANNEL:
        return Index(i, 0) == Index(j, 0) &&
               Index(i, param.axis()) == Index(j, param.axis());
      default:
        return true;
    }
  }

  double ReferenceNormalizer(const LayerParameter& layer) const {
    const LossParameter& param = layer.loss_param();
    int valid = 0;
    for (int i = 0; i < scores_.count(); ++i) {
      valid += !IsIgnored(layer, i);
    }
    const bool by_valid =
        param.has_normalization()
            ? param.normalization() == LossParameter_NormalizationMode_VALID
            : param.has_normalize() && param.normalize();
    if (by_valid) {
      return std::max(valid, 1);
    }
    if (!param.has_normalization() ||
        param.normalization() == LossParameter_NormalizationMode_BATCH_SIZE) {
      return scores_.shape(0);
    }
    return param.normalization() == LossParameter_NormalizationMode_FULL
               ? scores_.count()
               : 1;
  }

  void CheckGradient(const string& text) {
    SCOPED_TRACE(text);
    WeightLossLayer layer(Param(text));
    GradientChecker<Dtype> checker(1e-2, 1e-2, 1701);
    checker.CheckGradientExhaustive(&layer, bottoms_, tops_, 0);
  }

  Blob<Dtype> scores_, targets_, weights_, loss_;
  vector<Blob<Dtype>*> bottoms_, tops_;
  boost::scoped_ptr<WeightLossLayer> layer_;
};

#define PARAM(inside) "sigmoid_cross_entropy_weight_loss_param { " inside " } "
#define LOSS_PARAM(inside) "loss_param { " inside " } "
#define THREE_WEIGHTS " cls_weight: 100 cls_weight: 0.5 cls_weight: 7 "
#define THREE_NEG_WEIGHTS " neg_weight: 0 neg_weight: 1.5 neg_weight: 3 "

TYPED_TEST_CASE(SigmoidCrossEntropyWeightLossLayerTest, TestDtypesAndDevices);

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestWeights) {
  this->CheckAgainstReference("");
  this->CheckAgainstReference(PARAM("cls_weight: 100"));
  this->CheckAgainstReference(PARAM("cls_weight: 0"));
  this->CheckAgainstReference(PARAM(THREE_WEIGHTS));
  this->CheckAgainstReference(PARAM(THREE_WEIGHTS "axis: -3"));
  this->CheckAgainstReference(PARAM("cls_weight: 4 cls_weight: 9 axis: 0"));
  this->CheckAgainstReference(PARAM("cls_weight: 4 cls_weight: 9 axis: 2"));
  this->CheckAgainstReference(PARAM("cls_weight: 4 cls_weight: 9 axis: -1"));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestNegWeights) {
  this->CheckAgainstReference(PARAM("neg_weight: 1.1"));
  this->CheckAgainstReference(PARAM("cls_weight: 3" THREE_NEG_WEIGHTS));
  this->CheckAgainstReference(PARAM(THREE_WEIGHTS "neg_weight: 0.5"));
  this->CheckAgainstReference(PARAM(THREE_WEIGHTS THREE_NEG_WEIGHTS));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestElementWeights) {
  const vector<int> kShapes[] = {
      {2},          {2, 1, 1, 1}, {2, 3},       {1, 3, 1, 1},
      {2, 1, 2, 2}, {1, 1, 2, 1}, {1, 1, 1, 2}, {2, 1, 1, 2},
      {2, 3, 2, 2}, {1},          {},           {2, 3, 2, 2, 1, 1}};
  for (const vector<int>& shape : kShapes) {
    this->Weigh(shape);
    SCOPED_TRACE(this->weights_.shape_string());
    this->CheckAgainstReference("");
    this->CheckAgainstReference(PARAM(THREE_WEIGHTS)
                                    LOSS_PARAM("ignore_label: 1"));
  }
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestClassBalance) {
  const char* const kScopes[] = {"BATCH",
                                 "INSTANCE",
                                 "CHANNEL",
                                 "CHANNEL axis: -1",
                                 "CHANNEL axis: 0",
                                 "INSTANCE_CHANNEL",
                                 "INSTANCE_CHANNEL axis: 2",
                                 "INSTANCE_CHANNEL axis: -1"};
  for (const char* const scope : kScopes) {
    const string balance = string("class_balance: ") + scope;
    const string begin = "sigmoid_cross_entropy_weight_loss_param { ";
    this->CheckAgainstReference(begin + balance + " }");
    this->CheckAgainstReference(
        begin + balance +
        " neg_weight: 1.1 cls_weight: 2 } " LOSS_PARAM("ignore_label: 0"));
    this->CheckAgainstReference(begin + balance +
                                " ignore_soft_targets: true } ");
  }
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestIgnoreSoftTargets) {
  const char* const kModes[] = {"normalization: FULL",
                                "ignore_label: 0 normalization: VALID",
                                "normalization: VALID", ""};
  for (const char* const mode : kModes) {
    this->CheckAgainstReference(
        PARAM(THREE_WEIGHTS "ignore_soft_targets: true") "loss_param { " +
        string(mode) + " }");
  }
  EXPECT_NE(0, this->scores_.cpu_diff()[0]);
  EXPECT_EQ(0, this->scores_.cpu_diff()[1]);  // soft
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestEverything) {
  this->Weigh({2, 1, 2, 2});
  this->CheckAgainstReference(
      PARAM(THREE_WEIGHTS THREE_NEG_WEIGHTS "class_balance: INSTANCE")
          LOSS_PARAM(
              "ignore_label: 1 normalization: VALID") "loss_weight: 2.5");
  this->CheckAgainstReference(
      PARAM("cls_weight: 4 cls_weight: 9 neg_weight: 2 axis: 2 "
            "class_balance: CHANNEL") LOSS_PARAM("ignore_label: 0"));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestBalanceOfEmptyScope) {
  this->scores_.Reshape(vector<int>({3, 2}));
  this->targets_.Reshape(vector<int>({3, 2}));
  const int targets[] = {-1, -1, 0, 0, 1, 0};
  std::copy(targets, targets + 6, this->targets_.mutable_cpu_data());
  this->CheckAgainstReference(PARAM("class_balance: INSTANCE")
                                  LOSS_PARAM("ignore_label: -1"));
  EXPECT_EQ(0, this->scores_.cpu_diff()[0]);  // nothing in the scope
  EXPECT_EQ(0, this->scores_.cpu_diff()[2]);  // no positives
  EXPECT_NE(0, this->scores_.cpu_diff()[4]);
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestAttributes) {
  this->scores_.Reshape(vector<int>({5, 3}));
  this->targets_.Reshape(vector<int>({5, 3, 1, 1}));
  this->Fill();
  this->CheckAgainstReference(PARAM(THREE_WEIGHTS));
  // One axis and no weight per channel: axis is not looked at.
  this->scores_.Reshape(vector<int>(1, 15));
  this->targets_.Reshape(vector<int>(1, 15));
  this->CheckAgainstReference(PARAM("cls_weight: 3"));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestNormalization) {
  const char* const kIgnore[] = {"", "ignore_label: 1 "};
  const char* const kModes[] = {"",
                                "normalization: FULL",
                                "normalization: VALID",
                                "normalization: BATCH_SIZE",
                                "normalization: NONE",
                                "normalize: true",
                                "normalize: false",
                                "normalize: true normalization: NONE"};
  for (const char* const ignore : kIgnore) {
    for (const char* const mode : kModes) {
      this->CheckAgainstReference(
          PARAM("cls_weight: 5") "loss_weight: 2.5 loss_param { " +
          string(ignore) + mode + " }");
    }
  }
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestGradient) {
  this->CheckGradient("");
  this->CheckGradient(PARAM("cls_weight: 4") "loss_weight: 3.7");
  this->CheckGradient(PARAM("cls_weight: 4 cls_weight: 0.5 cls_weight: 2")
                          LOSS_PARAM("ignore_label: 1"));
  this->CheckGradient(PARAM("cls_weight: 4") LOSS_PARAM("normalization: FULL"));
  this->CheckGradient(PARAM("cls_weight: 4")
                          LOSS_PARAM("normalization: VALID ignore_label: 0"));
  this->CheckGradient(PARAM("cls_weight: 4")
                          LOSS_PARAM("normalization: BATCH_SIZE"));
  this->CheckGradient(PARAM("cls_weight: 4") LOSS_PARAM("normalization: NONE"));
  this->CheckGradient(PARAM("neg_weight: 4"));
  this->CheckGradient(PARAM("class_balance: BATCH"));
  this->CheckGradient(PARAM("class_balance: INSTANCE"));
  this->CheckGradient(PARAM("class_balance: CHANNEL"));
  this->CheckGradient(PARAM("class_balance: INSTANCE_CHANNEL axis: 2"));
  this->CheckGradient(PARAM("ignore_soft_targets: true"));
  this->Weigh({2, 1, 2});
  this->CheckGradient("");
  this->CheckGradient(
      PARAM("cls_weight: 4 cls_weight: 0.5 cls_weight: 2" THREE_NEG_WEIGHTS
            "class_balance: INSTANCE")
          LOSS_PARAM(
              "ignore_label: 1 normalization: VALID") "loss_weight: 2.5");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestUpstreamWithoutWeights) {
  const string plain = "loss_weight: 1.5 ";
  const string ignoring = plain + LOSS_PARAM("ignore_label: 1");
  this->CheckAgainstUpstream(plain);
  // In forks from before 1.0, that layer knows no ignore_label.
  if (this->Upstream(ignoring) != this->Upstream(plain)) {
    this->CheckAgainstUpstream(ignoring);
  }
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestIgnoreLabelIsExact) {
  typedef typename TypeParam::Dtype Dtype;
  this->Set({2, 2, 2}, {Dtype(0.3), 0, Dtype(0.999)});
  this->Forward(LOSS_PARAM("ignore_label: 0 normalization: VALID"));
  this->Backward();
  EXPECT_NE(0, this->scores_.cpu_diff()[0]);
  EXPECT_EQ(0, this->scores_.cpu_diff()[1]);
  // Upstream cuts 0.999 to 0.
  EXPECT_NE(0, this->scores_.cpu_diff()[2]);
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestAllIgnored) {
  this->Set({2, -3}, {-1, -1});
  EXPECT_EQ(0,
            this->Forward(LOSS_PARAM("ignore_label: -1 normalization: VALID")));
  this->Backward();
  EXPECT_EQ(0, this->scores_.cpu_diff()[0]);
  EXPECT_EQ(0, this->scores_.cpu_diff()[1]);
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestExtremeScores) {
  typedef typename TypeParam::Dtype Dtype;
  const Dtype kLargest = std::numeric_limits<Dtype>::max();
  const vector<Dtype> kScores = {0,   Dtype(-0.), Dtype(1e-30), Dtype(-1e-30),
                                 20,  87,         Dtype(88.8),  104,
                                 105, Dtype(1e4), Dtype(1e30)};
  for (const Dtype magnitude : kScores) {
    for (int sign = -1; sign <= 1; sign += 2) {
      for (int t = 0; t <= 1; ++t) {
        const Dtype x = sign * magnitude;
        SCOPED_TRACE(x);
        this->Set({x}, {Dtype(t)});
        const double loss =
            this->Forward(PARAM("cls_weight: 2") "loss_weight: 1");
        this->Backward();
        const double grad = this->scores_.cpu_diff()[0];
        // The score towards the target: far down it is exp(z), far up z.
        const double z = t ? -static_cast<double>(x) : static_cast<double>(x);
        const double weight = t ? 2 : 1;
        const double log1p_u = std::log1p(std::exp(-std::abs(z)));
        const double expected_loss = weight * (std::max(z, 0.) + log1p_u);
        const double expected_grad =
            weight *
            (z < 0 ? std::exp(z) / (1 + std::exp(z)) : 1 / (1 + std::exp(-z)));
        // Float: 2^-126; what double loses is below its digits here.
        const double floor = weight * 1.2e-38;
        EXPECT_NEAR(expected_loss, loss, 1e-6 * expected_loss + floor);
        EXPECT_NEAR(t ? -expected_grad : expected_grad, grad,
                    1e-6 * expected_grad + floor);
      }
    }
  }
  // Their mean is finite, their sum is not.
  this->Set({-kLargest / 2, -kLargest / 2, -kLargest / 2, -kLargest / 2},
            {1, 1, 1, 1});
  EXPECT_FLOAT_EQ(1., this->Forward("") / (kLargest / 2));
  this->Set({-kLargest}, {1});
  EXPECT_TRUE(std::isinf(this->Forward(PARAM("cls_weight: 2"))));
}

/// A search found it when without FMA the gradient was off by 4.32 ulp.
TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestWorstSoftTarget) {
  typedef typename TypeParam::Dtype Dtype;
  const Dtype x = Dtype(-5.538938045501709), t = Dtype(0.49887391924858093);
  this->Set({x}, {t});
  this->Weigh({1});
  const Dtype e = Dtype(0.8833884000778198);
  this->weights_.mutable_cpu_data()[0] = e;
  this->Forward(PARAM("cls_weight: 0.00449819397 neg_weight: 1.13988268"));
  this->Backward();
  const long double a = 0.00449819397f, b = 1.13988268f;
  const weighted_sigmoid_loss::ExactElement<long double> exact(x, t, e * a,
                                                               e * b);
  const Dtype gradient = this->scores_.cpu_diff()[0];
  EXPECT_LE(std::abs(gradient - exact.gradient) / exact.larger_term,
            4 * std::numeric_limits<Dtype>::epsilon());
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestExtremeWeights) {
  typedef typename TypeParam::Dtype Dtype;
  const Dtype kWeight = std::numeric_limits<Dtype>::max() / 16;
  // Right: the product of two weights is beyond double, their losses are not.
  this->Set({10, -10}, {1, 0});
  this->Weigh({2});
  this->weights_.mutable_cpu_data()[0] = kWeight;
  this->weights_.mutable_cpu_data()[1] = kWeight;
  const Dtype loss = this->Forward(PARAM(
      "cls_weight: 100 neg_weight: 100") "loss_param { normalization: FULL }");
  EXPECT_NEAR(100 * std::log1p(std::exp(-10.)), loss / kWeight, 1e-8);
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestNotFiniteScores) {
  typedef typename TypeParam::Dtype Dtype;
  const Dtype kInfinity = std::numeric_limits<Dtype>::infinity();
  // Right and infinitely sure of it, as the header says.
  this->Set({kInfinity, -kInfinity}, {1, 0});
  EXPECT_TRUE(std::isnan(this->Forward("")));
  this->Backward();
  EXPECT_EQ(0, this->scores_.cpu_diff()[0]);
  EXPECT_EQ(0, this->scores_.cpu_diff()[1]);
  // Wrong, and a soft target.
  this->Set({kInfinity, -kInfinity}, {Dtype(0.5), Dtype(0.5)});
  EXPECT_TRUE(std::isinf(this->Forward("loss_weight: 2")));
  this->Backward();
  EXPECT_EQ(Dtype(0.5), this->scores_.cpu_diff()[0]);
  EXPECT_EQ(Dtype(-0.5), this->scores_.cpu_diff()[1]);
  this->Set({std::numeric_limits<Dtype>::quiet_NaN(), 1}, {1, 1});
  EXPECT_TRUE(std::isnan(this->Forward("")));
  this->Backward();
  EXPECT_TRUE(std::isnan(this->scores_.cpu_diff()[0]));
  EXPECT_FALSE(std::isnan(this->scores_.cpu_diff()[1]));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestForwardWritesNoDiff) {
  typedef typename TypeParam::Dtype Dtype;
  caffe_set(this->scores_.count(), Dtype(42), this->scores_.mutable_cpu_diff());
  caffe_set(this->targets_.count(), Dtype(43),
            this->targets_.mutable_cpu_diff());
  this->Forward(PARAM("cls_weight: 5") LOSS_PARAM("ignore_label: 1"));
  for (int i = 0; i < this->scores_.count(); ++i) {
    EXPECT_EQ(42, this->scores_.cpu_diff()[i]);
    EXPECT_EQ(43, this->targets_.cpu_diff()[i]);
  }
  this->Backward();
  EXPECT_NE(42, this->scores_.cpu_diff()[1]);
  EXPECT_EQ(43, this->targets_.cpu_diff()[1]);
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestReshape) {
  this->Forward(PARAM(THREE_WEIGHTS));
  this->scores_.Reshape(vector<int>({4, 3}));
  this->targets_.Reshape(vector<int>({4, 3}));
  this->Fill();
  // Forward reshapes.
  const double reshaped = this->layer_->Forward(this->bottoms_, this->tops_);
  EXPECT_EQ(reshaped, this->Forward(PARAM(THREE_WEIGHTS)));

  const string kBalance = PARAM("class_balance: INSTANCE");
  this->Weigh({4});
  this->Forward(kBalance);
  this->scores_.Reshape(vector<int>({7, 3, 2}));
  this->targets_.Reshape(vector<int>({7, 3, 2}));
  this->Weigh({7, 1, 2});
  this->Fill();
  const double balanced = this->layer_->Forward(this->bottoms_, this->tops_);
  EXPECT_EQ(balanced, this->Forward(kBalance));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerTest, TestSetUpLogsParameters) {
  LogCapture log(google::GLOG_INFO);
  this->SetUpLayer(PARAM(THREE_WEIGHTS) LOSS_PARAM("normalization: VALID"));
  ASSERT_EQ(1, log.messages().size());
  EXPECT_EQ(
      "SigmoidCrossEntropyWeightLoss layer 'loss': cls_weight 100 0.5 7, "
      "neg_weight 1, class_balance NONE, normalization VALID",
      log.messages()[0]);
  this->SetUpLayer(PARAM("ignore_soft_targets: true"));
  ASSERT_EQ(2, log.messages().size());
  EXPECT_EQ(
      "SigmoidCrossEntropyWeightLoss layer 'loss': cls_weight 1, neg_weight 1, "
      "class_balance NONE, normalization BATCH_SIZE, ignore_soft_targets true",
      log.messages()[1]);
}

// On the CPU only: a death test forks, which no CUDA context outlives.
template <typename Dtype>
class SigmoidCrossEntropyWeightLossLayerDeathTest
    : public SigmoidCrossEntropyWeightLossLayerTest<CPUDevice<Dtype> > {};

TYPED_TEST_CASE(SigmoidCrossEntropyWeightLossLayerDeathTest, TestDtypes);

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerDeathTest, TestWeights) {
  EXPECT_DEATH(this->SetUpLayer(PARAM("cls_weight: -1")),
               "layer 'loss': cls_weight number 1 is -1; a weight must be "
               "finite and not negative");
  EXPECT_DEATH(this->SetUpLayer(PARAM("cls_weight: 1 cls_weight: nan")),
               "cls_weight number 2 is nan");
  EXPECT_DEATH(this->SetUpLayer(PARAM("cls_weight: inf")),
               "cls_weight number 1 is inf");
  EXPECT_DEATH(this->SetUpLayer(PARAM("neg_weight: 1 neg_weight: -3")),
               "neg_weight number 2 is -3");
  EXPECT_DEATH(this->SetUpLayer(PARAM("cls_weight: 5 neg_weight: 1 "
                                      "neg_weight: 2")),
               "neg_weight has 2 values, .* have 3 channels along axis 1");
  EXPECT_DEATH(this->SetUpLayer(PARAM("cls_weight: 1 cls_weight: 2")),
               "layer 'loss': cls_weight has 2 values, the scores .bottom 0. "
               "of shape 2 3 2 2 .24. have 3 channels along axis 1; give none, "
               "one, or one per channel");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerDeathTest, TestAxis) {
  EXPECT_DEATH(this->SetUpLayer(PARAM(THREE_WEIGHTS "axis: 4")),
               "layer 'loss': axis is 4, .* axis must be from -4 to 3");
  EXPECT_DEATH(this->SetUpLayer(PARAM(THREE_WEIGHTS "axis: -5")),
               "axis is -5, .* axis must be from -4 to 3");
  EXPECT_DEATH(this->SetUpLayer(PARAM("class_balance: CHANNEL axis: 4")),
               "axis is 4, .* axis must be from -4 to 3");
  this->SetUpLayer(PARAM("cls_weight: 2 class_balance: INSTANCE axis: 4"));
  EXPECT_DEATH(this->SetUpLayer(PARAM("class_balance: INSTANCE_CHANNEL "
                                      "axis: 4")),
               "axis is 4, .* axis must be from -4 to 3");
  const char* const kInstances[] = {"0", "-4"};
  for (const char* const axis : kInstances) {
    EXPECT_DEATH(
        this->SetUpLayer("sigmoid_cross_entropy_weight_loss_param { "
                         "class_balance: INSTANCE_CHANNEL axis: " +
                         string(axis) + " }"),
        "layer 'loss': class_balance INSTANCE_CHANNEL needs an axis of "
        "channels after that of the instances, and axis is " +
            string(axis) + "; INSTANCE balances each index of axis 0");
  }
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerDeathTest, TestScopesOfOne) {
  const vector<int> kShapes[] = {{5, 3}, {5, 3, 1, 1}, {1, 15}};
  for (const vector<int>& shape : kShapes) {
    this->scores_.Reshape(shape);
    this->targets_.Reshape(shape);
    EXPECT_DEATH(this->SetUpLayer(PARAM("class_balance: INSTANCE_CHANNEL")),
                 "layer 'loss': class_balance INSTANCE_CHANNEL balances the "
                 "elements of each channel of each instance, of which scores "
                 "of shape .* have one, along axis 1; set class_balance to "
                 "CHANNEL, INSTANCE or BATCH");
  }
  this->scores_.Reshape({0, 3, 2, 2});  // nobody knows
  this->targets_.Reshape({0, 3, 2, 2});
  this->SetUpLayer(PARAM("class_balance: INSTANCE_CHANNEL"));
  this->scores_.Reshape({5, 3, 1, 2});
  this->targets_.Reshape({5, 3, 1, 2});
  this->SetUpLayer(PARAM("class_balance: INSTANCE_CHANNEL"));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerDeathTest, TestElementWeights) {
  const vector<int> kShapes[] = {{3}, {1, 2}, {2, 3, 2, 2, 2}, {2, 3, 4}};
  for (const vector<int>& shape : kShapes) {
    this->Weigh(shape);
    EXPECT_DEATH(this->SetUpLayer(""),
                 "layer 'loss': the scores .bottom 0. have shape 2 3 2 2 .24., "
                 "the element weights .bottom 2. .*; each axis of the weights "
                 "must be 1 or that of the scores");
  }
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerDeathTest, TestBottoms) {
  this->Weigh({1});
  this->bottoms_.push_back(&this->weights_);
  EXPECT_DEATH(this->SetUpLayer(""), "takes at most 3 bottom blob");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerDeathTest, TestReshape) {
  this->Forward(PARAM(THREE_WEIGHTS));
  this->scores_.Reshape(2, 4, 2, 2);
  this->targets_.Reshape(2, 4, 2, 2);
  EXPECT_DEATH(this->layer_->Reshape(this->bottoms_, this->tops_),
               "cls_weight has 3 values, .* have 4 channels");
  this->scores_.Reshape(vector<int>(1, 6));
  this->targets_.Reshape(vector<int>(1, 6));
  EXPECT_DEATH(this->layer_->Reshape(this->bottoms_, this->tops_),
               "axis is 1, .* axis must be from -1 to 0");

  this->scores_.Reshape(2, 3, 2, 2);
  this->targets_.Reshape(2, 3, 2, 2);
  this->Weigh({2, 1, 2, 2});
  this->Forward("");
  this->scores_.Reshape(4, 3, 2, 2);
  this->targets_.Reshape(4, 3, 2, 2);
  EXPECT_DEATH(this->layer_->Reshape(this->bottoms_, this->tops_),
               "each axis of the weights must be 1 or that of the scores");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossLayerDeathTest, TestPropagateDown) {
  EXPECT_DEATH(this->SetUpLayer("propagate_down: true propagate_down: true"),
               "layer 'loss': propagate_down is true for bottom 1, but only "
               "the scores .bottom 0. have a gradient");
  this->Forward("propagate_down: true propagate_down: false");
  EXPECT_DEATH(this->layer_->Backward(this->tops_, vector<bool>(2, true),
                                      this->bottoms_),
               "layer 'loss': the net asks for the gradient of bottom 1, .* "
               "put propagate_down: true propagate_down: false into");
  this->Weigh({1});
  EXPECT_DEATH(this->SetUpLayer("propagate_down: true propagate_down: false "
                                "propagate_down: true"),
               "propagate_down is true for bottom 2");
  this->Forward("");
  vector<bool> propagate_down(3, false);
  propagate_down[2] = true;
  EXPECT_DEATH(
      this->layer_->Backward(this->tops_, propagate_down, this->bottoms_),
      "the gradient of bottom 2, .* put propagate_down: true "
      "propagate_down: false propagate_down: false into");
}

/// Nets in which the scores feed this loss and another one.
template <typename TypeParam>
class SigmoidCrossEntropyWeightLossNetTest : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  /// scores = w * data, with a Euclidean loss on them and then `layers`.
  void MakeNet(const string& layers) {
    const string text =
        "force_backward: true "
        "layer { name: 'data' type: 'DummyData' top: 'data' top: 'regression' "
        "  top: 'targets' dummy_data_param { "
        "    shape { dim: 4 dim: 5 } shape { dim: 4 dim: 3 } "
        "    shape { dim: 4 dim: 3 } "
        "    data_filler { type: 'gaussian' } data_filler { type: 'gaussian' } "
        "    data_filler { type: 'uniform' } } } "
        "layer { name: 'scores' type: 'InnerProduct' bottom: 'data' "
        "  top: 'scores' inner_product_param { num_output: 3 "
        "    weight_filler { type: 'gaussian' } } } "
        "layer { name: 'euclidean' type: 'EuclideanLoss' bottom: 'scores' "
        "  bottom: 'regression' top: 'euclidean' } " +
        layers;
    NetParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param));
    Caffe::set_random_seed(1701);
    net_.reset(new Net<Dtype>(param));
  }

  const Dtype* WeightDiff() const {
    return net_->layer_by_name("scores")->blobs()[0]->cpu_diff();
  }

  /// The gradient of the scores' weights in the net of these layers.
  vector<Dtype> Gradient(const string& layers) {
    MakeNet(layers);
    Caffe::set_random_seed(1702);
    // Up to rc3, Forward and ForwardBackward want an argument.
    net_->ForwardFrom(0);
    net_->Backward();
    return vector<Dtype>(WeightDiff(), WeightDiff() + 15);
  }

  static string WeightLoss(const string& more) {
    return "layer { name: 'loss' type: 'SigmoidCrossEntropyWeightLoss' "
           "bottom: 'scores' bottom: 'targets' top: 'loss' " PARAM(
               "cls_weight: 100") +
           more + " } ";
  }

  static void ExpectEqual(const vector<Dtype>& expected,
                          const vector<Dtype>& got) {
    for (int i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(expected[i], got[i]) << i;
    }
  }

  boost::scoped_ptr<Net<Dtype> > net_;
};

TYPED_TEST_CASE(SigmoidCrossEntropyWeightLossNetTest, TestDtypesAndDevices);

TYPED_TEST(SigmoidCrossEntropyWeightLossNetTest, TestNoLossWeight) {
  this->ExpectEqual(this->Gradient(""),
                    this->Gradient(this->WeightLoss("loss_weight: 0")));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossNetTest, TestSilence) {
  this->ExpectEqual(this->Gradient(""),
                    this->Gradient(this->WeightLoss("loss_weight: 0") +
                                   "layer { type: 'Silence' bottom: 'loss' }"));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossNetTest, TestPartialBackward) {
  const vector<typename TypeParam::Dtype> expected = this->Gradient("");
  this->MakeNet(this->WeightLoss(""));
  Caffe::set_random_seed(1702);
  this->net_->ForwardFrom(0);
  const vector<string>& names = this->net_->layer_names();
  this->net_->BackwardFrom(std::find(names.begin(), names.end(), "euclidean") -
                           names.begin());
  this->ExpectEqual(expected, vector<typename TypeParam::Dtype>(
                                  this->WeightDiff(), this->WeightDiff() + 15));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossNetTest, TestTopFeedsAnotherLayer) {
  typedef typename TypeParam::Dtype Dtype;
  const vector<Dtype> other = this->Gradient("");
  const vector<Dtype> once = this->Gradient(this->WeightLoss(""));
  // loss_weight 0.5 by itself, and 2 through a Power layer of scale 2.
  const vector<Dtype> both = this->Gradient(
      this->WeightLoss("loss_weight: 0.5") +
      "layer { name: 'twice' type: 'Power' bottom: 'loss' top: 'twice' "
      "  loss_weight: 1 power_param { scale: 2 } } ");
  for (int i = 0; i < other.size(); ++i) {
    const Dtype ours = once[i] - other[i];
    EXPECT_NEAR(other[i] + Dtype(2.5) * ours, both[i],
                1e-4 * (std::abs(other[i]) + std::abs(ours)));
  }
}

TYPED_TEST(SigmoidCrossEntropyWeightLossNetTest, TestForceBackward) {
  // The net forces gradients of everything but what the layer refuses.
  this->Gradient(this->WeightLoss(""));
  EXPECT_FALSE(this->net_->bottom_need_backward().back()[1]);
  EXPECT_TRUE(this->net_->bottom_need_backward().back()[0]);
}

}  // namespace caffe
