#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

// Threads walk through the elements in vectors of 16 bytes; the few elements
// after the last vector, the edges, go by one. Indices fit in 31 bits, and a
// walk may run beyond the count by less than 2^31: unsigned arithmetic never
// wraps.

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const unsigned kThreads = 256;
const unsigned kFinishThreads = 1024;
const unsigned kWarp = 32;
// Many small blocks, so that the last ones leave no GPU half empty for long.
const unsigned kMaxBlocks = 4096;
// As many as there are before a thread takes more than a vector; from
// kVectorsAThread on, their number grows again.
const unsigned kFewBlocks = 512;
const unsigned kVectorsAThread = 8;
const unsigned kVectorBytes = kGpuAlignment;

/// Vectors of each array that a thread has under way at a time. In double the
/// arithmetic takes longer than memory does, and registers are scarce.
template <typename T>
struct Unroll {
  static const unsigned kVectors = sizeof(T) == sizeof(float) ? 2 : 1;
};

// What a pass computes.
const int kLoss = 1;
const int kGradient = 2;

/// How many blocks a multiprocessor is to have registers for at a time. With
/// these, nvcc has a thread's reads under way together; for more blocks it
/// spills, or reads one vector after the other.
constexpr unsigned BlocksAtOnce(bool is_periodic) {
  return is_periodic ? 4 : 3;
}

/// What a thread or a block of a loss pass adds up. The excesses are floats,
/// rounded up, in bits, which have their order. The count has more bits than it
/// needs, so that there is no padding, which nobody would write.
struct PassSums {
  double loss;
  std::uint64_t ignored;
  std::uint32_t target_excess;
  std::uint32_t weight_excess;
};

/// What a scope's targets add up to.
struct TargetSums {
  double positives;
  double negatives;
};

const unsigned kMaxTargetSums = kGpuWorkspace / sizeof(TargetSums);
const unsigned kMaxParts = 1024;  // of a scope

static_assert(kMaxBlocks * sizeof(PassSums) <= kGpuWorkspace,
              "the workspace holds the sums of a block each");

// Indices

/// Division of n < 2^31 by a number in [1, 2^31): with 2^(shift - 1) below the
/// divisor and multiplier = 2^(31 + shift) / divisor, rounded up, the error of
/// n * multiplier / 2^(31 + shift) is below 1 / divisor.
struct Divider {
  unsigned divisor;
  unsigned multiplier;
  unsigned shift;

  __device__ unsigned Quotient(unsigned n) const {
    return divisor == 1 ? n : __umulhi(n, multiplier) >> (shift - 1);
  }
  __device__ unsigned Remainder(unsigned n) const {
    return n - Quotient(n) * divisor;
  }
};

Divider MakeDivider(std::size_t divisor) {
  unsigned shift = 0;
  while ((std::uint64_t(1) << shift) < divisor) {
    ++shift;
  }
  const std::uint64_t power = std::uint64_t(1) << (31 + shift);
  const Divider divider = {
      static_cast<unsigned>(divisor),
      static_cast<unsigned>((power + divisor - 1) / divisor), shift};
  return divider;
}

/// An Axis as kernels use it.
struct DeviceAxis {
  Divider size;
  Divider inner;

  __device__ unsigned Index(unsigned i) const {
    return size.divisor == 1 ? 0 : size.Remainder(inner.Quotient(i));
  }
  /// Whether elements i to i + count - 1 have the same index.
  __device__ bool IsSame(unsigned i, unsigned count) const {
    return size.divisor == 1 || inner.Remainder(i) + count <= inner.divisor;
  }
};

DeviceAxis MakeDeviceAxis(const Axis& axis) {
  const DeviceAxis made = {MakeDivider(axis.size), MakeDivider(axis.inner)};
  return made;
}

/// ElementWeights as kernels use them.
template <typename T>
struct DeviceWeights {
  const T* data;
  unsigned last;  // axis
  Divider size[kMaxAxes];
  unsigned stride[kMaxAxes];

  __device__ unsigned Offset(unsigned i) const {
    unsigned offset = 0;
#pragma unroll 1
    for (unsigned k = last; k > 0; --k) {
      const unsigned outer = size[k].Quotient(i);
      offset += (i - outer * size[k].divisor) * stride[k];
      i = outer;
    }
    return offset + i * stride[0];
  }
};

