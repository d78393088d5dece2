#ifndef CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_WALK_HPP_
#define CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_WALK_HPP_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

/**
 * @file
 * A walk through the scores, which compares each element's loss and gradient, on
 * every instruction set that this machine has, with those of a wider type:
 * through some float scores in the tests, through all in tests/exhaustive.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/// The bounds that weighted_sigmoid_loss_math.hpp states, in its ulp.
const double kExpNegativeUlp = 0.8;
const double kLog1pUlp = 1.5;
const double kLossElementUlp = 3;
const double kGradientElementUlp = 3;
/// Those of weighted_sigmoid_loss.hpp, with constants and sums; the last, of
/// both, with class_balance.
template <typename T>
double LossUlp() {
  return sizeof(T) == sizeof(float) ? 4 : 8;
}
template <typename T>
double GradientUlp() {
  return sizeof(T) == sizeof(float) ? 4 : 5;
}
template <typename T>
double BalancedUlp() {
  return sizeof(T) == sizeof(float) ? 4 : 16;
}

template <typename T>
double Ulp() {
  return std::numeric_limits<T>::epsilon();
}

/// The type that stands for the real numbers.
template <typename T>
struct Wider;
template <>
struct Wider<float> {
  typedef double Type;
};
template <>
struct Wider<double> {
  typedef long double Type;
};

/// Both of these are templates for types that the standard library has not.
template <typename Real>
Real ExactExp(Real x) {
  return std::exp(x);
}
template <typename Real>
Real ExactLog1p(Real x) {
  return std::log1p(x);
}

/// softplus and sigmoid of a score's magnitude, and of its negative.
template <typename Real>
struct ExactFunctions {
  explicit ExactFunctions(Real magnitude) {
    const Real u = ExactExp<Real>(-magnitude);
    softplus_neg = ExactLog1p<Real>(u);
    softplus = magnitude + softplus_neg;
    sigmoid = 1 / (1 + u);
    sigmoid_neg = u / (1 + u);
  }
  Real softplus, softplus_neg, sigmoid, sigmoid_neg;
};

/// An element's loss and gradient, and the larger of the gradient's terms.
template <typename Real>
struct ExactElement {
  ExactElement(Real x, Real t, Real a, Real b) {
    const ExactFunctions<Real> f(std::abs(x));
    const Real positive = a * t, negative = b * (1 - t);
    const bool is_negative = x < 0;
    loss = positive * (is_negative ? f.softplus : f.softplus_neg) +
           negative * (is_negative ? f.softplus_neg : f.softplus);
    const Real up = negative * (is_negative ? f.sigmoid_neg : f.sigmoid);
    const Real down = positive * (is_negative ? f.sigmoid : f.sigmoid_neg);
    gradient = up - down;
    larger_term = std::max(up, down);
  }
  Real loss, gradient, larger_term;
};

/**
 * @brief How far ExactFunctions in Wider<T> may be from real numbers, in ulp of
 *        T: 2^-27 for float, and for double 2^-9 with x86's long double.
 *
 * A C library's exp and log1p are good to an ulp or two of their type, and at
 * most four roundings of half an ulp follow. tests/exhaustive looks after that
 * in a still wider type.
 */
template <typename T>
double ExactUlp() {
  typedef typename Wider<T>::Type Real;
  return 4 * std::numeric_limits<Real>::epsilon() / Ulp<T>();
}

/// The magnitudes of the scores that a whole walk visits. float: all of them,
/// infinity and NaN too.
inline float Magnitude(uint64_t index, float /* type */) {
  return BitCast<float>(static_cast<uint32_t>(index));
}

/// double: some evenly spread over all bit patterns, over those from 2^-54 to
/// 2^10, and over the numbers up to 2^10 and up to 2^6.
inline double Magnitude(uint64_t index, double /* type */) {
  // Multiples of 2^64 over the golden ratio are spread evenly, however many.
  const uint64_t spread = index * 0x9E3779B97F4A7C15u;
  const uint64_t position = spread << 2;
  switch (spread >> 62) {
    case 0:
      return BitCast<double>(position >> 1);
    case 1:
      return BitCast<double>((uint64_t(1023 - 54) << 52) + (position >> 6));
    case 2:
      return std::ldexp(static_cast<double>(position >> 11), 10 - 53);
    default:
      return std::ldexp(static_cast<double>(position >> 11), 6 - 53);
  }
}

inline uint64_t Magnitudes(float /* type */) { return uint64_t(1) << 31; }
inline uint64_t Magnitudes(double /* type */) { return uint64_t(1) << 29; }

/// An element of a walk.
struct Place {
  double score, target, a, b;
};

const std::size_t kWalkBlock = 4096;

/// Real numbers as sums of two doubles: comparisons take no wider type.
struct RealBlock {
  template <typename Real>
  void Set(const Real* values, Real factor, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const Real value = factor * values[i];
      high[i] = static_cast<double>(value);
      const double rest = static_cast<double>(value - high[i]);
      low[i] = std::abs(rest) <= std::numeric_limits<double>::max() ? rest : 0.;
    }
  }
  double high[kWalkBlock], low[kWalkBlock];
};

