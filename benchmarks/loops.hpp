#ifndef BENCHMARKS_LOOPS_HPP_
#define BENCHMARKS_LOOPS_HPP_

#include <algorithm>
#include <cstddef>

/// Loops that are compiled for this machine alone, on OpenMP's threads: what to
/// compare the kernel with.

/// Below, waking the threads costs more than they save.
const std::size_t kCountForThreads = 1 << 17;

/// y = x + t, with ordinary stores: what moving the bytes of one pass takes.
template <typename T>
void Floor(const T* x, const T* t, std::size_t count, T* y);

/// The loss, with one weight of the positives, and its gradient in one pass.
template <typename T>
using LossLoop = double (*)(const T* x, const T* t, std::size_t count,
                            T cls_weight, T* gradient);

/// As one writes it in C++: -Ofast makes vector code with libmvec of it.
template <typename T>
double PlainLoss(const T* x, const T* t, std::size_t count, T cls_weight,
                 T* gradient);

/// By Highway and its functions.
template <typename T>
double HighwayLoss(const T* x, const T* t, std::size_t count, T cls_weight,
                   T* gradient);

/// The sum in double of what sum_of_block(begin, count) has summed, in the type
/// of the elements, for each block of them.
template <typename Function>
double SumOfBlocks(std::size_t count, Function sum_of_block) {
  const std::size_t block = 4096;
  double total = 0;
#pragma omp parallel for schedule(static) \
    reduction(+ : total) if (count >= kCountForThreads)
  for (std::size_t begin = 0; begin < count; begin += block) {
    total += sum_of_block(begin, std::min(block, count - begin));
  }
  return total;
}

#endif  // BENCHMARKS_LOOPS_HPP_
