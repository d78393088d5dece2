#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_THREADS_CUH_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_THREADS_CUH_

#include <cuda_runtime.h>

#include <algorithm>

/**
 * @file
 * How many threads a CUDA kernel takes, and how they add up what each has found:
 * in an order that depends on the shapes alone.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const unsigned kThreads = 256;
const unsigned kWarp = 32;
// Many small blocks, so that the last ones leave no GPU half empty for long.
const unsigned kMaxBlocks = 4096;
// As many as there are before a thread takes more than a vector; from
// kVectorsAThread on, their number grows again.
const unsigned kFewBlocks = 512;
const unsigned kVectorsAThread = 8;

/// By the number of vectors alone, not by the device, so that sums are the same
/// on every one.
unsigned Threads(unsigned vectors) {
  return std::max(1u,
                  std::min(std::max(std::min(vectors, kFewBlocks * kThreads),
                                    vectors / kVectorsAThread),
                           kMaxBlocks * kThreads));
}

unsigned Blocks(unsigned threads) {
  return (threads + kThreads - 1) / kThreads;
}

// Sums

template <typename T>
__device__ T ShuffleDown(T value, unsigned lanes) {
  return __shfl_down_sync(0xffffffffu, value, lanes);
}

/// The sums of the first `lanes` lanes, a power of two, in lane 0.
template <typename Sums>
__device__ void ReduceWarp(unsigned lanes, Sums* sums) {
  for (lanes /= 2; lanes > 0; lanes /= 2) {
    Add(ShuffleDown(*sums, lanes), sums);
  }
}

/// The sums of the block's kCount threads, in thread 0; always added in the
/// same order.
template <unsigned kCount, typename Sums>
__device__ void ReduceBlock(Sums* sums) {
  const unsigned kWarps = kCount / kWarp;
  __shared__ Sums warps[kWarps];
  ReduceWarp(kWarp, sums);
  if (threadIdx.x % kWarp == 0) {
    warps[threadIdx.x / kWarp] = *sums;
  }
  __syncthreads();
  if (threadIdx.x < kWarp) {
    *sums = warps[threadIdx.x % kWarps];
    ReduceWarp(kWarps, sums);
  }
}

}  // namespace

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_THREADS_CUH_
