#ifndef CAFFE_SIGMOID_CROSS_ENTROPY_WEIGHT_LOSS_LAYER_HPP_
#define CAFFE_SIGMOID_CROSS_ENTROPY_WEIGHT_LOSS_LAYER_HPP_

#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layers/loss_layer.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/syncedmem.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"

namespace caffe {

/**
 * @brief Computes the class-weighted sigmoid cross-entropy loss, for networks
 *        that learn rare positives: @f$
 *          E = \frac{-1}{Z} \sum\limits_{i} \left[
 *                  a_i t_i \log \hat{p}_i +
 *                  b_i (1 - t_i) \log(1 - \hat{p}_i)
 *              \right]
 *        @f$ with @f$ \hat{p}_i = \sigma(x_i) @f$. Without weights it is
 *        SigmoidCrossEntropyLossLayer.
 *
 * @f$ a_i @f$ is the product of cls_weight for the element's channel, its
 * element weight, and the share of negatives in its class_balance scope;
 * @f$ b_i @f$ that of neg_weight, the element weight, and the share of
 * positives. What is not given is 1.
 *
 * The loss is computed from scores in a form that has no cancellation and no
 * overflow; weighted_sigmoid_loss.hpp states the largest errors. The layer
 * keeps no memory that grows with its input except two numbers per scope, and
 * Forward writes no diff.
 *
 * @param bottom input Blob vector (length 2-3)
 *   -# @f$ (N \times C \times ...) @f$
 *      the scores @f$ x \in (-\infty, +\infty) @f$. At an infinite score the
 *      gradient is its limit; the loss is infinite, or NaN where the term that
 *      grows has weight 0 (a hard target). NaN gives NaN.
 *   -# @f$ (N \times C \times ...) @f$
 *      the targets @f$ t \in [0, 1] @f$ in the same order; soft targets are
 *      allowed. Others are used as they are, with at most two warnings. Axes
 *      may be merged or split, and axes of 1 left out; a permutation is fatal,
 *      and another shape of as many elements gets a warning.
 *   -# @f$ (N \times C \times ...) @f$ (optional)
 *      element weights @f$ e \geq 0 @f$, finite; others are used as they are,
 *      with at most two warnings. Each axis is as long as that of the scores or
 *      1, missing trailing axes count as 1, and further trailing axes of 1 are
 *      dropped: @f$ (N) @f$ weighs instances,
 *      @f$ (N \times 1 \times H \times W) @f$ pixels.
 * @param top output Blob vector (length 1)
 *   -# @f$ () @f$
 *      the loss @f$ E @f$
 *
 * At test time, this layer can be replaced simply by a SigmoidLayer.
 *
 * Parameters, in sigmoid_cross_entropy_weight_loss_param:
 *   - cls_weight: the weight of the positive class; none (1), one for every
 *     channel, or one per channel along axis. Finite, not negative.
 *   - neg_weight: likewise of the negative class.
 *   - axis (default 1): the channel axis; may be negative.
 *   - class_balance (default NONE): BATCH, INSTANCE, CHANNEL or
 *     INSTANCE_CHANNEL, the elements whose positives and negatives are balanced.
 *     Soft targets count in parts.
 *   - stop_on_nan (default false): a fatal error when the loss is not finite.
 *   - ignore_soft_targets (default false): elements whose target is from 2^-20
 *     to 1 - 2^-20 are ignored as those of ignore_label are.
 *
 * In loss_param:
 *   - ignore_label: elements whose target equals it exactly have zero loss and
 *     gradient and count in no balance.
 *   - normalization (default BATCH_SIZE): @f$ Z @f$, at least 1; FULL: the
 *     number of elements, VALID: of those not ignored, BATCH_SIZE: @f$ N @f$,
 *     NONE: 1. normalize is honoured as in SigmoidCrossEntropyLossLayer.
 */
template <typename Dtype>
class SigmoidCrossEntropyWeightLossLayer : public LossLayer<Dtype> {
 public:
  explicit SigmoidCrossEntropyWeightLossLayer(const LayerParameter& param)
      : LossLayer<Dtype>(param) {}
  virtual void LayerSetUp(const vector<Blob<Dtype>*>& bottom,
                          const vector<Blob<Dtype>*>& top);
  virtual void Reshape(const vector<Blob<Dtype>*>& bottom,
                       const vector<Blob<Dtype>*>& top);

  virtual inline const char* type() const {
    return "SigmoidCrossEntropyWeightLoss";
  }
  virtual inline int ExactNumBottomBlobs() const { return -1; }
  virtual inline int MinBottomBlobs() const { return 2; }
  virtual inline int MaxBottomBlobs() const { return 3; }
  /// Only the scores have a gradient.
  virtual inline bool AllowForceBackward(const int bottom_index) const {
    return bottom_index == 0;
  }

