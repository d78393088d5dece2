// The contestants in C++, for Python's ctypes: Caffe's layers as Caffe calls
// them, the bare kernel, and the floor. Links with libcaffe as any user of it
// does.

#include <google/protobuf/text_format.h>

#include <chrono>
#include <string>
#include <vector>

#include "caffe/proto/caffe.pb.h"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "floor.hpp"
#include "steps.hpp"

namespace {

namespace kernel = caffe::weighted_sigmoid_loss;

template <typename T>
class FloorStep : public StepOnBlobs<T> {
 public:
  using StepOnBlobs<T>::StepOnBlobs;
  void Run() override {
    Floor(this->scores_.cpu_data(), this->targets_.cpu_data(),
          this->scores_.count(), this->scores_.mutable_cpu_diff());
  }
  double loss() const override { return 0; }
};

/// The kernel with one weight for all positives, as a program without Caffe
/// calls it.
template <typename T>
class KernelStep : public StepOnBlobs<T> {
 public:
  KernelStep(double cls_weight, bool in_one_pass, const std::vector<int>& shape)
      : StepOnBlobs<T>(shape, std::vector<int>()),
        cls_weight_(cls_weight),
        neg_weight_(1),
        in_one_pass_(in_one_pass),
        loss_(0) {}
  void Run() override {
    kernel::Elements<T> elements = kernel::Elements<T>();
    elements.count = this->scores_.count();
    elements.scores = this->scores_.cpu_data();
    elements.targets = this->targets_.cpu_data();
    elements.cls_weight = &cls_weight_;
    elements.neg_weight = &neg_weight_;
    T* const gradient = this->scores_.mutable_cpu_diff();
    if (in_one_pass_) {
      loss_ = kernel::LossAndGradient(elements, 1, gradient).loss;
    } else {
      loss_ = kernel::Loss(elements, 1).loss;
      kernel::Gradient(elements, 1, gradient);
    }
  }
  double loss() const override { return loss_; }

 private:
  const double cls_weight_, neg_weight_;
  const bool in_one_pass_;
  double loss_;
};

/// What the layer's text describes, computed in the way of that name.
template <typename T>
Step* NewStep(const std::string& way, const std::string& layer,
              const std::vector<int>& shape,
              const std::vector<int>& weight_shape) {
  caffe::LayerParameter param;
  if (!google::protobuf::TextFormat::ParseFromString(layer, &param)) {
    return NULL;
  }
  if (way == "floor") {
    return new FloorStep<T>(shape, weight_shape);
  }
  if (way == "layer") {
    return new LayerStep<T>(param, shape, weight_shape);
  }
  return new KernelStep<T>(
      param.sigmoid_cross_entropy_weight_loss_param().cls_weight(0),
      way == "one pass", shape);
}

}  // namespace

extern "C" {
/// The instruction sets that the kernel can use here, the best first, and
/// before them the one that it does use.
const char* adapter_instruction_sets() {
  static std::string names;
  names = kernel::BestLoops<float>().name;
  kernel::Loops<float> loops[kernel::kMaxLoops];
  const int available = kernel::AvailableLoops(loops);
  for (int i = 0; i < available; ++i) {
    names += std::string(" ") + loops[i].name;
  }
  return names.c_str();
}

const char* adapter_compiler() {
#ifdef __clang__
  return __VERSION__;
#else
  return "gcc " __VERSION__;
#endif
}

/// NULL where the text is no layer.
void* adapter_new(const char* way, int is_double, const char* layer,
                  const int* shape, int axes, const int* weight_shape,
                  int weight_axes) {
  const std::vector<int> sizes(shape, shape + axes);
  const std::vector<int> weight_sizes(weight_shape, weight_shape + weight_axes);
  return is_double ? NewStep<double>(way, layer, sizes, weight_sizes)
                   : NewStep<float>(way, layer, sizes, weight_sizes);
}

void adapter_delete(void* step) { delete static_cast<Step*>(step); }

void* adapter_array(void* step, const char* name) {
  return static_cast<Step*>(step)->array(name);
}

double adapter_loss(void* step) { return static_cast<Step*>(step)->loss(); }

/// Seconds of that many steps in a row.
double adapter_run(void* step, long calls) {  // NOLINT(runtime/int)
  const auto begin = std::chrono::steady_clock::now();
  for (long i = 0; i < calls; ++i) {  // NOLINT(runtime/int)
    static_cast<Step*>(step)->Run();
  }
  const std::chrono::duration<double> spent =
      std::chrono::steady_clock::now() - begin;
  return spent.count();
}
}  // extern "C"
