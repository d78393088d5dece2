#ifndef CPU_ONLY

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "boost/scoped_ptr.hpp"
#include "gtest/gtest.h"

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/layers/sigmoid_cross_entropy_weight_loss_layer.hpp"
#include "caffe/syncedmem.hpp"
#include "caffe/test/weighted_sigmoid_loss_cases.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

// The CUDA kernel against the CPU's: gradients and counts have the same bits,
// whatever the shape and the features in use; sums are the same but for
// rounding, and bit for bit from call to call.

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const int kUntouched = 99;
// Before and after a buffer's values; a multiple of 16 bytes.
const std::size_t kMargin = 16;

/// Values on the device that nobody has written, for compute-sanitizer to see
/// that a kernel reads none of them.
template <typename T>
class Unwritten {
 public:
  explicit Unwritten(std::size_t count) : count_(count), data_(NULL) {
    CUDA_CHECK(cudaMalloc(&data_, count * sizeof(T)));
  }
  ~Unwritten() { cudaFree(data_); }
  Unwritten(const Unwritten&) = delete;
  Unwritten& operator=(const Unwritten&) = delete;

  T* on_device() { return data_; }
  std::vector<T> Get() const {
    std::vector<T> values(count_);
    CUDA_CHECK(cudaMemcpy(values.data(), data_, count_ * sizeof(T),
                          cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  const std::size_t count_;
  T* data_;
};

/// Values on the device that begin at a multiple of 16 bytes, with others
/// around them; after an odd number, which has no whole vector at its end, with
/// none, so that compute-sanitizer sees what is read there.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::size_t count)
      : count_(count),
        begin_(kMargin),
        size_(begin_ + count + (count % 2 ? 0 : kMargin)),
        memory_(size_ * sizeof(T)) {
    std::fill_n(all(), size_, T(kUntouched));
  }
  explicit Buffer(const std::vector<T>& values) : Buffer(values.size()) {
    Set(values);
  }

  void Set(const std::vector<T>& values) {
    std::copy(values.begin(), values.end(), all() + begin_);
  }
  T* on_device() {
    return static_cast<T*>(memory_.mutable_gpu_data()) + begin_;
  }
  std::vector<T> Get() { return std::vector<T>(all() + begin_, all() + end()); }

  bool IsRestUntouched() {
    const T* values = all();
    return std::count(values, values + begin_, T(kUntouched)) == begin_ &&
           std::count(values + end(), values + size_, T(kUntouched)) ==
               size_ - end();
  }

 private:
  T* all() { return static_cast<T*>(memory_.mutable_cpu_data()); }
  std::size_t end() const { return begin_ + count_; }

  const std::size_t count_, begin_, size_;
  SyncedMemory memory_;
};

template <typename T>
bool HasSameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

void ExpectSameBits(const LossSums& expected, const LossSums& got) {
  EXPECT_EQ(0, std::memcmp(&expected, &got, sizeof(got)))
      << expected.loss << ' ' << got.loss;
}

/// Whether the CPU kernel has a fused multiply-add, as CUDA has: without one an
/// element has other bits.
bool IsFused() {
#ifdef WEIGHTED_SIGMOID_LOSS_FMA
  return true;
#else
  return std::string(BestLoops<float>().name) != "baseline";
#endif
}

}  // namespace

template <typename T>
class WeightedSigmoidLossGPUTest : public ::testing::Test {
 protected:
  WeightedSigmoidLossGPUTest() { Caffe::set_mode(Caffe::GPU); }

  void SetUp() override {
    if (!IsFused()) {
      std::printf("no fused multiply-add on this CPU: no bits are compared\n");
    }
  }

