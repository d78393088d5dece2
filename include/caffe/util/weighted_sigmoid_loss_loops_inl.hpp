#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_INL_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_INL_HPP_

/**
 * @file
 * The loops of weighted_sigmoid_loss_loops.hpp, for the one source file of each
 * instruction set, which sets it before it includes this. They have no branches
 * and call nothing but inline functions of the file's own, so that compilers
 * make vector code of them.
 *
 * Nothing of the standard library is used here: its inline functions would be
 * compiled for this instruction set, and the linker might keep that copy for
 * all of the program.
 */

// Selects stand for comparisons that would trap for NaN, which nobody catches;
// and a sum of a product is only fused where it says so.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-trapping-math", "fp-contract=off")
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#include "caffe/util/weighted_sigmoid_loss_math.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

/// The unsigned integer with T's bits, which for T(0) to T(1) are those of T(1)
/// or less, and for NaN, negative and larger values more.
template <typename T>
struct Bits;
template <>
struct Bits<float> {
  typedef std::uint32_t Type;
};
template <>
struct Bits<double> {
  typedef std::uint64_t Type;
};

/// A constant of all elements.
template <typename T>
struct Same {
  explicit Same(double value_value)
      : value(value_value), rounded(Saturate<T>(value_value)) {}
  const double value;
  const T rounded;
};

template <typename T>
double At(const Same<T>& constant, std::size_t) {
  return constant.value;
}
inline double At(const double* constants, std::size_t i) {
  return constants[i];
}

template <typename T>
T RoundedAt(const Same<T>& constant, std::size_t) {
  return constant.rounded;
}
template <typename T>
T RoundedAt(const double* constants, std::size_t i) {
  return Saturate<T>(constants[i]);
}

// As many partial sums on every machine, in as many vectors as it takes: enough
// of them that an addition need not wait for the one before.
const std::size_t kLanes = 16;
typedef double Vector
    __attribute__((vector_size(WEIGHTED_SIGMOID_LOSS_VECTOR_BYTES)));
const std::size_t kVector = sizeof(Vector) / sizeof(double);
const std::size_t kVectors = kLanes / kVector;

/// values has room for count rounded up to a multiple of kLanes, and is
/// overwritten there.
double SumPadded(double* values, std::size_t count) {
  for (std::size_t i = count; i % kLanes != 0; ++i) {
    values[i] = 0;
  }
  Vector sums[kVectors] = {};
  for (std::size_t i = 0; i < count; i += kLanes) {
    for (std::size_t k = 0; k < kVectors; ++k) {
      Vector vector;
      __builtin_memcpy(&vector, values + i + k * kVector, sizeof(vector));
      sums[k] += vector;
    }
  }
  double lanes[kLanes];
  __builtin_memcpy(lanes, sums, sizeof(lanes));
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t k = 0; k < half; ++k) {
      lanes[k] += lanes[k + half];
    }
  }
  return lanes[0];
}

double Sum(const double* values, std::size_t count) {
  double padded[kBlock];
  __builtin_memcpy(padded, values, count * sizeof(*values));
  return SumPadded(padded, count);
}

// The processor's own prefetching falls behind these loops and stops at the end
// of each page: they ask for what comes, a few lines at a time.
const std::size_t kChunk = 128;     // elements
const std::size_t kAhead = 512;     // elements, too
const std::size_t kCacheLine = 64;  // bytes

/// Asks for the lines of a chunk, which may lie beyond the array's end.
template <typename T>
void PrefetchChunk(const T* chunk) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(chunk);
  for (std::size_t i = 0; i < kChunk * sizeof(T); i += kCacheLine) {
    __builtin_prefetch(
        reinterpret_cast<const void*>(address + kAhead * sizeof(T) + i));
  }
}

/// Writes losses and gradients; what is not wanted costs nothing.
template <bool kIgnores, bool kLosses, bool kGradients, typename T, typename A>
StretchSums VisitElements(const Stretch<T>& stretch, A a, A b,
                          double* __restrict losses, T* grad) {
  typedef typename Bits<T>::Type Word;
  const T* scores = stretch.scores;
  const T* targets = stretch.targets;
  const T ignore_label = stretch.ignore_label;
  Word largest = 0;
  std::uint32_t valid = 0;
  for (std::size_t begin = 0; begin < stretch.count; begin += kChunk) {
    PrefetchChunk(scores + begin);
    PrefetchChunk(targets + begin);
    if (kGradients) {
      PrefetchChunk(grad + begin);
    }
    const std::size_t left = stretch.count - begin;
    const std::size_t end = begin + (left < kChunk ? left : kChunk);
    for (std::size_t i = begin; i < end; ++i) {
      const T x = scores[i];
      const T t = targets[i];
      const T u = ExpNegative(Abs(x));
      const bool counts = !kIgnores | (t != ignore_label);
      if (kLosses) {
        const double loss = LossElement(x, t, At(a, i), At(b, i), Log1p(u));
        losses[i] = counts ? loss : 0.;
        const Word bits = BitCast<Word>(t) & (Word(0) - counts);
        largest = bits > largest ? bits : largest;
        valid += counts;
      }
      if (kGradients) {
        const T gradient =
            GradientElement(x, t, RoundedAt<T>(a, i), RoundedAt<T>(b, i), u);
        grad[i] = counts ? gradient : T(0);
      }
    }
  }
  const StretchSums sums = {0, valid, largest > BitCast<Word>(T(1))};
  return sums;
}

