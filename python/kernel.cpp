// The compiled module of the Python package: the kernel on NumPy arrays, and on
// the memory of PyTorch's tensors. What users give is checked in numpy.py and
// torch.py; compute only makes sure that no memory but the arrays' is touched.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <optional>  // NOLINT(build/include_order)
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

namespace {

namespace py = pybind11;
namespace kernel = caffe::weighted_sigmoid_loss;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
template <typename T>
using OptionalArray = std::optional<Array<T>>;
using SizeAndInner = std::pair<std::size_t, std::size_t>;

void Require(bool holds, const char* what) {
  if (!holds) {
    throw std::invalid_argument(what);
  }
}

/// An axis whose rounds fit into count elements.
kernel::Axis AxisOf(std::size_t size, std::size_t inner, std::size_t count) {
  const bool fits =
      count == 0 || (size > 0 && inner > 0 && count / size >= inner &&
                     count % (size * inner) == 0);
  Require(fits, "an axis does not fit the scores");
  return kernel::Axis(size, inner);
}

using Shape = std::vector<std::size_t>;

/// Weights with as many axes as the scores, each of the same length or 1.
template <typename T>
kernel::ElementWeights<T> WeightsOf(const T* data, const Shape& of_weight,
                                    const Shape& of_scores) {
  Require(of_weight.size() == of_scores.size(),
          "weight and scores differ in axes");
  kernel::ElementWeights<T> merged;
  merged.data = data;
  bool was_broadcast = false;
  for (std::size_t k = 0; k < of_scores.size(); ++k) {
    const bool broadcast = of_weight[k] == 1;
    Require(broadcast || of_weight[k] == of_scores[k],
            "weight does not fit the scores");
    if (of_scores[k] == 1) {
      continue;
    }
    if (merged.axes > 0 && broadcast == was_broadcast) {
      merged.size[merged.axes - 1] *= of_scores[k];
    } else {
      Require(merged.axes < kernel::kMaxAxes, "weight has too many axes");
      merged.size[merged.axes++] = of_scores[k];
    }
    const std::size_t stride =
        std::accumulate(of_weight.begin() + k + 1, of_weight.end(),
                        std::size_t(1), std::multiplies<std::size_t>());
    merged.stride[merged.axes - 1] = broadcast ? 0 : stride;
    was_broadcast = broadcast;
  }
  if (merged.axes == 0) {  // one element
    merged.size[0] = merged.stride[0] = merged.axes = 1;
  }
  return merged;
}

template <typename T>
Shape ShapeOf(const Array<T>& array) {
  return Shape(array.shape(), array.shape() + array.ndim());
}

/// The loss over the normalizer, and how many targets and weights are bad.
using Result = std::tuple<double, std::uint64_t, std::uint64_t>;

template <typename T>
Result Run(const kernel::Elements<T>& elements, double scale, T* losses,
           T* grad) {
  const kernel::LossSums sums =
      losses ? LossesAndGradient(elements, scale, losses, grad)
      : grad ? LossAndGradient(elements, scale, grad)
             : Loss(elements, scale);
  kernel::BadInput bad = {0, 0};
  if (sums.target_excess > 0 || sums.weight_excess > 0) {
    bad = CountBadInput(elements);
  }
  return Result(sums.loss, bad.targets, bad.weights);
}

/// Without a normalizer that is the number of valid elements, at least 1.
template <typename T>
Result Compute(const Array<T>& scores, const Array<T>& targets,
               OptionalArray<T> grad, const OptionalArray<T>& weight,
               const Array<double>& cls_weight, const Array<double>& neg_weight,
               std::size_t channel_inner,
               const std::optional<SizeAndInner>& scope,
               std::optional<double> ignore_label,
               std::optional<double> normalizer) {
  Require(targets.size() == scores.size(), "targets and scores differ in size");
  Require(neg_weight.size() == cls_weight.size(), "weights differ in number");
  kernel::Elements<T> elements = kernel::Elements<T>();
  elements.count = scores.size();
  elements.scores = scores.data();
  elements.targets = targets.data();
  elements.channel = AxisOf(cls_weight.size(), channel_inner, elements.count);
  elements.cls_weight = cls_weight.data();
  elements.neg_weight = neg_weight.data();
  elements.has_ignore_label = ignore_label.has_value();
  elements.ignore_label = static_cast<T>(ignore_label.value_or(0));
  if (weight) {
    elements.weight =
        WeightsOf(weight->data(), ShapeOf(*weight), ShapeOf(scores));
  }
  std::vector<double> balance;
  if (scope) {
    elements.scope = AxisOf(scope->first, scope->second, elements.count);
    balance.resize(2 * scope->first);
  }
  T* to_grad = nullptr;
  if (grad) {
    Require(grad->size() == scores.size(), "grad and scores differ in size");
    to_grad = grad->mutable_data();  // throws for a read-only one
  }

  const py::gil_scoped_release released;
  if (scope) {
    kernel::Balance(elements, balance.data());
    elements.balance = balance.data();
  }
  const double divisor =
      normalizer ? *normalizer
                 : std::max(1., static_cast<double>(CountValid(elements)));
  return Run<T>(elements, 1 / divisor, nullptr, to_grad);
}

/// A weight a channel, from a tensor of the scores' type.
template <typename T>
std::vector<double> ReadWeights(std::uintptr_t address, std::size_t count) {
  const T* const values = reinterpret_cast<const T*>(address);
  const std::vector<double> read(values, values + count);
  for (const double value : read) {
    if (!(value >= 0 && std::isfinite(value))) {
      throw std::invalid_argument(
          "pos_weight: a weight must be finite and not negative, got " +
          std::to_string(value));
    }
  }
  return read;
}

/// The same of tensors, by the addresses of their contiguous memory, which the
/// caller vouches for; 0 is for what is not there. Calls of a few microseconds
/// matter here, and a NumPy array for each tensor would cost as many.
template <typename T>
Result ComputeAt(const Shape& shape, std::uintptr_t scores,
                 std::uintptr_t targets, std::uintptr_t grad,
                 std::uintptr_t losses, std::uintptr_t weight,
                 const Shape& of_weight, std::uintptr_t pos_weight,
                 std::size_t channels, std::size_t channel_inner,
                 double normalizer) {
  const std::vector<double> cls_weight =
      pos_weight ? ReadWeights<T>(pos_weight, channels)
                 : std::vector<double>(1, 1.);
  const std::vector<double> neg_weight(cls_weight.size(), 1.);
  kernel::Elements<T> elements = kernel::Elements<T>();
  elements.count = std::accumulate(shape.begin(), shape.end(), std::size_t(1),
                                   std::multiplies<std::size_t>());
  elements.scores = reinterpret_cast<const T*>(scores);
  elements.targets = reinterpret_cast<const T*>(targets);
  elements.channel = AxisOf(cls_weight.size(), channel_inner, elements.count);
  elements.cls_weight = cls_weight.data();
  elements.neg_weight = neg_weight.data();
  if (weight) {
    elements.weight =
        WeightsOf(reinterpret_cast<const T*>(weight), of_weight, shape);
  }
  const py::gil_scoped_release released;
  return Run(elements, 1 / normalizer, reinterpret_cast<T*>(losses),
             reinterpret_cast<T*>(grad));
}

template <typename T>
void Define(py::module_* module) {
  module->def("compute", Compute<T>, py::arg("scores").noconvert(),
              py::arg("targets").noconvert(), py::arg("grad").noconvert(),
              py::arg("weight").noconvert(), py::arg("cls_weight").noconvert(),
              py::arg("neg_weight").noconvert(), py::arg("channel_inner"),
              py::arg("scope"), py::arg("ignore_label"), py::arg("normalizer"));
}

}  // namespace

PYBIND11_MODULE(_kernel, module) {
  module.doc() = "The kernel of the loss; weighted_sigmoid_loss is its face.";
  Define<float>(&module);
  Define<double>(&module);
  module.def("compute_float32_at", ComputeAt<float>);
  module.def("compute_float64_at", ComputeAt<double>);
  module.def(
      "instruction_set", [] { return kernel::BestLoops<float>().name; },
      "The instruction set in use: avx512, avx2 or baseline.");
}
