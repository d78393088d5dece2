#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/test/weighted_sigmoid_loss_walk.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
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
    // The first error that is NaN stays.
    if (!std::isnan(ulp_) && !(excess <= ulp_ * ulp * scale)) {
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

/// float: every exponent and mixed low bits; double: where it matters.
std::vector<float> Scores(float /* type */) {
  const uint32_t kStride = 4999;  // prime
  std::vector<float> scores;
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += kStride) {
    const float x = BitCast<float>(static_cast<uint32_t>(bits));
    if (std::isfinite(x)) {
      scores.push_back(x);
    }
  }
  return scores;
}

std::vector<double> Scores(double /* type */) {
  std::mt19937_64 random(1701);
  std::normal_distribution<double> common(0, 5);
  std::uniform_real_distribution<double> wide(-720, 720);
  std::uniform_real_distribution<double> exponent(-1074, 1024);
  std::vector<double> scores;
  for (int i = 0; i < 500000; ++i) {
    scores.push_back(common(random));
    scores.push_back(wide(random));
    scores.push_back(std::exp2(exponent(random)));
  }
  return scores;
}

typedef ::testing::Types<float, double> FloatAndDouble;

template <typename T>
class WeightedSigmoidLossErrorTest : public ::testing::Test {};

TYPED_TEST_CASE(WeightedSigmoidLossErrorTest, FloatAndDouble);

/// On each instruction set.
TYPED_TEST(WeightedSigmoidLossErrorTest, TestFunctions) {
  typedef TypeParam T;
  const Real tiny = std::numeric_limits<T>::min();
  const std::vector<T> scores = Scores(T());
  const std::size_t count = scores.size();
  std::vector<T> us(count), log1p_us(count);
  Loops<T> loops[kMaxLoops];
  const int available = AvailableLoops(loops);
  for (int k = 0; k < available; ++k) {
    SCOPED_TRACE(loops[k].name);
    loops[k].exp_negatives(scores.data(), count, us.data());
    loops[k].log1ps(us.data(), count, log1p_us.data());
    LargestError exp, log1p;
    for (std::size_t i = 0; i < count; ++i) {
      const Real u = std::exp(-Real(std::abs(scores[i])));
      exp.Add(us[i] - u, u, u < tiny ? tiny : Real(0), scores[i]);
      const Real log1p_u = std::log1p(Real(us[i]));
      log1p.Add(log1p_us[i] - log1p_u, log1p_u, 0, us[i]);
    }
    EXPECT_WITHIN_ULP(exp, kExpNegativeUlp);
    EXPECT_WITHIN_ULP(log1p, kLog1pUlp);
    // A walk that compares nothing would pass as well.
    EXPECT_GT(exp.ulp(), 0.25);
    EXPECT_GT(log1p.ulp(), 0.25);
  }
}

/// Soft targets, of which both terms are more than 0, on each instruction set;
/// test_weighted_sigmoid_loss_elements.cpp has the targets 0 and 1.
TYPED_TEST(WeightedSigmoidLossErrorTest, TestSoftTargets) {
  typedef TypeParam T;
  const std::vector<T> scores = Scores(T());
  const std::size_t count = scores.size();
  const T kTargets[] = {T(1e-6), T(0.3), T(0.9)};
  const double a = T(3.7), b = T(0.9);
  const double floor = std::numeric_limits<T>::min() * a;
  Loops<T> loops[kMaxLoops];
  const int available = AvailableLoops(loops);
  for (const T t : kTargets) {
    const std::vector<T> targets(count, t);
    const Block<T> block = {
        count, scores.data(), targets.data(), false, 0, true, &a,
        &b,    NULL,          NULL,           NULL};
    for (int k = 0; k < available; ++k) {
      SCOPED_TRACE(loops[k].name);
      std::vector<double> losses(count);
      std::vector<T> gradients(count);
      loops[k].visit(block, true, losses.data(), gradients.data());
      LargestError loss_error, gradient_error;
      for (std::size_t i = 0; i < count; ++i) {
        const ExactElement<Real> exact(scores[i], t, a, b);
        loss_error.Add(losses[i] - exact.loss, exact.loss, floor, scores[i]);
        gradient_error.Add(gradients[i] - exact.gradient, exact.larger_term,
                           floor, scores[i]);
      }
      EXPECT_WITHIN_ULP(loss_error, kLossElementUlp);
      EXPECT_WITHIN_ULP(gradient_error, kGradientElementUlp);
      EXPECT_GT(loss_error.ulp(), 0.5);
      EXPECT_GT(gradient_error.ulp(), 0.5);
    }
  }
}

