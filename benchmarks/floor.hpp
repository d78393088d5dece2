#ifndef BENCHMARKS_FLOOR_HPP_
#define BENCHMARKS_FLOOR_HPP_

#include <cstddef>

/// y = x + t, with ordinary stores, on OpenMP's threads: what moving the bytes
/// of one pass takes. Compiled for the machine's best instruction set.
template <typename T>
void Floor(const T* x, const T* t, std::size_t count, T* y);

#endif  // BENCHMARKS_FLOOR_HPP_