template <typename T>
DeviceWeights<T> MakeDeviceWeights(const ElementWeights<T>& weight) {
  DeviceWeights<T> made = DeviceWeights<T>();
  made.data = weight.data;
  for (int k = 0; weight.data && k < weight.axes; ++k) {
    made.last = k;
    made.size[k] = MakeDivider(weight.size[k]);
    made.stride[k] = static_cast<unsigned>(weight.stride[k]);
  }
  return made;
}

/// The input of a pass, as kernels use it.
template <typename T>
struct Input {
  unsigned count;
  const T* scores;
  const T* targets;
  T ignore_label;        // NaN, which equals nothing, where there is none
  bool ignores_targets;  // those in [0, 1], which are not rare
  double scale;
  DeviceAxis channel;
  const double* cls_weight;
  const double* neg_weight;
  DeviceAxis scope;
  const double* balance;
  DeviceWeights<T> weight;
};

template <typename T>
Input<T> MakeInput(const Elements<T>& elements, double scale) {
  Input<T> input;
  input.count = static_cast<unsigned>(elements.count);
  input.scores = elements.scores;
  input.targets = elements.targets;
  input.ignore_label = elements.has_ignore_label
                           ? elements.ignore_label
                           : std::numeric_limits<T>::quiet_NaN();
  input.ignores_targets =
      input.ignore_label >= T(0) && input.ignore_label <= T(1);
  input.scale = scale;
  input.channel = MakeDeviceAxis(elements.channel);
  input.cls_weight = elements.cls_weight;
  input.neg_weight = elements.neg_weight;
  input.scope = MakeDeviceAxis(elements.scope);
  input.balance = elements.balance;
  input.weight = MakeDeviceWeights(elements.weight);
  return input;
}

// Vectors

/// Values in a vector.
template <typename T>
constexpr unsigned Width() {
  return kVectorBytes / sizeof(T);
}

/// kWidth neighbouring values, read and written at once.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T lane[kWidth];
};

template <typename T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> Read(const T* from) {
  return *reinterpret_cast<const Pack<T, kWidth>*>(from);
}

template <typename T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> Same(T value) {
  Pack<T, kWidth> pack;
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    pack.lane[l] = value;
  }
  return pack;
}

template <typename T, int kWidth>
__device__ __forceinline__ void Write(const Pack<T, kWidth>& pack, T* to) {
  *reinterpret_cast<Pack<T, kWidth>*>(to) = pack;
}

/// Who visits what: thread k < stride the vectors k, k + stride, ...; the first
/// threads also an element each of those after the last vector.
struct Walk {
  unsigned vectors;
  unsigned edges;
  unsigned stride;
};

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

// Constants

/// a and b of neighbouring elements, exact for the loss, rounded for gradients.
template <typename T, int kWidth>
struct Constants {
  double a[kWidth];
  double b[kWidth];
  T rounded_a[kWidth];
  T rounded_b[kWidth];
};

template <typename T>
__device__ __forceinline__ void SetConstants(const Input<T>& input, unsigned i,
                                             double* a, double* b) {
  const unsigned c = input.channel.Index(i);
  *a = input.scale * input.cls_weight[c];
  *b = input.scale * input.neg_weight[c];
  if (input.balance) {
    const unsigned s = input.scope.Index(i);
    *a *= input.balance[2 * s];
    *b *= input.balance[2 * s + 1];
  }
}

/// Constants without the element weights.
template <typename T, int kWidth>
__device__ __forceinline__ Constants<T, kWidth> MakeConstants(
    const Input<T>& input, unsigned i) {
  Constants<T, kWidth> constants;
  SetConstants(input, i, &constants.a[0], &constants.b[0]);
  const bool is_same = input.channel.IsSame(i, kWidth) &&
                       (!input.balance || input.scope.IsSame(i, kWidth));
#pragma unroll
  for (int l = 1; l < kWidth; ++l) {
    constants.a[l] = constants.a[0];
    constants.b[l] = constants.b[0];
    if (!is_same) {
      SetConstants(input, i + l, &constants.a[l], &constants.b[l]);
    }
  }
  return constants;
}

template <typename T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> ReadWeights(
    const DeviceWeights<T>& weight, unsigned i) {
  const unsigned stride = weight.stride[weight.last];
  if (weight.last == 0 && stride == 1) {
    return Read<T, kWidth>(weight.data + i);
  }
  const T* data = weight.data + weight.Offset(i);
  const Divider& size = weight.size[weight.last];
  const bool is_same_row = size.Remainder(i) + kWidth <= size.divisor;
  Pack<T, kWidth> pack;
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    pack.lane[l] =
        is_same_row ? data[l * stride] : weight.data[weight.Offset(i + l)];
  }
  return pack;
}

