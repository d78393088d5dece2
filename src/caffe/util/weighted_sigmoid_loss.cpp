#include "caffe/util/weighted_sigmoid_loss.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>

#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"
#include "caffe/util/weighted_sigmoid_loss_parts.hpp"
#include "caffe/util/weighted_sigmoid_loss_pool.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

// The loops sum a block at a time; blocks are summed with their rounding
// errors. So neither a long input nor a long block loses digits. Blocks belong
// to parts, which threads take, and whose sums are added in their order: it
// depends on the shapes alone.
const std::size_t kBlocksInPart = 8;  // at least, but for the last

/// Neighbouring elements that have the same index into some constants, or, if
/// runs, as many indices as there are elements.
struct Segment {
  std::size_t begin;
  std::size_t end;
  std::size_t index;
  bool runs;
  std::size_t count() const { return end - begin; }
};

/// The segment along an axis that starts at element `begin`, up to end at most.
Segment SegmentAt(const Axis& axis, std::size_t begin, std::size_t end) {
  Segment segment = {begin, end, 0, false};
  if (axis.size > 1) {
    segment.runs = axis.inner == 1;
    segment.index = axis.Index(begin);
    const std::size_t left = segment.runs
                                 ? axis.cycle - segment.index % axis.cycle
                                 : axis.inner - begin % axis.inner;
    segment.end = std::min(end, begin + left);
  }
  return segment;
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

template <typename T>
Segment SegmentAt(const ElementWeights<T>& weight, std::size_t begin,
                  std::size_t end) {
  const std::size_t size = weight.size[weight.axes - 1];
  const Segment segment = {begin, std::min(end, begin - begin % size + size),
                           Offset(weight, begin),
                           weight.stride[weight.axes - 1] == 1};
  return segment;
}

/// How far a weight is outside the finite numbers from 0 on.
template <typename T>
double WeightExcess(T weight) {
  return weight < 0              ? -weight
         : std::isfinite(weight) ? 0.
                                 : std::numeric_limits<double>::infinity();
}

/// A block of neighbouring elements at a time, with their constants a and b:
/// one of each where they are the same for all, else one per element.
template <typename T>
class BlockCursor {
 public:
  BlockCursor(const Elements<T>& elements, double scale)
      : elements_(elements),
        loops_(BestLoops<T>()),
        scale_(scale),
        period_(Period(elements)),
        begin_(0),
        end_(0),
        is_same_(true),
        weights_(NULL),
        weight_excess_(0) {
    if (period_ > 0) {
      FillPeriods(
          std::min(period_ == 1 ? 1 : period_ + kBlock, elements.count));
    }
  }

  void MoveTo(std::size_t begin) {
    begin_ = begin;
    end_ = std::min(begin + kBlock, elements_.count);
    FindConstants();
    if (elements_.weight.data) {
      FindWeights();
    }
  }

  /// losses and grad are NULL where they are not wanted.
  BlockSums Visit(bool wants_sums, double* losses, T* grad) {
    if (grad && !is_same_ && !weights_ && !is_rounded_) {
      loops_.round(by_scope_a_, filled_, rounded_a_);
      loops_.round(by_scope_b_, filled_, rounded_b_);
      is_rounded_ = true;
    }
    const std::size_t first = is_same_ ? 0 : a_ - by_scope_a_;
    T copy[kBlock];
    Block<T> block = {end_ - begin_,
                      elements_.scores + begin_,
                      NULL,
                      false,
                      0,
                      is_same_,
                      a_,
                      b_,
                      weights_,
                      rounded_a_ + first,
                      rounded_b_ + first};
    SetTargets(elements_, begin_, loops_, copy, &block);
    BlockSums sums =
        loops_.visit(block, wants_sums, losses, grad ? grad + begin_ : NULL);
    if (sums.valid > 0) {
      sums.weight_excess = std::max(sums.weight_excess, weight_excess_);
    }
    return sums;
  }

  std::size_t begin() const { return begin_; }
  std::size_t count() const { return end_ - begin_; }

 private:
  static const std::size_t kMaxPeriod = 512;

  /// After how many elements the constants of channels and scopes come again,
  /// at most kMaxPeriod; 0 where they do not.
  static std::size_t Period(const Elements<T>& elements) {
    const Axis axes[] = {elements.channel,
                         elements.balance ? elements.scope : Axis()};
    std::size_t period = 1;
    for (const Axis& axis : axes) {
      if (axis.size > 1) {
        if (axis.inner > 1 || axis.IsGrouped() || axis.size > kMaxPeriod ||
            (period > 1 && period != axis.size)) {
          return 0;
        }
        period = axis.size;
      }
    }
    return period;
  }

  /// Whether a segment that starts with the block has one index for all of it.
  bool IsWhole(const Segment& segment) const {
    return segment.end == end_ && !segment.runs;
  }

  /// The constants without the elements' weights.
  void FindConstants() {
    if (period_ > 0) {
      is_same_ = period_ == 1;
      a_ = by_scope_a_ + begin_ % period_;
      b_ = by_scope_b_ + begin_ % period_;
      return;
    }
    is_same_ = IsWhole(SegmentAt(elements_.channel, begin_, end_)) &&
               (!elements_.balance ||
                IsWhole(SegmentAt(elements_.scope, begin_, end_)));
    Fill(begin_, is_same_ ? begin_ + 1 : end_);
    a_ = by_scope_a_;
    b_ = by_scope_b_;
  }

  /// Writes the constants of the first count elements, which repeat.
  void FillPeriods(std::size_t count) {
    Fill(0, std::min(period_, count));
    for (; filled_ < count; filled_ = std::min(2 * filled_, count)) {
      const std::size_t more = std::min(filled_, count - filled_);
      std::copy(by_scope_a_, by_scope_a_ + more, by_scope_a_ + filled_);
      std::copy(by_scope_b_, by_scope_b_ + more, by_scope_b_ + filled_);
    }
  }

  /// Writes the constants of channels and scopes for the elements [begin, end).
  void Fill(std::size_t begin, std::size_t end) {
    filled_ = end - begin;
    is_rounded_ = false;
    for (std::size_t i = begin; i < end;) {
      const Segment segment = SegmentAt(elements_.channel, i, end);
      const double* cls_weight = elements_.cls_weight + segment.index;
      const double* neg_weight = elements_.neg_weight + segment.index;
      double* a = by_scope_a_ + (i - begin);
      double* b = by_scope_b_ + (i - begin);
      i = segment.end;
      if (segment.runs) {
        loops_.scale(cls_weight, segment.count(), scale_, a);
        loops_.scale(neg_weight, segment.count(), scale_, b);
      } else {
        loops_.fill(scale_ * *cls_weight, segment.count(), a);
        loops_.fill(scale_ * *neg_weight, segment.count(), b);
      }
    }
    for (std::size_t i = begin; elements_.balance && i < end;) {
      const Segment segment = SegmentAt(elements_.scope, i, end);
      const double* balance = elements_.balance + 2 * segment.index;
      double* a = by_scope_a_ + (i - begin);
      double* b = by_scope_b_ + (i - begin);
      i = segment.end;
      if (segment.runs) {
        loops_.multiply(balance, segment.count(), a, b);
      } else {
        loops_.scale(a, segment.count(), balance[0], a);
        loops_.scale(b, segment.count(), balance[1], b);
      }
    }
  }

  /// Multiplies the constants by the elements' weight where all have the same,
  /// else finds or lines up a weight each.
  void FindWeights() {
    const Segment first = SegmentAt(elements_.weight, begin_, end_);
    const T* const data = elements_.weight.data + first.index;
    weights_ = NULL;
    weight_excess_ = 0;
    if (first.end == end_ && first.runs) {
      weights_ = data;
    } else if (first.end == end_ && is_same_) {
      weight_excess_ = WeightExcess(*data);
      weighted_a_ = *a_ * *data;
      weighted_b_ = *b_ * *data;
      a_ = &weighted_a_;
      b_ = &weighted_b_;
    } else {
      LineUpWeights(first);
      weights_ = lined_up_weights_;
    }
  }

  void LineUpWeights(Segment segment) {
    for (;; segment = SegmentAt(elements_.weight, segment.end, end_)) {
      const T* const weight = elements_.weight.data + segment.index;
      T* const to = lined_up_weights_ + (segment.begin - begin_);
      if (segment.runs) {
        std::copy(weight, weight + segment.count(), to);
      } else {
        std::fill_n(to, segment.count(), *weight);
      }
      if (segment.end == end_) {
        return;
      }
    }
  }

  const Elements<T>& elements_;
  const Loops<T>& loops_;
  const double scale_;
  const std::size_t period_;
  std::size_t begin_;
  std::size_t end_;
  bool is_same_;
  const T* weights_;
  double weight_excess_;  // of a weight that is in the constants
  const double* a_;
  const double* b_;
  // By channel and balance scope, from some element on; of a period, and a
  // block more, where there is one.
  double by_scope_a_[kMaxPeriod + kBlock];
  double by_scope_b_[kMaxPeriod + kBlock];
  std::size_t filled_;
  // The same for gradients, once one is wanted.
  T rounded_a_[kMaxPeriod + kBlock];
  T rounded_b_[kMaxPeriod + kBlock];
  bool is_rounded_;
  double weighted_a_;
  double weighted_b_;
  T lined_up_weights_[kBlock];
};

/// What the elements of a part add up to; PartSums() is 0.
class PartSums {
 public:
  void Add(const BlockSums& sums) {
    loss_.Add(sums.loss);
    AddRest(sums);
  }
  void Add(const PartSums& other) {
    loss_.Add(other.loss_);
    AddRest(other.sums_);
  }
  LossSums Get() const {
    LossSums sums = sums_;
    sums.loss = loss_.Get();
    return sums;
  }

 private:
  template <typename Sums>
  void AddRest(const Sums& sums) {
    sums_.valid += sums.valid;
    sums_.target_excess = std::max(sums_.target_excess, sums.target_excess);
    sums_.weight_excess = std::max(sums_.weight_excess, sums.weight_excess);
  }

  CompensatedSum loss_;
  LossSums sums_;
};

/// Calls function(cursor) for each block of a part.
template <typename T, typename Function>
void ForEachBlock(const Elements<T>& elements, double scale, std::size_t part,
                  std::size_t parts, const Function& function) {
  const std::size_t blocks = (elements.count + kBlock - 1) / kBlock;
  const std::size_t end = PartBegin(part + 1, parts, blocks);
  BlockCursor<T> cursor(elements, scale);
  for (std::size_t k = PartBegin(part, parts, blocks); k < end; ++k) {
    cursor.MoveTo(k * kBlock);
    function(cursor);
  }
}

std::size_t Parts(std::size_t count) {
  const std::size_t elements = kBlocksInPart * kBlock;
  return std::min((count + elements - 1) / elements, kMaxParts);
}

/// The total of what get_sums(cursor) gives for each block of the elements.
template <typename T, typename GetSums>
LossSums Sum(const Elements<T>& elements, double scale,
             const GetSums& get_sums) {
  PartSums sums[kMaxParts];
  const std::size_t parts = Parts(elements.count);
  ForEachPart(parts, Threads(elements.count), [&](std::size_t part) {
    PartSums part_sums = PartSums();
    ForEachBlock(elements, scale, part, parts, [&](BlockCursor<T>& cursor) {
      part_sums.Add(get_sums(cursor));
    });
    sums[part] = part_sums;
  });
  PartSums total = PartSums();
  for (std::size_t part = 0; part < parts; ++part) {
    total.Add(sums[part]);
  }
  return total.Get();
}

}  // namespace

