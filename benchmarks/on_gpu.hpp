#ifndef BENCHMARKS_ON_GPU_HPP_
#define BENCHMARKS_ON_GPU_HPP_

#include <cuda_runtime.h>

#include <string>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/syncedmem.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "loops.hpp"

// What adapter.cpp does otherwise on each device: here on a GPU.

namespace device {

namespace kernel = caffe::weighted_sigmoid_loss;

const caffe::Caffe::Brew kMode = caffe::Caffe::GPU;

template <typename T>
const T* Data(const caffe::Blob<T>& blob) {
  return blob.gpu_data();
}

inline const void* Data(caffe::SyncedMemory* memory) {
  return memory->gpu_data();
}

template <typename T>
T* MutableDiff(caffe::Blob<T>* blob) {
  return blob->mutable_gpu_diff();
}

/// Reads a value and writes it.
template <typename T>
void Baseline(caffe::Blob<T>* scores, const caffe::Blob<T>&) {
  CUDA_CHECK(cudaMemcpyAsync(scores->mutable_gpu_diff(), scores->gpu_data(),
                             scores->count() * sizeof(T),
                             cudaMemcpyDeviceToDevice));
}

template <typename T>
LossLoop<T> LossLoopOf(const std::string&) {
  return NULL;
}

class KernelCalls {
 public:
  KernelCalls() : workspace_(kernel::kGpuWorkspace) {}

  /// In two passes: there are no others.
  template <typename T>
  double Step(const kernel::Elements<T>& elements, bool /* in_one_pass */,
              T* gradient) {
    kernel::LossSums sums;
    Check(kernel::LossGpu(elements, 1, workspace_.mutable_gpu_data(), &sums));
    Check(kernel::GradientGpu(elements, 1, gradient));
    return sums.loss;
  }

 private:
  static void Check(int status) {
    CUDA_CHECK(static_cast<cudaError_t>(status));
  }

  caffe::SyncedMemory workspace_;
};

/// CUDA's events.
class Stopwatch {
 public:
  Stopwatch() {
    CUDA_CHECK(cudaEventCreate(&begin_));
    CUDA_CHECK(cudaEventCreate(&end_));
    CUDA_CHECK(cudaEventRecord(begin_));
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  double Seconds() {
    float milliseconds;
    CUDA_CHECK(cudaEventRecord(end_));
    CUDA_CHECK(cudaEventSynchronize(end_));
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin_, end_));
    return 1e-3 * milliseconds;
  }

 private:
  cudaEvent_t begin_, end_;
};

inline std::string InstructionSets() { return ""; }

inline std::string Compiler() {
  return "CUDA " + std::to_string(CUDART_VERSION / 1000) + "." +
         std::to_string(CUDART_VERSION % 1000 / 10);
}

}  // namespace device

#endif  // BENCHMARKS_ON_GPU_HPP_
