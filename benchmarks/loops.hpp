#ifndef BENCHMARKS_LOOPS_HPP_
#define BENCHMARKS_LOOPS_HPP_

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

/// Elements that these two sum in T, before they go on in double.
const std::size_t kBlockOfSum = 4096;

#endif  // BENCHMARKS_LOOPS_HPP_
