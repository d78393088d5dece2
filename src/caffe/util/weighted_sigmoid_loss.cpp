#include "caffe/util/weighted_sigmoid_loss.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

// The loops write the losses of a block, which are summed in kLanes partial
// sums; blocks are summed with their rounding errors. So neither a long input
// nor a long block loses digits, and the order is that of the elements alone.
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

double SumOfBlock(const double* values, std::size_t count) {
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += values[i + lane];
    }
  }
  for (; i < count; ++i) {
    lanes[i % kLanes] += values[i];
  }
  return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) +
         ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

/// Where a walk through the elements is along an axis.
class Cursor {
 public:
  Cursor(const Axis& axis, std::size_t i)
      : axis_(axis),
        index_(i / axis.inner % axis.size),
        left_(axis.size > 1 ? axis.inner - i % axis.inner
                            : static_cast<std::size_t>(-1)) {}
  std::size_t index() const { return index_; }
  /// How many elements there are until the index changes.
  std::size_t left() const { return left_; }
  /// Goes on by no more than what is left.
  void Advance(std::size_t count) {
    left_ -= count;
    if (left_ == 0) {
      index_ = index_ + 1 == axis_.size ? 0 : index_ + 1;
      left_ = axis_.inner;
    }
  }

 private:
  const Axis axis_;
  std::size_t index_;
  std::size_t left_;
};

template <typename T>
std::size_t Offset(const ElementWeights<T>& weight, std::size_t i) {
  std::size_t offset = 0;
  for (int k = weight.axes - 1; k >= 0; --k) {
    offset += i % weight.size[k] * weight.stride[k];
    i /= weight.size[k];
  }
  return offset;
}

/// Neighbouring elements of the same constants, but for the element weights.
struct Run {
  std::size_t begin;
  std::size_t end;
  double a;
  double b;
};

/// Goes through [begin, end) run by run.
template <typename T>
class Runs {
 public:
  Runs(const Elements<T>& elements, double scale, std::size_t begin,
       std::size_t end)
      : elements_(elements),
        scale_(scale),
        end_(end),
        channel_(elements.channel, begin),
        scope_(elements.balance ? elements.scope : Axis(), begin) {
    run_.end = begin;
  }
  bool HasNext() const { return run_.end < end_; }
  const Run& Next() {
    run_.begin = run_.end;
    run_.a = scale_ * elements_.cls_weight[channel_.index()];
    run_.b = scale_ * elements_.neg_weight[channel_.index()];
    if (elements_.balance) {
      run_.a *= elements_.balance[2 * scope_.index()];
      run_.b *= elements_.balance[2 * scope_.index() + 1];
    }
    const std::size_t count =
        std::min(std::min(channel_.left(), scope_.left()), end_ - run_.begin);
    channel_.Advance(count);
    scope_.Advance(count);
    run_.end = run_.begin + count;
    return run_;
  }

 private:
  const Elements<T>& elements_;
  const double scale_;
  const std::size_t end_;
  Cursor channel_, scope_;
  Run run_;
};

template <typename T>
bool IsIgnored(const Elements<T>& elements, std::size_t i) {
  return elements.has_ignore_label &&
         elements.targets[i] == elements.ignore_label;
}

template <typename T>
std::size_t CountBadWeights(const Elements<T>& elements, std::size_t begin,
                            std::size_t end) {
  std::size_t bad = 0;
  for (std::size_t i = begin; i < end; ++i) {
    const T e = elements.weight.data[Offset(elements.weight, i)];
    bad += !(std::isfinite(e) && e >= 0) && !IsIgnored(elements, i);
  }
  return bad;
}

/// A block of neighbouring elements and their constants: the first of a and b
/// where they are the same for all, else one an element. Value is double for
/// losses and T, to which they are rounded, for gradients.
template <typename T, typename Value>
class Block {
 public:
  Block(const Elements<T>& elements, double scale, std::size_t begin)
      : begin_(begin),
        end_(std::min(begin + kBlock, elements.count)),
        has_bad_weight_(false) {
    stretch_.count = end_ - begin_;
    stretch_.scores = elements.scores + begin_;
    stretch_.targets = elements.targets + begin_;
    stretch_.has_ignore_label = elements.has_ignore_label;
    stretch_.ignore_label = elements.ignore_label;
    Runs<T> runs(elements, scale, begin_, end_);
    const Run run = runs.Next();
    a_[0] = Saturate<Value>(run.a);
    b_[0] = Saturate<Value>(run.b);
    is_same_ = run.end == end_ && !elements.weight.data;
    if (is_same_) {
      return;
    }
    Fill(run, elements.weight);
    while (runs.HasNext()) {
      Fill(runs.Next(), elements.weight);
    }
  }
  std::size_t begin() const { return begin_; }
  std::size_t end() const { return end_; }
  const Stretch<T>& stretch() const { return stretch_; }
  bool is_same() const { return is_same_; }
  bool has_bad_weight() const { return has_bad_weight_; }
  const Value* a() const { return a_; }
  const Value* b() const { return b_; }