typedef std::vector<std::size_t> Sizes;

/// Sizes and strides in turn; none where the weights do not fit.
Sizes MergedAxes(const Sizes& scores, const Sizes& weights) {
  ElementWeights<float> weight;
  Sizes found;
  if (SetAxes(scores.data(), scores.size(), weights.data(), weights.size(),
              &weight)) {
    for (int k = 0; k < weight.axes; ++k) {
      found.push_back(weight.size[k]);
      found.push_back(weight.stride[k]);
    }
  }
  return found;
}

TEST(WeightedSigmoidLossAxesTest, TestMerged) {
  EXPECT_EQ(Sizes({24, 1}), MergedAxes({2, 3, 4}, {2, 3, 4}));
  EXPECT_EQ(Sizes({24, 1}), MergedAxes({2, 3, 4}, {2, 3, 4, 1, 1}));
  EXPECT_EQ(Sizes({24, 0}), MergedAxes({2, 3, 4}, {1, 1}));
  EXPECT_EQ(Sizes({24, 0}), MergedAxes({2, 3, 4}, {}));
  EXPECT_EQ(Sizes({2, 1, 12, 0}), MergedAxes({2, 3, 4}, {2}));
  EXPECT_EQ(Sizes({2, 0, 12, 1}), MergedAxes({2, 3, 4}, {1, 3, 4}));
  EXPECT_EQ(Sizes({2, 0, 3, 1, 4, 0}), MergedAxes({2, 3, 4}, {1, 3}));
  EXPECT_EQ(Sizes({2, 4, 3, 0, 4, 1}), MergedAxes({2, 3, 4}, {2, 1, 4}));
  // Axes of one element neither part nor are any.
  EXPECT_EQ(Sizes({8, 1}), MergedAxes({2, 1, 4}, {2, 1, 4}));
  EXPECT_EQ(Sizes({6, 0, 4, 1}), MergedAxes({1, 2, 1, 3, 4}, {1, 1, 1, 1, 4}));
  EXPECT_EQ(Sizes({1, 1}), MergedAxes({1, 1}, {1}));
  EXPECT_EQ(Sizes({1, 1}), MergedAxes({}, {}));
  EXPECT_EQ(Sizes({0, 0, 3, 1}), MergedAxes({0, 3}, {1, 3}));
}

TEST(WeightedSigmoidLossAxesTest, TestRefused) {
  EXPECT_EQ(Sizes(), MergedAxes({2, 3, 4}, {3}));
  EXPECT_EQ(Sizes(), MergedAxes({2, 3, 4}, {2, 4, 3}));
  EXPECT_EQ(Sizes(), MergedAxes({2, 3, 4}, {2, 3, 4, 2}));
  EXPECT_EQ(Sizes(), MergedAxes({2, 3, 4}, {0, 3, 4}));
  EXPECT_EQ(Sizes(), MergedAxes({1, 3}, {2, 3}));
  EXPECT_EQ(Sizes(), MergedAxes({}, {2}));
}

TEST(WeightedSigmoidLossAxesTest, TestAsManyAsThereCanBe) {
  Sizes scores(kMaxAxes, 2), weights;
  for (int k = 0; k < kMaxAxes; ++k) {
    weights.push_back(1 + k % 2);
  }
  EXPECT_EQ(2 * kMaxAxes, MergedAxes(scores, weights).size());
  scores.push_back(2);
  EXPECT_EQ(Sizes(), MergedAxes(scores, weights));
}

template <typename T>
class WeightedSigmoidLossSumTest : public ::testing::Test {
 protected:
  /// Soft targets, some of them ignored, and weights of both classes.
  void Fill(std::size_t count, const Axis& channel) {
    std::mt19937 random(1701);
    std::normal_distribution<T> score(0, 3);
    std::uniform_real_distribution<T> target(0, 1);
    scores_.resize(count);
    targets_.resize(count);
    for (std::size_t i = 0; i < count; ++i) {
      scores_[i] = score(random);
      targets_[i] = i % 7 == 3 ? T(-1) : target(random);
    }
    cls_weight_.clear();
    neg_weight_.clear();
    for (std::size_t c = 0; c < channel.size; ++c) {
      cls_weight_.push_back(0.5 + c);
      neg_weight_.push_back(1.5 + c % 3);
    }
    elements_ = Elements<T>();
    elements_.count = count;
    elements_.scores = scores_.data();
    elements_.targets = targets_.data();
    elements_.channel = channel;
    elements_.cls_weight = cls_weight_.data();
    elements_.neg_weight = neg_weight_.data();
    elements_.has_ignore_label = true;
    elements_.ignore_label = T(-1);
  }

