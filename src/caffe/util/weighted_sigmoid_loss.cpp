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
  void Add(const double (&lanes)[kLanes]) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      Add(lanes[lane]);
    }
  }
  /// The sum; infinity and NaN as plain addition gives them.
  double Get() const { return std::isfinite(sum_) ? sum_ + error_ : sum_; }

 private:
  double sum_;
  double error_;
};

/// Neighbouring elements of the same constants.
template <typename T>
struct Run {
  std::size_t begin;
  std::size_t end;
  double a;  // without the element weights
  double b;
  const T* weight;     // of the element at begin, or NULL
  std::size_t stride;  // of the weights, 0 or 1
};

std::size_t Index(const Axis& axis, std::size_t i) {
  return i / axis.inner % axis.size;
}

template <typename T>
std::size_t Offset(const ElementWeights<T>& weight, std::size_t i) {
  std::size_t offset = 0;
  for (int k = weight.axes - 1; k >= 0; --k) {
    offset += i % weight.size[k] * weight.stride[k];
    i /= weight.size[k];
  }
  return offset;
}

/// The length of runs: the smallest inner, which divides the others.
template <typename T>
std::size_t RunLength(const Elements<T>& elements) {
  std::size_t length = elements.count;
  if (elements.channel.size > 1) {
    length = std::min(length, elements.channel.inner);
  }
  if (elements.balance && elements.scope.size > 1) {
    length = std::min(length, elements.scope.inner);
  }
  if (elements.weight.data) {
    length = std::min(length, elements.weight.size[elements.weight.axes - 1]);
  }
  return length;
}

/// Calls visit(run) for the runs of [begin, end), in order.
template <typename T, typename Visit>
void ForEachRun(const Elements<T>& elements, double scale, std::size_t begin,
                std::size_t end, Visit visit) {
  const std::size_t length = RunLength(elements);
  while (begin < end) {
    const std::size_t c = Index(elements.channel, begin);
    Run<T> run;
    run.begin = begin;
    run.end = std::min(end, begin - begin % length + length);
    run.a = scale * elements.cls_weight[c];
    run.b = scale * elements.neg_weight[c];
    if (elements.balance) {
      const std::size_t s = Index(elements.scope, begin);
      run.a *= elements.balance[2 * s];
      run.b *= elements.balance[2 * s + 1];
    }
    run.weight = NULL;
    run.stride = 0;
    if (elements.weight.data) {
      run.weight = elements.weight.data + Offset(elements.weight, begin);
      run.stride = elements.weight.stride[elements.weight.axes - 1];
    }
    visit(run);
    begin = run.end;
  }
}

template <typename T>
bool IsIgnored(const Elements<T>& elements, std::size_t i) {
  return elements.has_ignore_label &&
         elements.targets[i] == elements.ignore_label;
}

/// Adds a run's terms to the lanes, and its counts to the sums.
template <typename T>
void AddLosses(const Elements<T>& elements, const Run<T>& run,
               double (&lanes)[kLanes], LossSums* sums) {
  for (std::size_t i = run.begin; i < run.end; ++i) {
    if (IsIgnored(elements, i)) {
      continue;
    }
    const T t = elements.targets[i];
    double a = run.a, b = run.b;
    if (run.weight) {
      const double e = run.weight[(i - run.begin) * run.stride];
      a *= e;
      b *= e;
      sums->bad_weights += !(std::isfinite(e) && e >= 0);
    }
    lanes[i % kLanes] += LossElement(elements.scores[i], t, a, b);
    ++sums->valid;
    sums->bad_targets += !(t >= T(0) && t <= T(1));
  }
}

/// Adds sum t and sum (1 - t) over the elements [begin, end) that count.
template <typename T>
void AddTargets(const Elements<T>& elements, std::size_t begin,
                std::size_t end, CompensatedSum* positives,
                CompensatedSum* negatives) {
  for (; begin < end; begin += kBlock) {
    double positive[kLanes] = {}, negative[kLanes] = {};
    const std::size_t block_end = std::min(begin + kBlock, end);
    for (std::size_t i = begin; i < block_end; ++i) {
      if (!IsIgnored(elements, i)) {
        const double t = elements.targets[i];
        positive[i % kLanes] += t;
        negative[i % kLanes] += 1 - t;
      }
    }
    positives->Add(positive);
    negatives->Add(negative);
  }
}

}  // namespace

template <typename T>
LossSums Loss(const Elements<T>& elements, double scale) {
  CompensatedSum loss;
  LossSums sums = LossSums();
  for (std::size_t begin = 0; begin < elements.count; begin += kBlock) {
    double lanes[kLanes] = {};
    ForEachRun(elements, scale, begin,
               std::min(begin + kBlock, elements.count),
               [&](const Run<T>& run) {
                 AddLosses(elements, run, lanes, &sums);
               });
    loss.Add(lanes);
  }
  sums.loss = loss.Get();
  return sums;
}

template <typename T>
void Gradient(const Elements<T>& elements, double scale, T* grad) {
  ForEachRun(
      elements, scale, 0, elements.count, [&](const Run<T>& run) {
        const T a = Saturate<T>(run.a), b = Saturate<T>(run.b);
        for (std::size_t i = run.begin; i < run.end; ++i) {
          const T e =
              run.weight ? run.weight[(i - run.begin) * run.stride] : T(1);
          grad[i] = IsIgnored(elements, i)
                        ? T(0)
                        : GradientElement(elements.scores[i],
                                          elements.targets[i], e * a, e * b);
        }
      });
}

template <typename T>
void Balance(const Elements<T>& elements, double* balance) {
  // Some scopes at a time: in one sweep over a batch of few channels, and with
  // a fixed number of sums on the stack.
  const std::size_t kScopes = 64;
  const Axis& scope = elements.scope;
  const std::size_t period = scope.size * scope.inner;
  for (std::size_t first = 0; first < scope.size; first += kScopes) {
    const std::size_t last = std::min(first + kScopes, scope.size);
    CompensatedSum positives[kScopes], negatives[kScopes];
    for (std::size_t base = 0; base < elements.count; base += period) {
      for (std::size_t s = first; s < last; ++s) {
        const std::size_t begin = base + s * scope.inner;
        AddTargets(elements, begin, begin + scope.inner, &positives[s - first],
                   &negatives[s - first]);
      }
    }
    for (std::size_t s = first; s < last; ++s) {
      BalanceFactors(positives[s - first].Get(), negatives[s - first].Get(),
                     balance + 2 * s);
    }
  }
}

#define INSTANTIATE(T)                                         \
  template LossSums Loss<T>(const Elements<T>&, double);       \
  template void Gradient<T>(const Elements<T>&, double, T*);   \
  template void Balance<T>(const Elements<T>&, double*)

INSTANTIATE(float);
INSTANTIATE(double);

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
