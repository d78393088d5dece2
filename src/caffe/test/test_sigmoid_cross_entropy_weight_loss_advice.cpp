#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "boost/scoped_ptr.hpp"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"

#include "caffe/test/log_capture.hpp"
#include "caffe/test/test_caffe_main.hpp"

namespace caffe {

/// What the layer says of bottoms that are not as they should be.
template <typename TypeParam>
class SigmoidCrossEntropyWeightLossAdviceTest
    : public MultiDeviceTest<TypeParam> {
  typedef typename TypeParam::Dtype Dtype;

 protected:
  SigmoidCrossEntropyWeightLossAdviceTest() {
    bottoms_.push_back(&scores_);
    bottoms_.push_back(&targets_);
    tops_.push_back(&loss_);
    SetTargets({1, 0, 1, 0});
  }

  /// N x 1, with as many scores, from 1 on.
  void SetTargets(const vector<double>& values) {
    const vector<int> shape({static_cast<int>(values.size()), 1});
    SetShapes(shape, shape);
    std::copy(values.begin(), values.end(), targets_.mutable_cpu_data());
  }

  /// Targets are 0.
  void SetShapes(const vector<int>& scores, const vector<int>& targets) {
    scores_.Reshape(scores);
    for (int i = 0; i < scores_.count(); ++i) {
      scores_.mutable_cpu_data()[i] = 1 + i;
    }
    targets_.Reshape(targets);
    std::fill_n(targets_.mutable_cpu_data(), targets_.count(), Dtype(0));
  }

  void Weigh(const vector<double>& values) {
    weights_.Reshape(vector<int>(1, values.size()));
    std::copy(values.begin(), values.end(), weights_.mutable_cpu_data());
    bottoms_.resize(2);
    bottoms_.push_back(&weights_);
  }

  void SetUp(const string& text) {
    LayerParameter param;
    CHECK(google::protobuf::TextFormat::ParseFromString(text, &param)) << text;
    layer_.reset(new SigmoidCrossEntropyWeightLossLayer<Dtype>(param));
    layer_->SetUp(bottoms_, tops_);
  }

  static string Balance(const string& scope) {
    return "sigmoid_cross_entropy_weight_loss_param { class_balance: " + scope +
           " }";
  }

  Dtype Forward() { return layer_->Forward(bottoms_, tops_); }

  void SetUpAndForward(const string& text) {
    SetUp(text);
    Forward();
  }

  Blob<Dtype> scores_, targets_, weights_, loss_;
  vector<Blob<Dtype>*> bottoms_, tops_;
  boost::scoped_ptr<SigmoidCrossEntropyWeightLossLayer<Dtype> > layer_;
};

#define PARAM(inside) "sigmoid_cross_entropy_weight_loss_param { " inside " } "
#define LOSS_PARAM(inside) "loss_param { " inside " } "

TYPED_TEST_CASE(SigmoidCrossEntropyWeightLossAdviceTest, TestDtypesAndDevices);

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceTest, TestWarnsOfTargetsTwice) {
  this->SetTargets({255, 0, 0, 255});
  LogCapture log(google::GLOG_WARNING);
  this->SetUp("name: 'loss'");
  this->Forward();
  ASSERT_EQ(1, log.messages().size());
  EXPECT_EQ(
      "SigmoidCrossEntropyWeightLoss layer 'loss': 2 of 4 targets are "
      "outside [0, 1], the first is 255; the loss is -316.123, which must not "
      "be "
      "negative; they are used as they are, and at most two warnings say so. "
      "Scale them by 0.00392157, that is 1/255 (in the layer that "
      "reads a mask, transform_param { scale: 0.00392157 }).",
      log.messages()[0]);
  this->Forward();
  EXPECT_EQ(1, log.messages().size());
  // Another is owed for what is 1,000 times as far outside, and no third.
  this->targets_.mutable_cpu_data()[1] = 254001;
  this->Forward();
  EXPECT_EQ(1, log.messages().size());
  for (const int target : {254002, 2000000000}) {
    this->targets_.mutable_cpu_data()[1] = target;
    this->Forward();
    ASSERT_EQ(2, log.messages().size());
  }
  EXPECT_NE(string::npos, log.messages()[1].find("3 of 4 targets"));
  this->targets_.mutable_cpu_data()[1] = 0;
  // A label that is ignored is none of them.
  this->SetUpAndForward(LOSS_PARAM("ignore_label: 255"));
  EXPECT_EQ(2, log.messages().size());
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceTest, TestRoundedTargets) {
  // What float makes of 255 * 0.00392157, and as far below.
  const float kScaled = 255.f * 0.00392157f;
  ASSERT_GT(kScaled, 1);
  this->SetTargets({kScaled, 0, 1 - kScaled, 0});
  LogCapture log(google::GLOG_WARNING);
  this->SetUp("name: 'loss'");
  this->Forward();
  EXPECT_EQ(0, log.messages().size());
  // They have spent nothing, and are not among those that are told.
  this->targets_.mutable_cpu_data()[1] = 1.5;
  this->Forward();
  ASSERT_EQ(1, log.messages().size());
  EXPECT_NE(string::npos, log.messages()[0].find("1 of 4 targets are outside "
                                                 "[0, 1], the first is 1.5"));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceTest, TestAdviceFitsTheTargets) {
  const double kNan = std::numeric_limits<double>::quiet_NaN();
  const double kInfinity = std::numeric_limits<double>::infinity();
  const struct {
    vector<double> targets;
    const char* advice;
  } kKinds[] = {
      {{0, 255, 0, 255}, "Scale them by 0.00392157, that is 1/255"},
      {{0, 128, 3, 255},
       "Scale them by 0.00392157, that is 1/255 (in the layer that reads a "
       "mask, transform_param { scale: 0.00392157 }); class numbers need "
       "one-hot targets"},
      {{0, 100, 0, 100}, "Scale them by 0.01, that is 1/100"},
      {{0.5, 1.02, 0, 0}, "Scale them by 0.980392, that is 1/1.02"},
      {{0, 1, 255, 1},
       "If 255 marks elements to leave out, set ignore_label: "
       "255; class numbers need one-hot targets"},
      {{0, 1, 2, 1}, "If 2 marks elements to leave out, set ignore_label: 2"},
      {{0, 1, -100, 1}, "set ignore_label: -100"},
      {{-1, 1, 1, -1},
       "For labels of -1 and 1 put a Power layer (scale: 0.5 "
       "shift: 0.5) before this one."},
      {{-1, 0, 1, 0},
       "If -1 marks elements to leave out, set ignore_label: "
       "-1; if 0 does, put a Power layer (scale: 0.5 shift: 0.5) before this "
       "one and set ignore_soft_targets: true."},
      {{3, 0, 7, 1}, "so. Class numbers need one-hot targets"},
      {{3, 0, 7, -1}, "so. Class numbers need one-hot targets"},
      {{3.5, -0.2, -7.1, 1}, "Are bottoms 0 and 1 the scores and the targets"},
      {{0, kNan, 0, 1}, "NaN or infinity is in the data"},
      {{0, 1, kInfinity, 1}, "NaN or infinity is in the data"}};
  for (const auto& kind : kKinds) {
    this->SetTargets(kind.targets);
    LogCapture log(google::GLOG_WARNING);
    this->SetUpAndForward("");
    ASSERT_EQ(1, log.messages().size()) << kind.advice;
    EXPECT_NE(string::npos, log.messages()[0].find(kind.advice))
        << log.messages()[0];
  }
  // Those that are ignored have no part in it.
  this->SetTargets({0, 255, -1, 255});
  LogCapture log(google::GLOG_WARNING);
  this->SetUpAndForward(LOSS_PARAM("ignore_label: -1"));
  ASSERT_EQ(1, log.messages().size());
  EXPECT_NE(string::npos, log.messages()[0].find("that is 1/255"));
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceTest, TestWarnsOfWeightsTwice) {
  this->Weigh({1, -2, std::numeric_limits<double>::quiet_NaN(), 1});
  LogCapture log(google::GLOG_WARNING);
  this->SetUp("name: 'loss'");
  this->Forward();
  ASSERT_EQ(1, log.messages().size());
  EXPECT_EQ(
      "SigmoidCrossEntropyWeightLoss layer 'loss': 2 of 4 element weights "
      "are negative or not finite, the first is -2; they are used as "
      "they are, and at most two warnings say so. A weight of 0 leaves an "
      "element out.",
      log.messages()[0]);
  this->Forward();
  EXPECT_EQ(1, log.messages().size());
  // Weights of ignored elements, however bad, cost no warning.
  this->Weigh({-5, 1, -5, 1});
  this->SetUpAndForward(LOSS_PARAM("ignore_label: 1"));
  EXPECT_EQ(1, log.messages().size());
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceTest, TestBalanceOfNothing) {
  const struct {
    vector<double> targets;
    const char* scope;
    const char* what;
  } kKinds[] = {{{0, 0, 0, 0}, "BATCH", "Here all targets are 0: look at"},
                {{1, 1, 1, 1}, "BATCH", "Here all targets are 1: look at"},
                {{7, 7, 7, 7}, "BATCH", "Here all targets are ignored."},
                {{0, 1, 0, 1}, "INSTANCE", "Here each scope has one of the "}};
  for (const auto& kind : kKinds) {
    this->SetTargets(kind.targets);
    LogCapture log(google::GLOG_WARNING);
    this->SetUp("name: 'loss' " LOSS_PARAM("ignore_label: 7") +
                this->Balance(kind.scope));
    for (int i = 1; i < 100; ++i) {
      ASSERT_EQ(0, this->Forward());
    }
    ASSERT_EQ(0, log.messages().size());
    for (int i = 0; i < 200; ++i) {
      this->Forward();
      ASSERT_EQ(1, log.messages().size());
    }
    EXPECT_NE(string::npos,
              log.messages()[0].find(
                  "layer 'loss': in 100 Forwards in a row no scope of "
                  "class_balance " +
                  string(kind.scope) +
                  " had positives and negatives, so that loss and gradient "
                  "are 0. " +
                  kind.what))
        << log.messages()[0];
  }
  // Another batch in between, or no balance: no warning.
  LogCapture log(google::GLOG_WARNING);
  for (const char* const balance : {"BATCH", "NONE"}) {
    this->SetTargets({0, 0, 0, 0});
    this->SetUp(this->Balance(balance));
    for (int i = 0; i < 198; ++i) {
      this->targets_.mutable_cpu_data()[0] = i == 99;
      this->Forward();
    }
  }
  EXPECT_EQ(0, log.messages().size());
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceTest, TestTargetsOfOtherShapes) {
  const struct {
    vector<int> scores, targets;
    int warnings;
  } kShapes[] = {{{4, 1}, {4}, 0},
                 {{4}, {4, 1, 1, 1}, 0},
                 {{4, 6, 1, 1}, {4, 6}, 0},
                 {{4, 6}, {4, 1, 1, 6}, 0},
                 {{4, 3, 2, 5}, {4, 30}, 0},
                 {{4, 30}, {4, 3, 1, 10, 1}, 0},
                 {{4, 3, 2, 5}, {4, 6, 5}, 0},
                 {{1, 3, 2, 5}, {1, 1, 6, 5}, 0},
                 {{4, 2, 6}, {4, 3, 4}, 1},
                 {{4, 3, 2, 5}, {4, 10, 3}, 1},
                 {{0, 2, 6}, {0, 6, 2}, 0}};
  for (const auto& shape : kShapes) {
    this->SetShapes(shape.scores, shape.targets);
    LogCapture log(google::GLOG_WARNING);
    this->SetUpAndForward("name: 'loss'");
    this->Forward();
    ASSERT_EQ(shape.warnings, log.messages().size())
        << this->scores_.shape_string() << this->targets_.shape_string();
  }
  this->SetShapes({4, 2, 6}, {4, 3, 4});
  LogCapture log(google::GLOG_WARNING);
  this->SetUp("name: 'loss'");
  ASSERT_EQ(1, log.messages().size());
  EXPECT_EQ(
      "SigmoidCrossEntropyWeightLoss layer 'loss': the scores (bottom 0) have "
      "shape 4 2 6 (48), the targets (bottom 1) 4 3 4 (48); the targets are "
      "taken in the order in which they lie in memory. If that is right, a "
      "Reshape layer that gives them the scores' shape ends this warning.",
      log.messages()[0]);
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceTest, TestLayerWithoutAName) {
  this->SetTargets({255, 0, 0, 255});
  LogCapture log(google::GLOG_WARNING);
  this->SetUpAndForward("bottom: 'dsn1' bottom: 'label' top: 'dsn1_loss'");
  ASSERT_EQ(1, log.messages().size());
  EXPECT_EQ(0, log.messages()[0].find(
                   "SigmoidCrossEntropyWeightLoss layer without a name, of "
                   "bottoms 'dsn1', 'label' and top 'dsn1_loss': 2 of 4"));
}

