#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"

namespace caffe {

/// Ends the program where the kernel's status is an error.
static void Check(int status) { CUDA_CHECK(static_cast<cudaError_t>(status)); }

/// Ends the program where the kernel cannot take a pointer: it reads and writes
/// 16 bytes at a time.
static void CheckAligned(const void* pointer, const char* what,
                         const string& layer) {
  const std::size_t kBytes = weighted_sigmoid_loss::kGpuAlignment;
  CHECK_EQ(0, reinterpret_cast<std::uintptr_t>(pointer) % kBytes)
      << layer << ": the " << what << " begin at device address " << pointer
      << ", which is not a multiple of " << kBytes
      << "; what Blob::set_gpu_data or SyncedMemory::set_gpu_data is given "
         "must "
      << "be, as what cudaMalloc returns is.";
}

template <typename Dtype>
typename SigmoidCrossEntropyWeightLossLayer<Dtype>::Elements
SigmoidCrossEntropyWeightLossLayer<Dtype>::GpuElements(
    const vector<Blob<Dtype>*>& bottom) const {
  Elements elements = elements_;
  elements.scores = bottom[0]->gpu_data();
  elements.targets = bottom[1]->gpu_data();
  elements.cls_weight = static_cast<const double*>(cls_weight_->gpu_data());
  elements.neg_weight = static_cast<const double*>(neg_weight_->gpu_data());
  elements.balance =
      balance_ ? static_cast<const double*>(balance_->gpu_data()) : NULL;
  elements.weight.data = bottom.size() > 2 ? bottom[2]->gpu_data() : NULL;
  CheckAligned(elements.scores, "scores", Description());
  CheckAligned(elements.targets, "targets", Description());
  CheckAligned(elements.weight.data, "element weights", Description());
  return elements;
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Forward_gpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Elements elements = GpuElements(bottom);
  void* workspace = gpu_workspace_->mutable_gpu_data();
  if (balance_) {
    Check(weighted_sigmoid_loss::BalanceGpu(
        elements, workspace,
        static_cast<double*>(balance_->mutable_gpu_data())));
  }
  double scale = 1;
  LossSums sums;
  Check(weighted_sigmoid_loss::LossGpu(elements, scale, workspace, &sums));
  if (!std::isfinite(sums.loss)) {
    scale = kOverflowScale;
    Check(weighted_sigmoid_loss::LossGpu(elements, scale, workspace, &sums));
  }
  FinishForward(sums, scale, bottom, top);
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Backward_gpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CheckPropagateDown(propagate_down);
  if (propagate_down[0]) {
    Dtype* const grad = bottom[0]->mutable_gpu_diff();
    CheckAligned(grad, "scores' gradients", Description());
    Check(weighted_sigmoid_loss::GradientGpu(
        GpuElements(bottom), top[0]->cpu_diff()[0] / normalizer_, grad));
  }
}

INSTANTIATE_LAYER_GPU_FUNCS(SigmoidCrossEntropyWeightLossLayer);

}  // namespace caffe