  void FillPlain(std::size_t count) {
    Fill(count, Axis());
    cls_weight_[0] = neg_weight_[0] = 1;
  }

  /// Adds element weights that have a value for each index of axis alone.
  void Weigh(const Axis& axis) {
    ElementWeights<T>& weight = elements_.weight;
    weights_.clear();
    for (std::size_t k = 0; k < axis.size; ++k) {
      weights_.push_back(T(0.25) * (k % 9));
    }
    weight.data = weights_.data();
    weight.axes = 3;
    weight.size[0] = elements_.count / (axis.size * axis.inner);
    weight.size[1] = axis.size;
    weight.size[2] = axis.inner;
    weight.stride[0] = weight.stride[2] = 0;
    weight.stride[1] = 1;
  }

  void BalanceOver(const Axis& scope) {
    elements_.scope = scope;
    elements_.balance = NULL;
    balance_.assign(2 * scope.size, 99);
    Balance(elements_, balance_.data());
    elements_.balance = balance_.data();
    ExpectBalance(scope);
  }

  void ExpectBalance(const Axis& scope) const {
    std::vector<Real> positives(scope.size), negatives(scope.size);
    for (std::size_t i = 0; i < elements_.count; ++i) {
      if (!IsLeftOut(i)) {
        positives[scope.Index(i)] += targets_[i];
        negatives[scope.Index(i)] += 1 - Real(targets_[i]);
      }
    }
    for (std::size_t s = 0; s < scope.size; ++s) {
      const Real total = positives[s] + negatives[s];
      EXPECT_DOUBLE_EQ(total ? negatives[s] / total : 0, balance_[2 * s]);
      EXPECT_DOUBLE_EQ(total ? positives[s] / total : 0, balance_[2 * s + 1]);
    }
  }

  bool IsLeftOut(std::size_t i) const {
    const T t = targets_[i];
    const bool is_soft = t >= T(1) / 1048576 && t <= 1 - T(1) / 1048576;
    return t == T(-1) || (elements_.ignores_soft_targets && is_soft);
  }

  /// a and b of element i but for scale and element weight.
  void Constants(std::size_t i, double* a, double* b) const {
    const Axis& channel = elements_.channel;
    const std::size_t c = i / channel.inner % channel.size;
    *a = cls_weight_[c];
    *b = neg_weight_[c];
    if (elements_.balance) {
      const std::size_t s = elements_.scope.Index(i);
      *a *= balance_[2 * s];
      *b *= balance_[2 * s + 1];
    }
  }

  T Weight(std::size_t i) const {
    const ElementWeights<T>& weight = elements_.weight;
    return weight.data ? weights_[i / weight.size[2] % weight.size[1]] : T(1);
  }

  /// Loss and Gradient of all elements against the formulas in long double.
  void Check() {
    const double scale = 0.37;
    Real loss = 0;
    uint64_t valid = 0;
    std::vector<T> grad(elements_.count, T(99));
    Gradient(elements_, scale, grad.data());
    LargestError grad_error;
    for (std::size_t i = 0; i < elements_.count; ++i) {
      if (IsLeftOut(i)) {
        EXPECT_EQ(0, grad[i]) << i;
        continue;
      }
      ++valid;
      double a, b;
      Constants(i, &a, &b);
      const Real x = scores_[i], t = targets_[i];
      const Real positive = Real(scale) * a * Weight(i) * t;
      const Real negative = Real(scale) * b * Weight(i) * (1 - t);
      loss += positive * std::log1p(std::exp(-x)) +
              negative * std::log1p(std::exp(x));
      const Real up = negative / (1 + std::exp(-x));
      const Real down = positive / (1 + std::exp(x));
      grad_error.Add(grad[i] - (up - down), std::max(up, down),
                     std::numeric_limits<T>::min(), T(i));
    }
    EXPECT_WITHIN_ULP(grad_error, 4.0);
    const LossSums sums = Loss(elements_, scale);
    std::vector<T> one_pass_grad(elements_.count, T(99));
    EXPECT_EQ(sums.loss,
              LossAndGradient(elements_, scale, one_pass_grad.data()).loss);
    EXPECT_TRUE(grad == one_pass_grad);
    EXPECT_EQ(valid, sums.valid);
    EXPECT_EQ(valid, CountValid(elements_));
    EXPECT_EQ(0, sums.target_excess);
    EXPECT_EQ(0, sums.weight_excess);
    LargestError loss_error;
    loss_error.Add(sums.loss - loss, loss, 0, T(elements_.count));
    EXPECT_WITHIN_ULP(loss_error, 4.0);
  }