/// Multiplies constants by the element weights; returns these.
template <typename T, int kWidth>
__device__ __forceinline__ Pack<T, kWidth> Weigh(
    const Input<T>& input, unsigned i, Constants<T, kWidth>* constants) {
  if (!input.weight.data) {
    return Same<T, kWidth>(1);
  }
  const Pack<T, kWidth> weight = ReadWeights<T, kWidth>(input.weight, i);
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    constants->a[l] *= ToDouble(weight.lane[l]);
    constants->b[l] *= ToDouble(weight.lane[l]);
  }
  return weight;
}

/// Keeps a value in its register: nvcc would compute it again where it is used.
#ifdef __CUDA_ARCH__
__device__ __forceinline__ void Keep(float* value) { asm("" : "+f"(*value)); }
__device__ __forceinline__ void Keep(double* value) { asm("" : "+d"(*value)); }
#else
template <typename T>
__device__ void Keep(T* /* value */) {}
#endif

template <typename T, int kWidth>
__device__ __forceinline__ void Round(Constants<T, kWidth>* constants) {
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    constants->rounded_a[l] = Saturate<T>(constants->a[l]);
    constants->rounded_b[l] = Saturate<T>(constants->b[l]);
    Keep(&constants->rounded_a[l]);
    Keep(&constants->rounded_b[l]);
  }
}

/// How many elements it takes until constants come again in the same order, or
/// 0 where that is unknown or element weights are in them.
template <typename T>
std::size_t Period(const Elements<T>& elements) {
  if (elements.weight.data) {
    return 0;
  }
  const Axis& channel = elements.channel;
  const Axis& scope = elements.scope;
  const std::size_t by_channel =
      channel.size > 1 ? channel.size * channel.inner : 1;
  const std::size_t by_scope =
      elements.balance && scope.size > 1 ? scope.size * scope.inner : 1;
  const std::size_t period = std::max(by_channel, by_scope);
  return period % by_channel == 0 && period % by_scope == 0 ? period : 0;
}

// Sums

/// A thread's sum of losses. In double its rounding errors are summed as well
/// (Knuth's TwoSum), as they are of the size of an element's own.
template <typename T>
class RunningSum;

template <>
class RunningSum<float> {
 public:
  __device__ RunningSum() : sum_(0) {}
  __device__ void Add(double value) { sum_ += value; }
  __device__ double Get() const { return sum_; }

 private:
  double sum_;
};

template <>
class RunningSum<double> {
 public:
  __device__ RunningSum() : sum_(0), error_(0) {}
  __device__ void Add(double value) {
    const double sum = sum_ + value;
    const double added = sum - sum_;
    error_ += (sum_ - (sum - added)) + (value - added);
    sum_ = sum;
  }
  /// Infinity and NaN as plain addition gives them.
  __device__ double Get() const {
    return isfinite(sum_) ? sum_ + error_ : sum_;
  }

 private:
  double sum_;
  double error_;
};

/// The sum of values[begin] to values[begin + kCount - 1], by halves.
template <int kCount>
__device__ __forceinline__ double SumOf(const double* values) {
  return SumOf<kCount / 2>(values) +
         SumOf<kCount - kCount / 2>(values + kCount / 2);
}

template <>
__device__ __forceinline__ double SumOf<1>(const double* values) {
  return *values;
}

__device__ void Add(const PassSums& from, PassSums* to) {
  to->loss += from.loss;
  to->ignored += from.ignored;
  to->target_excess = max(to->target_excess, from.target_excess);
  to->weight_excess = max(to->weight_excess, from.weight_excess);
}

__device__ void Add(const TargetSums& from, TargetSums* to) {
  to->positives += from.positives;
  to->negatives += from.negatives;
}

template <typename T>
__device__ T ShuffleDown(T value, unsigned lanes) {
  return __shfl_down_sync(0xffffffffu, value, lanes);
}

__device__ PassSums ShuffleDown(const PassSums& sums, unsigned lanes) {
  PassSums other;
  other.loss = ShuffleDown(sums.loss, lanes);
  other.ignored = ShuffleDown(sums.ignored, lanes);
  other.target_excess = ShuffleDown(sums.target_excess, lanes);
  other.weight_excess = ShuffleDown(sums.weight_excess, lanes);
  return other;
}

