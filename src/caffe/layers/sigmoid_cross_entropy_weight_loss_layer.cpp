#include <algorithm>
#include <cmath>
#include <sstream>
#include <string>
#include <vector>

#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"

namespace caffe {

template <typename Dtype>
const double SigmoidCrossEntropyWeightLossLayer<Dtype>::kOverflowScale =
    std::ldexp(1., -200);  // 2^31 elements times a float weight take 2^159

template <typename Dtype>
string SigmoidCrossEntropyWeightLossLayer<Dtype>::Description() const {
  return string(type()) + " layer '" + this->layer_param_.name() + "'";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::ReadWeights() {
  const SigmoidCrossEntropyWeightLossParameter& param =
      this->layer_param_.sigmoid_cross_entropy_weight_loss_param();
  const int count = std::max(1, param.cls_weight_size());
  cls_weight_.reset(new SyncedMemory(count * sizeof(double)));
  double* weights = static_cast<double*>(cls_weight_->mutable_cpu_data());
  weights[0] = 1;
  for (int i = 0; i < param.cls_weight_size(); ++i) {
    weights[i] = param.cls_weight(i);
    CHECK(std::isfinite(weights[i]) && weights[i] >= 0)
        << Description() << ": cls_weight number " << i + 1 << " is "
        << weights[i] << "; a weight must be finite and not negative.";
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::ReadNormalization() {
  const LossParameter& param = this->layer_param_.loss_param();
  has_ignore_label_ = param.has_ignore_label();
  ignore_label_ = static_cast<Dtype>(param.ignore_label());
  if (param.has_normalization()) {
    normalization_ = param.normalization();
  } else if (param.has_normalize() && param.normalize()) {
    normalization_ = LossParameter_NormalizationMode_VALID;
  } else {
    normalization_ = LossParameter_NormalizationMode_BATCH_SIZE;
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::LayerSetUp(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  LossLayer<Dtype>::LayerSetUp(bottom, top);
  ReadWeights();
  ReadNormalization();
  gpu_workspace_.reset(new SyncedMemory(
      weighted_sigmoid_loss::kLossGpuWorkspace * sizeof(LossSums)));
  warned_of_targets_ = false;
  normalizer_ = 1;
  CHECK(this->layer_param_.propagate_down_size() < 2 ||
        !this->layer_param_.propagate_down(1))
      << Description() << ": propagate_down is true for the targets (bottom "
      << "1), which have no gradient; it must be false.";

  const SigmoidCrossEntropyWeightLossParameter& param =
      this->layer_param_.sigmoid_cross_entropy_weight_loss_param();
  std::ostringstream weights;
  for (int i = 0; i < param.cls_weight_size(); ++i) {
    weights << ' ' << param.cls_weight(i);
  }
  LOG(INFO) << Description() << ": cls_weight"
            << (param.cls_weight_size() ? weights.str() : " 1")
            << ", normalization "
            << LossParameter_NormalizationMode_Name(normalization_);
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckShapes(
    const Blob<Dtype>& scores, const Blob<Dtype>& targets) const {
  CHECK_GE(scores.num_axes(), 1)
      << Description() << ": the scores (bottom 0) have no axes; they need at "
      << "least that of the batch.";
  CHECK_EQ(scores.count(), targets.count())
      << Description() << ": the scores (bottom 0) have shape "
      << scores.shape_string() << ", the targets (bottom 1) "
      << targets.shape_string() << "; their counts must be equal.";
  CHECK(targets.num_axes() >= 1 && scores.shape(0) == targets.shape(0))
      << Description() << ": the scores (bottom 0) have shape "
      << scores.shape_string() << ", the targets (bottom 1) "
      << targets.shape_string() << "; their first axes must be equal.";
  const SigmoidCrossEntropyWeightLossParameter& param =
      this->layer_param_.sigmoid_cross_entropy_weight_loss_param();
  if (param.cls_weight_size() > 1) {
    CHECK(param.axis() >= -scores.num_axes() &&
          param.axis() < scores.num_axes())
        << Description() << ": axis is " << param.axis() << ", the scores "
        << "(bottom 0) have shape " << scores.shape_string()
        << "; axis must be from " << -scores.num_axes() << " to "
        << scores.num_axes() - 1 << ".";
    CHECK_EQ(param.cls_weight_size(), scores.shape(param.axis()))
        << Description() << ": cls_weight has " << param.cls_weight_size()
        << " values, the scores (bottom 0) of shape " << scores.shape_string()
        << " have " << scores.shape(param.axis()) << " channels along axis "
        << param.axis() << "; give none, one, or one a channel.";
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Reshape(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  CheckShapes(*bottom[0], *bottom[1]);
  LossLayer<Dtype>::Reshape(bottom, top);
}

template <typename Dtype>
typename SigmoidCrossEntropyWeightLossLayer<Dtype>::Elements
SigmoidCrossEntropyWeightLossLayer<Dtype>::MakeElements(
    const Blob<Dtype>& scores, const Dtype* scores_data,
    const Dtype* targets_data, const void* cls_weight) const {
  const SigmoidCrossEntropyWeightLossParameter& param =
      this->layer_param_.sigmoid_cross_entropy_weight_loss_param();
  Elements elements;
  elements.count = scores.count();
  if (param.cls_weight_size() > 1) {
    const int axis = scores.CanonicalAxisIndex(param.axis());
    elements.channels = scores.shape(axis);
    elements.inner = scores.count(axis + 1);
  } else {
    elements.channels = 1;
    elements.inner = scores.count();
  }
  elements.scores = scores_data;
  elements.targets = targets_data;
  elements.cls_weight = static_cast<const double*>(cls_weight);
  elements.has_ignore_label = has_ignore_label_;
  elements.ignore_label = ignore_label_;
  return elements;
}

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
void SigmoidCrossEntropyWeightLossLayer<Dtype>::WarnOfTargets(
    const Blob<Dtype>& targets, uint64_t out_of_range) {
  warned_of_targets_ = true;
  const Dtype* target = targets.cpu_data();
  while ((has_ignore_label_ && *target == ignore_label_) ||
         (*target >= 0 && *target <= 1)) {
    ++target;
  }
  LOG(WARNING) << Description() << ": " << out_of_range << " of "
               << targets.count() << " targets are outside [0, 1], the first "
               << "is " << *target << "; they are used as they are, and this "
               << "is said once.";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::StopOnNan(
    Dtype loss, const Blob<Dtype>& scores) const {
  const Dtype* begin = scores.cpu_data();
  const Dtype* end = begin + scores.count();
  LOG(FATAL) << Description() << ": the loss is " << loss << "; "
             << scores.count() - std::count_if(begin, end, [](Dtype score) {
                  return std::isfinite(score);
                })
             << " of " << scores.count() << " scores are not finite "
             << "(stop_on_nan is true).";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::FinishForward(
    const LossSums& sums, double scale, const vector<Blob<Dtype>*>& bottom,
    const vector<Blob<Dtype>*>& top) {
  if (sums.out_of_range > 0 && !warned_of_targets_) {
    WarnOfTargets(*bottom[1], sums.out_of_range);
  }
  normalizer_ = GetNormalizer(*bottom[0], sums);
  const Dtype loss = static_cast<Dtype>(sums.loss / normalizer_ / scale);
  top[0]->mutable_cpu_data()[0] = loss;
  if (!std::isfinite(loss) &&
      this->layer_param_.sigmoid_cross_entropy_weight_loss_param()
          .stop_on_nan()) {
    StopOnNan(loss, *bottom[0]);
  }
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Forward_cpu(
    const vector<Blob<Dtype>*>& bottom, const vector<Blob<Dtype>*>& top) {
  const Elements elements =
      MakeElements(*bottom[0], bottom[0]->cpu_data(), bottom[1]->cpu_data(),
                   cls_weight_->cpu_data());
  double scale = 1;
  LossSums sums = weighted_sigmoid_loss::Loss(elements, scale);
  if (std::isinf(sums.loss)) {
    scale = kOverflowScale;
    sums = weighted_sigmoid_loss::Loss(elements, scale);
  }
  FinishForward(sums, scale, bottom, top);
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::CheckPropagateDown(
    const vector<bool>& propagate_down) const {
  CHECK(!propagate_down[1])
      << Description() << ": the net asks for the gradient of the targets "
      << "(bottom 1), which have none. If they come from layers that learn, "
      << "put propagate_down: true propagate_down: false into this layer.";
}

template <typename Dtype>
void SigmoidCrossEntropyWeightLossLayer<Dtype>::Backward_cpu(
    const vector<Blob<Dtype>*>& top, const vector<bool>& propagate_down,
    const vector<Blob<Dtype>*>& bottom) {
  CheckPropagateDown(propagate_down);
  if (propagate_down[0]) {
    const Elements elements =
        MakeElements(*bottom[0], bottom[0]->cpu_data(), bottom[1]->cpu_data(),
                     cls_weight_->cpu_data());
    weighted_sigmoid_loss::Gradient(elements,
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
