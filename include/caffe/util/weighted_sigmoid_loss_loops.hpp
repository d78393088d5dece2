#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_HPP_

#include <cstddef>
#include <cstdint>

/**
 * @file
 * The CPU kernel's loops over neighbouring elements, one set of functions for
 * each instruction set that they are compiled for, picked at run time. All of
 * them come from weighted_sigmoid_loss_loops_inl.hpp, and so from the formulas
 * of weighted_sigmoid_loss_math.hpp: where there is a fused multiply-add, an
 * element has the same bits. Sums are taken in the same order on every set.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/// The most elements of a stretch that is summed.
const std::size_t kBlock = 512;

/// Elements that a loop visits; a and b are as in weighted_sigmoid_loss.hpp.
template <typename T>
struct Stretch {
  std::size_t count;
  const T* scores;
  const T* targets;
  bool has_ignore_label;
  T ignore_label;
};

/// What a stretch's elements that are not ignored add up to.
struct StretchSums {
  double loss;
  std::uint32_t valid;   ///< how many these are
  bool has_bad_targets;  ///< maybe one is outside [0, 1]; false: none is
};

/**
 * @brief The loops of one instruction set.
 *
 * a and b are the same for the whole stretch, or where the name says each, count
 * of them. For gradients they are rounded to T as Saturate does.
 */
template <typename T>
struct Loops {
  const char* name;
  StretchSums (*loss)(const Stretch<T>&, double a, double b);
  StretchSums (*loss_each)(const Stretch<T>&, const double* a, const double* b);
  /// Writes each element's gradient, which may be where its score is.
  void (*gradient)(const Stretch<T>&, double a, double b, T* grad);
  void (*gradient_each)(const Stretch<T>&, const double* a, const double* b,
                        T* grad);
  /// Both of the above in one pass.
  StretchSums (*loss_and_gradient)(const Stretch<T>&, double a, double b,
                                   T* grad);
  StretchSums (*loss_and_gradient_each)(const Stretch<T>&, const double* a,
                                        const double* b, T* grad);
  /// Writes each element's loss and gradient, 0 where it is ignored, for any
  /// count: what the others sum and write. Without the sum of losses.
  StretchSums (*elements)(const Stretch<T>&, double a, double b, double* losses,
                          T* grad);
  StretchSums (*elements_each)(const Stretch<T>&, const double* a,
                               const double* b, double* losses, T* grad);
  /// Adds each target t that is not ignored to positives, 1 - t to negatives.
  void (*add_targets)(const Stretch<T>&, double* positives, double* negatives);
  /// The sum of at most kBlock values.
  double (*sum)(const double* values, std::size_t count);
  void (*fill)(double value, std::size_t count, double* values);
  /// Multiplies a and b by a pair of factors an element.
  void (*multiply)(const double* pairs, std::size_t count, double* a,
                   double* b);
  /// Writes a and b times the weights; false where one of these is negative or
  /// not finite.
  bool (*weigh)(const T* weights, std::size_t count, const double* a,
                const double* b, double* weighted_a, double* weighted_b);
  /// To products, factor times each of the values, which may be the same.
  void (*scale)(const double* values, std::size_t count, double factor,
                double* products);
};

/// Plain x86-64, or whatever the compiler was told; "baseline".
template <typename T>
Loops<T> BaselineLoops();
/// AVX2 with FMA, on x86-64; "avx2".
template <typename T>
Loops<T> Avx2Loops();
/// AVX-512 F, BW, DQ and VL, on x86-64; "avx512".
template <typename T>
Loops<T> Avx512Loops();

const int kMaxLoops = 3;

/// Writes the sets of loops that this machine can run, the best first, and
/// returns how many there are.
template <typename T>
int AvailableLoops(Loops<T> loops[kMaxLoops]);

/**
 * @brief The fastest loops that this machine can run.
 *
 * The environment variable WEIGHTED_SIGMOID_LOSS_ISA names a set to use instead,
 * where the machine has it; it is read once.
 */
template <typename T>
const Loops<T>& BestLoops();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_HPP_