template <bool kLosses, bool kGradients, typename T, typename A>
StretchSums Visit(const Stretch<T>& stretch, A a, A b, double* losses,
                  T* grad) {
  return stretch.has_ignore_label ? VisitElements<true, kLosses, kGradients>(
                                        stretch, a, b, losses, grad)
                                  : VisitElements<false, kLosses, kGradients>(
                                        stretch, a, b, losses, grad);
}

template <bool kGradients, typename T, typename A>
StretchSums SumLosses(const Stretch<T>& stretch, A a, A b, T* grad) {
  double losses[kBlock];
  StretchSums sums = Visit<true, kGradients>(stretch, a, b, losses, grad);
  sums.loss = SumPadded(losses, stretch.count);
  return sums;
}

template <typename T>
StretchSums Loss(const Stretch<T>& stretch, double a, double b) {
  return SumLosses<false, T>(stretch, Same<T>(a), Same<T>(b), NULL);
}

template <typename T>
StretchSums LossEach(const Stretch<T>& stretch, const double* a,
                     const double* b) {
  return SumLosses<false, T>(stretch, a, b, NULL);
}

template <typename T>
StretchSums LossAndGradient(const Stretch<T>& stretch, double a, double b,
                            T* grad) {
  return SumLosses<true>(stretch, Same<T>(a), Same<T>(b), grad);
}

template <typename T>
StretchSums LossAndGradientEach(const Stretch<T>& stretch, const double* a,
                                const double* b, T* grad) {
  return SumLosses<true>(stretch, a, b, grad);
}

template <typename T>
void Gradient(const Stretch<T>& stretch, double a, double b, T* grad) {
  Visit<false, true>(stretch, Same<T>(a), Same<T>(b), NULL, grad);
}

template <typename T>
void GradientEach(const Stretch<T>& stretch, const double* a, const double* b,
                  T* grad) {
  Visit<false, true>(stretch, a, b, NULL, grad);
}

template <typename T>
StretchSums Elements(const Stretch<T>& stretch, double a, double b,
                     double* losses, T* grad) {
  return Visit<true, true>(stretch, Same<T>(a), Same<T>(b), losses, grad);
}

template <typename T>
StretchSums ElementsEach(const Stretch<T>& stretch, const double* a,
                         const double* b, double* losses, T* grad) {
  return Visit<true, true>(stretch, a, b, losses, grad);
}

template <typename T>
void AddTargets(const Stretch<T>& stretch, double* __restrict positives,
                double* __restrict negatives) {
  const T* targets = stretch.targets;
  for (std::size_t i = 0; i < stretch.count; ++i) {
    const T t = targets[i];
    const bool counts =
        !(stretch.has_ignore_label & (t == stretch.ignore_label));
    positives[i] += counts ? static_cast<double>(t) : 0.;
    negatives[i] += counts ? 1. - t : 0.;
  }
}

void Fill(double value, std::size_t count, double* values) {
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = value;
  }
}

void Multiply(const double* __restrict pairs, std::size_t count,
              double* __restrict a, double* __restrict b) {
  for (std::size_t i = 0; i < count; ++i) {
    a[i] *= pairs[2 * i];
    b[i] *= pairs[2 * i + 1];
  }
}

template <typename T>
bool Weigh(const T* __restrict weights, std::size_t count,
           const double* __restrict a, const double* __restrict b,
           double* __restrict weighted_a, double* __restrict weighted_b) {
  const T largest = sizeof(T) == sizeof(float) ? T(FLT_MAX) : T(DBL_MAX);
  std::uint32_t bad = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const T e = weights[i];
    weighted_a[i] = a[i] * e;
    weighted_b[i] = b[i] * e;
    bad |= !((e >= 0) & (e <= largest));
  }
  return bad == 0;
}

void Scale(const double* values, std::size_t count, double factor,
           double* products) {
  for (std::size_t i = 0; i < count; ++i) {
    products[i] = factor * values[i];
  }
}

template <typename T>
Loops<T> MakeLoops(const char* name) {
  const Loops<T> loops = {name,
                          Loss<T>,
                          LossEach<T>,
                          Gradient<T>,
                          GradientEach<T>,
                          LossAndGradient<T>,
                          LossAndGradientEach<T>,
                          Elements<T>,
                          ElementsEach<T>,
                          AddTargets<T>,
                          Sum,
                          Fill,
                          Multiply,
                          Weigh<T>,
                          Scale};
  return loops;
}

}  // namespace

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_INL_HPP_
