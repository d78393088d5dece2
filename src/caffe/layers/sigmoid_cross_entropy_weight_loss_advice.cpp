#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/layers/sigmoid_cross_entropy_weight_loss_advice.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"

namespace caffe {

namespace weight_loss_advice {

// Shapes

typedef vector<int> Shape;

static Shape WithoutOnes(Shape shape) {
  shape.erase(std::remove(shape.begin(), shape.end(), 1), shape.end());
  return shape;
}

static Shape WithoutAxis(Shape shape, int axis) {
  shape.erase(shape.begin() + axis);
  return WithoutOnes(shape);
}

static Shape Sorted(Shape shape) {
  std::sort(shape.begin(), shape.end());
  return shape;
}

/// Whether one of these shapes of as many elements has all axes of the other,
/// or their factors.
static bool Refines(const Shape& fine, const Shape& coarse) {
  std::int64_t of_fine = 1, of_coarse = 1;
  std::size_t k = fine.size();
  for (std::size_t j = coarse.size(); j > 0; --j) {
    of_coarse *= coarse[j - 1];
    while (of_fine < of_coarse && k > 0) {
      of_fine *= fine[--k];
    }
    if (of_fine != of_coarse) {
      return false;
    }
  }
  return true;
}

Order CompareOrder(const vector<int>& scores, const vector<int>& targets) {
  if (Refines(scores, targets) || Refines(targets, scores)) {
    return kSameOrder;
  }
  return Sorted(WithoutOnes(scores)) == Sorted(WithoutOnes(targets))
             ? kPermutation
             : kUnknownOrder;
}

string CountAdvice(const vector<int>& scores, const vector<int>& targets,
                   int axis) {
  const int axes = scores.size();
  std::ostringstream advice;
  if (-axes <= axis && axis < axes) {
    axis = (axis + axes) % axes;
    const Shape without_channels = WithoutAxis(scores, axis);
    if (without_channels == WithoutOnes(targets)) {
      advice << " These look like class numbers: the layer needs one-hot "
             << "targets, 0 or 1 for each of the " << scores[axis]
             << " channels (docs/recipes.md has an Embed layer that makes "
             << "them).";
      if (scores[axis] == 2) {
        advice << " For two classes that exclude each other, scores of one "
               << "channel and targets of 0 and 1 are enough.";
      }
    } else if (axis < static_cast<int>(targets.size()) &&
               WithoutAxis(targets, axis) == without_channels) {
      advice << " Each image has " << targets[axis] << " channels of targets "
             << "and " << scores[axis] << " of scores; are masks read in "
             << "color (ImageData's is_color: false reads them as gray)?";
    } else if (targets.size() == scores.size() && axes > 2 &&
               std::equal(scores.begin(), scores.begin() + 2,
                          targets.begin())) {
      advice << " Crop or resize one to the height and width of the other.";
    }
  }
  return advice.str();
}

// Values

/// What there is among the targets that count.
struct TargetKinds {
  TargetKinds()
      : minimum(std::numeric_limits<double>::infinity()),
        maximum(-minimum),
        is_finite(true),
        are_integers(true),
        has_zero(false),
        has_one(false),
        only_bad(0),
        bad(0) {}

  void Add(double target) {
    is_finite = is_finite && std::isfinite(target);
    are_integers = are_integers && target == std::floor(target);
    has_zero = has_zero || target == 0;
    has_one = has_one || target == 1;
    minimum = std::min(minimum, target);
    maximum = std::max(maximum, target);
    if (weighted_sigmoid_loss::IsOutOfRange(target) && bad < 2 &&
        !(bad == 1 && target == only_bad)) {
      only_bad = target;
      ++bad;
    }
  }

  double minimum, maximum;
  bool is_finite, are_integers, has_zero, has_one;
  double only_bad;  ///< the value of all that are outside [0, 1], if bad is 1
  int bad;          ///< how many values these have, 2 for more
};

static string Advice(const TargetKinds& kinds) {
  std::ostringstream advice;
  if (!kinds.is_finite) {
    advice << "NaN or infinity is in the data: look for it there.";
  } else if (kinds.bad == 1 && kinds.only_bad == -1 && !kinds.has_zero) {
    advice << "For labels of -1 and 1 put a Power layer (scale: 0.5 shift: "
           << "0.5) before this one.";
  } else if (kinds.bad == 1 && kinds.only_bad == -1) {
    advice << "If -1 marks elements to leave out, set ignore_label: -1; if 0 "
           << "does, put a Power layer (scale: 0.5 shift: 0.5) before this one "
           << "and set ignore_soft_targets: true.";
  } else if (kinds.bad == 1 && kinds.are_integers &&
             (kinds.has_one || kinds.only_bad < 0)) {
    advice << "If " << kinds.only_bad << " marks elements to leave out, set "
           << "ignore_label: " << kinds.only_bad << "; class numbers need "
           << "one-hot targets, a channel each.";
  } else if (kinds.minimum >= 0 &&
             (kinds.bad == 1 || !kinds.are_integers || kinds.maximum > 100)) {
    advice << "Scale them by " << 1 / kinds.maximum << ", that is 1/"
           << kinds.maximum << " (in the layer that reads a mask, "
           << "transform_param { scale: " << 1 / kinds.maximum << " })";
    if (kinds.bad > 1 && kinds.are_integers) {
      advice << "; class numbers need one-hot targets, a channel each";
    }
    advice << ".";
  } else if (kinds.are_integers && kinds.minimum >= -1) {
    advice << "Class numbers need one-hot targets, a channel each.";
  } else {
    advice << "Are bottoms 0 and 1 the scores and the targets, in this order?";
  }
  return advice.str();
}

template <typename Dtype>
string TargetsAdvice(const Blob<Dtype>& targets,
                     const std::function<bool(Dtype)>& counts) {
  const Dtype* const data = targets.cpu_data();
  TargetKinds kinds;
  for (int i = 0; i < targets.count(); ++i) {
    if (counts(data[i])) {
      kinds.Add(data[i]);
    }
  }
  return Advice(kinds);
}

template <typename Dtype>
string BadValues(const Blob<Dtype>& blob, const char* what,
                 const std::function<bool(Dtype)>& is_bad) {
  const Dtype* const begin = blob.cpu_data();
  const Dtype* const end = begin + blob.count();
  const Dtype* const first = std::find_if(begin, end, is_bad);
  if (first == end) {
    return "";
  }
  std::ostringstream text;
  text << std::count_if(first, end, is_bad) << " of " << blob.count() << ' '
       << what << ", the first is " << *first;
  return text.str();
}

template <typename Dtype>
Dtype LargestMagnitude(const Blob<Dtype>& blob) {
  const Dtype* const data = blob.cpu_data();
  Dtype largest = 0;
  for (int i = 0; i < blob.count(); ++i) {
    largest = std::max(largest, std::abs(data[i]));
  }
  return largest;
}

#define INSTANTIATE(Dtype)                                                 \
  template string TargetsAdvice(const Blob<Dtype>& targets,                \
                                const std::function<bool(Dtype)>& counts); \
  template string BadValues(const Blob<Dtype>& blob, const char* what,     \
                            const std::function<bool(Dtype)>& is_bad);     \
  template Dtype LargestMagnitude(const Blob<Dtype>& blob)

INSTANTIATE(float);   // NOLINT(readability/function)
INSTANTIATE(double);  // NOLINT(readability/function)

}  // namespace weight_loss_advice

}  // namespace caffe
