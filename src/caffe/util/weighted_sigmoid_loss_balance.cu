#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_input.cuh"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"
#include "caffe/util/weighted_sigmoid_loss_threads.cuh"

// class_balance on the device.

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

/// What a scope's targets add up to.
struct TargetSums {
  double positives;
  double negatives;
};

const unsigned kMaxTargetSums = kGpuWorkspace / sizeof(TargetSums);
const unsigned kMaxParts = 1024;  // of a scope

__device__ void Add(const TargetSums& from, TargetSums* to) {
  to->positives += from.positives;
  to->negatives += from.negatives;
}

__device__ TargetSums ShuffleDown(const TargetSums& sums, unsigned lanes) {
  TargetSums other;
  other.positives = ShuffleDown(sums.positives, lanes);
  other.negatives = ShuffleDown(sums.negatives, lanes);
  return other;
}

template <typename T, int kWidth>
__device__ __forceinline__ void AddTargets(const Input<T>& input,
                                           const Vector<T, kWidth>& t,
                                           TargetSums* sums) {
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    if (!IsIgnored(input, t.value[l])) {
      sums->positives += ToDouble(t.value[l]);
      sums->negatives += 1. - ToDouble(t.value[l]);
    }
  }
}

/// Adds this thread's part, one of threads, of count neighbouring targets.
template <typename T>
__device__ void AddSegment(const Input<T>& input, const T* targets,
                           unsigned count, unsigned thread, unsigned threads,
                           TargetSums* sums) {
  const unsigned kWidth = kVectorBytes / sizeof(T);
  const unsigned misaligned =
      reinterpret_cast<std::uintptr_t>(targets) / sizeof(T) % kWidth;
  const unsigned head = min(misaligned ? kWidth - misaligned : 0, count);
  const unsigned vectors = (count - head) / kWidth;
#pragma unroll 4
  for (unsigned v = thread; v < vectors; v += threads) {
    AddTargets(input, Read<T, kWidth>(targets + head + v * kWidth), sums);
  }
  const unsigned rest = count - vectors * kWidth;
  if (thread < rest) {
    const unsigned i = thread < head ? thread : count - rest + thread;
    AddTargets(input, Read<T, 1>(targets + i), sums);
  }
}

/// Where the first target of a scope is.
template <typename T>
__device__ __forceinline__ const T* ScopeTargets(const Input<T>& input,
                                                 unsigned s) {
  const DeviceAxis& scope = input.scope;
  const unsigned group = scope.IsGrouped() ? scope.cycle.Quotient(s) : 0;
  return input.targets + group * scope.group.divisor +
         (s - group * scope.cycle.divisor) * scope.inner.divisor;
}

/// Block (x, y) sums part y of scope x.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    TargetSumsKernel(const Input<T> input, TargetSums* block_sums) {
  const unsigned cycle = input.scope.cycle.divisor;
  const unsigned inner = input.scope.inner.divisor;
  const unsigned count = input.count / input.scope.size;
  const unsigned s = blockIdx.x;
  const T* const targets = ScopeTargets(input, s);
  const unsigned thread = blockIdx.y * kThreads + threadIdx.x;
  const unsigned threads = gridDim.y * kThreads;
  TargetSums sums = {0, 0};
  if (count == inner) {
    AddSegment(input, targets, inner, thread, threads, &sums);
  } else {
#pragma unroll 4
    for (unsigned k = thread; k < count; k += threads) {
      const unsigned row = input.scope.inner.Quotient(k);
      const unsigned i = row * cycle * inner + (k - row * inner);
      AddTargets(input, Read<T, 1>(targets + i), &sums);
    }
  }
  ReduceBlock<kThreads>(&sums);
  if (threadIdx.x == 0) {
    block_sums[s * gridDim.y + blockIdx.y] = sums;
  }
}

