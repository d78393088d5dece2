#include <cuda_runtime.h>

#include <algorithm>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const int kThreads = 256;
const int kWarp = 32;

__device__ void Add(const LossSums& from, LossSums* to) {
  to->loss += from.loss;
  to->valid += from.valid;
  to->out_of_range += from.out_of_range;
}

__device__ LossSums ShuffleDown(const LossSums& sums, int lanes) {
  const unsigned kAllLanes = 0xffffffffu;
  LossSums other;
  other.loss = __shfl_down_sync(kAllLanes, sums.loss, lanes);
  other.valid = __shfl_down_sync(
      kAllLanes, static_cast<unsigned long long>(sums.valid),  // NOLINT
      lanes);
  other.out_of_range = __shfl_down_sync(
      kAllLanes, static_cast<unsigned long long>(sums.out_of_range),  // NOLINT
      lanes);
  return other;
}

/// The block's sums, in thread 0. Always in the same order.
__device__ LossSums ReduceBlock(LossSums sums) {
  __shared__ LossSums warps[kThreads / kWarp];
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    Add(ShuffleDown(sums, lanes), &sums);
  }
  if (threadIdx.x % kWarp == 0) {
    warps[threadIdx.x / kWarp] = sums;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int warp = 1; warp < kThreads / kWarp; ++warp) {
      Add(warps[warp], &sums);
    }
  }
  return sums;
}

template <typename T>
__device__ bool IsIgnored(const Elements<T>& elements, T target) {
  return elements.has_ignore_label && target == elements.ignore_label;
}

/// The weight of element i < 2^31; 32-bit division is the cheaper one.
template <typename T>
__device__ double ClsWeight(const Elements<T>& elements, unsigned i) {
  const unsigned channels = static_cast<unsigned>(elements.channels);
  const unsigned inner = static_cast<unsigned>(elements.inner);
  return elements.cls_weight[channels == 1 ? 0 : i / inner % channels];
}

template <typename T>
__global__ void LossKernel(const Elements<T> elements, double scale,
                           LossSums* block_sums) {
  LossSums sums = {0, 0, 0};
  const unsigned count = static_cast<unsigned>(elements.count);
  const unsigned stride = gridDim.x * kThreads;
  for (unsigned i = blockIdx.x * kThreads + threadIdx.x; i < count;
       i += stride) {
    const T t = elements.targets[i];
    if (IsIgnored(elements, t)) {
      continue;
    }
    sums.loss += LossElement(elements.scores[i], t,
                             scale * ClsWeight(elements, i), scale);
    ++sums.valid;
    sums.out_of_range += !(t >= T(0) && t <= T(1));
  }
  sums = ReduceBlock(sums);
  if (threadIdx.x == 0) {
    block_sums[blockIdx.x] = sums;
  }
}

/// One block: sums `blocks` sums into the first of them.
__global__ void FinishKernel(int blocks, LossSums* block_sums) {
  LossSums sums = {0, 0, 0};
  for (int i = threadIdx.x; i < blocks; i += kThreads) {
    Add(block_sums[i], &sums);
  }
  sums = ReduceBlock(sums);
  if (threadIdx.x == 0) {
    block_sums[0] = sums;
  }
}

template <typename T>
__global__ void GradientKernel(const Elements<T> elements, double scale,
                               T* grad) {
  const T b = Saturate<T>(scale);
  const unsigned count = static_cast<unsigned>(elements.count);
  const unsigned stride = gridDim.x * kThreads;
  for (unsigned i = blockIdx.x * kThreads + threadIdx.x; i < count;
       i += stride) {
    const T t = elements.targets[i];
    const T a = Saturate<T>(scale * ClsWeight(elements, i));
    grad[i] = IsIgnored(elements, t)
                  ? T(0)
                  : GradientElement(elements.scores[i], t, a, b);
  }
}

/// Blocks of a grid for count elements: by the count alone, not by the device,
/// so that sums are the same on every one.
int Blocks(std::size_t count) {
  const std::size_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<int>(std::min(blocks, kLossGpuWorkspace));
}

}  // namespace

template <typename T>
int LossGpu(const Elements<T>& elements, double scale, LossSums* workspace,
            LossSums* sums) {
  *sums = LossSums();
  if (elements.count == 0) {
    return cudaSuccess;
  }
  const int blocks = Blocks(elements.count);
  LossKernel<T><<<blocks, kThreads>>>(elements, scale, workspace);
  FinishKernel<<<1, kThreads>>>(blocks, workspace);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    return error;
  }
  return cudaMemcpy(sums, workspace, sizeof(*sums), cudaMemcpyDeviceToHost);
}

template <typename T>
int GradientGpu(const Elements<T>& elements, double scale, T* grad) {
  if (elements.count == 0) {
    return cudaSuccess;
  }
  GradientKernel<T>
      <<<Blocks(elements.count), kThreads>>>(elements, scale, grad);
  return cudaGetLastError();
}

template int LossGpu<float>(const Elements<float>&, double, LossSums*,
                            LossSums*);
template int LossGpu<double>(const Elements<double>&, double, LossSums*,
                             LossSums*);
template int GradientGpu<float>(const Elements<float>&, double, float*);
template int GradientGpu<double>(const Elements<double>&, double, double*);

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