  std::vector<T> scores_, targets_, weights_;
  std::vector<double> cls_weight_, neg_weight_, balance_;
  Elements<T> elements_;
};

TYPED_TEST_CASE(WeightedSigmoidLossSumTest, FloatAndDouble);

TYPED_TEST(WeightedSigmoidLossSumTest, TestCounts) {
  const std::size_t kCounts[] = {1, 7, 8, 9, 511, 512, 513, 100003};
  for (const std::size_t count : kCounts) {
    SCOPED_TRACE(count);
    this->Fill(count, Axis());
    this->Check();
  }
}

/// The roundings of equal losses, and of equal targets, add up.
TYPED_TEST(WeightedSigmoidLossSumTest, TestEqualElements) {
  typedef TypeParam T;
  std::mt19937 random(1701);
  std::uniform_real_distribution<double> uniform;
  const std::size_t kCount = kBlock;
  this->FillPlain(kCount);
  this->elements_.scope = Axis(1, kCount);
  LargestError loss_error, balanced_loss_error, balanced_gradient_error;
  for (int k = 0; k < 5000; ++k) {
    const T x = T(12 * uniform(random) - 6), t = T(uniform(random));
    const double a = 1 + uniform(random), b = 1 + uniform(random);
    this->scores_.assign(kCount, x);
    this->targets_.assign(kCount, t);
    this->cls_weight_[0] = a;
    this->neg_weight_[0] = b;
    this->elements_.balance = NULL;
    const Real loss = kCount * ExactElement<Real>(x, t, a, b).loss;
    loss_error.Add(Loss(this->elements_, 1.).loss - loss, loss, 0, x);

    double balance[2];
    Balance(this->elements_, balance);
    this->elements_.balance = balance;
    const ExactElement<Real> exact(x, t, (1 - Real(t)) * a, Real(t) * b);
    std::vector<T> gradient(kCount);
    const double balanced_loss =
        LossAndGradient(this->elements_, 1., gradient.data()).loss;
    balanced_loss_error.Add(balanced_loss - kCount * exact.loss,
                            kCount * exact.loss, 0, x);
    balanced_gradient_error.Add(gradient[0] - exact.gradient, exact.larger_term,
                                0, x);
  }
  EXPECT_WITHIN_ULP(loss_error, LossUlp<T>());
  EXPECT_WITHIN_ULP(balanced_loss_error, BalancedUlp<T>());
  EXPECT_WITHIN_ULP(balanced_gradient_error, BalancedUlp<T>());
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestAWeightAChannel) {
  this->Fill(35 * 11, Axis(35, 1));
  this->Check();
  this->Fill(2 * 4 * 1000, Axis(4, 1000));
  this->Check();
  this->Fill(600 * 5 * 2, Axis(5, 2));
  this->Check();
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestElementWeights) {
  this->Fill(6 * 35 * 40, Axis(35, 40));
  this->Weigh(Axis(6, 35 * 40));  // instances
  this->Check();
  this->Weigh(Axis(35, 40));  // channels
  this->Check();
  this->Weigh(Axis(40, 1));  // the last axis
  this->Check();
  this->Weigh(Axis(6 * 35 * 40, 1));  // every element
  this->Check();
}

