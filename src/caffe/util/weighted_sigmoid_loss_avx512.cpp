#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

#include <cfloat>
#include <cstring>

#ifdef WEIGHTED_SIGMOID_LOSS_HAS_AVX512

#ifdef __clang__
#pragma clang attribute push(                                  \
    __attribute__((target("avx512bw,avx512dq,avx512vl,fma"))), \
    apply_to = function)
#else
#pragma GCC target("avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")
#endif
#define WEIGHTED_SIGMOID_LOSS_FMA

#include "caffe/util/weighted_sigmoid_loss_loops_inl.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

template <typename T>
Loops<T> Avx512Loops() {
  return MakeLoops<T>("avx512");
}

template Loops<float> Avx512Loops<float>();
template Loops<double> Avx512Loops<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif  // WEIGHTED_SIGMOID_LOSS_HAS_AVX512