template <typename T>
bool SetAxes(const std::size_t* scores, int scores_axes,
             const std::size_t* weights, int weights_axes,
             ElementWeights<T>* weight) {
  for (int k = scores_axes; k < weights_axes; ++k) {
    if (weights[k] != 1) {
      return false;
    }
  }
  weight->axes = 0;
  bool was_broadcast = false;
  for (int k = 0; k < scores_axes; ++k) {
    const bool is_broadcast = k >= weights_axes || weights[k] == 1;
    if (!is_broadcast && weights[k] != scores[k]) {
      return false;
    }
    if (scores[k] == 1) {
      continue;
    }
    if (weight->axes == 0 || is_broadcast != was_broadcast) {
      if (weight->axes == kMaxAxes) {
        return false;
      }
      weight->size[weight->axes++] = 1;
    }
    const int last = weight->axes - 1;
    weight->size[last] *= scores[k];
    weight->stride[last] =
        is_broadcast
            ? 0
            : std::accumulate(weights + k + 1, weights + weights_axes,
                              std::size_t(1), std::multiplies<std::size_t>());
    was_broadcast = is_broadcast;
  }
  if (weight->axes == 0) {  // one element
    weight->size[0] = weight->stride[0] = weight->axes = 1;
  }
  return true;
}

template <typename T>
LossSums Loss(const Elements<T>& elements, double scale) {
  return LossAndGradient(elements, scale, static_cast<T*>(NULL));
}

