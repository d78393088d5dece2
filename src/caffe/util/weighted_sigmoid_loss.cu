#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_input.cuh"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"
#include "caffe/util/weighted_sigmoid_loss_threads.cuh"

// The loss and the gradient on the device.

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const unsigned kFinishThreads = 1024;

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

static_assert(kMaxBlocks * sizeof(PassSums) <= kGpuWorkspace,
              "the workspace holds the sums of a block each");

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
__device__ __forceinline__ Vector<T, kWidth> ReadWeights(
    const DeviceWeights<T>& weight, unsigned i) {
  const unsigned stride = weight.stride[weight.last];
  if (weight.last == 0 && stride == 1) {
    return Read<T, kWidth>(weight.data + i);
  }
  const T* data = weight.data + weight.Offset(i);
  const Divider& size = weight.size[weight.last];
  const bool is_same_row = size.Remainder(i) + kWidth <= size.divisor;
  Vector<T, kWidth> vector;
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    vector.value[l] =
        is_same_row ? data[l * stride] : weight.data[weight.Offset(i + l)];
  }
  return vector;
}

/// Multiplies constants by the element weights; returns these.
template <typename T, int kWidth>
__device__ __forceinline__ Vector<T, kWidth> Weigh(
    const Input<T>& input, unsigned i, Constants<T, kWidth>* constants) {
  if (!input.weight.data) {
    return Same<T, kWidth>(1);
  }
  const Vector<T, kWidth> weight = ReadWeights<T, kWidth>(input.weight, i);
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    constants->a[l] *= ToDouble(weight.value[l]);
    constants->b[l] *= ToDouble(weight.value[l]);
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
  const std::size_t by_scope = !elements.balance || scope.size == 1 ? 1
                               : scope.IsGrouped() ? elements.count
                                                   : scope.size * scope.inner;
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

__device__ PassSums ShuffleDown(const PassSums& sums, unsigned lanes) {
  PassSums other;
  other.loss = ShuffleDown(sums.loss, lanes);
  other.ignored = ShuffleDown(sums.ignored, lanes);
  other.target_excess = ShuffleDown(sums.target_excess, lanes);
  other.weight_excess = ShuffleDown(sums.weight_excess, lanes);
  return other;
}

// The loss or the gradient

/// Whether a value is outside [0, largest], as NaN is, by the order of bits; -0
/// may count as outside.
__device__ __forceinline__ bool IsOutside(float value, float largest) {
  return BitCast<std::uint32_t>(value) > BitCast<std::uint32_t>(largest);
}
__device__ __forceinline__ bool IsOutside(double value, double largest) {
  return BitCast<std::uint64_t>(value) > BitCast<std::uint64_t>(largest);
}

/// A vector of each array of some elements, and what is computed of them.
template <typename T, int kWidth>
struct Vectors {
  Vector<T, kWidth> x;
  Vector<T, kWidth> t;
  Vector<T, kWidth> weight;
  double losses[kWidth];
  Vector<T, kWidth> grad;
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
/// kMayBeSoft: soft targets may be among them.
template <int kPass, bool kMayBeSoft, typename T, int kWidth>
__device__ __forceinline__ void VisitRare(const Input<T>& input,
                                          Vectors<T, kWidth>* v,
                                          PassSums* counts) {
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    const T target = v->t.value[l];
    const T weight = v->weight.value[l];
    if (kMayBeSoft ? IsIgnored(input, target)
                   : IsEqual(target, input.ignore_label)) {
      v->grad.value[l] = 0;
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
template <int kPass, bool kMayBeSoft, typename T, int kWidth>
__device__ __forceinline__ void Visit(const Input<T>& input,
                                      const Constants<T, kWidth>& constants,
                                      Vectors<T, kWidth>* v,
                                      RunningSum<T>* loss, PassSums* counts) {
  bool is_rare = kPass & kLoss ? input.ignores_targets
                               : kMayBeSoft && input.ignores_soft_targets;
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    const T x = v->x.value[l];
    const T t = v->t.value[l];
    const T u = ExpNegative(Abs(x));
    if (kPass & kLoss) {
      v->losses[l] =
          LossElement(x, t, constants.a[l], constants.b[l], Log1p(u));
      is_rare |=
          IsOutside(t, T(1)) || IsOutside(v->weight.value[l], Largest<T>());
    } else {
      is_rare |= IsEqual(t, input.ignore_label);
    }
    if (kPass & kGradient) {
      v->grad.value[l] = GradientElement(x, t, constants.rounded_a[l],
                                         constants.rounded_b[l], u);
    }
  }
  if (is_rare) {
    VisitRare<kPass, kMayBeSoft>(input, v, counts);
  }
  if (kPass & kLoss) {
    loss->Add(SumOf<kWidth>(v->losses));
  }
}

/// Thread k < stride visits the vectors k, k + stride, ...; the first threads
/// also an element each of the rest. kIsPeriodic: no element weights, no soft
/// targets to ignore, and constants come again with each stride.
template <typename T, int kPass, int kWidth, bool kIsPeriodic>
__global__ void __launch_bounds__(kThreads, BlocksAtOnce(kIsPeriodic))
    PassKernel(const Input<T> input, unsigned stride, T* grad,
               PassSums* block_sums) {
  const unsigned count = input.count / kWidth;
  const unsigned kUnroll = Unroll<T>::kVectors;
  RunningSum<T> loss;
  PassSums sums = {0, 0, 0, 0};
  const unsigned thread = blockIdx.x * kThreads + threadIdx.x;
  Constants<T, kWidth> constants;
  if (kIsPeriodic) {
    constants = MakeConstants<T, kWidth>(input, thread * kWidth);
    Round(&constants);
  }
  for (unsigned first = thread < stride ? thread : count; first < count;
       first += kUnroll * stride) {
    Vectors<T, kWidth> vectors[kUnroll];
#pragma unroll
    for (unsigned k = 0; k < kUnroll; ++k) {
      const unsigned v = first + k * stride;
      if (v < count) {
        const unsigned i = v * kWidth;
        vectors[k].x = Read<T, kWidth>(input.scores + i);
        vectors[k].t = Read<T, kWidth>(input.targets + i);
      }
    }
#pragma unroll
    for (unsigned k = 0; k < kUnroll; ++k) {
      const unsigned v = first + k * stride;
      if (v < count) {
        const unsigned i = v * kWidth;
        vectors[k].weight = Same<T, kWidth>(1);
        if (!kIsPeriodic) {
          constants = MakeConstants<T, kWidth>(input, i);
          vectors[k].weight = Weigh(input, i, &constants);
          Round(&constants);
        }
        Visit<kPass, !kIsPeriodic>(input, constants, &vectors[k], &loss, &sums);
        if (kPass & kGradient) {
          Write(vectors[k].grad, grad + i);
        }
      }
    }
  }
  if (thread < input.count % kWidth) {
    const unsigned i = count * kWidth + thread;
    Vectors<T, 1> rest;
    rest.x = Read<T, 1>(input.scores + i);
    rest.t = Read<T, 1>(input.targets + i);
    Constants<T, 1> rest_constants = MakeConstants<T, 1>(input, i);
    rest.weight = Weigh(input, i, &rest_constants);
    Round(&rest_constants);
    Visit<kPass, !kIsPeriodic>(input, rest_constants, &rest, &loss, &sums);
    if (kPass & kGradient) {
      grad[i] = rest.grad.value[0];
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
unsigned Launch(const Input<T>& input, unsigned stride, T* grad,
                PassSums* block_sums) {
  const int kWidth = Width<T>();
  const unsigned blocks = Blocks(stride);
  PassKernel<T, kPass, kWidth, kIsPeriodic>
      // NOLINT_NEXT_LINE(whitespace/operators)
      <<<blocks, kThreads>>>(input, stride, grad, block_sums);
  return blocks;
}

/// Starts a pass; returns its number of blocks.
template <typename T, int kPass>
unsigned StartPass(const Elements<T>& elements, double scale, T* grad,
                   PassSums* block_sums) {
  const Input<T> input = MakeInput(elements, scale);
  unsigned stride = Threads(input.count / Width<T>());
  // The least step that is a whole number of periods, in vectors.
  std::size_t step = Period(elements);
  for (unsigned width = Width<T>(); step % 2 == 0 && width > 1; width /= 2) {
    step /= 2;
  }
  if (step == 0 || step > stride || input.ignores_soft_targets) {
    return Launch<T, kPass, false>(input, stride, grad, block_sums);
  }
  stride -= stride % static_cast<unsigned>(step);
  return Launch<T, kPass, true>(input, stride, grad, block_sums);
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

#define INSTANTIATE(T)                                                   \
  template int LossGpu<T>(const Elements<T>& elements, double scale,     \
                          void* workspace, LossSums* sums);              \
  template int GradientGpu<T>(const Elements<T>& elements, double scale, \
                              T* grad)

INSTANTIATE(float);   // NOLINT(readability/function)
INSTANTIATE(double);  // NOLINT(readability/function)

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
