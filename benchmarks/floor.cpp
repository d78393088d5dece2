#include "loops.hpp"

template <typename T>
void Floor(const T* x, const T* t, std::size_t count, T* y) {
#pragma omp parallel for simd schedule(static) if (count >= kCountForThreads)
  for (std::size_t i = 0; i < count; ++i) {
    y[i] = x[i] + t[i];
  }
}

template void Floor<float>(const float*, const float*, std::size_t, float*);
template void Floor<double>(const double*, const double*, std::size_t, double*);
