#include <hwy/contrib/math/math-inl.h>
#include <hwy/highway.h>

#include <algorithm>

#include "loops.hpp"

namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
using Vector = hn::Vec<hn::ScalableTag<T>>;

/// Writes the gradients of a vector of elements; returns their losses.
template <typename T>
Vector<T> VisitVector(const T* x_at, const T* t_at, T cls_weight,
                      T* gradient_at) {
  const hn::ScalableTag<T> d;
  const auto zero = hn::Zero(d), one = hn::Set(d, T(1));
  const auto x = hn::LoadU(d, x_at), t = hn::LoadU(d, t_at);
  const auto u = hn::Exp(d, hn::Neg(hn::Abs(x)));
  const auto log1p_u = hn::Log1p(d, u);
  const auto larger = hn::Div(one, hn::Add(one, u));  // sigmoid(|x|)
  const auto smaller = hn::Mul(u, larger);
  const auto a = hn::Mul(hn::Set(d, cls_weight), t);
  const auto b = hn::Sub(one, t);
  const auto is_positive = hn::Gt(x, zero);
  const auto of_x = hn::IfThenElse(is_positive, larger, smaller);
  const auto of_minus_x = hn::IfThenElse(is_positive, smaller, larger);
  hn::StoreU(hn::MulSub(b, of_x, hn::Mul(a, of_minus_x)), d, gradient_at);
  const auto positive = hn::Add(log1p_u, hn::Max(hn::Neg(x), zero));
  const auto negative = hn::Add(log1p_u, hn::Max(x, zero));
  return hn::MulAdd(a, positive, hn::Mul(b, negative));
}

template <typename T>
T SumOfBlock(const T* x, const T* t, std::size_t count, T cls_weight,
             T* gradient) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  auto sum = hn::Zero(d);
  std::size_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    sum = hn::Add(sum, VisitVector(x + i, t + i, cls_weight, gradient + i));
  }
  if (i < count) {
    T last_x[HWY_MAX_BYTES / sizeof(T)], last_t[HWY_MAX_BYTES / sizeof(T)] = {};
    T last_gradient[HWY_MAX_BYTES / sizeof(T)];
    std::fill_n(last_x, lanes, T(-1000));  // as a negative, it has no loss
    std::copy(x + i, x + count, last_x);
    std::copy(t + i, t + count, last_t);
    sum = hn::Add(sum, VisitVector(last_x, last_t, cls_weight, last_gradient));
    std::copy(last_gradient, last_gradient + (count - i), gradient + i);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace

template <typename T>
double HighwayLoss(const T* x, const T* t, std::size_t count, T cls_weight,
                   T* gradient) {
  return SumOfBlocks(count, [=](std::size_t begin, std::size_t size) {
    return SumOfBlock(x + begin, t + begin, size, cls_weight, gradient + begin);
  });
}

template double HighwayLoss<float>(const float*, const float*, std::size_t,
                                   float, float*);
template double HighwayLoss<double>(const double*, const double*, std::size_t,
                                    double, double*);
