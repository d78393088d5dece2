#ifndef BENCHMARKS_STEPS_HPP_
#define BENCHMARKS_STEPS_HPP_

#include <boost/shared_ptr.hpp>
#include <string>
#include <vector>

#include "caffe/blob.hpp"
#include "caffe/layer.hpp"
#include "caffe/layer_factory.hpp"
#include "caffe/proto/caffe.pb.h"

// What the adapters, on the CPU and on a GPU, have in common: steps on Caffe's
// blobs, so that their arrays are allocated alike.

/// Loss and gradient, forward and backward, on arrays of its own.
class Step {
 public:
  virtual ~Step() {}
  virtual void Run() = 0;
  virtual double loss() const = 0;
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

#endif  // BENCHMARKS_STEPS_HPP_
