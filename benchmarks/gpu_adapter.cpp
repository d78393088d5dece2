// The contestants in C++ on a GPU, for Python's ctypes: Caffe's layers as Caffe
// calls them, the bare kernel, and the copy. The functions are those of
// adapter.cpp. Links with a libcaffe that has CUDA.

#include <cuda_runtime.h>
#include <google/protobuf/text_format.h>

#include <string>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/syncedmem.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "steps.hpp"

namespace {

namespace kernel = caffe::weighted_sigmoid_loss;

/// What a device does at best: reads a value and writes it.
template <typename T>
class CopyStep : public StepOnBlobs<T> {
 public:
  explicit CopyStep(const std::vector<int>& shape)
      : StepOnBlobs<T>(shape, std::vector<int>()) {}
  void Run() override {
    CUDA_CHECK(cudaMemcpyAsync(
        this->scores_.mutable_gpu_diff(), this->scores_.gpu_data(),
        this->scores_.count() * sizeof(T), cudaMemcpyDeviceToDevice));
  }
  double loss() const override { return 0; }
};

/// The kernel with one weight for all positives, as a program without Caffe
/// calls it.
template <typename T>
class KernelStep : public StepOnBlobs<T> {
 public:
  KernelStep(double cls_weight, bool in_one_pass, const std::vector<int>& shape)
      : StepOnBlobs<T>(shape, std::vector<int>()),
        weights_(2 * sizeof(double)),
        workspace_(kernel::kGpuWorkspace),
        in_one_pass_(in_one_pass),
        loss_(0) {
    double* weights = static_cast<double*>(weights_.mutable_cpu_data());
    weights[0] = cls_weight;
    weights[1] = 1;
  }
  void Run() override {
    kernel::Elements<T> elements = kernel::Elements<T>();
    elements.count = this->scores_.count();
    elements.scores = this->scores_.gpu_data();
    elements.targets = this->targets_.gpu_data();
    elements.cls_weight = static_cast<const double*>(weights_.gpu_data());
    elements.neg_weight = elements.cls_weight + 1;
    T* const gradient = this->scores_.mutable_gpu_diff();
    void* const workspace = workspace_.mutable_gpu_data();
    kernel::LossSums sums;
    if (in_one_pass_) {
      Check(
          kernel::LossAndGradientGpu(elements, 1, workspace, &sums, gradient));
    } else {
      Check(kernel::LossGpu(elements, 1, workspace, &sums));
      Check(kernel::GradientGpu(elements, 1, gradient));
    }
    loss_ = sums.loss;
  }
  double loss() const override { return loss_; }

 private:
  static void Check(int status) {
    CUDA_CHECK(static_cast<cudaError_t>(status));
  }

  caffe::SyncedMemory weights_, workspace_;
  const bool in_one_pass_;
  double loss_;
};

/// What the layer's text describes, computed in the way of that name.
template <typename T>
Step* NewStep(const std::string& way, const std::string& layer,
              const std::vector<int>& shape,
              const std::vector<int>& weight_shape) {
  caffe::LayerParameter param;
  if (!google::protobuf::TextFormat::ParseFromString(layer, &param)) {
    return NULL;
  }
  if (way == "copy") {
    return new CopyStep<T>(shape);
  }
  if (way == "layer") {
    return new LayerStep<T>(param, shape, weight_shape);
  }
  return new KernelStep<T>(
      param.sigmoid_cross_entropy_weight_loss_param().cls_weight(0),
      way == "one pass", shape);
}

/// A time on the device.
class Event {
 public:
  Event() { CUDA_CHECK(cudaEventCreate(&event_)); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void Record() { CUDA_CHECK(cudaEventRecord(event_)); }
  double SecondsSince(const Event& begin) {
    float milliseconds;
    CUDA_CHECK(cudaEventSynchronize(event_));
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin.event_, event_));
    return 1e-3 * milliseconds;
  }

 private:
  cudaEvent_t event_;
};

}  // namespace

extern "C" {
const char* adapter_instruction_sets() { return "cuda cuda"; }

const char* adapter_compiler() {
  static const std::string name = "CUDA " +
                                  std::to_string(CUDART_VERSION / 1000) + "." +
                                  std::to_string(CUDART_VERSION % 1000 / 10);
  return name.c_str();
}

/// NULL where the text is no layer.
void* adapter_new(const char* way, int is_double, const char* layer,
                  const int* shape, int axes, const int* weight_shape,
                  int weight_axes) {
  caffe::Caffe::set_mode(caffe::Caffe::GPU);
  const std::vector<int> sizes(shape, shape + axes);
  const std::vector<int> weight_sizes(weight_shape, weight_shape + weight_axes);
  return is_double ? NewStep<double>(way, layer, sizes, weight_sizes)
                   : NewStep<float>(way, layer, sizes, weight_sizes);
}

void adapter_delete(void* step) { delete static_cast<Step*>(step); }

void* adapter_array(void* step, const char* name) {
  return static_cast<Step*>(step)->array(name);
}

double adapter_loss(void* step) { return static_cast<Step*>(step)->loss(); }

/// Seconds of that many steps in a row, on the device.
double adapter_run(void* step, long calls) {  // NOLINT(runtime/int)
  Event begin, end;
  begin.Record();
  for (long i = 0; i < calls; ++i) {  // NOLINT(runtime/int)
    static_cast<Step*>(step)->Run();
  }
  end.Record();
  return end.SecondsSince(begin);
}
}  // extern "C"