__device__ TargetSums ShuffleDown(const TargetSums& sums, unsigned lanes) {
  TargetSums other;
  other.positives = ShuffleDown(sums.positives, lanes);
  other.negatives = ShuffleDown(sums.negatives, lanes);
  return other;
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

// The loss, the gradient, or both

/// Whether a value is outside [0, largest], as NaN is, by the order of bits; -0
/// may count as outside.
__device__ __forceinline__ bool IsOutside(float value, float largest) {
  return BitCast<std::uint32_t>(value) > BitCast<std::uint32_t>(largest);
}
__device__ __forceinline__ bool IsOutside(double value, double largest) {
  return BitCast<std::uint64_t>(value) > BitCast<std::uint64_t>(largest);
}

/// Neighbouring elements, and what is computed of them.
template <typename T, int kWidth>
struct Vector {
  Pack<T, kWidth> x;
  Pack<T, kWidth> t;
  Pack<T, kWidth> weight;
  double losses[kWidth];
  Pack<T, kWidth> grad;
};

__device__ __forceinline__ float RoundUp(float value) { return value; }
__device__ __forceinline__ float RoundUp(double value) {
#ifdef __NVCC__  // as in weighted_sigmoid_loss_ieee.hpp
  float result;
  asm("cvt.rp.f32.f64 %0, %1;" : "=f"(result) : "d"(value));
  return result;
#else
  return __double2float_ru(value);
#endif
}

/// How far a value is outside [0, largest], as PassSums has it; a NaN's bits,
/// which are above infinity's, for NaN.
template <typename T>
__device__ __forceinline__ std::uint32_t Excess(T value, T largest) {
  const T below = Negative(value);
  const T above = Subtract(value, largest);
  const T excess = IsLess(below, above) ? above : below;
  const std::uint32_t bits = BitCast<std::uint32_t>(RoundUp(excess));
  return IsLess(excess, T(0)) ? 0 : bits & 0x7fffffff;
}

/// The same in LossSums.
double FromBits(std::uint32_t excess) {
  const float value = BitCast<float>(excess);
  return std::isnan(value) ? HUGE_VAL : value;
}

/// Takes ignored elements out, and measures what there is to warn of.
template <int kPass, typename T, int kWidth>
__device__ __forceinline__ void VisitRare(const Input<T>& input,
                                          Vector<T, kWidth>* v,
                                          PassSums* counts) {
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    const T target = v->t.lane[l];
    const T weight = v->weight.lane[l];
    if (IsEqual(target, input.ignore_label)) {
      v->grad.lane[l] = 0;
      v->losses[l] = 0;
      ++counts->ignored;
    } else if (kPass & kLoss) {
      counts->target_excess = max(counts->target_excess, Excess(target, T(1)));
      counts->weight_excess =
          max(counts->weight_excess, Excess(weight, Largest<T>()));
    }
  }
}

/// Computes neighbouring elements: adds to sums, sets gradients. What is rare
/// is behind one branch for all.
template <int kPass, typename T, int kWidth>
__device__ __forceinline__ void Visit(const Input<T>& input,
                                      const Constants<T, kWidth>& constants,
                                      Vector<T, kWidth>* v, RunningSum<T>* loss,
                                      PassSums* counts) {
  bool is_rare = kPass & kLoss ? input.ignores_targets : false;
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    const T x = v->x.lane[l];
    const T t = v->t.lane[l];
    const T u = ExpNegative(Abs(x));
    if (kPass & kLoss) {
      v->losses[l] =
          LossElement(x, t, constants.a[l], constants.b[l], Log1p(u));
      is_rare |=
          IsOutside(t, T(1)) || IsOutside(v->weight.lane[l], Largest<T>());
    } else {
      is_rare |= IsEqual(t, input.ignore_label);
    }
    if (kPass & kGradient) {
      v->grad.lane[l] = GradientElement(x, t, constants.rounded_a[l],
                                        constants.rounded_b[l], u);
    }
  }
  if (is_rare) {
    VisitRare<kPass>(input, v, counts);
  }
  if (kPass & kLoss) {
    loss->Add(SumOf<kWidth>(v->losses));
  }
}

