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
 * @brief Computes the sigmoid cross-entropy loss with a weight on the positive
 *        class, for networks that learn rare positives: @f$
 *          E = \frac{-1}{Z} \sum\limits_{i} \left[
 *                  w_{c(i)} t_i \log \hat{p}_i +
 *                  (1 - t_i) \log(1 - \hat{p}_i)
 *              \right]
 *        @f$ with @f$ \hat{p}_i = \sigma(x_i) @f$. Without weights it is
 *        SigmoidCrossEntropyLossLayer.
 *
 * The loss is computed from scores in a form that has no cancellation and no
 * overflow; weighted_sigmoid_loss.hpp states the largest errors. The layer
 * keeps no memory that grows with its input, and Forward writes no diff.
 *
 * @param bottom input Blob vector (length 2)
 *   -# @f$ (N \times C \times ...) @f$
 *      the scores @f$ x \in (-\infty, +\infty) @f$. At an infinite score the
 *      gradient is its limit; the loss is infinite, or NaN where the term that
 *      grows has weight 0 (a hard target). NaN gives NaN.
 *   -# @f$ (N \times C \times ...) @f$
 *      as many targets @f$ t \in [0, 1] @f$; soft targets are allowed. Others
 *      are used as they are, with one warning a layer.
 * @param top output Blob vector (length 1)
 *   -# @f$ () @f$
 *      the loss @f$ E @f$
 *
 * At test time, this layer can be replaced simply by a SigmoidLayer.
 *
 * Parameters, in sigmoid_cross_entropy_weight_loss_param:
 *   - cls_weight: @f$ w @f$; none (1), one for every channel, or one a channel
 *     along axis. Finite, not negative.
 *   - axis (default 1): the channel axis; may be negative.
 *   - stop_on_nan (default false): a fatal error when the loss is not finite.
 *
 * In loss_param:
 *   - ignore_label: elements whose target equals it exactly have zero loss and
 *     gradient.
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

 protected:
  /// @copydoc SigmoidCrossEntropyWeightLossLayer
  virtual void Forward_cpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);
  virtual void Forward_gpu(const vector<Blob<Dtype>*>& bottom,
                           const vector<Blob<Dtype>*>& top);

  /**
   * @brief Computes the gradient w.r.t. the scores: @f$
   *          \frac{\partial E}{\partial x_i} = \frac{1}{Z} \left[
   *              (1 - t_i) \sigma(x_i) - w_{c(i)} t_i \sigma(-x_i)
   *          \right]
   *        @f$ times the top's diff.
   *
   * @param top output Blob vector (length 1), whose diff is the loss weight
   * @param propagate_down see Layer::Backward; propagate_down[1] must be false,
   *        as there is no gradient w.r.t. the targets.
   * @param bottom input Blob vector (length 2), see Forward
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

  /// How messages name this layer.
  string Description() const;
  void ReadWeights();
  void ReadNormalization();
  void CheckShapes(const Blob<Dtype>& scores, const Blob<Dtype>& targets) const;
  void CheckPropagateDown(const vector<bool>& propagate_down) const;
  /// The kernel's view of the bottoms; the pointers are of one device.
  Elements MakeElements(const Blob<Dtype>& scores, const Dtype* scores_data,
                        const Dtype* targets_data,
                        const void* cls_weight) const;
  double GetNormalizer(const Blob<Dtype>& scores, const LossSums& sums) const;
  /// Sets the top, from the sums of a loss that was multiplied by scale.
  void FinishForward(const LossSums& sums, double scale,
                     const vector<Blob<Dtype>*>& bottom,
                     const vector<Blob<Dtype>*>& top);
  void WarnOfTargets(const Blob<Dtype>& targets, uint64_t out_of_range);
  /// Ends the program for a loss that is not finite.
  void StopOnNan(Dtype loss, const Blob<Dtype>& scores) const;

  /// Makes room for the sum of double losses where their mean has it.
  static const double kOverflowScale;

  /// The weights as doubles: one for every channel, or one a channel.
  shared_ptr<SyncedMemory> cls_weight_;
  /// Device memory of a fixed size for the forward kernel.
  shared_ptr<SyncedMemory> gpu_workspace_;
  bool has_ignore_label_;
  Dtype ignore_label_;
  LossParameter_NormalizationMode normalization_;
  bool warned_of_targets_;
  /// What the last Forward divided the loss by.
  double normalizer_;
};

}  // namespace caffe

#endif  // CAFFE_SIGMOID_CROSS_ENTROPY_WEIGHT_LOSS_LAYER_HPP_
