#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

// The kernel alone: its errors against long double, its sums, its corners.

namespace caffe {

namespace weighted_sigmoid_loss {

typedef long double Real;

/// The largest error seen, in ulp, and where.
class LargestError {
 public:
  LargestError() : ulp_(0), where_(0) {}

  /// error and scale in units of value; nothing below floor counts.
  template <typename T>
  void Add(Real error, Real scale, Real floor, T where) {
    const Real ulp = std::ldexp(Real(1), 1 - std::numeric_limits<T>::digits);
    const Real excess = std::abs(error) - floor;
    // Also true where the error is NaN.
    if (!(excess <= ulp_ * ulp * scale)) {
      ulp_ = excess / (ulp * scale);
      where_ = where;
    }
  }
  Real ulp() const { return ulp_; }
  Real where() const { return where_; }

 private:
  Real ulp_;
  Real where_;
};

#define EXPECT_WITHIN_ULP(largest, bound) \
  EXPECT_LE((largest).ulp(), bound) << "at " << (largest).where()

/// exp, log1p, loss and gradient at one score after another.
template <typename T>
class ErrorWalk {
 public:
  void Visit(T x) {
    const T magnitude = std::abs(x);
    const Real u = std::exp(-Real(magnitude));
    const Real tiny = std::numeric_limits<T>::min();
    const T got_u = ExpNegative(magnitude);
    exp_.Add(got_u - u, u, u < tiny ? tiny : Real(0), x);
    const Real log1p_got_u = std::log1p(Real(got_u));
    log1p_.Add(Log1p(got_u) - log1p_got_u, log1p_got_u, 0, got_u);

    const Real log1p_u = std::log1p(u);
    const Real softplus = std::max(Real(x), Real(0)) + log1p_u;
    const Real softplus_neg = std::max(-Real(x), Real(0)) + log1p_u;
    const Real sigmoid = (x < 0 ? u : Real(1)) / (1 + u);
    const Real sigmoid_neg = (x < 0 ? Real(1) : u) / (1 + u);
    static const T kTargets[] = {T(0), T(1), T(0.3)};
    static const T kA = T(3.7), kB = T(0.9);
    for (const T t : kTargets) {
      const Real positive = Real(kA) * t, negative = Real(kB) * (1 - Real(t));
      const Real floor = tiny * kA;
      const Real loss = positive * softplus_neg + negative * softplus;
      loss_.Add(LossElement(x, t, kA, kB) - loss, loss, floor, x);
      const Real up = negative * sigmoid, down = positive * sigmoid_neg;
      gradient_.Add(GradientElement(x, t, kA, kB) - (up - down),
                    std::max(up, down), floor, x);
    }
  }

  void Expect() const {
    EXPECT_WITHIN_ULP(exp_, 0.75);
    EXPECT_WITHIN_ULP(log1p_, 1.5);
    EXPECT_WITHIN_ULP(loss_, 2.5);
    EXPECT_WITHIN_ULP(gradient_, 2.5);
    // A walk that compares nothing would pass as well.
    EXPECT_GT(exp_.ulp(), 0.25);
    EXPECT_GT(gradient_.ulp(), 0.5);
  }

 private:
  LargestError exp_, log1p_, loss_, gradient_;
};

TEST(WeightedSigmoidLossTest, TestFloatErrors) {
  ErrorWalk<float> walk;
  const uint32_t kStride = 1999;  // prime: every exponent, mixed low bits
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += kStride) {
    const float x = BitCast<float>(static_cast<uint32_t>(bits));
    if (std::isfinite(x)) {
      walk.Visit(x);
    }
  }
  walk.Expect();
}

TEST(WeightedSigmoidLossTest, TestDoubleErrors) {
  ErrorWalk<double> walk;
  std::mt19937_64 random(1701);
  std::normal_distribution<double> common(0, 5);
  std::uniform_real_distribution<double> wide(-720, 720);
  std::uniform_real_distribution<double> exponent(-1074, 1024);
  for (int i = 0; i < 500000; ++i) {
    walk.Visit(common(random));
    walk.Visit(wide(random));
    walk.Visit(std::exp2(exponent(random)));
  }
  walk.Expect();
}

template <typename T>
class WeightedSigmoidLossSumTest : public ::testing::Test {
 protected:
  /// N x channels x inner elements with soft targets, some of them ignored.
  void Fill(std::size_t count, std::size_t channels, std::size_t inner) {
    std::mt19937 random(1701);
    std::normal_distribution<T> score(0, 3);
    std::uniform_real_distribution<T> target(0, 1);
    scores_.resize(count);
    targets_.resize(count);
    weights_.resize(channels);
    for (std::size_t i = 0; i < count; ++i) {
      scores_[i] = score(random);
      targets_[i] = i % 7 == 3 ? T(-1) : target(random);
    }
    for (std::size_t c = 0; c < channels; ++c) {
      weights_[c] = 0.5 + c;
    }
    elements_.count = count;
    elements_.channels = channels;
    elements_.inner = inner;
    elements_.scores = scores_.data();
    elements_.targets = targets_.data();
    elements_.cls_weight = weights_.data();
    elements_.has_ignore_label = true;
    elements_.ignore_label = T(-1);
  }