  /// All that the kernel computes of a case, on the device and on the CPU.
  void Check(const Case& c) {
    SCOPED_TRACE(c.Name());
    const CaseValues<T> values(c);
    Elements<T> here = MakeElements(
        c, values.scores.data(), values.targets.data(), values.weight.data(),
        values.cls_weight.data(), values.neg_weight.data());
    Buffer<T> scores(values.scores), targets(values.targets);
    Buffer<T> weight(values.weight);
    Buffer<double> cls_weight(values.cls_weight), neg_weight(values.neg_weight);
    Elements<T> there = MakeElements(c, scores.on_device(), targets.on_device(),
                                     weight.on_device(), cls_weight.on_device(),
                                     neg_weight.on_device());

    std::vector<double> balance(2 * here.scope.size);
    Buffer<double> device_balance(balance);
    if (c.balance != ' ') {
      Balance(here, balance.data());
      CheckBalance(there, balance);
      // What is rounded otherwise in a factor is not in the gradients' bits.
      device_balance.Set(balance);
      here.balance = balance.data();
      there.balance = device_balance.on_device();
    }
    for (const double scale : {1., 1. / 512}) {
      CheckPasses(here, there, scale);
    }
  }

  void CheckBalance(const Elements<T>& there,
                    const std::vector<double>& expected) {
    Unwritten<double> balance(expected.size());
    ASSERT_EQ(0, BalanceGpu(there, workspace(), balance.on_device()));
    const std::vector<double> got = balance.Get();
    for (std::size_t k = 0; k < got.size(); ++k) {
      EXPECT_TRUE(IsNearFactor(got[k], expected[k]))
          << got[k] << ' ' << expected[k];
    }
  }

  void CheckPasses(const Elements<T>& here, const Elements<T>& there,
                   double scale) {
    const LossSums loss = Loss(here, scale);
    LossSums got;
    ASSERT_EQ(0, LossGpu(there, scale, workspace(), &got));
    EXPECT_TRUE(IsNear(got.loss, loss.loss)) << got.loss << ' ' << loss.loss;
    EXPECT_EQ(loss.valid, got.valid);
    EXPECT_EQ(loss.target_excess, got.target_excess);
    EXPECT_EQ(loss.weight_excess, got.weight_excess);

    Buffer<T> grad(here.count);
    ASSERT_EQ(0, GradientGpu(there, scale, grad.on_device()));
    EXPECT_TRUE(grad.IsRestUntouched());
    if (IsFused()) {
      std::vector<T> expected(here.count);
      Gradient(here, scale, expected.data());
      EXPECT_TRUE(HasSameBits(expected, grad.Get()));
    }
    CheckRepeated(there, scale, got, grad.Get());
  }

  /// Once more, with the gradients in place of the scores: the same bits.
  void CheckRepeated(Elements<T> there, double scale, const LossSums& expected,
                     const std::vector<T>& gradients) {
    LossSums got;
    ASSERT_EQ(0, LossGpu(there, scale, workspace(), &got));
    ExpectSameBits(expected, got);
    std::vector<T> scores(there.count);
    CUDA_CHECK(cudaMemcpy(scores.data(), there.scores, there.count * sizeof(T),
                          cudaMemcpyDeviceToHost));
    Buffer<T> both(scores);
    there.scores = both.on_device();
    ASSERT_EQ(0, GradientGpu(there, scale, both.on_device()));
    EXPECT_TRUE(HasSameBits(gradients, both.Get()));
  }

  /// Of each call its own, since what a former one wrote there is no use.
  void* workspace() {
    workspace_.reset(new Unwritten<char>(kGpuWorkspace));
    return workspace_->on_device();
  }

