// The compiled module of the Python package: the kernel on NumPy arrays. What
// users give is checked in arrays.py and torch.py; here it is only made sure
// that no memory but the arrays' is touched.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <stdexcept>
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
  const bool fits = count == 0 || (size > 0 && inner > 0 &&
                                   count / size >= inner &&
                                   count % (size * inner) == 0);
  Require(fits, "an axis does not fit the scores");
  return kernel::Axis(size, inner);
}

/// Weights with as many axes as the scores, each of the same length or 1.
template <typename T>
kernel::ElementWeights<T> WeightsOf(const Array<T>& scores,
                                    const Array<T>& weight) {
  Require(weight.ndim() == scores.ndim(), "weight and scores differ in axes");
  kernel::ElementWeights<T> merged;
  merged.data = weight.data();
  bool was_broadcast = false;
  for (py::ssize_t k = 0; k < scores.ndim(); ++k) {
    const bool broadcast = weight.shape(k) == 1;
    Require(broadcast || weight.shape(k) == scores.shape(k),
            "weight does not fit the scores");
    if (scores.shape(k) == 1) {
      continue;
    }
    if (merged.axes > 0 && broadcast == was_broadcast) {
      merged.size[merged.axes - 1] *= scores.shape(k);
    } else {
      Require(merged.axes < kernel::kMaxAxes, "weight has too many axes");
      merged.size[merged.axes++] = scores.shape(k);
    }
    std::size_t stride = 1;
    for (py::ssize_t j = k + 1; j < weight.ndim(); ++j) {
      stride *= weight.shape(j);
    }
    merged.stride[merged.axes - 1] = broadcast ? 0 : stride;
    was_broadcast = broadcast;
  }
  if (merged.axes == 0) {  // one element
    merged.size[0] = merged.stride[0] = merged.axes = 1;
  }
  return merged;
}

/// Where to write, NULL where nothing is wanted.
template <typename T>
T* Wanted(const Array<T>& scores, OptionalArray<T>* out) {
  if (!*out) {
    return nullptr;
  }
  Require((*out)->size() == scores.size(), "a result and scores differ in size");
  return (*out)->mutable_data();  // throws for a read-only one
}

/// Returns the loss over the normalizer, which is the number of valid elements
/// where none is given, and how many targets and weights are bad.
template <typename T>
py::tuple Compute(const Array<T>& scores, const Array<T>& targets,
                  OptionalArray<T> grad, OptionalArray<T> losses,
                  const OptionalArray<T>& weight,
                  const Array<double>& cls_weight,
                  const Array<double>& neg_weight, std::size_t channel_inner,
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
    elements.weight = WeightsOf(scores, *weight);
  }
  std::vector<double> balance;
  if (scope) {
    elements.scope = AxisOf(scope->first, scope->second, elements.count);
    balance.resize(2 * scope->first);
  }
  T* const to_grad = Wanted(scores, &grad);
  T* const to_losses = Wanted(scores, &losses);

  kernel::LossSums sums;
  {
    py::gil_scoped_release released;
    if (scope) {
      kernel::Balance(elements, balance.data());
      elements.balance = balance.data();
    }
    const double divisor =
        normalizer ? *normalizer
                   : std::max(1., static_cast<double>(CountValid(elements)));
    const double scale = 1 / divisor;
    if (to_losses) {
      sums = LossesAndGradient(elements, scale, to_losses, to_grad);
    } else if (to_grad) {
      sums = LossAndGradient(elements, scale, to_grad);
    } else {
      sums = Loss(elements, scale);
    }
  }
  return py::make_tuple(sums.loss, sums.bad_targets, sums.bad_weights);
}

template <typename T>
void Define(py::module_* module) {
  module->def("compute", Compute<T>, py::arg("scores").noconvert(),
              py::arg("targets").noconvert(), py::arg("grad").noconvert(),
              py::arg("losses").noconvert(), py::arg("weight").noconvert(),
              py::arg("cls_weight").noconvert(),
              py::arg("neg_weight").noconvert(), py::arg("channel_inner"),
              py::arg("scope"), py::arg("ignore_label"), py::arg("normalizer"));
}

}  // namespace

PYBIND11_MODULE(_kernel, module) {
  module.doc() = "The kernel of the loss; weighted_sigmoid_loss is its face.";
  Define<float>(&module);
  Define<double>(&module);
  module.def(
      "instruction_set", [] { return kernel::BestLoops<float>().name; },
      "The instruction set in use: avx512, avx2 or baseline.");
}
