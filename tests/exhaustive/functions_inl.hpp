#ifndef TESTS_EXHAUSTIVE_FUNCTIONS_INL_HPP_
#define TESTS_EXHAUSTIVE_FUNCTIONS_INL_HPP_

// For the one source file of each instruction set, as the kernel's loops are.

#include "caffe/util/weighted_sigmoid_loss_math.hpp"
#include "functions.hpp"  // NOLINT(build/include)

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

template <typename T>
void ExpNegatives(const T* a, std::size_t count, T* results) {
  for (std::size_t i = 0; i < count; ++i) {
    results[i] = ExpNegative(a[i]);
  }
}

template <typename T>
void Log1ps(const T* u, std::size_t count, T* results) {
  for (std::size_t i = 0; i < count; ++i) {
    results[i] = Log1p(u[i]);
  }
}

template <typename T>
Functions<T> MakeFunctions(const char* name) {
  const Functions<T> functions = {name, ExpNegatives<T>, Log1ps<T>};
  return functions;
}

}  // namespace

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // TESTS_EXHAUSTIVE_FUNCTIONS_INL_HPP_
