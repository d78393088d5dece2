#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_HPP_

#include <cstddef>
#include <cstdint>

#include "caffe/util/weighted_sigmoid_loss.hpp"

// GCC before 8 does not know all of what the file for AVX-512 asks of it.
#if defined(__x86_64__) && (defined(__clang__) || __GNUC__ >= 8)
#define WEIGHTED_SIGMOID_LOSS_HAS_AVX512
#endif

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

/// The most elements of a block whose losses are summed.
const std::size_t kBlock = 512;

/// Neighbouring elements; a and b are as in weighted_sigmoid_loss.hpp. Soft
/// targets that are ignored are labelled ones.
template <typename T>
struct Block {
  std::size_t count;
  const T* scores;
  const T* targets;
  bool has_ignore_label;
  T ignore_label;
  bool is_same;  ///< one a and b for all, else count of them
  const double* a;
  const double* b;
  const T* weights;  ///< of elements, which a and b are multiplied by, or NULL
  /// Where there is an a for each, but no weights: as round gives them, for
  /// gradients.
  const T* rounded_a;
  const T* rounded_b;
};

/// What a block's elements that are not ignored add up to; of no interest but
/// for losses.
struct BlockSums {
  double loss;
  std::uint32_t valid;   ///< how many these are
  double target_excess;  ///< as in LossSums
  double weight_excess;
};

/// The loops of one instruction set.
template <typename T>
struct Loops {
  const char* name;
  /// Writes each element's loss and gradient, 0 where it is ignored; losses,
  /// which need no sums, and gradients are NULL where they are not wanted.
  /// Gradients may be where the scores are.
  BlockSums (*visit)(const Block<T>&, bool wants_sums, double* losses, T* grad);
  /// Writes targets, with the label in place of those that are soft.
  void (*label_soft)(const T* targets, std::size_t count, T label, T* labelled);
  /// Adds each target t that is not ignored to positives, 1 - t to negatives.
  void (*add_targets)(const Block<T>&, double* positives, double* negatives);
  /// The sum of at most kBlock values.
  double (*sum)(const double* values, std::size_t count);
  void (*fill)(double value, std::size_t count, double* values);
  /// Multiplies a and b by a pair of factors per element.
  void (*multiply)(const double* pairs, std::size_t count, double* a,
                   double* b);
  /// To products, factor times each of the values, which may be the same.
  void (*scale)(const double* values, std::size_t count, double factor,
                double* products);
  /// Rounds the values to T as Saturate does.
  void (*round)(const double* values, std::size_t count, T* rounded);
  /// What visit begins with, for tests of these functions alone: ExpNegative of
  /// the scores' magnitudes, and Log1p.
  void (*exp_negatives)(const T* scores, std::size_t count, T* us);
  void (*log1ps)(const T* us, std::size_t count, T* log1p_us);
};

/// Plain x86-64, or whatever the compiler was told; "baseline".
template <typename T>
Loops<T> BaselineLoops();
/// AVX2 with FMA, on x86-64; "avx2".
template <typename T>
Loops<T> Avx2Loops();
/// AVX-512 F, BW, DQ and VL, on x86-64; "avx512". Not with GCC before 8.
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

/// Sets the targets of a block from element `begin` on. Where soft ones are
/// ignored they become labelled ones in a copy, so that the loops know of one
/// value that is ignored.
template <typename T>
void SetTargets(const Elements<T>& elements, std::size_t begin,
                const Loops<T>& loops, T copy[kBlock], Block<T>* block) {
  block->targets = elements.targets + begin;
  block->has_ignore_label = elements.has_ignore_label;
  block->ignore_label = elements.ignore_label;
  if (elements.ignores_soft_targets) {
    if (!block->has_ignore_label) {
      block->has_ignore_label = true;
      block->ignore_label = T(0.5);  // is soft
    }
    loops.label_soft(block->targets, block->count, block->ignore_label, copy);
    block->targets = copy;
  }
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_HPP_
