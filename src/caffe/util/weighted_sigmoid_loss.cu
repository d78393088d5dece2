#include <cuda_runtime.h>

#include <algorithm>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const unsigned kThreads = 256;
const unsigned kWarp = 32;
const unsigned kMaxBlocks = 1024;

/// What a scope's targets add up to.
struct TargetSums {
  double positives;
  double negatives;
};

static_assert(kMaxBlocks * sizeof(LossSums) <= kGpuWorkspace &&
                  kMaxBlocks * sizeof(TargetSums) <= kGpuWorkspace,
              "the workspace holds the sums of a block each");

__device__ void Add(const LossSums& from, LossSums* to) {
  to->loss += from.loss;
  to->valid += from.valid;
  to->bad_targets += from.bad_targets;
  to->bad_weights += from.bad_weights;
}

__device__ void Add(const TargetSums& from, TargetSums* to) {
  to->positives += from.positives;
  to->negatives += from.negatives;
}

template <typename T>
__device__ T ShuffleDown(T value, unsigned lanes) {
  return __shfl_down_sync(0xffffffffu, value, lanes);
}

__device__ std::uint64_t ShuffleDown(std::uint64_t value, unsigned lanes) {
  typedef unsigned long long Word;  // NOLINT(runtime/int): as CUDA names it
  return ShuffleDown(static_cast<Word>(value), lanes);
}

__device__ LossSums ShuffleDown(const LossSums& sums, unsigned lanes) {
  LossSums other;
  other.loss = ShuffleDown(sums.loss, lanes);
  other.valid = ShuffleDown(sums.valid, lanes);
  other.bad_targets = ShuffleDown(sums.bad_targets, lanes);
  other.bad_weights = ShuffleDown(sums.bad_weights, lanes);
  return other;
}

__device__ TargetSums ShuffleDown(const TargetSums& sums, unsigned lanes) {
  TargetSums other;
  other.positives = ShuffleDown(sums.positives, lanes);
  other.negatives = ShuffleDown(sums.negatives, lanes);
  return other;
}

/// The block's sums, in thread 0; always added in the same order.
template <typename Sums>
__device__ Sums ReduceBlock(Sums sums) {
  __shared__ Sums warps[kThreads / kWarp];
  for (unsigned lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    Add(ShuffleDown(sums, lanes), &sums);
  }
  if (threadIdx.x % kWarp == 0) {
    warps[threadIdx.x / kWarp] = sums;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned warp = 1; warp < kThreads / kWarp; ++warp) {
      Add(warps[warp], &sums);
    }
  }
  return sums;
}

// Indices fit in 31 bits, where division is cheaper than in 64.

__device__ unsigned Index(const Axis& axis, unsigned i) {
  return axis.size == 1 ? 0
                        : i / static_cast<unsigned>(axis.inner) %
                              static_cast<unsigned>(axis.size);
}

template <typename T>
__device__ unsigned Offset(const ElementWeights<T>& weight, unsigned i) {
  unsigned offset = 0;
  for (int k = weight.axes - 1; k >= 0; --k) {
    const unsigned size = static_cast<unsigned>(weight.size[k]);
    offset += i % size * static_cast<unsigned>(weight.stride[k]);
    i /= size;
  }
  return offset;
}

template <typename T>
__device__ bool IsIgnored(const Elements<T>& elements, T target) {
  return elements.has_ignore_label && target == elements.ignore_label;
}

/// a and b of element i; whether its element weight is finite and not negative.
template <typename T>
__device__ bool Constants(const Elements<T>& elements, double scale, unsigned i,
                          double* a, double* b) {
  const unsigned c = Index(elements.channel, i);
  *a = scale * elements.cls_weight[c];
  *b = scale * elements.neg_weight[c];
  if (elements.balance) {
    const unsigned s = Index(elements.scope, i);
    *a *= elements.balance[2 * s];
    *b *= elements.balance[2 * s + 1];
  }
  if (!elements.weight.data) {
    return true;
  }
  const double e = elements.weight.data[Offset(elements.weight, i)];
  *a *= e;
  *b *= e;
  return isfinite(e) && e >= 0;
}

template <typename T>
__global__ void LossKernel(const Elements<T> elements, double scale,
                           LossSums* block_sums) {
  LossSums sums = {0, 0, 0, 0};
  const unsigned count = static_cast<unsigned>(elements.count);
  for (unsigned i = blockIdx.x * kThreads + threadIdx.x; i < count;
       i += gridDim.x * kThreads) {
    const T t = elements.targets[i];
    if (IsIgnored(elements, t)) {
      continue;
    }
    double a, b;
    sums.bad_weights += !Constants(elements, scale, i, &a, &b);
    sums.loss += LossElement(elements.scores[i], t, a, b);
    ++sums.valid;
    sums.bad_targets += !(t >= T(0) && t <= T(1));
  }
  sums = ReduceBlock(sums);
  if (threadIdx.x == 0) {
    block_sums[blockIdx.x] = sums;
  }
}

