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
 * element has the same bits.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/// Elements that a loop visits; a and b are as in weighted_sigmoid_loss.hpp.
template <typename T>
struct Stretch {
  std::size_t count;
  const T* scores;
  const T* targets;
  bool has_ignore_label;
  T ignore_label;
};

/// How many elements of a stretch were not ignored, and how many of those have
/// a target outside [0, 1].
struct Counts {
  std::uint32_t valid;
  std::uint32_t bad_targets;
};

/// The loops of one instruction set, each for a and b that are the same for the
/// whole stretch, and for count of them, one an element.
template <typename T>
struct Loops {
  const char* name;
  /// Writes each element's loss, 0 where it is ignored.
  Counts (*losses)(const Stretch<T>&, double a, double b, double* losses);
  Counts (*losses_each)(const Stretch<T>&, const double* a, const double* b,
                        double* losses);
  /// Writes each element's gradient, which may be where its score is.
  void (*gradients)(const Stretch<T>&, T a, T b, T* grad);
  void (*gradients_each)(const Stretch<T>&, const T* a, const T* b, T* grad);
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
