#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_IEEE_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_IEEE_HPP_

#include <cfloat>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define WEIGHTED_SIGMOID_LOSS_HOST_DEVICE __host__ __device__ __forceinline__
#else
// static: each source file compiles its own, for its own instruction set.
// Inlined always: a loop that calls a function is not made vector code.
#define WEIGHTED_SIGMOID_LOSS_HOST_DEVICE \
  static inline __attribute__((always_inline))
#endif

// Whether Fma is fused; a file that raises its instruction set says so itself.
#if defined(__FMA__) || defined(__aarch64__)
#ifndef WEIGHTED_SIGMOID_LOSS_FMA
#define WEIGHTED_SIGMOID_LOSS_FMA
#endif
#endif

/**
 * @file
 * The operations of IEEE 754 that the kernel consists of, for host and device:
 * rounded once, to the nearest, subnormal numbers included.
 *
 * nvcc's --use_fast_math changes what operators and intrinsics do to floats on
 * the device, where subnormal ones become 0, in comparisons, too. There these
 * functions are instructions of PTX, which say what they do. It changes no
 * double.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

template <typename To, typename From>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From), "BitCast changes no size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T Add(T a, T b) {
  return a + b;
}

template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T Subtract(T a, T b) {
  return a - b;
}

template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T Multiply(T a, T b) {
  return a * b;
}

template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T Negative(T a) {
  return -a;
}

/// Whether a < b; false for NaN.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE bool IsLess(T a, T b) {
  return a < b;
}

/// Whether a <= b; false for NaN.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE bool IsAtMost(T a, T b) {
  return a <= b;
}

/// Whether a == b; false for NaN.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE bool IsEqual(T a, T b) {
  return a == b;
}

/// max(a, 0); 0 or NaN for NaN.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T PositivePart(T a) {
  return a > T(0) ? a : T(0);
}

/// min(a, 0); 0 or NaN for NaN.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T NegativePart(T a) {
  return a < T(0) ? a : T(0);
}

/// Swaps a and b for x < 0, not for x > 0, and either way for 0 and NaN.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE void SwapIfNegative(T x, T* a, T* b) {
  const bool is_negative = IsLess(x, T(0));
  const T old_a = *a;
  *a = is_negative ? *b : *a;
  *b = is_negative ? old_a : *b;
}

/// |a|, NaN for NaN.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double Abs(double a) {
  return __builtin_fabs(a);
}

/// a * b + c, rounded once where the machine can; the bounds hold without, too.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double Fma(double a, double b, double c) {
#if defined(__CUDA_ARCH__)
  return __fma_rn(a, b, c);
#elif defined(WEIGHTED_SIGMOID_LOSS_FMA)
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

/// 1 / a for a in [1, 2]. NaN for NaN.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double Reciprocal(double a) {
#ifdef __CUDA_ARCH__
  return __drcp_rn(a);
#else
  return 1. / a;
#endif
}

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double ToDouble(double a) { return a; }

template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T Round(double a) {
  return static_cast<T>(a);
}

// A processor has more units for operations on bits than for comparisons, which
// share theirs with multiplications.

/// All bits where the sign bit of a is set, else none.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE std::uint32_t SignMask(float a) {
  return static_cast<std::uint32_t>(BitCast<std::int32_t>(a) >> 31);
}

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE void SwapIfNegative(float x, float* a,
                                                      float* b) {
  const std::uint32_t bits = BitCast<std::uint32_t>(*a);
  const std::uint32_t swapped =
      (bits ^ BitCast<std::uint32_t>(*b)) & SignMask(x);
  *a = BitCast<float>(bits ^ swapped);
  *b = BitCast<float>(BitCast<std::uint32_t>(*b) ^ swapped);
}

// In clang, PTX would keep loops from being unrolled.
#if defined(__CUDA_ARCH__) && defined(__NVCC__)

#define WEIGHTED_SIGMOID_LOSS_UNARY(name, ptx)            \
  WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float name(float a) { \
    float result;                                         \
    asm(ptx : "=f"(result) : "f"(a));                     \
    return result;                                        \
  }
#define WEIGHTED_SIGMOID_LOSS_BINARY(name, ptx)                    \
  WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float name(float a, float b) { \
    float result;                                                  \
    asm(ptx : "=f"(result) : "f"(a), "f"(b));                      \
    return result;                                                 \
  }
#define WEIGHTED_SIGMOID_LOSS_COMPARISON(name, ptx)               \
  WEIGHTED_SIGMOID_LOSS_HOST_DEVICE bool name(float a, float b) { \
    std::uint32_t result;                                         \
    asm(ptx : "=r"(result) : "f"(a), "f"(b));                     \
    return result != 0;                                           \
  }

WEIGHTED_SIGMOID_LOSS_BINARY(Add, "add.rn.f32 %0, %1, %2;")
WEIGHTED_SIGMOID_LOSS_BINARY(Subtract, "sub.rn.f32 %0, %1, %2;")
WEIGHTED_SIGMOID_LOSS_BINARY(Multiply, "mul.rn.f32 %0, %1, %2;")
WEIGHTED_SIGMOID_LOSS_UNARY(Negative, "neg.f32 %0, %1;")
WEIGHTED_SIGMOID_LOSS_COMPARISON(IsLess, "set.lt.u32.f32 %0, %1, %2;")
WEIGHTED_SIGMOID_LOSS_COMPARISON(IsAtMost, "set.le.u32.f32 %0, %1, %2;")
WEIGHTED_SIGMOID_LOSS_COMPARISON(IsEqual, "set.eq.u32.f32 %0, %1, %2;")
WEIGHTED_SIGMOID_LOSS_UNARY(PositivePart, "max.f32 %0, %1, 0f00000000;")
WEIGHTED_SIGMOID_LOSS_UNARY(NegativePart, "min.f32 %0, %1, 0f00000000;")
WEIGHTED_SIGMOID_LOSS_UNARY(Abs, "abs.f32 %0, %1;")

#undef WEIGHTED_SIGMOID_LOSS_UNARY
#undef WEIGHTED_SIGMOID_LOSS_BINARY
#undef WEIGHTED_SIGMOID_LOSS_COMPARISON

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float Fma(float a, float b, float c) {
  float result;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(result) : "f"(a), "f"(b), "f"(c));
  return result;
}

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double ToDouble(float a) {
  double result;
  asm("cvt.f64.f32 %0, %1;" : "=d"(result) : "f"(a));
  return result;
}

template <>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float Round<float>(double a) {
  float result;
  asm("cvt.rn.f32.f64 %0, %1;" : "=f"(result) : "d"(a));
  return result;
}

#else

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float Abs(float a) {
  return __builtin_fabsf(a);
}

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float Fma(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#elif defined(WEIGHTED_SIGMOID_LOSS_FMA)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE double ToDouble(float a) { return a; }

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float PositivePart(float a) {
  return BitCast<float>(BitCast<std::uint32_t>(a) & ~SignMask(a));
}

WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float NegativePart(float a) {
  return BitCast<float>(BitCast<std::uint32_t>(a) & SignMask(a));
}

#endif

/// 1 / a for a in [1, 2]. NaN for NaN.
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE float Reciprocal(float a) {
#ifdef __CUDA_ARCH__
  // What __frcp_rn does for such a, without its branch for others, in which it
  // calls a function: that kept the compiler from interleaving elements.
  float approximate;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(approximate) : "f"(a));
  return Fma(approximate, Fma(Negative(a), approximate, 1.f), approximate);
#else
  return 1.f / a;
#endif
}

/// The largest finite value.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T Largest() {
  return sizeof(T) == sizeof(float) ? T(FLT_MAX) : T(DBL_MAX);
}

/// a in T; its largest where a is beyond it, since 0 * infinity is NaN.
template <typename T>
WEIGHTED_SIGMOID_LOSS_HOST_DEVICE T Saturate(double a) {
  const T largest = Largest<T>();
  const T rounded = Round<T>(a);
  return IsLess(largest, rounded)
             ? largest
             : (IsLess(rounded, -largest) ? -largest : rounded);
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_IEEE_HPP_