/// One block: sums the sums of `blocks` blocks into the first of them.
__global__ void FinishLossKernel(unsigned blocks, LossSums* block_sums) {
  LossSums sums = {0, 0, 0, 0};
  for (unsigned i = threadIdx.x; i < blocks; i += kThreads) {
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
  const unsigned count = static_cast<unsigned>(elements.count);
  for (unsigned i = blockIdx.x * kThreads + threadIdx.x; i < count;
       i += gridDim.x * kThreads) {
    const T t = elements.targets[i];
    double a, b;
    Constants(elements, scale, i, &a, &b);
    grad[i] = IsIgnored(elements, t)
                  ? T(0)
                  : GradientElement(elements.scores[i], t, Saturate<T>(a),
                                    Saturate<T>(b));
  }
}

/// Block (x, y) sums part x of scope y, y + gridDim.y, ...
template <typename T>
__global__ void TargetSumsKernel(const Elements<T> elements,
                                 TargetSums* block_sums) {
  const unsigned size = static_cast<unsigned>(elements.scope.size);
  const unsigned inner = static_cast<unsigned>(elements.scope.inner);
  const unsigned count = static_cast<unsigned>(elements.count) / size;
  for (unsigned s = blockIdx.y; s < size; s += gridDim.y) {
    TargetSums sums = {0, 0};
    for (unsigned k = blockIdx.x * kThreads + threadIdx.x; k < count;
         k += gridDim.x * kThreads) {
      const T t = elements.targets[(k / inner * size + s) * inner + k % inner];
      if (!IsIgnored(elements, t)) {
        sums.positives += t;
        sums.negatives += 1. - t;
      }
    }
    sums = ReduceBlock(sums);
    if (threadIdx.x == 0) {
      block_sums[s * gridDim.x + blockIdx.x] = sums;
    }
    __syncthreads();  // before ReduceBlock's memory is written again
  }
}

/// A thread a scope: from the sums of its parts to its factors.
__global__ void FinishBalanceKernel(unsigned scopes, unsigned parts,
                                    const TargetSums* block_sums,
                                    double* balance) {
  for (unsigned s = blockIdx.x * kThreads + threadIdx.x; s < scopes;
       s += gridDim.x * kThreads) {
    TargetSums sums = {0, 0};
    for (unsigned part = 0; part < parts; ++part) {
      Add(block_sums[s * parts + part], &sums);
    }
    BalanceFactors(sums.positives, sums.negatives, balance + 2 * s);
  }
}

/// Blocks for count threads: by the count alone, not by the device, so that
/// sums are the same on every one.
unsigned Blocks(std::size_t count) {
  const std::size_t blocks = (count + kThreads - 1) / kThreads;
  return static_cast<unsigned>(
      std::min(blocks, static_cast<std::size_t>(kMaxBlocks)));
}

}  // namespace

template <typename T>
int LossGpu(const Elements<T>& elements, double scale, void* workspace,
            LossSums* sums) {
  *sums = LossSums();
  if (elements.count == 0) {
    return cudaSuccess;
  }
  const unsigned blocks = Blocks(elements.count);
  LossSums* block_sums = static_cast<LossSums*>(workspace);
  // NOLINT_NEXT_LINE(whitespace/operators)
  LossKernel<T><<<blocks, kThreads>>>(elements, scale, block_sums);
  // NOLINT_NEXT_LINE(whitespace/operators)
  FinishLossKernel<<<1, kThreads>>>(blocks, block_sums);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    return error;
  }
  return cudaMemcpy(sums, block_sums, sizeof(*sums), cudaMemcpyDeviceToHost);
}

template <typename T>
int GradientGpu(const Elements<T>& elements, double scale, T* grad) {
  if (elements.count == 0) {
    return cudaSuccess;
  }
  const unsigned blocks = Blocks(elements.count);
  // NOLINT_NEXT_LINE(whitespace/operators)
  GradientKernel<T><<<blocks, kThreads>>>(elements, scale, grad);
  return cudaGetLastError();
}

template <typename T>
int BalanceGpu(const Elements<T>& elements, void* workspace, double* balance) {
  const unsigned scopes = static_cast<unsigned>(elements.scope.size);
  // The sums of many scopes are in place of the factors that they become.
  const unsigned parts =
      scopes < kMaxBlocks
          ? std::min(kMaxBlocks / scopes,
                     std::max(1u, Blocks(elements.count / scopes)))
          : 1;
  TargetSums* block_sums = scopes < kMaxBlocks
                               ? static_cast<TargetSums*>(workspace)
                               : reinterpret_cast<TargetSums*>(balance);
  const dim3 grid(parts, std::min(scopes, kMaxBlocks));
  // NOLINT_NEXT_LINE(whitespace/operators)
  TargetSumsKernel<T><<<grid, kThreads>>>(elements, block_sums);
  // NOLINT_NEXT_LINE(whitespace/operators)
  FinishBalanceKernel<<<Blocks(scopes), kThreads>>>(scopes, parts, block_sums,
                                                    balance);
  return cudaGetLastError();
}

#define INSTANTIATE(T)                                                     \
  template int LossGpu<T>(const Elements<T>& elements, double scale,       \
                          void* workspace, LossSums* sums);                \
  template int GradientGpu<T>(const Elements<T>& elements, double scale,   \
                              T* grad);                                    \
  template int BalanceGpu<T>(const Elements<T>& elements, void* workspace, \
                             double* balance)

INSTANTIATE(float);   // NOLINT(readability/function)
INSTANTIATE(double);  // NOLINT(readability/function)

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
