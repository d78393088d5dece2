#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

#include <cfloat>
#include <cstring>

#ifdef __x86_64__

#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), \
                             apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define WEIGHTED_SIGMOID_LOSS_FMA

#include "caffe/util/weighted_sigmoid_loss_loops_inl.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

template <typename T>
Loops<T> Avx2Loops() {
  return MakeLoops<T>("avx2");
}

template Loops<float> Avx2Loops<float>();
template Loops<double> Avx2Loops<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#ifdef __clang__
#pragma clang attribute pop
#endif

#endif  // __x86_64__
