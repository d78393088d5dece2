#include <algorithm>
#include <cmath>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/layers/sigmoid_cross_entropy_weight_loss_advice.hpp"
#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"

namespace caffe {

typedef google::protobuf::RepeatedField<float> Weights;
typedef SigmoidCrossEntropyWeightLossParameter WeightLossParameter;

template <typename Dtype>
string SigmoidCrossEntropyWeightLossLayer<Dtype>::Description() const {
  const LayerParameter& param = this->layer_param_;
  std::ostringstream text;
  text << type() << " layer";
  if (!param.name().empty()) {
    text << " '" << param.name() << "'";
  } else {
    const char* separator = " without a name, of bottoms '";
    for (int i = 0; i < param.bottom_size(); ++i, separator = "', '") {
      text << separator << param.bottom(i);
    }
    text << "' and top '" << (param.top_size() ? param.top(0) : "") << "'";
  }
  return text.str();
}

// Set-up

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckWeights(
    const char* field, const Weights& weights) const {
  for (int i = 0; i < weights.size(); ++i) {
    const float weight = weights.Get(i);
    CHECK(std::isfinite(weight) && weight >= 0)
        << Description() << ": " << field << " number " << i + 1 << " is "
        << weight << "; a weight must be finite and not negative.";
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::ReadNormalization() {
  const LossParameter& loss_param = this->layer_param_.loss_param();
  elements_.has_ignore_label = loss_param.has_ignore_label();
  elements_.ignore_label = static_cast<Dtype>(loss_param.ignore_label());
  elements_.ignores_soft_targets = param().ignore_soft_targets();
  if (loss_param.has_normalization()) {
    normalization_ = loss_param.normalization();
  } else if (loss_param.has_normalize() && loss_param.normalize()) {
    normalization_ = LossParameter_NormalizationMode_VALID;
  } else {
    normalization_ = LossParameter_NormalizationMode_BATCH_SIZE;
  }
}

static string Join(const Weights& weights) {
  std::ostringstream joined;
  for (int i = 0; i < weights.size(); ++i) {
    joined << ' ' << weights.Get(i);
  }
  return weights.size() ? joined.str() : " 1";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::LogParameters() const {
  LOG(INFO) << Description() << ": cls_weight" << Join(param().cls_weight())
            << ", neg_weight" << Join(param().neg_weight())
            << ", class_balance "
            << WeightLossParameter::ClassBalance_Name(param().class_balance())
            << ", normalization "
            << LossParameter_NormalizationMode_Name(normalization_)
            << (param().ignore_soft_targets() ? ", ignore_soft_targets true"
                                              : "");
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::LayerSetUp(bottom, top);
  CheckWeights("cls_weight", param().cls_weight());
  CheckWeights("neg_weight", param().neg_weight());
  for (int i = 1; i < this->layer_param_.propagate_down_size(); ++i) {
    CHECK(!this->layer_param_.propagate_down(i))
        << Description() << ": propagate_down is true for bottom " << i
        << ", but only the scores (bottom 0) have a gradient; it must be "
        << "false.";
  }
  ReadNormalization();
  gpu_workspace_.reset(new SyncedMemory(weighted_sigmoid_loss::kGpuWorkspace));
  target_warnings_ = weight_warnings_ = balance_warnings_ = order_warnings_ =
      Warnings();
  forwards_without_balance_ = 0;
  normalizer_ = 1;
  LogParameters();
}

// Shapes

template <typename Dtype>
static string Shapes(const Blob<Dtype>& scores, const Blob<Dtype>& targets) {
  return ": the scores (bottom 0) have shape " + scores.shape_string() +
         ", the targets (bottom 1) " + targets.shape_string() + "; ";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckTargets(
    const Blob<Dtype>& scores, const Blob<Dtype>& targets) {
  CHECK_GE(scores.num_axes(), 1)
      << Description() << ": the scores (bottom 0) have no axes; they need at "
      << "least that of the batch.";
  CHECK_EQ(scores.count(), targets.count())
      << Description() << Shapes(scores, targets)
      << "their counts must be equal."
      << weight_loss_advice::CountAdvice(scores.shape(), targets.shape(),
                                         param().axis());
  CHECK(targets.num_axes() >= 1 && scores.shape(0) == targets.shape(0))
      << Description() << Shapes(scores, targets)
      << "their first axes must be equal.";
  if (scores.count() == 0) {
    return;
  }
  const weight_loss_advice::Order order =
      weight_loss_advice::CompareOrder(scores.shape(), targets.shape());
  CHECK_NE(order, weight_loss_advice::kPermutation)
      << Description() << Shapes(scores, targets)
      << "these are the same axes in another order. Transpose the "
      << "targets where they are made; if their elements are in the scores' "
      << "order after all, give them the scores' shape by a Reshape layer.";
  if (order == weight_loss_advice::kUnknownOrder && order_warnings_.IsOwed(1)) {
    LOG(WARNING) << Description() << Shapes(scores, targets)
                 << "the targets are taken in the order in which "
                 << "they lie in memory. If that is right, a Reshape layer "
                 << "that gives them the scores' shape ends this warning.";
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckChannels(
    const Blob<Dtype>& scores, const char* field, int values) const {
  if (values > 1) {
    CHECK_EQ(values, scores.shape(param().axis()))
        << Description() << ": " << field << " has " << values
        << " values, the scores (bottom 0) of shape " << scores.shape_string()
        << " have " << scores.shape(param().axis()) << " channels along axis "
        << param().axis() << "; give none, one, or one per channel.";
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckChannels(
    const Blob<Dtype>& scores) const {
  const int axis = param().axis();
  const int axes = scores.num_axes();
  CHECK(-axes <= axis && axis < axes)
      << Description() << ": axis is " << axis << ", the scores (bottom 0) "
      << "have shape " << scores.shape_string() << "; axis must be from "
      << -axes << " to " << axes - 1 << ".";
  CheckChannels(scores, "cls_weight", param().cls_weight_size());
  CheckChannels(scores, "neg_weight", param().neg_weight_size());
}

/// count doubles: the weights, or the only one (1 where there is none) again.
static shared_ptr<SyncedMemory> ExpandWeights(const Weights& weights,
                                              int count) {
  shared_ptr<SyncedMemory> memory(new SyncedMemory(count * sizeof(double)));
  double* values = static_cast<double*>(memory->mutable_cpu_data());
  for (int i = 0; i < count; ++i) {
    values[i] = weights.size() ? weights.Get(weights.size() > 1 ? i : 0) : 1;
  }
  return memory;
}

/// The axis of a blob as the kernel counts it.
template <typename Dtype>
static weighted_sigmoid_loss::Axis KernelAxis(const Blob<Dtype>& blob,
                                              int axis) {
  return weighted_sigmoid_loss::Axis(
      blob.shape(axis),
      std::max<size_t>(1, blob.count(blob.CanonicalAxisIndex(axis) + 1)));
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::ReshapeChannels(
    const Blob<Dtype>& scores) {
  const bool by_channel =
      param().cls_weight_size() > 1 || param().neg_weight_size() > 1;
  if (by_channel || param().class_balance() == WeightLossParameter::CHANNEL ||
      param().class_balance() == WeightLossParameter::INSTANCE_CHANNEL) {
    CheckChannels(scores);
  }
  elements_.channel = by_channel ? KernelAxis(scores, param().axis())
                                 : weighted_sigmoid_loss::Axis();
  const int channels = elements_.channel.size;
  if (!cls_weight_ || cls_weight_->size() != channels * sizeof(double)) {
    cls_weight_ = ExpandWeights(param().cls_weight(), channels);
    neg_weight_ = ExpandWeights(param().neg_weight(), channels);
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckInstanceChannels(
    const Blob<Dtype>& scores) const {
  CHECK_NE(0, scores.CanonicalAxisIndex(param().axis()))
      << Description() << ": class_balance INSTANCE_CHANNEL needs an axis of "
      << "channels after that of the instances, and axis is " << param().axis()
      << "; INSTANCE balances each index of axis 0.";
  const int scopes = scores.shape(0) * scores.shape(param().axis());
  CHECK(scores.count() == 0 || scores.count() > scopes)
      << Description() << ": class_balance INSTANCE_CHANNEL balances the "
      << "elements of each channel of each instance, of which scores of shape "
      << scores.shape_string() << " have one, along axis " << param().axis()
      << "; set class_balance to CHANNEL, INSTANCE or BATCH.";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::ReshapeBalance(
    const Blob<Dtype>& scores) {
  switch (param().class_balance()) {
    case WeightLossParameter::NONE:
      return;
    case WeightLossParameter::BATCH:
      elements_.scope =
          weighted_sigmoid_loss::Axis(1, std::max<size_t>(1, scores.count()));
      break;
    case WeightLossParameter::INSTANCE:
      elements_.scope = KernelAxis(scores, 0);
      break;
    case WeightLossParameter::CHANNEL:
      elements_.scope = KernelAxis(scores, param().axis());
      break;
    case WeightLossParameter::INSTANCE_CHANNEL:
      CheckInstanceChannels(scores);
      elements_.scope = weighted_sigmoid_loss::InEachInstance(
          KernelAxis(scores, param().axis()), scores.shape(0), scores.count());
      break;
  }
  const size_t size = 2 * sizeof(double) * elements_.scope.size;
  if (!balance_ || balance_->size() != size) {
    balance_.reset(new SyncedMemory(size));
  }
}

template <typename Dtype>
static vector<size_t> Shape(const Blob<Dtype>& blob) {
  return vector<size_t>(blob.shape().begin(), blob.shape().end());
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::ReshapeElementWeights(
    const Blob<Dtype>& scores, const Blob<Dtype>& weights) {
  const vector<size_t> of_scores = Shape(scores), of_weights = Shape(weights);
  CHECK(weighted_sigmoid_loss::SetAxes(of_scores.data(), of_scores.size(),
                                       of_weights.data(), of_weights.size(),
                                       &elements_.weight))
      << Description() << ": the scores (bottom 0) have shape "
      << scores.shape_string() << ", the element weights (bottom 2) "
      << weights.shape_string() << "; each axis of the weights must be "
      << "1 or that of the scores.";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Reshape(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Blob<Dtype>& scores = *bottom[0];
  CheckTargets(scores, *bottom[1]);
  LossLayer<Dtype>::Reshape(bottom, top);
  elements_.count = scores.count();
  ReshapeChannels(scores);
  ReshapeBalance(scores);
  if (bottom.size() > 2) {
    ReshapeElementWeights(scores, *bottom[2]);
  }
}

// Forward

template <typename Dtype>
double SigmoidCrossEntropyWeightLossLayer<Dtype>::GetNormalizer(
    const Blob<Dtype>& scores, const LossSums& sums) const {
  double normalizer = 1;
  switch (normalization_) {
    case LossParameter_NormalizationMode_FULL:
      normalizer = scores.count();
      break;
    case LossParameter_NormalizationMode_VALID:
      normalizer = sums.valid;
      break;
    case LossParameter_NormalizationMode_BATCH_SIZE:
      normalizer = scores.shape(0);
      break;
    case LossParameter_NormalizationMode_NONE:
      normalizer = 1;
      break;
    default:
      LOG(FATAL) << Description() << ": unknown normalization "
                 << LossParameter_NormalizationMode_Name(normalization_);
  }
  // A batch may have no valid target at all, to turn the loss off for it.
  return std::max(1., normalizer);
}

template <typename Dtype>
static bool IsNotFinite(Dtype value) {
  return !std::isfinite(value);
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::WarnOfInput(
    const LossSums& sums, Dtype loss, const vector<Blob<Dtype>*>& bottom) {
  const std::function<bool(Dtype)> counts([this](Dtype target) {
    return !weighted_sigmoid_loss::IsIgnored(elements_, target);
  });
  const char* const kUse =
      "; they are used as they are, and at most two warnings say so. ";
  if (sums.target_excess > weighted_sigmoid_loss::kHardTargetSlack &&
      target_warnings_.IsOwed(sums.target_excess)) {
    std::ostringstream negative_loss;
    if (loss < 0) {
      negative_loss << "; the loss is " << loss
                    << ", which must not be negative";
    }
    LOG(WARNING) << Description() << ": "
                 << weight_loss_advice::BadValues<Dtype>(
                        *bottom[1], "targets are outside [0, 1]",
                        [=](Dtype target) {
                          return counts(target) &&
                                 weighted_sigmoid_loss::IsOutOfRange(target);
                        })
                 << negative_loss.str() << kUse
                 << weight_loss_advice::TargetsAdvice(*bottom[1], counts);
  }
  if (weight_warnings_.IsOwed(sums.weight_excess)) {
    LOG(WARNING) << Description() << ": "
                 << weight_loss_advice::BadValues<Dtype>(
                        *bottom[2],
                        "element weights are negative or not finite",
                        [](Dtype weight) {
                          return !(std::isfinite(weight) && weight >= 0);
                        })
                 << kUse << "A weight of 0 leaves an element out.";
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::WarnOfBalance(
    const LossSums& sums) {
  if (sums.loss != 0) {
    forwards_without_balance_ = 0;
    return;  // without a copy from the GPU
  }
  const double* const factors =
      static_cast<const double*>(balance_->cpu_data());
  bool has_positives = false, has_negatives = false, has_both = false;
  for (std::size_t s = 0; s < elements_.scope.size; ++s) {
    const bool is_negative = factors[2 * s] != 0;
    const bool is_positive = factors[2 * s + 1] != 0;
    has_positives = has_positives || is_positive;
    has_negatives = has_negatives || is_negative;
    has_both = has_both || (is_positive && is_negative);
  }
  forwards_without_balance_ = has_both ? 0 : forwards_without_balance_ + 1;
  if (forwards_without_balance_ >= kForwardsBeforeWarning &&
      balance_warnings_.IsOwed(1)) {
    const char* what = "Here all targets are ignored.";
    if (has_positives && has_negatives) {
      what =
          "Here each scope has one of the two: a larger one, as BATCH, may "
          "have both.";
    } else if (has_positives) {
      what =
          "Here all targets are 1: look at the labels' source, threshold "
          "and scale.";
    } else if (has_negatives) {
      what =
          "Here all targets are 0: look at the labels' source, threshold "
          "and scale.";
    }
    LOG(WARNING)
        << Description() << ": in " << forwards_without_balance_
        << " Forwards in a row no scope of class_balance "
        << WeightLossParameter::ClassBalance_Name(param().class_balance())
        << " had positives and negatives, so that loss and gradient are 0. "
        << what;
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::StopOnNan(
    Dtype loss, const vector<Blob<Dtype>*>& bottom) const {
  const char* const kWhat[] = {"scores are not finite",
                               "targets are not finite",
                               "element weights are not finite"};
  std::ostringstream causes;
  for (int i = 0; i < bottom.size(); ++i) {
    const string cause = weight_loss_advice::BadValues<Dtype>(
        *bottom[i], kWhat[i], IsNotFinite<Dtype>);
    causes << (cause.empty() ? "" : "; ") << cause;
  }
  if (causes.str().empty()) {
    causes << "; scores, targets and weights are finite, and their sum is not:"
           << " the largest magnitude of the scores is "
           << weight_loss_advice::LargestMagnitude(*bottom[0])
           << ", of the targets "
           << weight_loss_advice::LargestMagnitude(*bottom[1]);
    if (bottom.size() > 2) {
      causes << ", of the element weights "
             << weight_loss_advice::LargestMagnitude(*bottom[2]);
    }
    causes << "; cls_weight" << Join(param().cls_weight()) << ", neg_weight"
           << Join(param().neg_weight());
  }
  LOG(FATAL) << Description() << ": the loss is " << loss << causes.str()
             << " (stop_on_nan is true).";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::FinishForward(
    const LossSums& sums, double scale, const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  normalizer_ = GetNormalizer(*bottom[0], sums);
  const Dtype loss = static_cast<Dtype>(sums.loss / normalizer_ / scale);
  top[0]->mutable_cpu_data()[0] = loss;
  WarnOfInput(sums, loss, bottom);
  if (balance_) {
    WarnOfBalance(sums);
  }
  if (!std::isfinite(loss) && param().stop_on_nan()) {
    StopOnNan(loss, bottom);
  }
}

template <typename Dtype>
typename SigmoidCrossEntropyWeightLossLayer<Dtype>::Elements
SigmoidCrossEntropyWeightLossLayer<Dtype>::CpuElements(
    const vector<Blob<Dtype>*>& bottom) const {
  Elements elements = elements_;
  elements.scores = bottom[0]->cpu_data();
  elements.targets = bottom[1]->cpu_data();
  elements.cls_weight = static_cast<const double*>(cls_weight_->cpu_data());
  elements.neg_weight = static_cast<const double*>(neg_weight_->cpu_data());
  elements.balance =
      balance_ ? static_cast<const double*>(balance_->cpu_data()) : NULL;
  elements.weight.data = bottom.size() > 2 ? bottom[2]->cpu_data() : NULL;
  return elements;
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Elements elements = CpuElements(bottom);
  if (balance_) {
    weighted_sigmoid_loss::Balance(
        elements, static_cast<double*>(balance_->mutable_cpu_data()));
  }
  double scale = 1;
  LossSums sums = weighted_sigmoid_loss::Loss(elements, scale);
  if (!std::isfinite(sums.loss)) {
    scale = kOverflowScale;
    sums = weighted_sigmoid_loss::Loss(elements, scale);
  }
  FinishForward(sums, scale, bottom, top);
}

// Backward

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckPropagateDown(
    const vector<bool>& propagate_down) const {
  for (int i = 1; i < propagate_down.size(); ++i) {
    CHECK(!propagate_down[i])
        << Description() << ": the net asks for the gradient of bottom " << i
        << ", but only the scores (bottom 0) have one. If it comes from layers "
        << "that learn, put propagate_down: true propagate_down: false"
        << (propagate_down.size() > 2 ? " propagate_down: false" : "")
        << " into this layer.";
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CheckPropagateDown(propagate_down);
  if (propagate_down[0]) {
    weighted_sigmoid_loss::Gradient(CpuElements(bottom),
                                    top[0]->cpu_diff()[0] / normalizer_,
                                    bottom[0]->mutable_cpu_diff());
  }
}

#ifdef CPU_ONLY
STUB_GPU(SigmoidCrossEntropyWeightLossLayer);
#endif

INSTANTIATE_CLASS(SigmoidCrossEntropyWeightLossLayer);
REGISTER_LAYER_CLASS(SigmoidCrossEntropyWeightLoss);

}  // namespace caffe
