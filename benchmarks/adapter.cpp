// The contestants in C++, for Python's ctypes: Caffe's layers as Caffe calls
// them, the bare kernel, and the baseline. CPU_ONLY, as in Caffe, says on what
// device. Links with libcaffe as any user of it does.

#include <google/protobuf/text_format.h>

#include <boost/shared_ptr.hpp>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/net.hpp"
#include "caffe/proto/caffe.pb.h"
#include "caffe/syncedmem.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "loops.hpp"
#ifdef CPU_ONLY
#include "on_cpu.hpp"
#else
#include "on_gpu.hpp"
#endif

namespace {

namespace kernel = caffe::weighted_sigmoid_loss;

/// Loss and gradient, forward and backward, on arrays of its own: Caffe's
/// blobs, so that all are allocated alike.
class Step {
 public:
  virtual ~Step() {}
  virtual void Run() = 0;
  /// What so many in a row take, on the device.
  virtual double Seconds(long steps) {  // NOLINT(runtime/int)
    device::Stopwatch stopwatch;
    for (long i = 0; i < steps; ++i) {  // NOLINT(runtime/int)
      Run();
    }
    return stopwatch.Seconds();
  }
  virtual double loss() const { return 0; }
  /// The scores, targets or element weights, to be filled, or the gradient; in
  /// host memory.
  virtual void* array(const std::string& name) = 0;
};

template <typename T>
class StepOnBlobs : public Step {
 public:
  StepOnBlobs(const std::vector<int>& shape,
              const std::vector<int>& weight_shape)
      : scores_(shape), targets_(shape), weight_(weight_shape) {}

  void* array(const std::string& name) override {
    if (name == "gradient") {
      return scores_.mutable_cpu_diff();
    }
    if (name == "weight") {
      return weight_.mutable_cpu_data();
    }
    return (name == "scores" ? scores_ : targets_).mutable_cpu_data();
  }

 protected:
  caffe::Blob<T> scores_, targets_, weight_;
};

/// What the device does at best with the bytes of one pass.
template <typename T>
class BaselineStep : public StepOnBlobs<T> {
 public:
  using StepOnBlobs<T>::StepOnBlobs;
  void Run() override { device::Baseline(&this->scores_, this->targets_); }
};

/// A layer of Caffe's, as Caffe calls it, in Caffe's mode.
template <typename T>
class LayerStep : public StepOnBlobs<T> {
 public:
  LayerStep(const caffe::LayerParameter& param, const std::vector<int>& shape,
            const std::vector<int>& weight_shape)
      : StepOnBlobs<T>(shape, weight_shape),
        layer_(caffe::LayerRegistry<T>::CreateLayer(param)),
        bottom_{&this->scores_, &this->targets_},
        top_{&top_blob_},
        propagate_down_{true, false} {
    if (!weight_shape.empty()) {
      bottom_.push_back(&this->weight_);
      propagate_down_.push_back(false);
    }
    layer_->SetUp(bottom_, top_);
  }
  void Run() override {
    layer_->Forward(bottom_, top_);
    layer_->Backward(top_, propagate_down_, bottom_);
  }
  double loss() const override { return top_blob_.cpu_data()[0]; }

 private:
  caffe::Blob<T> top_blob_;
  const boost::shared_ptr<caffe::Layer<T>> layer_;
  std::vector<caffe::Blob<T>*> bottom_, top_;
  std::vector<bool> propagate_down_;
};

/// A layer in a net, behind one of Caffe's that takes BLAS, whose threads may
/// still be looking for work. What it takes is what the layer itself does.
template <typename T>
class NetStep : public Step {
 public:
  NetStep(const caffe::LayerParameter& param, const std::vector<int>& shape)
      : net_(Net(param, shape)), seconds_(0) {}

  void Run() override {
    net_.ForwardFromTo(0, kLayer - 1);
    device::Stopwatch stopwatch;
    net_.ForwardFromTo(kLayer, kLayer);
    net_.BackwardFromTo(kLayer, kLayer);
    seconds_ += stopwatch.Seconds();
    net_.BackwardFromTo(kLayer - 1, 0);
  }
  double Seconds(long steps) override {  // NOLINT(runtime/int)
    seconds_ = 0;
    Step::Seconds(steps);
    return seconds_;
  }
  double loss() const override {
    return net_.blob_by_name("loss")->cpu_data()[0];
  }
  void* array(const std::string& name) override {
    if (name == "gradient") {
      return net_.blob_by_name("scores")->mutable_cpu_diff();
    }
    return net_.blob_by_name(name == "scores" ? "data" : name)
        ->mutable_cpu_data();
  }

