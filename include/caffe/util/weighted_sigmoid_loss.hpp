#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_HPP_

#include <cstddef>
#include <cstdint>

/**
 * @file
 * The kernel of the class-weighted sigmoid cross-entropy loss: plain pointers
 * and sizes, on the CPU and, by the functions that end in Gpu, on the current
 * CUDA device. T is float or double.
 *
 * For score x and target t in channel c, with a = scale cls_weight[c] and
 * b = scale,
 *
 *   loss = a t softplus(-x) + b (1 - t) softplus(x)
 *   gradient = b (1 - t) sigmoid(x) - a t sigmoid(-x)
 *
 * An element whose target equals the ignore label has zero loss and gradient.
 * weighted_sigmoid_loss_math.hpp has the formulas of an element and their error
 * bounds. Nothing is allocated and nothing is written but the results.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/**
 * @brief The input of one call. Element i of `count` has channel
 *        (i / inner) % channels; count is a multiple of channels * inner.
 *
 * The pointers are device pointers for the functions that end in Gpu.
 */
template <typename T>
struct Elements {
  std::size_t count;
  std::size_t channels;
  std::size_t inner;
  const T* scores;           ///< count values
  const T* targets;          ///< count values
  const double* cls_weight;  ///< channels values, finite and not negative
  bool has_ignore_label;
  T ignore_label;
};

/// What a forward pass sums over the elements.
struct LossSums {
  double loss;
  std::uint64_t valid;         ///< elements that are not ignored
  std::uint64_t out_of_range;  ///< those of them with a target outside [0, 1]
};

/**
 * @brief The loss, summed in double in an order that depends on the count alone.
 *
 * Within 4 ulp of T (2^-23 relative in float, 2^-52 in double) for targets in
 * [0, 1] and finite scores, besides 2^-126 (double: 2^-1022) times the larger
 * of a and b an element.
 */
template <typename T>
LossSums Loss(const Elements<T>& elements, double scale);

/**
 * @brief Writes the count gradients to grad, which may be the scores.
 *
 * a and b are rounded to T once a channel; one beyond T's largest is taken as
 * that. Each gradient is within 4 ulp of the larger of its two terms for targets
 * in [0, 1] and finite scores, besides 2^-126 (double: 2^-1022) times the larger
 * of a and b, at least 2^-126 (2^-1022) itself.
 */
template <typename T>
void Gradient(const Elements<T>& elements, double scale, T* grad);

/// How many LossSums of device memory LossGpu works in, whatever the count.
const std::size_t kLossGpuWorkspace = 1024;

/**
 * @brief Loss on the device, for count < 2^31; waits for the result.
 *
 * @param workspace device memory for kLossGpuWorkspace LossSums
 * @param sums the result, in host memory
 * @return the CUDA error, 0 where there is none
 */
template <typename T>
int LossGpu(const Elements<T>& elements, double scale, LossSums* workspace,
            LossSums* sums);

/**
 * @brief Gradient on the device, for count < 2^31; does not wait.
 *
 * @param grad device memory for count values
 * @return the CUDA error of the launch, 0 where there is none
 */
template <typename T>
int GradientGpu(const Elements<T>& elements, double scale, T* grad);

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_HPP_
