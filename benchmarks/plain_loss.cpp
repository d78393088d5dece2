// Compiled with -Ofast, with which GCC's vector code calls libmvec.

#include <algorithm>
#include <cmath>

#include "loops.hpp"

template <typename T>
double PlainLoss(const T* x, const T* t, std::size_t count, T cls_weight,
                 T* gradient) {
  return SumOfBlocks(count, [=](std::size_t begin, std::size_t size) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (std::size_t i = begin; i < begin + size; ++i) {
      const T u = std::exp(-std::fabs(x[i]));
      const T log1p_u = std::log1p(u);
      const T larger = 1 / (1 + u);  // sigmoid(|x|)
      const T smaller = u * larger;
      const T a = cls_weight * t[i];
      const T b = 1 - t[i];
      sum += a * (log1p_u + std::max(-x[i], T(0))) +
             b * (log1p_u + std::max(x[i], T(0)));
      gradient[i] =
          x[i] > 0 ? b * larger - a * smaller : b * smaller - a * larger;
    }
    return sum;
  });
}

template double PlainLoss<float>(const float*, const float*, std::size_t, float,
                                 float*);
template double PlainLoss<double>(const double*, const double*, std::size_t,
                                  double, double*);
