#include <cfloat>
#include <cstdint>
#include <cstring>

#include "functions_inl.hpp"  // NOLINT(build/include)

namespace caffe {

namespace weighted_sigmoid_loss {

template <typename T>
Functions<T> PlainFunctions() {
  return MakeFunctions<T>("plain");
}

template Functions<float> PlainFunctions<float>();
template Functions<double> PlainFunctions<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
