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
#include <optional>  // NOLINT(build/include_order)
#include <stdexcept>
#include <string>
#include <tuple>
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
/// Size and inner of an axis, and of how many instances.
using Scope = std::tuple<std::size_t, std::size_t, std::size_t>;

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

kernel::Axis ScopesOf(const Scope& scope, std::size_t count) {
  const std::size_t instances = std::get<2>(scope);
  Require(count == 0 || (instances > 0 && count % instances == 0),
          "instances do not fit the scores");
  const kernel::Axis axis = AxisOf(std::get<0>(scope), std::get<1>(scope),
                                   count ? count / instances : 0);
  return kernel::InEachInstance(axis, instances, count);
}

using Shape = std::vector<std::size_t>;

template <typename T>
kernel::ElementWeights<T> WeightsOf(const T* data, const Shape& of_weight,
                                    const Shape& of_scores) {
  kernel::ElementWeights<T> weight;
  weight.data = data;
  Require(kernel::SetAxes(of_scores.data(), of_scores.size(), of_weight.data(),
                          of_weight.size(), &weight),
          "weight does not fit the scores");
  return weight;
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
  if (sums.target_excess > kernel::kHardTargetSlack || sums.weight_excess > 0) {
    bad = CountBadInput(elements);
  }
  return Result(sums.loss, bad.targets, bad.weights);
}

