#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

#include <cfloat>
#include <cstring>

#include "caffe/util/weighted_sigmoid_loss_loops_inl.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

template <typename T>
Loops<T> BaselineLoops() {
  return MakeLoops<T>("baseline");
}

template Loops<float> BaselineLoops<float>();
template Loops<double> BaselineLoops<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