/// The largest error of some results, in ulp, and where it is; infinite or NaN
/// where one of result and exact value is not finite and the other differs.
class WalkError {
 public:
  explicit WalkError(double ulp) : one_ulp_(ulp), ulp_(0), place_() {}

  /// What is within floor is not an error.
  template <typename Got, typename T>
  void Add(const Got* got, const RealBlock& exact, std::size_t count,
           double floor, const T* scores, Place place) {
    if (!HasLarger(got, exact, count, floor)) {
      return;
    }
    for (std::size_t i = 0; i < count; ++i) {
      const double scale = std::abs(exact.high[i]);
      const double error = Error(got[i], exact.high[i], exact.low[i], floor);
      if (!(error <= 0) && !(error <= ulp_ * one_ulp_ * scale) &&
          !std::isnan(ulp_)) {
        ulp_ = error / (one_ulp_ * scale);
        place_ = place;
        place_.score = scores[i];
      }
    }
  }

  void Add(const WalkError& other) {
    if (!(other.ulp_ <= ulp_) && !std::isnan(ulp_)) {
      *this = other;
    }
  }

  double ulp() const { return ulp_; }
  const Place& place() const { return place_; }

 private:
  /// Whether there may be an error above the largest; a loop for vectors.
  template <typename Got>
  bool HasLarger(const Got* got, const RealBlock& exact, std::size_t count,
                 double floor) const {
    const double largest = std::numeric_limits<double>::max();
    const double bound = ulp_ * one_ulp_;
    uint64_t larger = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const double scale = std::abs(exact.high[i]);
      const double error =
          std::abs((got[i] - exact.high[i]) - exact.low[i]) - floor;
      larger += !(error <= bound * scale) | !(scale <= largest);
    }
    return larger != 0;
  }

  static double Error(double got, double high, double low, double floor) {
    if (std::isfinite(high)) {
      return std::abs((got - high) - low) - floor;
    }
    const bool is_right = std::isnan(high) ? std::isnan(got) : got == high;
    return is_right ? 0. : std::numeric_limits<double>::quiet_NaN();
  }

  double one_ulp_;
  double ulp_;
  Place place_;
};

/// What a walk finds out about an instruction set.
template <typename T>
struct WalkReport {
  explicit WalkReport(const Loops<T>& the_loops)
      : loops(the_loops),
        loss(Ulp<T>()),
        gradient(Ulp<T>()),
        checksum(0),
        differs(false) {}

  bool is_fused() const {
#ifdef WEIGHTED_SIGMOID_LOSS_FMA
    return true;
#else
    return std::string(loops.name) != "baseline";
#endif
  }

  /// Whether all that is documented was seen.
  bool IsGood() const {
    return loss.ulp() + ExactUlp<T>() <= kLossElementUlp &&
           gradient.ulp() + ExactUlp<T>() <= kGradientElementUlp && !differs;
  }

  void Add(const WalkReport& other) {
    loss.Add(other.loss);
    gradient.Add(other.gradient);
    checksum += other.checksum;
    if (other.differs && !differs) {
      differs = true;
      difference = other.difference;
    }
  }

  Loops<T> loops;
  WalkError loss, gradient;
  uint64_t checksum;  ///< of the bits of all results, in whatever order
  bool differs;       ///< from another set with a fused multiply-add
  Place difference;   ///< where, if so
};

/// The losses and gradients of a block on one instruction set.
template <typename T>
struct Results {
  Results() : losses(kWalkBlock), gradients(kWalkBlock) {}

  /// One NaN for all: which of them comes out is not the same everywhere.
  void UnifyNaN(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      if (std::isnan(losses[i])) {
        losses[i] = std::numeric_limits<double>::quiet_NaN();
      }
      if (std::isnan(gradients[i])) {
        gradients[i] = std::numeric_limits<T>::quiet_NaN();
      }
    }
  }

  uint64_t Checksum(std::size_t count) const {
    uint64_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) {
      // double: its bits are as good for this as T's
      const uint64_t gradient =
          BitCast<uint64_t>(static_cast<double>(gradients[i]));
      const uint64_t mixed =
          (BitCast<uint64_t>(losses[i]) + gradient * 0x9E3779B97F4A7C15u) *
          0xC2B2AE3D27D4EB4Fu;
      sum += mixed ^ (mixed >> 32);
    }
    return sum;
  }

  /// The first element in which they differ, count if none.
  std::size_t Difference(const Results& other, std::size_t count) const {
    std::size_t i = 0;
    while (i < count && SameBits(losses[i], other.losses[i]) &&
           SameBits(gradients[i], other.gradients[i])) {
      ++i;
    }
    return i;
  }

  bool IsSame(const Results& other, std::size_t count) const {
    return SameBits(losses[0], other.losses[0], count) &&
           SameBits(gradients[0], other.gradients[0], count);
  }

  template <typename Value>
  static bool SameBits(const Value& a, const Value& b, std::size_t count = 1) {
    return std::memcmp(&a, &b, count * sizeof(Value)) == 0;
  }

  std::vector<double> losses;
  std::vector<T> gradients;
};