/// Without a normalizer that is the number of valid elements, at least 1.
template <typename T>
Result Compute(const Array<T>& scores, const Array<T>& targets,
               OptionalArray<T> grad, const OptionalArray<T>& weight,
               const Array<double>& cls_weight, const Array<double>& neg_weight,
               std::size_t channel_inner, const std::optional<Scope>& scope,
               std::optional<double> ignore_label, bool ignore_soft_targets,
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
  elements.ignores_soft_targets = ignore_soft_targets;
  if (weight) {
    elements.weight =
        WeightsOf(weight->data(), ShapeOf(*weight), ShapeOf(scores));
  }
  std::vector<double> balance;
  if (scope) {
    elements.scope = ScopesOf(*scope, elements.count);
    balance.resize(2 * elements.scope.size);
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

/// A weight per channel, from a tensor of the scores' type.
template <typename T>
std::vector<double> ReadWeights(const T* values, std::size_t count) {
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

/// The arguments of a call by CPython's own convention: some 2 us less than
/// pybind11's, which matters to small tensors.
class Arguments {
 public:
  Arguments(PyObject* const* values, Py_ssize_t count)
      : values_(values), count_(count) {}

  bool Has(int position) const { return position < count_; }

  PyObject* Value(int position) const {
    Require(Has(position), "an argument is missing");
    return values_[position];
  }

  std::size_t Number(int position) const {
    const std::size_t value = PyLong_AsSize_t(Value(position));
    if (PyErr_Occurred()) {
      throw py::error_already_set();
    }
    return value;
  }

  Shape Sizes(int position) const {
    return py::cast<Shape>(py::handle(Value(position)));
  }

  /// The memory of a tensor, by its address; NULL where 0 says there is none.
  template <typename T>
  T* Memory(int position) const {
    return reinterpret_cast<T*>(Number(position));
  }

 private:
  PyObject* const* values_;
  Py_ssize_t count_;
};

enum Reduction { kNone, kMean, kSum };

template <typename T>
std::uint64_t ComputeAt(const Arguments& given) {
  kernel::Elements<T> elements = kernel::Elements<T>();
  elements.count = given.Number(0);
  const std::size_t reduction = given.Number(1);
  elements.scores = given.Memory<const T>(2);
  elements.targets = given.Memory<const T>(3);
  T* const loss = given.Memory<T>(4);
  T* const grad = given.Memory<T>(5);
  const T* const pos_weight = given.Memory<const T>(6);
  const T* const weight = given.Memory<const T>(7);
  Require(elements.count == 0 || (elements.scores && elements.targets),
          "a tensor has no memory");
  Require(loss || (reduction == kNone && elements.count == 0),
          "the result has no memory");

  const double one = 1;
  elements.cls_weight = elements.neg_weight = &one;
  std::vector<double> cls_weight, neg_weight;
  if (pos_weight) {
    const std::size_t channels = given.Number(8);
    elements.channel = AxisOf(channels, given.Number(9), elements.count);
    cls_weight = ReadWeights(pos_weight, channels);
    neg_weight.assign(channels, 1.);
    elements.cls_weight = cls_weight.data();
    elements.neg_weight = neg_weight.data();
  }
  if (given.Has(10) && elements.count > 0) {
    Require(weight, "a tensor has no memory");
    elements.weight = WeightsOf(weight, given.Sizes(11), given.Sizes(10));
  }

  const double divisor = reduction == kMean ? elements.count : 1.;
  Result result;
  {
    const py::gil_scoped_release released;
    result = Run(elements, elements.count ? 1 / divisor : 1.,
                 reduction == kNone ? loss : static_cast<T*>(NULL), grad);
  }
  const std::uint64_t bad_weights = std::get<2>(result);
  if (bad_weights > 0) {
    throw std::invalid_argument(
        "weight: " + std::to_string(bad_weights) + " of " +
        std::to_string(elements.count) +
        " elements have a weight that is negative or not finite");
  }
  if (reduction != kNone) {
    *loss = elements.count || reduction == kSum ? std::get<0>(result) : NAN;
  }
  return std::get<1>(result);
}

template <typename T>
PyObject* ComputeAtInPython(const Arguments& given) {
  return PyLong_FromUnsignedLongLong(ComputeAt<T>(given));
}

using ArrayHeader = py::detail::PyArray_Proxy;

/// The header of an array that the kernel takes as it is, NULL for all else.
template <typename T>
const ArrayHeader* PlainArray(PyObject* value) {
  using Api = py::detail::npy_api;
  const int kFlags = Api::NPY_ARRAY_C_CONTIGUOUS_ | Api::NPY_ARRAY_ALIGNED_;
  if (Py_TYPE(value) != Api::get().PyArray_Type_) {
    return NULL;
  }
  const ArrayHeader* const header = py::detail::array_proxy(value);
  const bool is_plain = (header->flags & kFlags) == kFlags &&
                        header->descr == py::dtype::of<T>().ptr();
  return is_plain ? header : NULL;
}

bool HasShapeOf(const ArrayHeader* a, const ArrayHeader* b) {
  return a->nd == b->nd &&
         std::equal(a->dimensions, a->dimensions + a->nd, b->dimensions);
}

/// A weight of all channels, negative where it is not plainly right.
double PlainWeight(PyObject* value) {
  if (PyFloat_CheckExact(value)) {
    const double weight = PyFloat_AS_DOUBLE(value);
    return std::isfinite(weight) ? weight : -1;
  }
  int overflow = 1;
  const long long weight =  // NOLINT(runtime/int)
      PyLong_CheckExact(value) ? PyLong_AsLongLongAndOverflow(value, &overflow)
                               : -1;
  return overflow ? -1. : static_cast<double>(weight);
}

bool Is(PyObject* name, const char* other) {
  return PyUnicode_Check(name) &&
         PyUnicode_CompareWithASCIIString(name, other) == 0;
}

/// As numpy.py's, 0 for those that are not plain.
double PlainNormalizer(PyObject* name, const ArrayHeader* scores,
                       std::size_t count) {
  return Is(name, "none")         ? 1.
         : Is(name, "batch_size") ? std::max<double>(1, scores->dimensions[0])
         : Is(name, "full")       ? std::max<double>(1, count)
                                  : 0.;
}

bool Overlap(const ArrayHeader* a, const ArrayHeader* b, std::size_t size) {
  return a->data < b->data + size && b->data < a->data + size;
}

/// Whether the gradient may go there: to memory that is the scores' or apart.
template <typename T>
bool MayWrite(const ArrayHeader* out, const ArrayHeader* scores,
              const ArrayHeader* targets, std::size_t count) {
  const std::size_t size = count * sizeof(T);
  return out->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_ &&
         HasShapeOf(out, scores) && !Overlap(out, targets, size) &&
         (out->data == scores->data || !Overlap(out, scores, size));
}

template <typename T>
py::object ComputePlain(const Arguments& given) {
  const ArrayHeader* const scores = PlainArray<T>(given.Value(0));
  const ArrayHeader* const targets = PlainArray<T>(given.Value(1));
  if (!scores || !targets || scores->nd == 0 || !HasShapeOf(targets, scores)) {
    return py::none();
  }
  kernel::Elements<T> elements = kernel::Elements<T>();
  elements.count = 1;
  for (int k = 0; k < scores->nd; ++k) {
    elements.count *= scores->dimensions[k];
  }
  elements.scores = reinterpret_cast<const T*>(scores->data);
  elements.targets = reinterpret_cast<const T*>(targets->data);
  const double cls_weight = PlainWeight(given.Value(3));
  const double neg_weight = PlainWeight(given.Value(4));
  elements.cls_weight = &cls_weight;
  elements.neg_weight = &neg_weight;
  const double normalizer =
      PlainNormalizer(given.Value(5), scores, elements.count);
  if (cls_weight < 0 || neg_weight < 0 || normalizer == 0) {
    return py::none();
  }
  py::object out = py::reinterpret_borrow<py::object>(given.Value(2));
  if (out.is_none()) {
    out = Array<T>(Shape(scores->dimensions, scores->dimensions + scores->nd));
  }
  const ArrayHeader* const grad = PlainArray<T>(out.ptr());
  if (!grad || !MayWrite<T>(grad, scores, targets, elements.count)) {
    return py::none();
  }
  Result result;
  {
    const py::gil_scoped_release released;
    result = Run<T>(elements, 1 / normalizer, nullptr,
                    reinterpret_cast<T*>(grad->data));
  }
  return py::make_tuple(std::get<0>(result), out, std::get<1>(result));
}

PyObject* ComputePlainInPython(const Arguments& given) {
  py::object result = ComputePlain<float>(given);
  if (result.is_none()) {
    result = ComputePlain<double>(given);
  }
  return result.release().ptr();
}

template <PyObject* (*kCompute)(const Arguments&)>
PyObject* Call(PyObject*, PyObject* const* values, Py_ssize_t count) {
  try {
    return kCompute(Arguments(values, count));
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::invalid_argument& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return NULL;
}

template <PyObject* (*kCompute)(const Arguments&)>
PyMethodDef Definition(const char* name, const char* text) {
  const auto function = Call<kCompute>;
  return {
      name,
      reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(+function)),
      METH_FASTCALL, text};
}

const char kComputeAtText[] =
    "The loss of tensors, by the addresses of their contiguous memory, which "
    "the caller vouches for; 0 is for what is not there. _kernel.pyi has the "
    "arguments. Returns how many targets are outside [0, 1].";
const char kComputePlainText[] =
    "What numpy.py's loss_and_grad() computes, without weights of elements or "
    "channels; None where an argument needs more than a look.";

template <typename T>
void Define(py::module_* module) {
  module->def("compute", Compute<T>, py::arg("scores").noconvert(),
              py::arg("targets").noconvert(), py::arg("grad").noconvert(),
              py::arg("weight").noconvert(), py::arg("cls_weight").noconvert(),
              py::arg("neg_weight").noconvert(), py::arg("channel_inner"),
              py::arg("scope"), py::arg("ignore_label"),
              py::arg("ignore_soft_targets"), py::arg("normalizer"));
}

}  // namespace

PYBIND11_MODULE(_kernel, module) {
  module.doc() = "The kernel of the loss; weighted_sigmoid_loss is its face.";
  Define<float>(&module);
  Define<double>(&module);
  static PyMethodDef fast[] = {
      Definition<ComputeAtInPython<float>>("compute_float32_at",
                                           kComputeAtText),
      Definition<ComputeAtInPython<double>>("compute_float64_at",
                                            kComputeAtText),
      Definition<ComputePlainInPython>("compute_plain", kComputePlainText),
      {NULL, NULL, 0, NULL}};
  if (PyModule_AddFunctions(module.ptr(), fast) != 0) {
    throw py::error_already_set();
  }
  module.def(
      "instruction_set", [] { return kernel::BestLoops<float>().name; },
      "The instruction set in use: avx512, avx2 or baseline.");
}
