#include "caffe/util/weighted_sigmoid_loss.hpp"

#include <algorithm>
#include <cmath>

#include "caffe/util/weighted_sigmoid_loss_math.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

// Elements of a block are summed in kLanes partial sums, blocks with their
// rounding errors: neither a long input nor a long block loses digits.
const std::size_t kBlock = 512;
const std::size_t kLanes = 8;

/// Neumaier's compensated sum.
class CompensatedSum {
 public:
  CompensatedSum() : sum_(0), error_(0) {}
  void Add(double value) {
    const double sum = sum_ + value;
    error_ += std::abs(sum_) >= std::abs(value) ? (sum_ - sum) + value
                                                : (value - sum) + sum_;
    sum_ = sum;
  }
  /// The sum; infinity and NaN as plain addition gives them.
  double Get() const { return std::isfinite(sum_) ? sum_ + error_ : sum_; }

 private:
  double sum_;
  double error_;
};

/// Calls run(begin, end, channel) for each run of one channel in [begin, end).
template <typename T, typename Run>
void ForEachRun(const Elements<T>& elements, std::size_t begin,
                std::size_t end, Run run) {
  std::size_t channel = begin / elements.inner % elements.channels;
  std::size_t next = begin - begin % elements.inner + elements.inner;
  while (begin < end) {
    const std::size_t run_end = std::min(next, end);
    run(begin, run_end, channel);
    begin = run_end;
    next += elements.inner;
    channel = channel + 1 == elements.channels ? 0 : channel + 1;
  }
}

template <typename T>
bool IsIgnored(const Elements<T>& elements, std::size_t i) {
  return elements.has_ignore_label &&
         elements.targets[i] == elements.ignore_label;
}

}  // namespace

template <typename T>
LossSums Loss(const Elements<T>& elements, double scale) {
  CompensatedSum loss;
  LossSums sums = LossSums();
  for (std::size_t begin = 0; begin < elements.count; begin += kBlock) {
    const std::size_t end = std::min(begin + kBlock, elements.count);
    double lanes[kLanes] = {};
    ForEachRun(elements, begin, end, [&](std::size_t first, std::size_t last,
                                         std::size_t channel) {
      const double a = scale * elements.cls_weight[channel];
      for (std::size_t i = first; i < last; ++i) {
        if (IsIgnored(elements, i)) {
          continue;
        }
        const T t = elements.targets[i];
        lanes[i % kLanes] += LossElement(elements.scores[i], t, a, scale);
        ++sums.valid;
        sums.out_of_range += !(t >= T(0) && t <= T(1));
      }
    });
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      loss.Add(lanes[lane]);
    }
  }
  sums.loss = loss.Get();
  return sums;
}

template <typename T>
void Gradient(const Elements<T>& elements, double scale, T* grad) {
  const T b = Saturate<T>(scale);
  ForEachRun(
      elements, 0, elements.count,
      [&](std::size_t first, std::size_t last, std::size_t channel) {
        const T a = Saturate<T>(scale * elements.cls_weight[channel]);
        for (std::size_t i = first; i < last; ++i) {
          grad[i] = IsIgnored(elements, i)
                        ? T(0)
                        : GradientElement(elements.scores[i],
                                          elements.targets[i], a, b);
        }
      });
}

template LossSums Loss<float>(const Elements<float>&, double);
template LossSums Loss<double>(const Elements<double>&, double);
template void Gradient<float>(const Elements<float>&, double, float*);
template void Gradient<double>(const Elements<double>&, double, double*);

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