// On the CPU only: a death test forks, which no CUDA context outlives.
template <typename Dtype>
class SigmoidCrossEntropyWeightLossAdviceDeathTest
    : public SigmoidCrossEntropyWeightLossAdviceTest<CPUDevice<Dtype> > {};

TYPED_TEST_CASE(SigmoidCrossEntropyWeightLossAdviceDeathTest, TestDtypes);

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceDeathTest, TestShapes) {
  this->SetShapes({2, 3, 2, 2}, {4, 3, 2, 1});
  EXPECT_DEATH(this->SetUp(""), "their first axes must be equal");
  this->SetShapes({}, {});
  EXPECT_DEATH(this->SetUp(""), "the scores .bottom 0. have no axes");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceDeathTest, TestOtherOrder) {
  const vector<int> kShapes[][2] = {{{4, 1, 12, 20}, {4, 1, 20, 12}},
                                    {{4, 3, 12, 20}, {4, 12, 20, 3}},
                                    {{4, 1, 12, 20}, {4, 20, 12}},
                                    {{4, 3, 5}, {4, 5, 1, 3}},
                                    {{1, 3, 12, 12}, {1, 12, 12, 3}}};
  for (const auto& shapes : kShapes) {
    this->SetShapes(shapes[0], shapes[1]);
    EXPECT_DEATH(this->SetUp("name: 'loss'"),
                 "layer 'loss': the scores .bottom 0. have shape .*, the "
                 "targets .bottom 1. .*; these are the same axes in another "
                 "order. Transpose the targets where they are made; .* give "
                 "them the scores' shape by a Reshape layer.");
  }
  this->SetShapes({4, 1, 12, 20}, {4, 1, 12, 20});
  this->SetUp("");
  this->SetShapes({4, 1, 12, 20}, {4, 1, 20, 12});
  EXPECT_DEATH(this->Forward(), "the same axes in another order");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceDeathTest, TestCounts) {
  this->SetShapes({2, 3, 2, 2}, {2, 3, 2, 1});
  EXPECT_DEATH(this->SetUp("name: 'loss'"),
               "layer 'loss': the scores .bottom 0. have shape 2 3 2 2 .24., "
               "the targets .bottom 1. 2 3 2 1 .12.; their counts must be "
               "equal. Crop or resize one to the height and width of the");
  const vector<int> kClassNumbers[][2] = {{{8, 10}, {8}},
                                          {{8, 10}, {8, 1}},
                                          {{8, 10, 1, 1}, {8, 1, 1, 1}},
                                          {{2, 10, 6, 5}, {2, 6, 5}},
                                          {{2, 10, 6, 5}, {2, 1, 6, 5}},
                                          {{1, 10, 6, 5}, {1, 1, 6, 5}}};
  for (const auto& shapes : kClassNumbers) {
    this->SetShapes(shapes[0], shapes[1]);
    EXPECT_DEATH(this->SetUp(""),
                 "These look like class numbers: the layer needs one-hot "
                 "targets, 0 or 1 for each of the 10 channels");
  }
  this->SetShapes({2, 6, 5, 10}, {2, 6, 5});
  EXPECT_DEATH(this->SetUp(PARAM("axis: -1")), "look like class numbers");
  this->SetShapes({2, 2, 6, 5}, {2, 1, 6, 5});
  EXPECT_DEATH(this->SetUp(""), "scores of one channel and targets of 0 and 1");
  this->SetShapes({2, 1, 6, 5}, {2, 3, 6, 5});
  EXPECT_DEATH(this->SetUp(""),
               "Each image has 3 channels of targets and 1 of "
               "scores; .* is_color: false");
  this->SetShapes({8, 10}, {8, 7});
  EXPECT_DEATH(this->SetUp(""), "Each image has 7 channels of targets and 10");
  this->SetShapes({8}, {7, 3});
  EXPECT_DEATH(this->SetUp(""), "their counts must be equal.");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceDeathTest, TestStopOnNan) {
  const string kStop = "name: 'loss' " PARAM("stop_on_nan: true");
  const double kNan = std::numeric_limits<double>::quiet_NaN();
  this->scores_.mutable_cpu_data()[1] =
      std::numeric_limits<TypeParam>::infinity();
  this->scores_.mutable_cpu_data()[2] = kNan;
  this->SetUp("");
  EXPECT_TRUE(this->Forward() != this->Forward());
  this->SetUp(kStop);
  EXPECT_DEATH(this->Forward(),
               "layer 'loss': the loss is -?nan; 2 of 4 scores are not finite, "
               "the first is inf .stop_on_nan is true.");
  this->SetTargets({0, kNan, kNan, kNan});
  EXPECT_DEATH(this->Forward(),
               "the loss is -?nan; 3 of 4 targets are not finite, the first is "
               "-?nan .stop_on_nan");
  this->SetTargets({0, 1, 0, 1});
  this->Weigh({1, kNan, 1, 1});
  this->SetUp(kStop);
  EXPECT_DEATH(this->Forward(),
               "the loss is -?nan; 1 of 4 element weights are not finite, the "
               "first is -?nan .stop_on_nan");
  this->scores_.mutable_cpu_data()[0] = kNan;
  EXPECT_DEATH(this->Forward(),
               "the loss is -?nan; 1 of 4 scores are not finite, .*; 1 of 4 "
               "element weights are not finite");
}

TYPED_TEST(SigmoidCrossEntropyWeightLossAdviceDeathTest, TestStopOnOverflow) {
  const TypeParam kLargest = std::numeric_limits<TypeParam>::max();
  this->scores_.mutable_cpu_data()[0] = -kLargest;
  this->Weigh({1, 2, 1, 1});
  this->SetUp(PARAM("stop_on_nan: true cls_weight: 1e10"));
  EXPECT_DEATH(this->Forward(),
               "the loss is inf; scores, targets and weights are finite, and "
               "their sum is not: the largest magnitude of the scores is "
               ".*e.[0-9]+, of the targets 1, of the element weights 2; "
               "cls_weight 1e.10, neg_weight 1 .stop_on_nan");
}

}  // namespace caffe
