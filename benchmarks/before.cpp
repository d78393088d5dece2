// One revision's kernel, for before.py, which gives it arrays to pass over. It
// calls nothing of the kernel that 0.1.0 had not.

#include <chrono>
#include <cstddef>
#include <cstring>

#include "caffe/util/weighted_sigmoid_loss.hpp"

namespace {

namespace kernel = caffe::weighted_sigmoid_loss;

/// As before.py has it.
struct Case {
  std::size_t count, channels, scopes;  // channels are neighbours
  const void *scores, *targets, *weight;
  const double *cls_weight, *neg_weight;
  double* balance;
  void* grad;
  int has_ignore_label;
};

template <typename T>
kernel::Elements<T> ElementsOf(const Case& c) {
  kernel::Elements<T> elements = kernel::Elements<T>();
  elements.count = c.count;
  elements.scores = static_cast<const T*>(c.scores);
  elements.targets = static_cast<const T*>(c.targets);
  elements.channel = kernel::Axis(c.channels, 1);
  elements.cls_weight = c.cls_weight;
  elements.neg_weight = c.neg_weight;
  elements.scope = kernel::Axis(c.scopes, c.count / c.scopes);
  elements.weight.data = static_cast<const T*>(c.weight);
  elements.weight.axes = 1;
  elements.weight.size[0] = c.count;
  elements.weight.stride[0] = 1;
  elements.has_ignore_label = c.has_ignore_label;
  elements.ignore_label = -1;
  return elements;
}

template <typename T>
void Pass(const char* pass, const Case& c) {
  kernel::Elements<T> elements = ElementsOf<T>(c);
  T* const grad = static_cast<T*>(c.grad);
  const bool is_gradient = std::strcmp(pass, "gradient") == 0;
  if (c.balance && !is_gradient) {
    kernel::Balance(elements, c.balance);
  }
  elements.balance = c.balance;
  if (std::strcmp(pass, "one pass") == 0) {
    kernel::LossAndGradient(elements, 1., grad);
    return;
  }
  if (!is_gradient) {
    kernel::Loss(elements, 1.);
  }
  if (std::strcmp(pass, "loss") != 0) {
    kernel::Gradient(elements, 1., grad);
  }
}

}  // namespace

/// Seconds for that many passes in a row.
extern "C" __attribute__((visibility("default"))) double before_run(
    const char* pass, int is_double, const Case* c, std::size_t calls) {
  const std::chrono::steady_clock::time_point begin =
      std::chrono::steady_clock::now();
  for (; calls > 0; --calls) {
    is_double ? Pass<double>(pass, *c) : Pass<float>(pass, *c);
  }
  const std::chrono::duration<double> spent =
      std::chrono::steady_clock::now() - begin;
  return spent.count();
}