template <typename T>
void Gradient(const Elements<T>& elements, double scale, T* grad) {
  const std::size_t parts = Parts(elements.count);
  ForEachPart(parts, Threads(elements.count), [&](std::size_t part) {
    ForEachBlock(elements, scale, part, parts, [=](BlockCursor<T>& cursor) {
      cursor.Visit(false, NULL, grad);
    });
  });
}

template <typename T>
LossSums LossAndGradient(const Elements<T>& elements, double scale, T* grad) {
  return Sum(elements, scale, [=](BlockCursor<T>& cursor) {
    return cursor.Visit(true, NULL, grad);
  });
}

template <typename T>
LossSums LossesAndGradient(const Elements<T>& elements, double scale, T* losses,
                           T* grad) {
  return Sum(elements, scale, [=](BlockCursor<T>& cursor) {
    double exact[kBlock];
    const BlockSums sums = cursor.Visit(true, exact, grad);
    std::copy(exact, exact + cursor.count(), losses + cursor.begin());
    return sums;
  });
}

template <typename T>
bool IsIgnored(const Elements<T>& elements, T target) {
  return (elements.has_ignore_label & (target == elements.ignore_label)) |
         (elements.ignores_soft_targets & IsSoft(target));
}

template <typename T>
std::uint64_t CountValid(const Elements<T>& elements) {
  if (!elements.has_ignore_label && !elements.ignores_soft_targets) {
    return elements.count;
  }
  const std::size_t parts = Parts(elements.count);
  std::uint64_t valid[kMaxParts];
  ForEachPart(parts, Threads(elements.count), [&](std::size_t part) {
    const std::size_t end = PartBegin(part + 1, parts, elements.count);
    std::uint64_t part_valid = 0;
    for (std::size_t begin = PartBegin(part, parts, elements.count);
         begin < end; begin += kBlock) {
      const T* const targets = elements.targets + begin;
      const std::size_t count = std::min(kBlock, end - begin);
      std::uint32_t block_valid = 0;  // narrow, for compilers' vector code
      for (std::size_t i = 0; i < count; ++i) {
        block_valid += !IsIgnored(elements, targets[i]);
      }
      part_valid += block_valid;
    }
    valid[part] = part_valid;
  });
  return std::accumulate(valid, valid + parts, std::uint64_t(0));
}

