#ifndef CAFFE_SIGMOID_CROSS_ENTROPY_WEIGHT_LOSS_ADVICE_HPP_
#define CAFFE_SIGMOID_CROSS_ENTROPY_WEIGHT_LOSS_ADVICE_HPP_

#include <functional>
#include <string>
#include <vector>

#include "caffe/blob.hpp"

/**
 * @file
 * What SigmoidCrossEntropyWeightLossLayer says of bottoms that are not as they
 * should be, and what to change. Computes nothing of the loss.
 */

namespace caffe {

namespace weight_loss_advice {

/// How targets lie that are as many as the scores, not none.
enum Order {
  kSameOrder,    ///< but for axes of 1, one shape merges axes of the other
  kPermutation,  ///< the same axes in another order
  kUnknownOrder
};

Order CompareOrder(const vector<int>& scores, const vector<int>& targets);

/// What to change where there are not as many targets as scores; axis is the
/// channels'.
string CountAdvice(const vector<int>& scores, const vector<int>& targets,
                   int axis);

/// What to change about targets outside [0, 1], by all that count.
template <typename Dtype>
string TargetsAdvice(const Blob<Dtype>& targets,
                     const std::function<bool(Dtype)>& counts);

/// "k of n WHAT, the first is x": the values of a blob that are bad; "" where
/// none is.
template <typename Dtype>
string BadValues(const Blob<Dtype>& blob, const char* what,
                 const std::function<bool(Dtype)>& is_bad);

/// The largest magnitude of a blob.
template <typename Dtype>
Dtype LargestMagnitude(const Blob<Dtype>& blob);

}  // namespace weight_loss_advice

}  // namespace caffe

#endif  // CAFFE_SIGMOID_CROSS_ENTROPY_WEIGHT_LOSS_ADVICE_HPP_
