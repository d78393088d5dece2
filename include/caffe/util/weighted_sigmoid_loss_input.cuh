#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_INPUT_CUH_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_INPUT_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <limits>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

/**
 * @file
 * The input of the CUDA kernels: where an element is along an axis, which weight
 * is its own, and how its scores and targets are read. Indices fit in 31 bits,
 * and a thread's may run beyond the count by less than 2^31: unsigned arithmetic
 * never wraps.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

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
  unsigned size;
  Divider cycle;
  Divider inner;
  Divider group;

  __device__ bool IsGrouped() const { return cycle.divisor < size; }
  __device__ unsigned Index(unsigned i) const {
    const unsigned index =
        cycle.divisor == 1 ? 0 : cycle.Remainder(inner.Quotient(i));
    return IsGrouped() ? group.Quotient(i) * cycle.divisor + index : index;
  }
  /// Whether elements i to i + count - 1 have the same index.
  __device__ bool IsSame(unsigned i, unsigned count) const {
    return cycle.divisor == 1 || inner.Remainder(i) + count <= inner.divisor;
  }
};

DeviceAxis MakeDeviceAxis(const Axis& axis) {
  const DeviceAxis made = {static_cast<unsigned>(axis.size),
                           MakeDivider(axis.cycle), MakeDivider(axis.inner),
                           MakeDivider(axis.IsGrouped() ? axis.group : 1)};
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
  T ignore_label;  // NaN, which equals nothing, where there is none
  bool ignores_soft_targets;
  bool ignores_targets;  // some in [0, 1], which are not rare
  double scale;
  DeviceAxis channel;
  const double* cls_weight;
  const double* neg_weight;
  DeviceAxis scope;
  const double* balance;
  DeviceWeights<T> weight;
};

template <typename T>
__device__ __forceinline__ bool IsIgnored(const Input<T>& input, T target) {
  return IsEqual(target, input.ignore_label) ||
         (input.ignores_soft_targets && IsSoft(target));
}

template <typename T>
Input<T> MakeInput(const Elements<T>& elements, double scale) {
  Input<T> input;
  input.count = static_cast<unsigned>(elements.count);
  input.scores = elements.scores;
  input.targets = elements.targets;
  input.ignore_label = elements.has_ignore_label
                           ? elements.ignore_label
                           : std::numeric_limits<T>::quiet_NaN();
  input.ignores_soft_targets = elements.ignores_soft_targets;
  input.ignores_targets =
      input.ignores_soft_targets ||
      (input.ignore_label >= T(0) && input.ignore_label <= T(1));
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

const unsigned kVectorBytes = kGpuAlignment;

/// Values in a vector.
template <typename T>
constexpr unsigned Width() {
  return kVectorBytes / sizeof(T);
}

/// kWidth neighbouring values, read and written at once.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vector {
  T value[kWidth];
};

template <typename T, int kWidth>
__device__ __forceinline__ Vector<T, kWidth> Read(const T* from) {
  return *reinterpret_cast<const Vector<T, kWidth>*>(from);
}

template <typename T, int kWidth>
__device__ __forceinline__ Vector<T, kWidth> Same(T value) {
  Vector<T, kWidth> vector;
#pragma unroll
  for (int l = 0; l < kWidth; ++l) {
    vector.value[l] = value;
  }
  return vector;
}

template <typename T, int kWidth>
__device__ __forceinline__ void Write(const Vector<T, kWidth>& vector, T* to) {
  *reinterpret_cast<Vector<T, kWidth>*>(to) = vector;
}

}  // namespace

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_INPUT_CUH_