/// Factors of a constant that are beyond the type, where their product is not.
TYPED_TEST(WeightedSigmoidLossSumTest, TestExtremeElementWeights) {
  typedef TypeParam T;
  this->FillPlain(2);
  this->Weigh(Axis(2, 1));
  this->scores_.assign(2, T(1.5));
  this->targets_[0] = 1;
  this->targets_[1] = 0;
  std::vector<T> grad(2);
  this->cls_weight_[0] = 1e-30;
  this->weights_[0] = T(1e20);
  Gradient(this->elements_, 1e-20, grad.data());
  const Real exact = -1e-30L * T(1e20) * 1e-20L / (1 + std::exp(Real(1.5)));
  LargestError error;
  error.Add(grad[0] - exact, -exact, 0, grad[0]);
  EXPECT_WITHIN_ULP(error, 4.0);

  this->cls_weight_[0] = 1e38;
  this->neg_weight_[0] = 0;
  this->weights_.assign(2, T(1e30));
  Gradient(this->elements_, 1., grad.data());
  EXPECT_TRUE(std::isfinite(grad[0]));
  EXPECT_EQ(0, grad[1]);
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestBalance) {
  this->Fill(6 * 70 * 40, Axis(70, 40));
  this->BalanceOver(Axis(1, 6 * 70 * 40));
  this->Check();
  this->BalanceOver(Axis(6, 70 * 40));
  this->Check();
  this->BalanceOver(Axis(70, 40));
  this->Check();
  this->Weigh(Axis(70 * 40, 1));
  this->Check();
  this->Fill(300 * 35, Axis());
  this->BalanceOver(Axis(35, 1));
  this->Check();
}

/// Each index of an axis, others in each instance.
TYPED_TEST(WeightedSigmoidLossSumTest, TestBalanceInEachInstance) {
  const std::size_t kAxes[][2] = {{70, 40}, {40, 1}, {3, 70 * 40}, {1, 40}};
  this->Fill(6 * 3 * 70 * 40, Axis(70, 40));
  for (const auto& axis : kAxes) {
    for (const std::size_t instances : {1, 6}) {
      const Axis scope = InEachInstance(Axis(axis[0], axis[1]), instances,
                                        this->elements_.count);
      EXPECT_EQ(instances * axis[0], scope.size);
      EXPECT_EQ(scope.size - 1, scope.Index(this->elements_.count - 1));
      this->BalanceOver(scope);
      this->Check();
    }
  }
  // Longer than a block, and more than one sweep takes.
  this->Fill(4 * 3 * 5 * 1031, Axis(5, 1031));
  this->BalanceOver(InEachInstance(Axis(5, 1031), 4, 4 * 3 * 5 * 1031));
  this->Check();
  this->Fill(2 * 5 * 700, Axis());
  this->BalanceOver(InEachInstance(Axis(700, 1), 2, 2 * 5 * 700));
  this->Check();
  EXPECT_EQ(0, InEachInstance(Axis(3, 1), 0, 0).size);
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestSoftTargetsAreIgnored) {
  this->Fill(6 * 3 * 70 * 40, Axis(70, 40));
  this->elements_.ignores_soft_targets = true;
  for (std::size_t i = 0; i < this->elements_.count; i += 2) {
    this->targets_[i] = i % 3 == 0;
  }
  this->Check();
  this->BalanceOver(Axis(18, 70 * 40));
  this->Check();
  this->BalanceOver(InEachInstance(Axis(40, 1), 6, this->elements_.count));
  this->Check();
}