/**
 * @brief Walks through scores with targets 0 and 1, and weights 1 and others.
 *
 * With such targets one of an element's two terms is 0, so that the gradient is
 * the larger term. Weights that are not powers of two add roundings; they are
 * numbers in T, since gradients take them rounded.
 */
template <typename T>
class Walk {
 public:
  typedef typename Wider<T>::Type Real;

  Walk()
      : softplus_(kWalkBlock),
        softplus_neg_(kWalkBlock),
        sigmoid_(kWalkBlock),
        sigmoid_neg_(kWalkBlock),
        scores_(kWalkBlock),
        targets_(kWalkBlock) {
    Loops<T> loops[kMaxLoops];
    const int available = AvailableLoops(loops);
    for (int k = 0; k < available; ++k) {
      reports_.push_back(WalkReport<T>(loops[k]));
      results_.push_back(Results<T>());
    }
  }

  /// How many magnitudes a walk visits that takes one in stride.
  static uint64_t Count(uint64_t stride) {
    return (Magnitudes(T()) + stride - 1) / stride;
  }

  /// Visits both signs of the magnitudes [first, last) of these.
  void Visit(uint64_t stride, uint64_t first, uint64_t last) {
    for (; first < last; first += kWalkBlock) {
      count_ = std::min<uint64_t>(kWalkBlock, last - first);
      SetMagnitudes(stride, first);
      for (int sign = 0; sign < 2; ++sign) {
        for (int target = 0; target < 2; ++target) {
          Compare(target, 1, 1);
          Compare(target, 100, T(0.7));
        }
        Negate();
      }
    }
  }

  void Add(const Walk& other) {
    for (std::size_t k = 0; k < reports_.size(); ++k) {
      reports_[k].Add(other.reports_[k]);
    }
  }

  /// The best instruction set first.
  const std::vector<WalkReport<T> >& reports() const { return reports_; }

 private:
  void SetMagnitudes(uint64_t stride, uint64_t first) {
    all_finite_ = true;
    for (std::size_t i = 0; i < count_; ++i) {
      const T magnitude = Magnitude((first + i) * stride, T());
      const ExactFunctions<Real> exact(magnitude);
      scores_[i] = magnitude;
      softplus_[i] = exact.softplus;
      softplus_neg_[i] = exact.softplus_neg;
      sigmoid_[i] = exact.sigmoid;
      sigmoid_neg_[i] = exact.sigmoid_neg;
      if (std::isinf(magnitude)) {
        // As LossElement documents it: infinity times a weight that is 0.
        softplus_neg_[i] = std::numeric_limits<Real>::quiet_NaN();
      }
      all_finite_ &= std::isfinite(magnitude);
    }
  }

  void Negate() {
    for (std::size_t i = 0; i < count_; ++i) {
      scores_[i] = -scores_[i];
    }
    softplus_.swap(softplus_neg_);
    sigmoid_.swap(sigmoid_neg_);
  }

  void Compare(T target, double a, double b) {
    std::fill_n(targets_.begin(), count_, target);
    if (target == 1) {
      loss_.Set(softplus_neg_.data(), Real(a), count_);
      gradient_.Set(sigmoid_neg_.data(), -Real(a), count_);
    } else {
      loss_.Set(softplus_.data(), Real(b), count_);
      gradient_.Set(sigmoid_.data(), Real(b), count_);
    }
    const Place place = {0, target, a, b};
    for (std::size_t k = 0; k < reports_.size(); ++k) {
      CompareOn(place, &results_[k], &reports_[k]);
      if (reports_[k].is_fused() && !results_[0].IsSame(results_[k], count_)) {
        const std::size_t i = results_[0].Difference(results_[k], count_);
        reports_[k].differs = true;
        reports_[k].difference = place;
        reports_[k].difference.score = scores_[i];
      }
    }
  }

  void CompareOn(const Place& place, Results<T>* results,
                 WalkReport<T>* report) {
    const Block<T> block = {
        count_, scores_.data(), targets_.data(), false, 0,
        true,   &place.a,       &place.b,        NULL,  NULL,
        NULL};
    report->loops.visit(block, true, results->losses.data(),
                        results->gradients.data());
    if (!all_finite_) {
      results->UnifyNaN(count_);
    }
    const double floor =
        std::numeric_limits<T>::min() * std::max(place.a, place.b);
    report->loss.Add(results->losses.data(), loss_, count_, floor,
                     scores_.data(), place);
    report->gradient.Add(results->gradients.data(), gradient_, count_, floor,
                         scores_.data(), place);
    report->checksum += results->Checksum(count_);
  }

  std::size_t count_;
  bool all_finite_;
  std::vector<Real> softplus_, softplus_neg_, sigmoid_, sigmoid_neg_;
  std::vector<T> scores_, targets_;
  RealBlock loss_, gradient_;
  std::vector<Results<T> > results_;
  std::vector<WalkReport<T> > reports_;
};

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_WALK_HPP_
