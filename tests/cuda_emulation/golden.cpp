// The emulated CUDA kernels as a function for Python, which
// test_cuda_kernels.py calls with the golden cases.

#include <algorithm>
#include <cstddef>
#include <vector>

#include "caffe/util/weighted_sigmoid_loss.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

/// As test_cuda_kernels.py has it.
struct Problem {
  std::size_t axes, weight_axes;
  const std::size_t *shape, *weight_shape;
  const float *scores, *targets, *weight;
  std::size_t channels, channel_inner;  // 1 channel where weights are the same
  const double *cls_weight, *neg_weight;
  std::size_t scope_size, scope_inner, instances;  // 0: no balance
  int has_ignore_label, ignore_label, ignores_soft_targets;
  double normalizer;  // 0: how many elements are valid
  double loss_weight;
};

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

/// Returns the loss, and writes the gradient.
extern "C" double Run(const caffe::weighted_sigmoid_loss::Problem* given,
                      float* grad) {
  using namespace caffe::weighted_sigmoid_loss;  // NOLINT(build/namespaces)
  Elements<float> elements = Elements<float>();
  elements.count = 1;
  for (std::size_t k = 0; k < given->axes; ++k) {
    elements.count *= given->shape[k];
  }
  elements.scores = given->scores;
  elements.targets = given->targets;
  elements.channel = Axis(given->channels, given->channel_inner);
  elements.cls_weight = given->cls_weight;
  elements.neg_weight = given->neg_weight;
  elements.has_ignore_label = given->has_ignore_label;
  elements.ignore_label = given->ignore_label;
  elements.ignores_soft_targets = given->ignores_soft_targets;
  if (given->weight) {
    SetAxes(given->shape, given->axes, given->weight_shape, given->weight_axes,
            &elements.weight);
    elements.weight.data = given->weight;
  }
  std::vector<char> workspace(kGpuWorkspace);
  std::vector<double> balance;
  if (given->scope_size > 0) {
    elements.scope = InEachInstance(Axis(given->scope_size, given->scope_inner),
                                    given->instances, elements.count);
    balance.resize(2 * elements.scope.size);
    BalanceGpu(elements, workspace.data(), balance.data());
    elements.balance = balance.data();
  }
  LossSums sums;
  LossGpu(elements, 1., workspace.data(), &sums);
  const double normalizer =
      std::max(1., given->normalizer ? given->normalizer : sums.valid);
  GradientGpu(elements, given->loss_weight / normalizer, grad);
  return sums.loss / normalizer;
}
