#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_MATH_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_MATH_HPP_

#include <cstdint>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_ieee.hpp"

/**
 * @file
 * The element formulas of the class-weighted sigmoid cross-entropy loss, for
 * host and device alike. With u = exp(-|x|),
 *
 *   softplus(x) = max(x, 0) + log1p(u)
 *   sigmoid(|x|) = 1 / (1 + u),  sigmoid(-|x|) = u / (1 + u)
 *
 * which have no cancellation at any score x.
 *
 * Every function is one sequence of IEEE operations. No product feeds an
 * addition other than by Fma, so that a compiler has nothing to contract and an
 * element has the same bits wherever there is a fused multiply-add. The
 * polynomials come from devtools/fit_polynomials.sollya.
 *
 * Errors are in ulp: 1 ulp of v is 2^-23 |v| in float and 2^-52 |v| in double.
 * src/caffe/test/test_weighted_sigmoid_loss*.cpp hold the functions to them.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/// -a in two: the integer n next to -a / ln 2, in the low bits of its sum with
/// 1.5 * 2^23, and r, for which -a is n ln 2 + r.
template <typename T>
struct Reduced {
  T shifted_n;
  T r;
};

/// Reduces the argument of ExpNegative.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE Reduced<float> Reduce(float a) {
  const float kLog2E = 1.44269504f;
  // ln 2 in two parts, the first short enough for n * kLn2High to be exact.
  const float kLn2High = 0.693359375f;
  const float kLn2Low = -2.12194440e-4f;
  const float kRound = 12582912.f;  // 1.5 * 2^23: a sum with it is rounded to
                                    // an integer, found in its low bits
  const float shifted_n = Fma(a, -kLog2E, kRound);
  const float n = Subtract(shifted_n, kRound);
  const Reduced<float> reduced = {
      shifted_n, Fma(n, -kLn2Low, Fma(n, -kLn2High, Negative(a)))};
  return reduced;
}

/// 2^n exp(r), 0 where a is beyond 126 ln 2: ExpNegative of a.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float ExpReduced(float a, float shifted_n,
                                                   float r) {
  const float kLimit = 87.3365402f;
  float q = 1.39107974e-3f;
  q = Fma(q, r, 8.36311374e-3f);
  q = Fma(q, r, 4.16667089e-2f);
  q = Fma(q, r, 0.166665778f);
  q = Fma(q, r, 0.5f);
  const float p = Add(1.f, Fma(Multiply(r, r), q, r));
  const float two_to_n =
      BitCast<float>((BitCast<std::uint32_t>(shifted_n) + 127u) << 23);
  const float u = Multiply(p, two_to_n);
  // Of a select, GCC makes two computations of all that follows and selects at
  // their ends, which took a twentieth longer. In double it does not.
  const std::uint32_t keep = std::uint32_t(IsLess(kLimit, a)) - 1u;
  return BitCast<float>(BitCast<std::uint32_t>(u) & keep);
}

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE Reduced<double> Reduce(double a) {
  const double kLog2E = 1.4426950408889634;
  const double kLn2High = 0.693147180369123816490;  // 33 bits
  const double kLn2Low = 1.90821492927058770002e-10;
  const double kRound = 6755399441055744.;  // 1.5 * 2^52
  const double shifted_n = Fma(a, -kLog2E, kRound);
  const double n = Subtract(shifted_n, kRound);
  const Reduced<double> reduced = {
      shifted_n, Fma(n, -kLn2Low, Fma(n, -kLn2High, Negative(a)))};
  return reduced;
}

/// 2^n exp(r), 0 where a is beyond 1022 ln 2.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double ExpReduced(double a, double shifted_n,
                                                    double r) {
  const double kLimit = 708.39641853226408;
  double q = 2.5068447129421949e-8;
  q = Fma(q, r, 2.7620244273860158e-7);
  q = Fma(q, r, 2.7557355030973926e-6);
  q = Fma(q, r, 2.4801520907793312e-5);
  q = Fma(q, r, 1.9841269784775983e-4);
  q = Fma(q, r, 1.388888891753731e-3);
  q = Fma(q, r, 8.3333333333563218e-3);
  q = Fma(q, r, 4.1666666666623116e-2);
  q = Fma(q, r, 0.16666666666666644);
  q = Fma(q, r, 0.50000000000000011);
  const double p = Add(1., Fma(Multiply(r, r), q, r));
  const double two_to_n =
      BitCast<double>((BitCast<std::uint64_t>(shifted_n) + 1023u) << 52);
  const double u = Multiply(p, two_to_n);
  return IsLess(kLimit, a) ? 0. : u;
}

/**
 * @brief exp(-a) for a >= 0, within 0.8 ulp; 0 where it is below 2^-126 (double:
 *        2^-1022), that is a > 126 ln 2 (1022 ln 2). NaN for NaN.
 */
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T ExpNegative(T a) {
  const Reduced<T> reduced = Reduce(a);
  return ExpReduced(a, reduced.shifted_n, reduced.r);
}

