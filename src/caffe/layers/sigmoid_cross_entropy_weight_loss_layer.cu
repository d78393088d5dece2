#include <cmath>
#include <vector>

#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"

namespace caffe {

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Elements elements =
      MakeElements(*bottom[0], bottom[0]->gpu_data(), bottom[1]->gpu_data(),
                   cls_weight_->gpu_data());
  LossSums* workspace =
      static_cast<LossSums*>(gpu_workspace_->mutable_gpu_data());
  double scale = 1;
  LossSums sums;
  CUDA_CHECK(static_cast<cudaError_t>(
      weighted_sigmoid_loss::LossGpu(elements, scale, workspace, &sums)));
  if (std::isinf(sums.loss)) {
    scale = kOverflowScale;
    CUDA_CHECK(static_cast<cudaError_t>(
        weighted_sigmoid_loss::LossGpu(elements, scale, workspace, &sums)));
  }
  FinishForward(sums, scale, bottom, top);
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CheckPropagateDown(propagate_down);
  if (propagate_down[0]) {
    const Elements elements =
        MakeElements(*bottom[0], bottom[0]->gpu_data(), bottom[1]->gpu_data(),
                     cls_weight_->gpu_data());
    CUDA_CHECK(static_cast<cudaError_t>(weighted_sigmoid_loss::GradientGpu(
        elements, top[0]->cpu_diff()[0] / normalizer_,
        bottom[0]->mutable_gpu_diff())));
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(SigmoidCrossEntropyWeightLossLayer);

}  // namespace caffe