/// kIsPeriodic: no element weights, and constants come again with each step.
template <typename T, int kPass, int kWidth, bool kIsPeriodic>
__global__ void __launch_bounds__(kThreads, BlocksAtOnce(kIsPeriodic))
    PassKernel(const Input<T> input, const Walk walk, T* grad,
               PassSums* block_sums) {
  const unsigned kUnroll = Unroll<T>::kVectors;
  RunningSum<T> loss;
  PassSums sums = {0, 0, 0, 0};
  const unsigned thread = blockIdx.x * kThreads + threadIdx.x;
  Constants<T, kWidth> constants;
  if (kIsPeriodic) {
    constants = MakeConstants<T, kWidth>(input, thread * kWidth);
    Round(&constants);
  }
  for (unsigned first = thread < walk.stride ? thread : walk.vectors;
       first < walk.vectors; first += kUnroll * walk.stride) {
    Vector<T, kWidth> vectors[kUnroll];
#pragma unroll
    for (unsigned k = 0; k < kUnroll; ++k) {
      const unsigned v = first + k * walk.stride;
      if (v < walk.vectors) {
        const unsigned i = v * kWidth;
        vectors[k].x = Read<T, kWidth>(input.scores + i);
        vectors[k].t = Read<T, kWidth>(input.targets + i);
      }
    }
#pragma unroll
    for (unsigned k = 0; k < kUnroll; ++k) {
      const unsigned v = first + k * walk.stride;
      if (v < walk.vectors) {
        const unsigned i = v * kWidth;
        vectors[k].weight = Same<T, kWidth>(1);
        if (!kIsPeriodic) {
          constants = MakeConstants<T, kWidth>(input, i);
          vectors[k].weight = Weigh(input, i, &constants);
          Round(&constants);
        }
        Visit<kPass>(input, constants, &vectors[k], &loss, &sums);
        if (kPass & kGradient) {
          Write(vectors[k].grad, grad + i);
        }
      }
    }
  }
  if (thread < walk.edges) {
    const unsigned i = input.count - walk.edges + thread;
    Vector<T, 1> edge;
    edge.x = Read<T, 1>(input.scores + i);
    edge.t = Read<T, 1>(input.targets + i);
    Constants<T, 1> edge_constants = MakeConstants<T, 1>(input, i);
    edge.weight = Weigh(input, i, &edge_constants);
    Round(&edge_constants);
    Visit<kPass>(input, edge_constants, &edge, &loss, &sums);
    if (kPass & kGradient) {
      grad[i] = edge.grad.lane[0];
    }
  }
  if (kPass & kLoss) {
    sums.loss = loss.Get();
    ReduceBlock<kThreads>(&sums);
    if (threadIdx.x == 0) {
      block_sums[blockIdx.x] = sums;
    }
  }
}

/// One block: sums the sums of `blocks` blocks into the first of them.
__global__ void __launch_bounds__(kFinishThreads)
    FinishPassKernel(unsigned blocks, PassSums* block_sums) {
  PassSums sums = {0, 0, 0, 0};
  for (unsigned i = threadIdx.x; i < blocks; i += kFinishThreads) {
    Add(block_sums[i], &sums);
  }
  ReduceBlock<kFinishThreads>(&sums);
  if (threadIdx.x == 0) {
    block_sums[0] = sums;
  }
}

template <typename T, int kPass, bool kIsPeriodic>
unsigned Launch(const Input<T>& input, const Walk& walk, T* grad,
                PassSums* block_sums) {
  const int kWidth = Width<T>();
  const unsigned blocks = Blocks(walk.stride);
  PassKernel<T, kPass, kWidth, kIsPeriodic>
      // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kThreads>>>(input, walk, grad, block_sums);
  return blocks;
}

/// Starts a pass; returns its number of blocks.
template <typename T, int kPass>
unsigned StartPass(const Elements<T>& elements, double scale, T* grad,
                   PassSums* block_sums) {
  const Input<T> input = MakeInput(elements, scale);
  Walk walk;
  walk.vectors = input.count / Width<T>();
  walk.edges = input.count % Width<T>();
  walk.stride = Threads(walk.vectors);
  // The least step that is a whole number of periods, in vectors.
  std::size_t step = Period(elements);
  for (unsigned width = Width<T>(); step % 2 == 0 && width > 1; width /= 2) {
    step /= 2;
  }
  if (step == 0 || step > walk.stride) {
    return Launch<T, kPass, false>(input, walk, grad, block_sums);
  }
  walk.stride -= walk.stride % static_cast<unsigned>(step);
  return Launch<T, kPass, true>(input, walk, grad, block_sums);
}