/// log(1 + u) for u in [0, 1], within 1.5 ulp. NaN for NaN.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float Log1p(float u) {
  float q = -4.51182621e-3f;
  q = Fma(q, u, 2.54073925e-2f);
  q = Fma(q, u, -6.70569688e-2f);
  q = Fma(q, u, 0.115872473f);
  q = Fma(q, u, -0.158594742f);
  q = Fma(q, u, 0.198571146f);
  q = Fma(q, u, -0.249868914f);
  q = Fma(q, u, 0.333328575f);
  q = Fma(q, u, -0.49999997f);
  return Fma(Multiply(u, u), q, u);
}

/// log(1 + u) for u in [0, 1], within 1.5 ulp. NaN for NaN.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double Log1p(double u) {
  double q = 3.5470800431326672e-5;
  q = Fma(q, u, -3.9184480557786513e-4);
  q = Fma(q, u, 2.0521270701044968e-3);
  q = Fma(q, u, -6.8186505817007768e-3);
  q = Fma(q, u, 1.6282554782063294e-2);
  q = Fma(q, u, -3.0145851139448409e-2);
  q = Fma(q, u, 4.58568650327663e-2);
  q = Fma(q, u, -6.0350362041752648e-2);
  q = Fma(q, u, 7.2121258338594091e-2);
  q = Fma(q, u, -8.1662981016353609e-2);
  q = Fma(q, u, 9.0449692928180891e-2);
  q = Fma(q, u, -9.9901835414040296e-2);
  q = Fma(q, u, 0.11109516960143177);
  q = Fma(q, u, -0.12499808896108701);
  q = Fma(q, u, 0.14285698036105846);
  q = Fma(q, u, -0.166666657410147);
  q = Fma(q, u, 0.19999999967611165);
  q = Fma(q, u, -0.24999999999397807);
  q = Fma(q, u, 0.33333333333328868);
  q = Fma(q, u, -0.49999999999999994);
  return Fma(Multiply(u, u), q, u);
}

/// t softplus(-x), a positive's loss without its weight; log1p_u is
/// Log1p(ExpNegative(|x|)), which is softplus(-|x|).
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T PositiveLoss(T x, T t, T log1p_u) {
  return Multiply(t, Subtract(log1p_u, NegativePart(x)));
}

/// (1 - t) softplus(x), a negative's.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T NegativeLoss(T x, T t, T log1p_u) {
  return Multiply(Subtract(T(1), t), Add(log1p_u, PositivePart(x)));
}

/**
 * @brief One element's loss, a t softplus(-x) + b (1 - t) softplus(x), from
 *        PositiveLoss and NegativeLoss; in double for the sum that it enters, as
 *        weights and softplus can each be as large as T's largest.
 *
 * Within 3 ulp of T for t in [0, 1] at every finite x, besides
 * 2^-126 max(a, b) (double: 2^-1022), where u is flushed to 0. An infinite x
 * gives infinity, or NaN where the term that grows with it has weight 0.
 */
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double WeighLosses(double positive,
                                                     double negative, double a,
                                                     double b) {
  return Fma(a, positive, b * negative);
}

/// WeighLosses of an element.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double LossElement(T x, T t, double a,
                                                     double b, T log1p_u) {
  return WeighLosses(ToDouble(PositiveLoss(x, t, log1p_u)),
                     ToDouble(NegativeLoss(x, t, log1p_u)), a, b);
}

/**
 * @brief One element's gradient, b (1 - t) sigmoid(x) - a t sigmoid(-x).
 *
 * Within 3 ulp of the larger of its two terms for t in [0, 1] at every finite
 * x, besides 2^-126 max(a, b) (double: 2^-1022), where u is flushed to 0; exact
 * at infinite x. a and b count as given.
 *
 * @param u ExpNegative(|x|)
 */
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T GradientElement(T x, T t, T a, T b, T u) {
  // sigmoid(|x|) = 1 / (1 + u) is taken out of both terms, so that where they
  // cancel its errors do, too.
  const T positive = Multiply(Negative(a), t);
  const T negative = Multiply(b, Subtract(T(1), t));
  T of_large = negative, of_small = positive;
  SwapIfNegative(x, &of_large, &of_small);
  return Multiply(Fma(of_small, u, of_large), Reciprocal(Add(T(1), u)));
}

/// Whether a target is neither 0 nor 1, nor one of them that was rounded. NaN
/// is not.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE bool IsSoft(T t) {
  const bool is_above = IsAtMost(T(kHardTargetSlack), t);
  const bool is_below = IsAtMost(t, T(1 - kHardTargetSlack));
  return is_above & is_below;
}

/// To factors[0] and [1], b_pos = Q / (P + Q) and b_neg = P / (P + Q), both 0
/// for a scope of no element.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE void BalanceFactors(double positives,
                                                      double negatives,
                                                      double* factors) {
  const double total = positives + negatives;
  factors[0] = total == 0 ? 0 : negatives / total;
  factors[1] = total == 0 ? 0 : positives / total;
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_MATH_HPP_
