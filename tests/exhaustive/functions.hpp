#ifndef TESTS_EXHAUSTIVE_FUNCTIONS_HPP_
#define TESTS_EXHAUSTIVE_FUNCTIONS_HPP_

#include <cstddef>

namespace caffe {

namespace weighted_sigmoid_loss {

/// Functions of weighted_sigmoid_loss_math.hpp, of count arguments.
template <typename T>
struct Functions {
  const char* name;
  void (*exp_negative)(const T* a, std::size_t count, T* results);
  void (*log1p)(const T* u, std::size_t count, T* results);
};

/// As the compiler was told: on plain x86-64 without fused multiply-adds.
template <typename T>
Functions<T> PlainFunctions();
/// With fused multiply-adds, on x86-64.
template <typename T>
Functions<T> FusedFunctions();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // TESTS_EXHAUSTIVE_FUNCTIONS_HPP_
