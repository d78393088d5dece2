#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_HPP_

#include <cstddef>
#include <cstdint>

#if defined(__FAST_MATH__) || \
    (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "The loss needs IEEE arithmetic: compile it without -ffast-math, -Ofast"
#endif

/**
 * @file
 * The kernel of the class-weighted sigmoid cross-entropy loss: plain pointers
 * and sizes, on the CPU and, by the functions that end in Gpu, on the current
 * CUDA device. T is float or double.
 *
 * For score x and target t in channel c and balance scope s, with element
 * weight e,
 *
 *   a = scale e cls_weight[c] b_pos[s]    weight of the positive term
 *   b = scale e neg_weight[c] b_neg[s]    weight of the negative term
 *   loss = a t softplus(-x) + b (1 - t) softplus(x)
 *   gradient = b (1 - t) sigmoid(x) - a t sigmoid(-x)
 *
 * An element whose target equals the ignore label, or is soft where such are
 * ignored, has zero loss and gradient.
 * weighted_sigmoid_loss_math.hpp has the formulas of an element and their error
 * bounds; they hold where the caller's thread rounds to nearest and does not
 * flush subnormal numbers to zero. Nothing is allocated and nothing is written
 * but the results.
 *
 * The kernel's words for elements, on the CPU from large to small:
 *
 *   part      what a thread takes at a time, some blocks in a row
 *   block     512 neighbours, or what is left of them, whose losses are summed
 *   chunk     128 neighbours of a block, the loops' constant count
 *   lane      every 16th element, of which each lane has a sum of its own
 *   segment   neighbours with one index along an axis, or, along the last axis,
 *             with an index each
 *   vector    on the device: 16 bytes of an array, which a thread reads at once
 *   rest      on the device: the few elements outside of whole vectors
 *   scope     what class_balance balances; its targets are a matrix of columns,
 *             which are neighbours, and of a row for each round of all scopes
 *
 * The functions for the CPU take a thread for each 65,536 elements, as many as
 * there are. Their results are the same for any number.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/**
 * @brief One axis of an array in C order: element i has index
 *        (i / inner) % size along it.
 *
 * inner is a product of trailing axes, at least 1. Axis(1, count) is the axis
 * along which nothing differs.
 */
struct Axis {
  Axis() : size(1), inner(1), cycle(1), group(0) {}
  Axis(std::size_t size_value, std::size_t inner_value)
      : size(size_value), inner(inner_value), cycle(size_value), group(0) {}

  std::size_t Index(std::size_t i) const {
    return i / inner % cycle + (IsGrouped() ? i / group * cycle : 0);
  }
  bool IsGrouped() const { return cycle < size; }

  std::size_t size;
  std::size_t inner;
  /// How many indices take turns, and among how many neighbours: all, except
  /// where InEachInstance gives each group of neighbours indices of its own.
  std::size_t cycle;
  std::size_t group;
};

/// An axis, other than the first, with other indices in each of the instances
/// that count elements make up.
inline Axis InEachInstance(const Axis& axis, std::size_t instances,
                           std::size_t count) {
  const std::size_t group = instances > 0 && count > 0 ? count / instances : 1;
  if (axis.size == 1) {
    return Axis(instances, group);
  }
  Axis made(instances * axis.size, axis.inner);
  if (group > axis.size * axis.inner) {
    made.cycle = axis.size;
    made.group = group;
  }
  return made;
}

const int kMaxAxes = 32;  // as many as a Caffe blob has

/**
 * @brief Element weights, broadcast along some axes: element i, with index n_k
 *        along axis k of the scores' size[k], has data[sum n_k stride[k]].
 *
 * Neighbouring axes are merged, so that broadcast ones (stride 0) and others
 * take turns; the last stride is 0 or 1. No data is weight 1.
 */
template <typename T>
struct ElementWeights {
  ElementWeights() : data(NULL), axes(0) {}
  const T* data;
  int axes;
  std::size_t size[kMaxAxes];
  std::size_t stride[kMaxAxes];
};

/**
 * @brief Sets axes, size and stride by the shapes of scores and weights.
 *
 * Each axis of the weights is the scores' or 1; those that the weights lack at
 * the end are 1.
 *
 * @return whether that is so, and kMaxAxes are enough
 */
template <typename T>
bool SetAxes(const std::size_t* scores, int scores_axes,
             const std::size_t* weights, int weights_axes,
             ElementWeights<T>* weight);

/**
 * @brief The input of one call.
 *
 * The pointers are device pointers for the functions that end in Gpu. count is
 * a multiple of size * inner of both axes.
 */
template <typename T>
struct Elements {
  std::size_t count;
  const T* scores;           ///< count values
  const T* targets;          ///< count values
  Axis channel;              ///< of size 1 where all channels weigh the same
  const double* cls_weight;  ///< a value per channel, finite and not negative
  const double* neg_weight;  ///< likewise
  Axis scope;                ///< what class_balance balances
  const double* balance;     ///< b_pos, b_neg per scope, or NULL: 1
  ElementWeights<T> weight;
  bool has_ignore_label;
  T ignore_label;
  bool ignores_soft_targets;
};

/// A target this close to 0 or 1, in either type, is one of them that was
/// rounded: 255 times a float 1/255 is.
constexpr double kHardTargetSlack = 1. / (1 << 20);

/// Whether a target is outside [0, 1] by more than rounding.
inline bool IsOutOfRange(double target) {
  return !(target >= -kHardTargetSlack && target <= 1 + kHardTargetSlack);
}

/// Whether elements of this target are left out.
template <typename T>
bool IsIgnored(const Elements<T>& elements, T target);

/// What a forward pass sums over the elements that are not ignored.
struct LossSums {
  double loss;
  std::uint64_t valid;  ///< how many these are
  /// The farthest that a target is outside [0, 1], or 0; NaN is at infinity.
  double target_excess;
  /// Likewise an element weight outside the finite numbers from 0 on.
  double weight_excess;
};

/// Elements that are not ignored, and have what a LossSums' excess is about.
struct BadInput {
  std::uint64_t targets;  ///< how many have a target out of range
  std::uint64_t weights;  ///< how many a weight negative or not finite
};

/// Counts these, one by one: for the words of a warning.
template <typename T>
BadInput CountBadInput(const Elements<T>& elements);

/**
 * @brief The loss, summed in double in an order that depends on the shapes alone.
 *
 * Within 4 ulp (2^-23 relative) in float, and in double, which is the type of
 * the sums as well, within 8 (of 2^-52), for targets in [0, 1], weights that are
 * not negative and finite scores, besides 2^-126 (double: 2^-1022) times the
 * larger of a and b per element.
 */
template <typename T>
LossSums Loss(const Elements<T>& elements, double scale);

/**
 * @brief Writes the count gradients to grad, which may be the scores.
 *
 * a and b are multiplied in double and rounded to T once; beyond T's largest
 * they are taken as that. Else each gradient is within 4 ulp, in double within 5,
 * of the larger of its two terms for targets in [0, 1] and finite scores, besides
 * 2^-126 (double: 2^-1022) times the larger of a and b, at least 2^-126 (2^-1022)
 * itself.
 */
template <typename T>
void Gradient(const Elements<T>& elements, double scale, T* grad);

/**
 * @brief Loss and Gradient in one pass, with the same bits as theirs.
 *
 * For callers who know scale before the forward pass: as one over Caffe's
 * normalizer is, but for VALID. grad may be the scores.
 */
template <typename T>
LossSums LossAndGradient(const Elements<T>& elements, double scale, T* grad);

/**
 * @brief Writes the count losses, rounded to T, and gradients; the latter have
 *        the bits of Gradient's.
 *
 * losses overlaps nothing. grad may be the scores, or NULL: it is not wanted.
 */
template <typename T>
LossSums LossesAndGradient(const Elements<T>& elements, double scale, T* losses,
                           T* grad);

/**
 * @brief How many elements are not ignored, by their targets alone: what
 *        LossAndGradient's scale needs first for VALID.
 */
template <typename T>
std::uint64_t CountValid(const Elements<T>& elements);

/**
 * @brief Writes b_pos, b_neg per scope to balance: with P = sum t and
 *        Q = sum (1 - t) over the scope's elements that are not ignored,
 *        Q / (P + Q) and P / (P + Q), or 0 and 0 where there are none.
 *
 * Summed in double: with double targets that are soft they may be off so far
 * that losses and gradients are within 16 ulp alone.
 *
 * From "Holistically-Nested Edge Detection" (Xie and Tu, 2015).
 */
template <typename T>
void Balance(const Elements<T>& elements, double* balance);

/// How many bytes of device memory the functions below work in, whatever the
/// count.
const std::size_t kGpuWorkspace = 4096 * sizeof(LossSums);

/// Scores, targets, gradients and element weights on the device begin at
/// multiples of this many bytes.
const std::size_t kGpuAlignment = 16;

/**
 * @brief Loss on the device, for count < 2^31; waits for the result.
 *
 * The order of the sum depends on the shapes alone.
 *
 * @param workspace kGpuWorkspace bytes of device memory
 * @param sums the result, in host memory
 * @return the CUDA error, 0 where there is none
 */
template <typename T>
int LossGpu(const Elements<T>& elements, double scale, void* workspace,
            LossSums* sums);

/**
 * @brief Gradient on the device, for count < 2^31; does not wait.
 *
 * @param grad device memory for count values, which may be the scores
 * @return the CUDA error of the launch, 0 where there is none
 */
template <typename T>
int GradientGpu(const Elements<T>& elements, double scale, T* grad);

/**
 * @brief Balance on the device, for count < 2^31; does not wait.
 *
 * @param workspace kGpuWorkspace bytes of device memory
 * @param balance device memory for two values per scope
 * @return the CUDA error of the launch, 0 where there is none
 */
template <typename T>
int BalanceGpu(const Elements<T>& elements, void* workspace, double* balance);

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_HPP_