template <typename T>
BadInput CountBadInput(const Elements<T>& elements) {
  BadInput bad = {0, 0};
  for (std::size_t i = 0; i < elements.count; ++i) {
    const T target = elements.targets[i];
    if (IsIgnored(elements, target)) {
      continue;
    }
    bad.targets += IsOutOfRange(target);
    bad.weights +=
        elements.weight.data &&
        WeightExcess(elements.weight.data[Offset(elements.weight, i)]) > 0;
  }
  return bad;
}

#define INSTANTIATE(T)                                                      \
  template bool SetAxes<T>(const std::size_t* scores, int scores_axes,      \
                           const std::size_t* weights, int weights_axes,    \
                           ElementWeights<T>* weight);                      \
  template bool IsIgnored<T>(const Elements<T>& elements, T target);        \
  template BadInput CountBadInput<T>(const Elements<T>& elements);          \
  template LossSums Loss<T>(const Elements<T>& elements, double scale);     \
  template void Gradient<T>(const Elements<T>& elements, double scale,      \
                            T* grad);                                       \
  template LossSums LossAndGradient<T>(const Elements<T>& elements,         \
                                       double scale, T* grad);              \
  template LossSums LossesAndGradient<T>(const Elements<T>& elements,       \
                                         double scale, T* losses, T* grad); \
  template std::uint64_t CountValid<T>(const Elements<T>& elements)

INSTANTIATE(float);   // NOLINT(readability/function)
INSTANTIATE(double);  // NOLINT(readability/function)

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