/// Soft is from 2^-20 to 1 - 2^-20; NaN and what is outside [0, 1] is not.
TYPED_TEST(WeightedSigmoidLossSumTest, TestWhereSoftTargetsBegin) {
  typedef TypeParam T;
  const T kFirst = std::ldexp(T(1), -20), kLast = 1 - kFirst;
  const T soft[] = {kFirst, T(1) / 255, T(0.5), T(254) / 255, kLast};
  const T hard[] = {0,
                    T(-0.),
                    std::numeric_limits<T>::min(),
                    std::nextafter(kFirst, T(0)),
                    std::nextafter(kLast, T(1)),
                    255 * (T(1) / 255),
                    255 * T(0.00392157f),
                    1,
                    T(-0.5),
                    2,
                    std::numeric_limits<T>::infinity(),
                    std::numeric_limits<T>::quiet_NaN()};
  this->FillPlain(1);
  for (const bool ignores : {false, true}) {
    this->elements_.ignores_soft_targets = ignores;
    for (const T t : soft) {
      this->targets_[0] = t;
      EXPECT_EQ(!ignores, Loss(this->elements_, 1.).valid) << t;
      EXPECT_EQ(!ignores, CountValid(this->elements_)) << t;
    }
    for (const T t : hard) {
      this->targets_[0] = t;
      EXPECT_EQ(1, Loss(this->elements_, 1.).valid) << t;
      EXPECT_EQ(1, CountValid(this->elements_)) << t;
      this->elements_.has_ignore_label = false;
      EXPECT_EQ(1, Loss(this->elements_, 1.).valid) << t;
      this->elements_.has_ignore_label = true;
    }
  }
  // The warnings know of it, too.
  this->targets_[0] = 2;
  EXPECT_EQ(1, CountBadInput(this->elements_).targets);
  this->Weigh(Axis(1, 1));
  this->weights_[0] = -1;
  EXPECT_EQ(1, CountBadInput(this->elements_).weights);
  this->targets_[0] = T(0.5);
  EXPECT_EQ(0, CountBadInput(this->elements_).weights);
  EXPECT_EQ(0, Loss(this->elements_, 1.).weight_excess);
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestBalanceOfEmptyScope) {
  this->Fill(12, Axis());
  std::fill(this->targets_.begin(), this->targets_.begin() + 4, -1);
  std::fill(this->targets_.begin() + 4, this->targets_.begin() + 8, 0);
  this->BalanceOver(Axis(3, 4));
  EXPECT_EQ(0, this->balance_[0]);
  EXPECT_EQ(0, this->balance_[1]);
  EXPECT_EQ(1, this->balance_[2]);
  EXPECT_EQ(0, this->balance_[3]);
  this->Check();
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestNoElements) {
  this->FillPlain(0);
  const LossSums sums = Loss(this->elements_, 1.);
  EXPECT_EQ(0, sums.loss);
  EXPECT_EQ(0, sums.valid);
  Gradient(this->elements_, 1., static_cast<TypeParam*>(NULL));
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestTargetsOutOfRange) {
  this->FillPlain(1000);
  this->targets_[3] = -1;    // ignored
  this->targets_[4] = 255;   // the mask mistake
  this->targets_[5] = -0.5;  // -1 when cut to an integer is not the label
  EXPECT_EQ(254, Loss(this->elements_, 1.).target_excess);
  EXPECT_EQ(2, CountBadInput(this->elements_).targets);
  this->targets_[4] = 1;
  EXPECT_EQ(0.5, Loss(this->elements_, 1.).target_excess);
  this->targets_[5] = -0.;
  EXPECT_EQ(0, Loss(this->elements_, 1.).target_excess);
  EXPECT_EQ(0, CountBadInput(this->elements_).targets);
  this->targets_[6] = std::numeric_limits<TypeParam>::quiet_NaN();
  const LossSums sums = Loss(this->elements_, 1.);
  EXPECT_EQ(std::numeric_limits<double>::infinity(), sums.target_excess);
  EXPECT_EQ(1, CountBadInput(this->elements_).targets);
  EXPECT_TRUE(std::isnan(sums.loss));
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestBadWeights) {
  this->Fill(1000, Axis());
  this->Weigh(Axis(1000, 1));
  this->weights_[3] = -1;  // of an ignored element
  this->weights_[4] = -1;
  this->weights_[5] = std::numeric_limits<TypeParam>::infinity();
  EXPECT_EQ(std::numeric_limits<double>::infinity(),
            Loss(this->elements_, 1.).weight_excess);
  EXPECT_EQ(2, CountBadInput(this->elements_).weights);
  this->weights_[5] = 1;
  EXPECT_EQ(1, Loss(this->elements_, 1.).weight_excess);
  this->weights_[4] = 1;
  EXPECT_EQ(0, Loss(this->elements_, 1.).weight_excess);
  EXPECT_EQ(0, CountBadInput(this->elements_).weights);
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestSoftIgnoreLabelIsExact) {
  this->FillPlain(2);
  this->targets_[0] = 0.3;
  this->targets_[1] = 0;
  this->elements_.ignore_label = 0;
  EXPECT_EQ(1, Loss(this->elements_, 1.).valid);
}

TYPED_TEST(WeightedSigmoidLossSumTest, TestFiniteWhereTermsAreFinite) {
  typedef TypeParam T;
  const T largest = std::numeric_limits<T>::max();
  const T infinity = std::numeric_limits<T>::infinity();
  this->FillPlain(4);
  this->cls_weight_[0] = std::numeric_limits<float>::max();
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
  this->FillPlain(3);
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
