#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/test/weighted_sigmoid_loss_climb.hpp"
#include "caffe/test/weighted_sigmoid_loss_walk.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

// The proof of the elements' accuracy, strided; and that every other loop and
// entry of the kernel gives an element what it has there.

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const int kUntouched = 99;
const std::size_t kOffsets = 16;
const std::size_t kLengths = 70;

}  // namespace

template <typename T>
class WeightedSigmoidLossElementsTest : public ::testing::Test {
 protected:
  WeightedSigmoidLossElementsTest() {
    Loops<T> loops[kMaxLoops];
    const int available = AvailableLoops(loops);
    loops_.assign(loops, loops + available);
  }

  /// Scores, and targets soft, 0 and ignored.
  void Fill(std::size_t size) {
    std::mt19937 random(1701);
    std::normal_distribution<T> score(0, 5);
    std::uniform_real_distribution<T> target(0, 1);
    scores_.resize(size);
    targets_.resize(size);
    a_.resize(size);
    b_.resize(size);
    for (std::size_t i = 0; i < size; ++i) {
      scores_[i] = score(random);
      targets_[i] = i % 5 == 2 ? kIgnoreLabel : target(random) * (i % 5 != 4);
      a_[i] = 1 + 0.1 * (i % 7);
      b_[i] = 2 + 0.3 * (i % 3);
    }
    rounded_a_.assign(a_.begin(), a_.end());
    rounded_b_.assign(b_.begin(), b_.end());
  }

  /// each: of constants of their own, else all of the first's.
  Block<T> BlockAt(std::size_t begin, std::size_t count, bool each) const {
    const std::size_t constant = each ? begin : 0;
    const Block<T> block = {count,
                            &scores_[begin],
                            &targets_[begin],
                            ignores_,
                            ignores_ ? kIgnoreLabel : T(0),
                            !each,
                            &a_[constant],
                            &b_[constant],
                            NULL,
                            &rounded_a_[constant],
                            &rounded_b_[constant]};
    return block;
  }

  /// What the proof's loop gives for each element by itself; each: of constants
  /// of its own, else of the first.
  void SetExpected(const Loops<T>& loops, bool ignores, bool each) {
    ignores_ = ignores;
    losses_.resize(scores_.size());
    gradients_.resize(scores_.size());
    for (std::size_t i = 0; i < scores_.size(); ++i) {
      loops.visit(BlockAt(i, 1, each), true, &losses_[i], &gradients_[i]);
    }
  }

  /// Nothing is written beyond what is asked for.
  template <typename Value>
  void ExpectBits(const std::vector<Value>& expected,
                  const std::vector<Value>& got, std::size_t begin,
                  std::size_t count) const {
    EXPECT_EQ(
        0, std::memcmp(&expected[begin], &got[begin], count * sizeof(Value)));
    EXPECT_TRUE(begin == 0 || got[begin - 1] == kUntouched);
    EXPECT_EQ(kUntouched, got[begin + count]);
  }

  /// A sum of count doubles is off by fewer roundings of half an ulp.
  void ExpectSum(double sum, std::size_t begin, std::size_t count) const {
    long double expected = 0;
    for (std::size_t i = begin; i < begin + count; ++i) {
      expected += losses_[i];
    }
    const double exact = static_cast<double>(expected);
    EXPECT_NEAR(exact, sum, exact * Ulp<double>() / 2 * count);
  }

  std::size_t Valid(std::size_t begin, std::size_t count) const {
    return ignores_ ? count - std::count(&targets_[begin],
                                         &targets_[begin] + count, kIgnoreLabel)
                    : count;
  }

  void CheckElements(const Loops<T>& loops, std::size_t begin,
                     std::size_t count) const {
    std::vector<double> losses(begin + count + 1, kUntouched);
    std::vector<T> grad(begin + count + 1, T(kUntouched));
    loops.visit(BlockAt(begin, count, false), true, &losses[begin],
                &grad[begin]);
    ExpectBits(losses_, losses, begin, count);
    ExpectBits(gradients_, grad, begin, count);
  }