 private:
  void Fill(const Run& run, const ElementWeights<T>& weight) {
    if (!weight.data) {
      std::fill(a_ + (run.begin - begin_), a_ + (run.end - begin_),
                Saturate<Value>(run.a));
      std::fill(b_ + (run.begin - begin_), b_ + (run.end - begin_),
                Saturate<Value>(run.b));
      return;
    }
    const std::size_t size = weight.size[weight.axes - 1];
    const std::size_t stride = weight.stride[weight.axes - 1];
    for (std::size_t first = run.begin; first < run.end;) {
      const std::size_t last = std::min(run.end, first - first % size + size);
      FillWeighted(run, first, last, weight.data + Offset(weight, first),
                   stride);
      first = last;
    }
  }

  /// The product is rounded once, as its factors may be beyond Value's range.
  void FillWeighted(const Run& run, std::size_t first, std::size_t last,
                    const T* weight, std::size_t stride) {
    for (std::size_t i = first; i < last; ++i, weight += stride) {
      a_[i - begin_] = Saturate<Value>(run.a * *weight);
      b_[i - begin_] = Saturate<Value>(run.b * *weight);
      has_bad_weight_ |=
          !(*weight >= 0 && *weight <= std::numeric_limits<T>::max());
    }
  }

  const std::size_t begin_;
  const std::size_t end_;
  Stretch<T> stretch_;
  bool is_same_;
  bool has_bad_weight_;
  Value a_[kBlock];
  Value b_[kBlock];
};

/// Adds sum t and sum (1 - t) over the elements [begin, end) that count.
template <typename T>
void AddTargets(const Elements<T>& elements, std::size_t begin, std::size_t end,
                CompensatedSum* positives, CompensatedSum* negatives) {
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
    positives->Add(SumOfBlock(positive, kLanes));
    negatives->Add(SumOfBlock(negative, kLanes));
  }
}

}  // namespace

template <typename T>
LossSums Loss(const Elements<T>& elements, double scale) {
  const Loops<T>& loops = BestLoops<T>();
  CompensatedSum loss;
  LossSums sums = LossSums();
  double losses[kBlock];
  for (std::size_t begin = 0; begin < elements.count; begin += kBlock) {
    const Block<T, double> block(elements, scale, begin);
    const Counts counts =
        block.is_same()
            ? loops.losses(block.stretch(), *block.a(), *block.b(), losses)
            : loops.losses_each(block.stretch(), block.a(), block.b(), losses);
    loss.Add(SumOfBlock(losses, block.stretch().count));
    sums.valid += counts.valid;
    sums.bad_targets += counts.bad_targets;
    if (block.has_bad_weight()) {
      sums.bad_weights += CountBadWeights(elements, block.begin(), block.end());
    }
  }
  sums.loss = loss.Get();
  return sums;
}

template <typename T>
void Gradient(const Elements<T>& elements, double scale, T* grad) {
  const Loops<T>& loops = BestLoops<T>();
  for (std::size_t begin = 0; begin < elements.count; begin += kBlock) {
    const Block<T, T> block(elements, scale, begin);
    if (block.is_same()) {
      loops.gradients(block.stretch(), *block.a(), *block.b(), grad + begin);
    } else {
      loops.gradients_each(block.stretch(), block.a(), block.b(), grad + begin);
    }
  }
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

#define INSTANTIATE(T)                                                  \
  template LossSums Loss<T>(const Elements<T>& elements, double scale); \
  template void Gradient<T>(const Elements<T>& elements, double scale,  \
                            T* grad);                                   \
  template void Balance<T>(const Elements<T>& elements, double* balance)

INSTANTIATE(float);   // NOLINT(readability/function)
INSTANTIATE(double);  // NOLINT(readability/function)

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