 private:
  static const int kLayer = 2;

  static caffe::NetParameter Net(const caffe::LayerParameter& param,
                                 const std::vector<int>& shape) {
    caffe::NetParameter net;
    CHECK(google::protobuf::TextFormat::ParseFromString(
        "state { phase: TRAIN } "
        "layer { name: 'input' type: 'Input' top: 'data' top: 'targets' "
        "  input_param { shape { } } } "
        "layer { name: 'scale' type: 'Scale' bottom: 'data' top: 'scores' "
        "  scale_param { axis: 0 num_axes: 0 } } "
        "layer { bottom: 'scores' bottom: 'targets' top: 'loss' }",
        &net));
    for (const int size : shape) {
      net.mutable_layer(0)->mutable_input_param()->mutable_shape(0)->add_dim(
          size);
    }
    net.mutable_layer(kLayer)->MergeFrom(param);
    return net;
  }

  caffe::Net<T> net_;
  double seconds_;
};

/// The kernel with one weight for all positives, as a program without Caffe
/// calls it.
template <typename T>
class KernelStep : public StepOnBlobs<T> {
 public:
  KernelStep(double cls_weight, bool in_one_pass, const std::vector<int>& shape)
      : StepOnBlobs<T>(shape, std::vector<int>()),
        weights_(2 * sizeof(double)),
        in_one_pass_(in_one_pass),
        loss_(0) {
    double* const weights = static_cast<double*>(weights_.mutable_cpu_data());
    weights[0] = cls_weight;
    weights[1] = 1;
  }
  void Run() override {
    kernel::Elements<T> elements = kernel::Elements<T>();
    elements.count = this->scores_.count();
    elements.scores = device::Data(this->scores_);
    elements.targets = device::Data(this->targets_);
    elements.cls_weight = static_cast<const double*>(device::Data(&weights_));
    elements.neg_weight = elements.cls_weight + 1;
    T* const gradient = device::MutableDiff(&this->scores_);
    loss_ = calls_.Step(elements, in_one_pass_, gradient);
  }
  double loss() const override { return loss_; }

 private:
  caffe::SyncedMemory weights_;
  device::KernelCalls calls_;
  const bool in_one_pass_;
  double loss_;
};

/// A loop of loops.hpp.
template <typename T>
class LoopStep : public StepOnBlobs<T> {
 public:
  LoopStep(LossLoop<T> loop, T cls_weight, const std::vector<int>& shape)
      : StepOnBlobs<T>(shape, std::vector<int>()),
        loop_(loop),
        cls_weight_(cls_weight),
        loss_(0) {}
  void Run() override {
    loss_ = loop_(this->scores_.cpu_data(), this->targets_.cpu_data(),
                  this->scores_.count(), cls_weight_,
                  this->scores_.mutable_cpu_diff());
  }
  double loss() const override { return loss_; }

 private:
  const LossLoop<T> loop_;
  const T cls_weight_;
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
  if (way == "baseline") {
    return new BaselineStep<T>(shape, weight_shape);
  }
  if (way == "net") {
    return new NetStep<T>(param, shape);
  }
  if (way == "layer") {
    return new LayerStep<T>(param, shape, weight_shape);
  }
  const double cls_weight =
      param.sigmoid_cross_entropy_weight_loss_param().cls_weight(0);
  if (const LossLoop<T> loop = device::LossLoopOf<T>(way)) {
    return new LoopStep<T>(loop, cls_weight, shape);
  }
  return new KernelStep<T>(cls_weight, way == "one pass", shape);
}

}  // namespace

extern "C" {
/// The instruction sets that the kernel can use here, the best first, and
/// before them the one that it does use; nothing on a GPU.
const char* adapter_instruction_sets() {
  static std::string names;
  names = device::InstructionSets();
  return names.c_str();
}

/// Of the adapter itself, or of CUDA.
const char* adapter_compiler() {
  static std::string name;
  name = device::Compiler();
  return name.c_str();
}

/// NULL where the text is not a layer.
void* adapter_new(const char* way, int is_double, const char* layer,
                  const int* shape, int axes, const int* weight_shape,
                  int weight_axes) {
  caffe::Caffe::set_mode(device::kMode);
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

/// Seconds of that many steps in a row, on the device.
double adapter_run(void* step, long calls) {  // NOLINT(runtime/int)
  return static_cast<Step*>(step)->Seconds(calls);
}
}  // extern "C"
