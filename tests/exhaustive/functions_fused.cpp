#include <cfloat>
#include <cstdint>
#include <cstring>

#ifdef __x86_64__

#pragma GCC target("avx2,fma")
#define WEIGHTED_SIGMOID_LOSS_FMA

#include "functions_inl.hpp"  // NOLINT(build/include)

namespace caffe {

namespace weighted_sigmoid_loss {

template <typename T>
Functions<T> FusedFunctions() {
  return MakeFunctions<T>("fused");
}

template Functions<float> FusedFunctions<float>();
template Functions<double> FusedFunctions<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // __x86_64__