  void CheckFused(const Loops<T>& loops, std::size_t begin, std::size_t count,
                  bool each) const {
    const Block<T> block = BlockAt(begin, count, each);
    std::vector<T> grad(begin + count + 1, T(kUntouched)), both_grad(grad);
    const BlockSums sums = loops.visit(block, true, NULL, NULL);
    loops.visit(block, false, NULL, &grad[begin]);
    const BlockSums both = loops.visit(block, true, NULL, &both_grad[begin]);
    ExpectSum(sums.loss, begin, count);
    EXPECT_EQ(sums.loss, both.loss);
    EXPECT_EQ(Valid(begin, count), sums.valid);
    EXPECT_EQ(Valid(begin, count), both.valid);
    ExpectBits(gradients_, grad, begin, count);
    ExpectBits(gradients_, both_grad, begin, count);
  }

  /// The public entries, of one channel and no element weights.
  void CheckEntries(std::size_t begin, std::size_t count) const {
    Elements<T> elements = Elements<T>();
    elements.count = count;
    elements.scores = &scores_[begin];
    elements.targets = &targets_[begin];
    elements.cls_weight = a_.data();
    elements.neg_weight = b_.data();
    elements.has_ignore_label = ignores_;
    elements.ignore_label = ignores_ ? kIgnoreLabel : T(0);
    std::vector<T> grad(begin + count + 1, T(kUntouched)), both_grad(grad);
    const LossSums sums = Loss(elements, 1.);
    Gradient(elements, 1., &grad[begin]);
    const LossSums both = LossAndGradient(elements, 1., &both_grad[begin]);
    ExpectSum(sums.loss, begin, count);
    EXPECT_EQ(sums.loss, both.loss);
    EXPECT_EQ(Valid(begin, count), sums.valid);
    EXPECT_EQ(Valid(begin, count), both.valid);
    EXPECT_EQ(sums.target_excess, both.target_excess);
    ExpectBits(gradients_, grad, begin, count);
    ExpectBits(gradients_, both_grad, begin, count);
    both_grad.assign(scores_.begin(), scores_.begin() + begin + count);
    elements.scores = &both_grad[begin];
    EXPECT_EQ(sums.loss, LossAndGradient(elements, 1., &both_grad[begin]).loss);
    EXPECT_EQ(0,
              std::memcmp(&grad[begin], &both_grad[begin], count * sizeof(T)));
  }

  const T kIgnoreLabel = T(0.25);  // is a target, too
  std::vector<Loops<T> > loops_;
  bool ignores_;
  std::vector<T> scores_, targets_, gradients_, rounded_a_, rounded_b_;
  std::vector<double> a_, b_, losses_;
};

typedef ::testing::Types<float, double> FloatAndDouble;
TYPED_TEST_CASE(WeightedSigmoidLossElementsTest, FloatAndDouble);

/// A strided form of tests/exhaustive.
TYPED_TEST(WeightedSigmoidLossElementsTest, TestWalk) {
  const uint64_t kStride = 499;  // prime, so that low bits are mixed
  Walk<TypeParam> walk;
  walk.Visit(kStride, 0, walk.Count(kStride));
  for (const WalkReport<TypeParam>& report : walk.reports()) {
    SCOPED_TRACE(report.loops.name);
    EXPECT_LE(report.loss.ulp() + ExactUlp<TypeParam>(), kLossElementUlp)
        << "at " << report.loss.place().score;
    EXPECT_LE(report.gradient.ulp() + ExactUlp<TypeParam>(),
              kGradientElementUlp)
        << "at " << report.gradient.place().score;
    EXPECT_FALSE(report.differs) << "at " << report.difference.score;
    // A walk that compares nothing would pass as well.
    EXPECT_GT(report.loss.ulp(), 0.5);
    EXPECT_GT(report.gradient.ulp(), 0.5);
  }
}

TYPED_TEST(WeightedSigmoidLossElementsTest, TestRound) {
  typedef TypeParam T;
  const double kInfinity = std::numeric_limits<double>::infinity();
  const T kMax = std::numeric_limits<T>::max();
  const std::vector<double> values = {0, 1. / 3, 1e30, kMax, 1e308, kInfinity};
  for (const Loops<T>& loops : this->loops_) {
    SCOPED_TRACE(loops.name);
    std::vector<T> rounded(values.size());
    loops.round(values.data(), values.size(), rounded.data());
    for (std::size_t i = 0; i < values.size(); ++i) {
      EXPECT_EQ(values[i] < kMax ? static_cast<T>(values[i]) : kMax, rounded[i])
          << values[i];
    }
  }
}