/// Runs a pass that sums, and waits for the sums.
template <typename T, int kPass>
int RunPass(const Elements<T>& elements, double scale, T* grad, void* workspace,
            LossSums* sums) {
  *sums = LossSums();
  if (elements.count == 0) {
    return cudaSuccess;
  }
  PassSums* block_sums = static_cast<PassSums*>(workspace);
  const unsigned blocks =
      StartPass<T, kPass>(elements, scale, grad, block_sums);
  // NOLINT_NEXT_LINE(whitespace/operators)
  FinishPassKernel<<<1, kFinishThreads>>>(blocks, block_sums);
  cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    return error;
  }
  PassSums total;
  error = cudaMemcpy(&total, block_sums, sizeof(total), cudaMemcpyDeviceToHost);
  if (error == cudaSuccess) {
    sums->loss = total.loss;
    sums->valid = elements.count - total.ignored;
    sums->target_excess = FromBits(total.target_excess);
    sums->weight_excess = FromBits(total.weight_excess);
  }
  return error;
}

// The balance

template <typename T, int kWidth>
__device__ __forceinline__ void AddTargets(const Pack<T, kWidth>& t,
                                           T ignore_label, TargetSums* sums) {
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    if (!IsEqual(t.lane[l], ignore_label)) {
      sums->positives += ToDouble(t.lane[l]);
      sums->negatives += 1. - ToDouble(t.lane[l]);
    }
  }
}

/// Adds this thread's part, one of threads, of count neighbouring targets.
template <typename T>
__device__ void AddRow(const T* targets, unsigned count, unsigned thread,
                       unsigned threads, T ignore_label, TargetSums* sums) {
  const unsigned kWidth = kVectorBytes / sizeof(T);
  const unsigned misaligned =
      reinterpret_cast<std::uintptr_t>(targets) / sizeof(T) % kWidth;
  const unsigned head = min(misaligned ? kWidth - misaligned : 0, count);
  const unsigned vectors = (count - head) / kWidth;
#pragma unroll 4
  for (unsigned v = thread; v < vectors; v += threads) {
    AddTargets(Read<T, kWidth>(targets + head + v * kWidth), ignore_label,
               sums);
  }
  const unsigned edges = count - vectors * kWidth;
  if (thread < edges) {
    const unsigned i = thread < head ? thread : count - edges + thread;
    AddTargets(Read<T, 1>(targets + i), ignore_label, sums);
  }
}

/// Block (x, y) sums part y of scope x.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    TargetSumsKernel(const Input<T> input, TargetSums* block_sums) {
  const unsigned size = input.scope.size.divisor;
  const unsigned inner = input.scope.inner.divisor;
  const unsigned count = input.scope.size.Quotient(input.count);
  const unsigned s = blockIdx.x;
  const unsigned thread = blockIdx.y * kThreads + threadIdx.x;
  const unsigned threads = gridDim.y * kThreads;
  TargetSums sums = {0, 0};
  if (count == inner) {
    AddRow(input.targets + s * inner, inner, thread, threads,
           input.ignore_label, &sums);
  } else {
#pragma unroll 4
    for (unsigned k = thread; k < count; k += threads) {
      const unsigned row = input.scope.inner.Quotient(k);
      const unsigned i = (row * size + s) * inner + (k - row * inner);
      AddTargets(Read<T, 1>(input.targets + i), input.ignore_label, &sums);
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
  const unsigned size = input.scope.size.divisor;
  const unsigned height = input.scope.size.Quotient(input.count);
  const unsigned rows = kThreads / columns;
  const unsigned row = threadIdx.x / columns;
  const unsigned s = blockIdx.x * columns + threadIdx.x % columns;
  TargetSums sums = {0, 0};
  if (row < rows && s < size) {
#pragma unroll 4
    for (unsigned n = blockIdx.y * rows + row; n < height;
         n += gridDim.y * rows) {
      AddTargets(Read<T, 1>(input.targets + n * size + s), input.ignore_label,
                 &sums);
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
int LossGpu(const Elements<T>& elements, double scale, void* workspace,
            LossSums* sums) {
  return RunPass<T, kLoss>(elements, scale, NULL, workspace, sums);
}

template <typename T>
int GradientGpu(const Elements<T>& elements, double scale, T* grad) {
  if (elements.count > 0) {
    StartPass<T, kGradient>(elements, scale, grad, NULL);
  }
  return cudaGetLastError();
}

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