 private:
  boost::scoped_ptr<Unwritten<char> > workspace_;
};

typedef ::testing::Types<float, double> FloatAndDouble;
TYPED_TEST_CASE(WeightedSigmoidLossGPUTest, FloatAndDouble);

TYPED_TEST(WeightedSigmoidLossGPUTest, TestCases) {
  for (const Case& c : Cases<TypeParam>()) {
    this->Check(c);
    ASSERT_FALSE(this->HasFailure()) << c.Name();
  }
}

/// Every length of what is left over after whole vectors.
TYPED_TEST(WeightedSigmoidLossGPUTest, TestLengths) {
  for (std::size_t count = 1; count <= 64 + 32 / sizeof(TypeParam); ++count) {
    const char weight = count % 3 ? 'f' : ' ';
    const Case c = {
        1, 1, count, false, ' ', weight, count % 5 != 0, 0, count % 3 == 1};
    this->Check(c);
    ASSERT_FALSE(this->HasFailure()) << c.Name();
  }
}

/// More elements than the grid has threads, so that threads take several
/// vectors; with constants that come again, and that do not.
TYPED_TEST(WeightedSigmoidLossGPUTest, TestLarge) {
  const Case kCases[] = {{1, 1, 9000001, false, ' ', ' ', true, 0, false},
                         {250000, 35, 1, true, 'c', ' ', true, 0, true},
                         {16, 64, 4097, true, 'i', 'p', true, 0, false},
                         {30, 64, 4097, true, 'e', ' ', false, 0, true},
                         {30000, 35, 3, true, 'g', 'f', true, 0, false},
                         {3, 7, 200003, true, 'b', 'f', false, 0, true}};
  for (const Case& c : kCases) {
    this->Check(c);
  }
}

/// An infinite score or NaN, after hard targets, has the CPU's loss: infinite,
/// or NaN.
TYPED_TEST(WeightedSigmoidLossGPUTest, TestNotFinite) {
  typedef TypeParam T;
  const T kInfinity = std::numeric_limits<T>::infinity();
  const T kNaN = std::numeric_limits<T>::quiet_NaN();
  Buffer<double> weight(std::vector<double>(1, 3));
  for (const T score : {kInfinity, -kInfinity, kNaN}) {
    for (const T target : {T(0), T(1)}) {
      const std::vector<T> scores = {1, -1, 2, score};
      const std::vector<T> targets = {0, 0, 1, target};
      Buffer<T> device_scores(scores), device_targets(targets);
      const double here_weight = 3;
      Elements<T> elements = Elements<T>();
      elements.count = scores.size();
      elements.scores = scores.data();
      elements.targets = targets.data();
      elements.cls_weight = elements.neg_weight = &here_weight;
      const double expected = Loss(elements, 1.).loss;
      elements.scores = device_scores.on_device();
      elements.targets = device_targets.on_device();
      elements.cls_weight = elements.neg_weight = weight.on_device();
      LossSums got;
      ASSERT_EQ(0, LossGpu(elements, 1., this->workspace(), &got));
      EXPECT_TRUE(std::isnan(expected) ? std::isnan(got.loss)
                                       : got.loss == expected)
          << score << ' ' << target << ' ' << got.loss;
    }
  }
}

/// The layer refuses memory that the kernel cannot take.
TYPED_TEST(WeightedSigmoidLossGPUTest, TestMisalignedDeath) {
  typedef TypeParam T;
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  LayerParameter param;
  param.set_name("shifted");
  SigmoidCrossEntropyWeightLossLayer<T> layer(param);
  Blob<T> scores(2, 4, 1, 1), targets(2, 4, 1, 1), loss;
  const std::vector<Blob<T>*> bottom = {&scores, &targets}, top = {&loss};
  layer.SetUp(bottom, top);
  Buffer<T> memory(std::vector<T>(9, 0));
  targets.set_gpu_data(memory.on_device() + 1);
  EXPECT_DEATH(layer.Forward(bottom, top),
               "layer 'shifted': the targets begin at device address");
}

TYPED_TEST(WeightedSigmoidLossGPUTest, TestNoElements) {
  Elements<TypeParam> elements = Elements<TypeParam>();
  elements.channel = elements.scope = Axis(3, 1);
  LossSums sums;
  EXPECT_EQ(0, LossGpu(elements, 1, this->workspace(), &sums));
  EXPECT_EQ(0, sums.loss);
  EXPECT_EQ(0, sums.valid);
  EXPECT_EQ(0, GradientGpu<TypeParam>(elements, 1, NULL));
  Buffer<double> balance(6);
  EXPECT_EQ(0, BalanceGpu(elements, this->workspace(), balance.on_device()));
  EXPECT_EQ(std::vector<double>(6), balance.Get());
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // !CPU_ONLY