 protected:
  /// @copydoc SigmoidCrossEntropyWeightLossLayer
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);

  /**
   * @brief Computes the gradient w.r.t. the scores: @f$
   *          \frac{\partial E}{\partial x_i} = \frac{1}{Z} \left[
   *              b_i (1 - t_i) \sigma(x_i) - a_i t_i \sigma(-x_i)
   *          \right]
   *        @f$ times the top's diff.
   *
   * @param top output Blob vector (length 1), whose diff is the loss weight
   * @param propagate_down see Layer::Backward; must be false but for the scores,
   *        as the other bottoms have no gradient.
   * @param bottom input Blob vector (length 2-3), see Forward
   */
  virtual void Backward_cpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);
  virtual void Backward_gpu(const vector<Blob<Dtype>*>& top,
                            const vector<bool>& propagate_down,
                            const vector<Blob<Dtype>*>& bottom);

 private:
  typedef weighted_sigmoid_loss::Elements<Dtype> Elements;
  typedef weighted_sigmoid_loss::LossSums LossSums;

  /// Of one kind of input: the second is owed for what is 1,000 times as far
  /// out of range as what the first was for.
  struct Warnings {
    Warnings() : given(0), first_excess(0) {}
    bool IsOwed(double excess) {
      if (given == 2 || !(excess > 1000 * first_excess)) {
        return false;
      }
      if (++given == 1) {
        first_excess = excess;
      }
      return true;
    }
    int given;
    double first_excess;
  };

  /// How messages name this layer.
  string Description() const;
  const SigmoidCrossEntropyWeightLossParameter& param() const {
    return this->layer_param_.sigmoid_cross_entropy_weight_loss_param();
  }

  void ReadNormalization();
  void LogParameters() const;
  void CheckWeights(
      const char* field,
      const google::protobuf::RepeatedField<float>& weights) const;
  void CheckTargets(const Blob<Dtype>& scores, const Blob<Dtype>& targets);
  void CheckChannels(const Blob<Dtype>& scores) const;
  void CheckChannels(const Blob<Dtype>& scores, const char* field,
                     int values) const;
  void CheckInstanceChannels(const Blob<Dtype>& scores) const;
  void CheckPropagateDown(const vector<bool>& propagate_down) const;
  void ReshapeChannels(const Blob<Dtype>& scores);
  void ReshapeBalance(const Blob<Dtype>& scores);
  void ReshapeElementWeights(const Blob<Dtype>& scores,
                             const Blob<Dtype>& weights);

  double GetNormalizer(const Blob<Dtype>& scores, const LossSums& sums) const;
  /// Sets the top, from the sums of a loss that was multiplied by scale.
  void FinishForward(const LossSums& sums, double scale,
                     const vector<Blob<Dtype>*>& bottom,
                     const vector<Blob<Dtype>*>& top);
  void WarnOfInput(const LossSums& sums, Dtype loss,
                   const vector<Blob<Dtype>*>& bottom);
  void WarnOfBalance(const LossSums& sums);
  /// Ends the program for a loss that is not finite.
  void StopOnNan(Dtype loss, const vector<Blob<Dtype>*>& bottom) const;
  /// elements_ with pointers to the data on one device.
  Elements CpuElements(const vector<Blob<Dtype>*>& bottom) const;
  Elements GpuElements(const vector<Blob<Dtype>*>& bottom) const;

  /// 2^-400, which makes room for products of double weights and the sum of
  /// losses where their mean has it: 2^31 elements and two float weights take
  /// 2^287.
  static constexpr double kOverflowScale = 3.8725919148493183e-121;

  /// Single images often have no positive; this many in a row are a mistake.
  static const int kForwardsBeforeWarning = 100;

  /// The kernel's input, but for the pointers.
  Elements elements_;
  /// The weights as doubles, one per channel of elements_.
  shared_ptr<SyncedMemory> cls_weight_;
  shared_ptr<SyncedMemory> neg_weight_;
  /// The balance's two factors per scope, of the last Forward.
  shared_ptr<SyncedMemory> balance_;
  /// Device memory of a fixed size for the kernels.
  shared_ptr<SyncedMemory> gpu_workspace_;
  LossParameter_NormalizationMode normalization_;
  Warnings target_warnings_;
  Warnings weight_warnings_;
  Warnings balance_warnings_;
  Warnings order_warnings_;
  /// How many Forwards in a row had no scope with positives and negatives.
  int forwards_without_balance_;
  /// What the last Forward divided the loss by.
  double normalizer_;
};

}  // namespace caffe

#endif  // CAFFE_SIGMOID_CROSS_ENTROPY_WEIGHT_LOSS_LAYER_HPP_