/// For scopes along the last axis, so that neighbours are of different ones:
/// block (x, y) sums part y of `columns` scopes, in rows of as many threads.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ColumnSumsKernel(const Input<T> input, unsigned columns,
                     TargetSums* block_sums) {
  __shared__ TargetSums threads[kThreads];
  const unsigned size = input.scope.size;
  const unsigned cycle = input.scope.cycle.divisor;
  const unsigned height = input.count / size;
  const unsigned rows = kThreads / columns;
  const unsigned row = threadIdx.x / columns;
  const unsigned s = blockIdx.x * columns + threadIdx.x % columns;
  TargetSums sums = {0, 0};
  if (row < rows && s < size) {
    const T* const targets = ScopeTargets(input, s);
#pragma unroll 4
    for (unsigned n = blockIdx.y * rows + row; n < height;
         n += gridDim.y * rows) {
      AddTargets(input, Read<T, 1>(targets + n * cycle), &sums);
    }
  }
  threads[threadIdx.x] = sums;
  __syncthreads();
  if (row == 0 && s < size) {
    for (unsigned k = 1; k < rows; ++k) {
      Add(threads[k * columns + threadIdx.x], &sums);
    }
    block_sums[s * gridDim.y + blockIdx.y] = sums;
  }
}

/// A warp a scope: from the sums of its parts to its factors.
__global__ void __launch_bounds__(kThreads)
    FinishBalanceKernel(unsigned scopes, unsigned parts,
                        const TargetSums* block_sums, double* balance) {
  const unsigned s = blockIdx.x * (kThreads / kWarp) + threadIdx.x / kWarp;
  const unsigned lane = threadIdx.x % kWarp;
  TargetSums sums = {0, 0};
  if (s < scopes) {
#pragma unroll 4
    for (unsigned part = lane; part < parts; part += kWarp) {
      Add(block_sums[s * parts + part], &sums);
    }
  }
  ReduceWarp(kWarp, &sums);
  if (s < scopes && lane == 0) {
    BalanceFactors(sums.positives, sums.negatives, balance + 2 * s);
  }
}

}  // namespace

template <typename T>
int BalanceGpu(const Elements<T>& elements, void* workspace, double* balance) {
  if (elements.count == 0) {
    return cudaMemsetAsync(balance, 0,
                           elements.scope.size * sizeof(TargetSums));
  }
  const Input<T> input = MakeInput(elements, 1);
  const unsigned scopes = static_cast<unsigned>(elements.scope.size);
  // The sums of many scopes are in place of the factors that they become.
  const bool is_in_place = scopes > kMaxTargetSums;
  TargetSums* block_sums = is_in_place ? reinterpret_cast<TargetSums*>(balance)
                                       : static_cast<TargetSums*>(workspace);
  const unsigned targets = input.count / scopes;
  const unsigned parts =
      is_in_place
          ? 1
          : std::min(std::min(kMaxTargetSums / scopes, kMaxParts),
                     Blocks(Threads(targets * sizeof(T) / kVectorBytes)));
  if (elements.scope.inner == 1 && targets > 1) {
    const unsigned columns = std::min(scopes, kThreads);
    const dim3 grid((scopes + columns - 1) / columns, parts);
    // NOLINT_NEXT_LINE(whitespace/operators)
    ColumnSumsKernel<T><<<grid, kThreads>>>(input, columns, block_sums);
  } else {
    const dim3 grid(scopes, parts);
    // NOLINT_NEXT_LINE(whitespace/operators)
    TargetSumsKernel<T><<<grid, kThreads>>>(input, block_sums);
  }
  const unsigned warps = kThreads / kWarp;
  // NOLINT_NEXT_LINE(whitespace/operators)
  FinishBalanceKernel<<<(scopes + warps - 1) / warps, kThreads>>>(
      scopes, parts, block_sums, balance);
  return cudaGetLastError();
}

template int BalanceGpu<float>(const Elements<float>& elements, void* workspace,
                               double* balance);
template int BalanceGpu<double>(const Elements<double>& elements,
                                void* workspace, double* balance);

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