/// Likewise a shorter one, with soft targets and weights.
TYPED_TEST(WeightedSigmoidLossElementsTest, TestClimb) {
  typedef TypeParam T;
  for (const Loops<T>& loops : this->loops_) {
    SCOPED_TRACE(loops.name);
    for (const Peak peak : kPeaks) {
      Climb<T> climb(loops, peak, 1701);
      climb.Step(1000);
      EXPECT_LE(climb.ulp() + ExactUlp<T>(), PeakBound<T>(peak))
          << "at " << climb.place().Name();
      EXPECT_GT(climb.ulp(), 1.5);
    }
  }
}

TYPED_TEST(WeightedSigmoidLossElementsTest, TestNotFinite) {
  typedef TypeParam T;
  const T kInfinity = std::numeric_limits<T>::infinity();
  const T kNaN = std::numeric_limits<T>::quiet_NaN();
  const T scores[] = {kInfinity, kInfinity, -kInfinity, -kInfinity, kNaN, kNaN};
  const T targets[] = {0, 1, 0, 1, 0, 1};
  const double kLosses[] = {kInfinity, kNaN, kNaN, kInfinity, kNaN, kNaN};
  const T kGradients[] = {2, 0, 0, -3, kNaN, kNaN};
  const double kA = 3, kB = 2;
  const Block<T> block = {6,   scores, targets, false, 0,   true,
                          &kA, &kB,    NULL,    NULL,  NULL};
  for (const Loops<T>& loops : this->loops_) {
    SCOPED_TRACE(loops.name);
    double losses[6];
    T grad[6];
    loops.visit(block, true, losses, grad);
    for (int i = 0; i < 6; ++i) {
      EXPECT_TRUE(std::isnan(kLosses[i]) ? std::isnan(losses[i])
                                         : losses[i] == kLosses[i])
          << i << ' ' << losses[i];
      EXPECT_TRUE(std::isnan(kGradients[i]) ? std::isnan(grad[i])
                                            : grad[i] == kGradients[i])
          << i << ' ' << grad[i];
    }
  }
}

/// Every length and misalignment gives an element the bits that it has alone.
TYPED_TEST(WeightedSigmoidLossElementsTest, TestTails) {
  this->Fill(kOffsets + kBlock + 1);
  for (const Loops<TypeParam>& loops : this->loops_) {
    SCOPED_TRACE(loops.name);
    for (int kind = 0; kind < 4; ++kind) {
      const bool ignores = kind % 2, each = kind / 2;
      SCOPED_TRACE(kind);
      this->SetExpected(loops, ignores, each);
      for (std::size_t begin = 0; begin < kOffsets; ++begin) {
        for (std::size_t count = 1; count <= kBlock; ++count) {
          if (count > kLengths && count < kBlock - 3) {
            continue;
          }
          if (!each) {
            this->CheckElements(loops, begin, count);
          }
          this->CheckFused(loops, begin, count, each);
          ASSERT_FALSE(this->HasFailure()) << begin << ' ' << count;
        }
      }
    }
  }
}

/// Likewise through blocks, parts and threads.
TYPED_TEST(WeightedSigmoidLossElementsTest, TestEntries) {
  const std::size_t kLarge = 100003;
  this->Fill(kOffsets + kLarge + 1);
  std::vector<std::size_t> counts(1, kLarge);
  for (std::size_t tail = 1; tail <= kLengths; ++tail) {
    counts.push_back(tail);
  }
  for (std::size_t more = 0; more <= 20; ++more) {
    counts.push_back(kBlock - 10 + more);
    counts.push_back(2 * kBlock - 10 + more);
  }
  for (const bool ignores : {false, true}) {
    this->SetExpected(BestLoops<TypeParam>(), ignores, false);
    for (std::size_t begin = 0; begin < kOffsets; ++begin) {
      for (const std::size_t count : counts) {
        this->CheckEntries(begin, count);
        ASSERT_FALSE(this->HasFailure()) << begin << ' ' << count;
      }
    }
  }
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