  Real ReferenceLoss(double scale, uint64_t* valid) const {
    Real loss = 0;
    *valid = 0;
    for (std::size_t i = 0; i < elements_.count; ++i) {
      if (targets_[i] == T(-1)) {
        continue;
      }
      ++*valid;
      const Real x = scores_[i], t = targets_[i];
      loss += weights_[i / elements_.inner % weights_.size()] * t *
                  std::log1p(std::exp(-x)) +
              (1 - t) * std::log1p(std::exp(x));
    }
    return loss * scale;
  }

  void Check(std::size_t count, std::size_t channels, std::size_t inner) {
    Fill(count, channels, inner);
    uint64_t valid;
    const double scale = 0.37;
    const Real expected = ReferenceLoss(scale, &valid);
    const LossSums sums = Loss(elements_, scale);
    EXPECT_EQ(valid, sums.valid);
    EXPECT_EQ(0, sums.out_of_range);
    LargestError error;
    error.Add(sums.loss - expected, expected, 0, T(count));
    EXPECT_WITHIN_ULP(error, 4.0) << " elements";

    std::vector<T> grad(count, T(99));
    Gradient(elements_, scale, grad.data());
    for (std::size_t i = 0; i < count; ++i) {
      const T a = static_cast<T>(scale * weights_[i / inner % channels]);
      const T b = static_cast<T>(scale);
      EXPECT_EQ(targets_[i] == T(-1)
                    ? T(0)
                    : GradientElement(scores_[i], targets_[i], a, b),
                grad[i])
          << "element " << i << " of " << count;
    }
  }

  std::vector<T> scores_, targets_;
  std::vector<double> weights_;
  Elements<T> elements_;
};

typedef ::testing::Types<float, double> FloatAndDouble;
TYPED_TEST_CASE(WeightedSigmoidLossSumTest, FloatAndDouble);

TYPED_TEST(WeightedSigmoidLossSumTest, TestOneWeight) {
  const std::size_t kCounts[] = {1, 7, 8, 9, 511, 512, 513, 100003};
  for (const std::size_t count : kCounts) {
    this->Check(count, 1, count);
  }
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestWeightAChannel) {
  this->Check(35 * 11, 35, 1);
  this->Check(4 * 3 * 5, 3, 5);
  this->Check(2 * 4 * 1000, 4, 1000);
  this->Check(600 * 5 * 2, 5, 2);
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestNoElements) {
  this->Fill(0, 1, 1);
  const LossSums sums = Loss(this->elements_, 1.);
  EXPECT_EQ(0, sums.loss);
  EXPECT_EQ(0, sums.valid);
  Gradient(this->elements_, 1., static_cast<TypeParam*>(NULL));
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestTargetsOutOfRange) {
  this->Fill(1000, 1, 1000);
  this->targets_[3] = -1;    // ignored
  this->targets_[4] = 255;   // the mask mistake
  this->targets_[5] = -0.5;  // -1 when cut to an integer is not the label
  this->targets_[6] = std::numeric_limits<TypeParam>::quiet_NaN();
  const LossSums sums = Loss(this->elements_, 1.);
  EXPECT_EQ(3, sums.out_of_range);
  EXPECT_TRUE(std::isnan(sums.loss));
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestSoftIgnoreLabelIsExact) {
  this->Fill(2, 1, 2);
  this->targets_[0] = 0.3;
  this->targets_[1] = 0;
  this->elements_.ignore_label = 0;
  EXPECT_EQ(1, Loss(this->elements_, 1.).valid);
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestFiniteWhereTermsAreFinite) {
  typedef TypeParam T;
  const T largest = std::numeric_limits<T>::max();
  const T infinity = std::numeric_limits<T>::infinity();
  this->Fill(4, 1, 4);
  this->weights_[0] = std::numeric_limits<float>::max();
  const T scores[] = {largest, -largest, infinity, -infinity};
  const T targets[] = {1, 0, 1, 0};
  this->scores_.assign(scores, scores + 4);
  this->targets_.assign(targets, targets + 4);
  std::vector<T> grad(4, T(99));
  // A scale that takes the constants beyond float, not beyond double.
  Gradient(this->elements_, 1e30, grad.data());
  for (const T g : grad) {
    EXPECT_EQ(0, g);
  }
  this->scores_[0] = -largest;
  Gradient(this->elements_, 1e30, grad.data());
  EXPECT_TRUE(std::isfinite(grad[0]));
  EXPECT_LT(grad[0], T(-3e38));
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestNaN) {
  typedef TypeParam T;
  this->Fill(3, 1, 3);
  const T nan = std::numeric_limits<T>::quiet_NaN();
  this->targets_.assign(3, T(1));
  this->scores_[1] = nan;
  EXPECT_TRUE(std::isnan(Loss(this->elements_, 1.).loss));
  std::vector<T> grad(3);
  Gradient(this->elements_, 1., grad.data());
  EXPECT_FALSE(std::isnan(grad[0]));
  EXPECT_TRUE(std::isnan(grad[1]));
  Gradient(this->elements_, static_cast<double>(nan), grad.data());
  EXPECT_TRUE(std::isnan(grad[0]));
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
