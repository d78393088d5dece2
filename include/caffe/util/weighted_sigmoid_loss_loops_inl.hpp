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

/// A value for all elements, as if it were an array.
template <typename T>
struct Same {
  T value;
  T operator[](std::size_t) const { return value; }
};

template <typename T, typename A>
Counts Losses(const Stretch<T>& stretch, A a, A b, double* __restrict losses) {
  const T* scores = stretch.scores;
  const T* targets = stretch.targets;
  const T ignore_label = stretch.ignore_label;
  const bool has_ignore_label = stretch.has_ignore_label;
  std::uint32_t valid = 0, bad_targets = 0;
  for (std::size_t i = 0; i < stretch.count; ++i) {
    const T t = targets[i];
    const bool counts = !(has_ignore_label & (t == ignore_label));
    const double loss = LossElement(scores[i], t, a[i], b[i]);
    losses[i] = counts ? loss : 0.;
    valid += counts;
    bad_targets += counts & !((t >= T(0)) & (t <= T(1)));
  }
  const Counts counts = {valid, bad_targets};
  return counts;
}

template <typename T, typename A>
void Gradients(const Stretch<T>& stretch, A a, A b, T* grad) {
  const T* scores = stretch.scores;
  const T* targets = stretch.targets;
  const T ignore_label = stretch.ignore_label;
  const bool has_ignore_label = stretch.has_ignore_label;
  for (std::size_t i = 0; i < stretch.count; ++i) {
    const T t = targets[i];
    const bool counts = !(has_ignore_label & (t == ignore_label));
    const T gradient = GradientElement(scores[i], t, a[i], b[i]);
    grad[i] = counts ? gradient : T(0);
  }
}

template <typename T>
Counts LossesOfSame(const Stretch<T>& stretch, double a, double b,
                    double* losses) {
  const Same<double> same_a = {a}, same_b = {b};
  return Losses(stretch, same_a, same_b, losses);
}

template <typename T>
Counts LossesOfEach(const Stretch<T>& stretch, const double* a, const double* b,
                    double* losses) {
  return Losses(stretch, a, b, losses);
}

template <typename T>
void GradientsOfSame(const Stretch<T>& stretch, T a, T b, T* grad) {
  const Same<T> same_a = {a}, same_b = {b};
  Gradients(stretch, same_a, same_b, grad);
}

template <typename T>
void GradientsOfEach(const Stretch<T>& stretch, const T* a, const T* b,
                     T* grad) {
  Gradients(stretch, a, b, grad);
}

template <typename T>
Loops<T> MakeLoops(const char* name) {
  const Loops<T> loops = {name, LossesOfSame<T>, LossesOfEach<T>,
                          GradientsOfSame<T>, GradientsOfEach<T>};
  return loops;
}

}  // namespace

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_INL_HPP_
