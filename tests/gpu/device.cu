// What only a GPU can show of the CUDA kernel, in programs' length:
//
//   device describe       which GPU it is
//   device walk [STRIDE]  each float score (or one in STRIDE), targets 0 and 1:
//                         loss and gradient have the CPU's bits
//   device loss           the losses that the kernel itself adds up, one by one
//   device repeat         sums and gradients have the same bits each time
//   device large          2^31 - 1 elements; takes 36 GB of the GPU's memory
//
// Exit status 0 means that all of it holds; 3, that this machine cannot tell.

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "caffe/test/weighted_sigmoid_loss_cases.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

// What CUDA adds to atomically, and printf takes.
typedef unsigned long long Counter;  // NOLINT(runtime/int)

const int kCannotTell = 3;
const unsigned kThreads = 256;
const unsigned kBlocks = 4096;
const std::uint64_t kPatterns = std::uint64_t(1) << 32;  // of a float's bits

void Require(int status, const char* what) {
  if (status != cudaSuccess) {
    std::fprintf(stderr, "device: %s: %s\n", what,
                 cudaGetErrorString(static_cast<cudaError_t>(status)));
    std::exit(1);
  }
}

/// Memory of the device, zeros at first.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t count) : data_(NULL) {
    Require(cudaMalloc(&data_, count * sizeof(T)), "cudaMalloc");
    Require(cudaMemset(data_, 0, count * sizeof(T)), "cudaMemset");
  }
  explicit DeviceArray(const std::vector<T>& values)
      : DeviceArray(values.size()) {
    Require(cudaMemcpy(data_, values.data(), values.size() * sizeof(T),
                       cudaMemcpyHostToDevice),
            "cudaMemcpy");
  }
  ~DeviceArray() { cudaFree(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;

  T* get() const { return data_; }
  std::vector<T> Get(std::size_t count) const {
    std::vector<T> values(count);
    Require(cudaMemcpy(values.data(), data_, count * sizeof(T),
                       cudaMemcpyDeviceToHost),
            "cudaMemcpy");
    return values;
  }

 private:
  T* data_;
};

/// Memory of the host that the device writes to at full speed.
template <typename T>
class PinnedArray {
 public:
  explicit PinnedArray(std::size_t count) : data_(NULL) {
    Require(cudaMallocHost(&data_, count * sizeof(T)), "cudaMallocHost");
  }
  ~PinnedArray() { cudaFreeHost(data_); }
  PinnedArray(const PinnedArray&) = delete;
  PinnedArray& operator=(const PinnedArray&) = delete;

  T* get() const { return data_; }
  void CopyFrom(const T* device, std::size_t count) {
    Require(
        cudaMemcpy(data_, device, count * sizeof(T), cudaMemcpyDeviceToHost),
        "cudaMemcpy");
  }

 private:
  T* data_;
};

__device__ std::uint64_t FirstIndex() {
  return blockIdx.x * std::uint64_t(kThreads) + threadIdx.x;
}
__device__ std::uint64_t Step() { return gridDim.x * std::uint64_t(kThreads); }

// clang-format off
#define LAUNCH(kernel, ...)                          \
  /* NOLINT_NEXT_LINE(whitespace/operators) */       \
  kernel<<<kBlocks, kThreads>>>(__VA_ARGS__);        \
  Require(cudaGetLastError(), #kernel)
// clang-format on

// Numbers without an order, the same on every run.

__host__ __device__ std::uint32_t Mix(std::uint64_t n) {
  n = (n + 1) * 0x9E3779B97F4A7C15u;
  n = (n ^ (n >> 32)) * 0xD6E8FEB86659FD93u;
  return static_cast<std::uint32_t>(n >> 32);
}

/// Scores as of a net in training, some large; targets of all kinds; weights.
template <typename T>
__global__ void FillKernel(std::uint64_t count, T* scores, T* targets,
                           T* weight) {
  for (std::uint64_t i = FirstIndex(); i < count; i += Step()) {
    const std::uint32_t bits = Mix(i);
    const T unit = T(Mix(~i)) / T(4294967296.);
    scores[i] = (unit * 2 - 1) * (bits % 16 == 0 ? T(100) : T(8));
    const unsigned kind = bits / 16 % 64;
    targets[i] = kind == 0 ? T(-1) : kind == 1 ? T(1) : kind == 2 ? unit : T(0);
    if (weight) {
      weight[i] = T(bits / 1024 % 1024) / T(256);
    }
  }
}

__device__ bool HaveSameBits(float a, float b) {
  return __float_as_uint(a) == __float_as_uint(b);
}
__device__ bool HaveSameBits(double a, double b) {
  return __double_as_longlong(a) == __double_as_longlong(b);
}

/// Counts values whose bits differ, and says where the first is.
template <typename T>
__global__ void CompareKernel(std::uint64_t count, const T* a, const T* b,
                              Counter* found) {
  for (std::uint64_t i = FirstIndex(); i < count; i += Step()) {
    const bool are_nan = isnan(a[i]) && isnan(b[i]);
    if (!HaveSameBits(a[i], b[i]) && !are_nan) {
      atomicAdd(&found[0], 1);
      atomicMin(&found[1], static_cast<Counter>(i));
    }
  }
}

/// How many values differ.
template <typename T>
std::uint64_t Differences(std::uint64_t count, const T* a, const T* b,
                          const std::string& what) {
  const std::vector<Counter> kNone = {0, ~0ull};
  DeviceArray<Counter> found(kNone);
  LAUNCH(CompareKernel, count, a, b, found.get());
  const std::vector<Counter> got = found.Get(2);
  if (got[0]) {
    std::printf("FAILED: %s: %llu of %llu differ, the first at %llu\n",
                what.c_str(), got[0], static_cast<Counter>(count), got[1]);
  }
  return got[0];
}

/// Plain input: one channel, nothing ignored.
template <typename T>
Elements<T> PlainElements(std::size_t count, const T* scores, const T* targets,
                          const double* weights) {
  Elements<T> elements = Elements<T>();
  elements.count = count;
  elements.scores = scores;
  elements.targets = targets;
  elements.cls_weight = weights;
  elements.neg_weight = weights + 1;
  return elements;
}

// The walk

const std::size_t kChunk = std::size_t(1) << 24;
const std::size_t kCpuBlock = 4096;
const double kWeights[][2] = {{1, 1}, {100, 0.7f}};

__host__ __device__ float Pattern(std::uint64_t index, std::uint64_t stride) {
  return BitCast<float>(static_cast<std::uint32_t>(index * stride));
}

__global__ void PatternsKernel(std::uint64_t first, std::uint64_t stride,
                               std::uint64_t count, float target, float* scores,
                               float* targets) {
  for (std::uint64_t i = FirstIndex(); i < count; i += Step()) {
    scores[i] = Pattern(first + i, stride);
    targets[i] = target;
  }
}

__global__ void LossesKernel(std::uint64_t count, const float* scores,
                             const float* targets, double a, double b,
                             double* losses) {
  for (std::uint64_t i = FirstIndex(); i < count; i += Step()) {
    losses[i] = LossElement(scores[i], targets[i], a, b,
                            Log1p(ExpNegative(Abs(scores[i]))));
  }
}

/// The bits of a and b, where any NaN is as good as another.
template <typename T>
bool AreSame(const T& a, const T& b) {
  return std::memcmp(&a, &b, sizeof(T)) == 0 ||
         (std::isnan(a) && std::isnan(b));
}

/// A chunk of the scores, on the device and on the CPU.
class DeviceWalk {
 public:
  explicit DeviceWalk(std::uint64_t stride)
      : stride_(stride),
        count_((kPatterns + stride - 1) / stride),
        scores_(kChunk),
        targets_(kChunk),
        grad_(kChunk),
        losses_(kChunk),
        host_grad_(kChunk),
        host_losses_(kChunk) {}

  /// Returns how many elements differ.
  std::uint64_t Run() {
    std::uint64_t failures = 0;
    for (const auto& weights : kWeights) {
      const DeviceArray<double> device_weights(
          std::vector<double>(weights, weights + 2));
      for (const float target : {0.f, 1.f}) {
        for (std::uint64_t first = 0; first < count_; first += kChunk) {
          const std::size_t count =
              std::min<std::uint64_t>(kChunk, count_ - first);
          OnDevice(first, count, target, weights, device_weights.get());
          failures += OnCpu(first, count, target, weights);
        }
      }
    }
    return failures;
  }

  std::uint64_t elements() const { return 4 * count_; }

 private:
  void OnDevice(std::uint64_t first, std::size_t count, float target,
                const double* weights, const double* device_weights) {
    LAUNCH(PatternsKernel, first, stride_, count, target, scores_.get(),
           targets_.get());
    LAUNCH(LossesKernel, count, scores_.get(), targets_.get(), weights[0],
           weights[1], losses_.get());
    const Elements<float> elements =
        PlainElements(count, scores_.get(), targets_.get(), device_weights);
    // What a pass does not write shows.
    Require(cudaMemset(grad_.get(), 0x55, count * sizeof(float)), "cudaMemset");
    Require(GradientGpu(elements, 1., grad_.get()), "GradientGpu");
    host_grad_.CopyFrom(grad_.get(), count);
    host_losses_.CopyFrom(losses_.get(), count);
  }

  std::uint64_t OnCpu(std::uint64_t first, std::size_t count, float target,
                      const double* weights) {
    const unsigned kCpus = std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::uint64_t> failures(kCpus);
    std::vector<std::thread> threads;
    for (unsigned k = 0; k < kCpus; ++k) {
      threads.emplace_back([=, &failures] {
        for (std::size_t begin = k * kCpuBlock; begin < count;
             begin += kCpus * kCpuBlock) {
          failures[k] +=
              CompareBlock(first, begin, std::min(kCpuBlock, count - begin),
                           target, weights);
        }
      });
    }
    std::uint64_t total = 0;
    for (unsigned k = 0; k < kCpus; ++k) {
      threads[k].join();
      total += failures[k];
    }
    return total;
  }

  std::uint64_t CompareBlock(std::uint64_t first, std::size_t begin,
                             std::size_t count, float target,
                             const double* weights) const {
    float scores[kCpuBlock], targets[kCpuBlock], grad[kCpuBlock];
    double losses[kCpuBlock];
    for (std::size_t i = 0; i < count; ++i) {
      scores[i] = Pattern(first + begin + i, stride_);
      targets[i] = target;
    }
    const Block<float> block = {count,   scores,      targets, false, 0,   true,
                                weights, weights + 1, NULL,    NULL,  NULL};
    BestLoops<float>().visit(block, true, losses, grad);
    const float* device_grad = host_grad_.get() + begin;
    const double* device_losses = host_losses_.get() + begin;
    if (std::memcmp(grad, device_grad, count * sizeof(float)) == 0 &&
        std::memcmp(losses, device_losses, count * sizeof(double)) == 0) {
      return 0;
    }
    std::uint64_t failures = 0;
    for (std::size_t i = 0; i < count; ++i) {
      if (!AreSame(grad[i], device_grad[i]) ||
          !AreSame(losses[i], device_losses[i])) {
        if (++failures == 1) {
          std::printf(
              "FAILED: score %a, target %g, weights %g %g: loss %a on the CPU, "
              "%a on the GPU; gradient %a, %a\n",
              scores[i], target, weights[0], weights[1], losses[i],
              device_losses[i], grad[i], device_grad[i]);
        }
      }
    }
    return failures;
  }

  const std::uint64_t stride_, count_;
  const DeviceArray<float> scores_, targets_, grad_;
  const DeviceArray<double> losses_;
  PinnedArray<float> host_grad_;
  PinnedArray<double> host_losses_;
};

int RunWalk(std::uint64_t stride) {
  DeviceWalk walk(stride);
  const std::uint64_t failures = walk.Run();
  std::printf(
      "walk: %llu elements, one float in %llu, against %s: %llu differ\n",
      static_cast<Counter>(walk.elements()), static_cast<Counter>(stride),
      BestLoops<float>().name, static_cast<Counter>(failures));
  return failures != 0;
}

// The losses that the kernel adds up: vectors of 4 in which one alone counts

/// An element's target, and the three others, which are ignored or have a loss
/// of 0, so that all four are hard.
struct LossSample {
  float target, other_score, other_target;
};
const LossSample kLossSamples[] = {
    {0, 1, -1}, {1, 1, -1}, {0.3f, 1, -1}, {0, -1000, 0}, {1, -1000, 0}};

int RunLoss() {
  const unsigned kSamples = 40000, kLanes = 4;
  const double weights[] = {100, 0.7f};
  const DeviceArray<double> device_weights(
      std::vector<double>(weights, weights + 2));
  const DeviceArray<char> workspace(kGpuWorkspace);
  std::uint64_t failures = 0;
  unsigned losses = 0;
  for (const LossSample& sample : kLossSamples) {
    std::vector<float> scores(kLanes * kSamples, sample.other_score);
    std::vector<float> targets(scores.size(), sample.other_target);
    for (unsigned k = 0; k < kSamples; ++k) {
      // Every exponent, and where it matters.
      const float x =
          k % 2 ? BitCast<float>(Mix(k)) : 30 * (Mix(k) / 2147483648.f - 1);
      scores[kLanes * k + k % kLanes] = std::isfinite(x) ? x : 1;
      targets[kLanes * k + k % kLanes] = sample.target;
    }
    const DeviceArray<float> device_scores(scores), device_targets(targets);
    for (unsigned k = 0; k < kSamples; ++k) {
      Elements<float> elements = PlainElements(
          kLanes, device_scores.get() + kLanes * k,
          device_targets.get() + kLanes * k, device_weights.get());
      elements.has_ignore_label = true;
      elements.ignore_label = -1;
      LossSums sums;
      Require(LossGpu(elements, 1., workspace.get(), &sums), "LossGpu");
      const float score = scores[kLanes * k + k % kLanes];
      const Block<float> block = {1,    &score,  &sample.target, false, 0,
                                  true, weights, weights + 1,    NULL,  NULL,
                                  NULL};
      double loss;
      float grad;
      BestLoops<float>().visit(block, true, &loss, &grad);
      const unsigned valid = sample.other_target == -1 ? 1 : kLanes;
      if (!AreSame(loss, sums.loss) || sums.valid != valid) {
        if (++failures == 1) {
          std::printf(
              "FAILED: score %a, target %g: %a on the CPU, %a on the "
              "GPU\n",
              score, sample.target, loss, sums.loss);
        }
      }
    }
    losses += kSamples;
  }
  std::printf("loss: %u losses by themselves: %llu differ\n", losses,
              static_cast<Counter>(failures));
  return failures != 0;
}

// The same bits each time

template <typename T>
std::uint64_t Repeat(const char* name, std::size_t count) {
  const int kTimes = 50;
  const DeviceArray<double> weights(std::vector<double>({100, 1}));
  const DeviceArray<T> scores(count), targets(count), grad(count), again(count);
  const DeviceArray<char> workspace(kGpuWorkspace);
  LAUNCH(FillKernel<T>, count, scores.get(), targets.get(),
         static_cast<T*>(NULL));
  Elements<T> elements =
      PlainElements(count, scores.get(), targets.get(), weights.get());
  elements.has_ignore_label = true;
  elements.ignore_label = -1;
  LossSums first, sums;
  Require(LossGpu(elements, 1., workspace.get(), &first), "LossGpu");
  Require(GradientGpu(elements, 1., grad.get()), "GradientGpu");
  std::uint64_t failures = 0;
  for (int k = 0; k < kTimes; ++k) {
    Require(cudaMemset(again.get(), 0x55, count * sizeof(T)), "cudaMemset");
    Require(LossGpu(elements, 1., workspace.get(), &sums), "LossGpu");
    Require(GradientGpu(elements, 1., again.get()), "GradientGpu");
    if (std::memcmp(&first, &sums, sizeof(sums)) != 0) {
      std::printf("FAILED: %s: the sum is %a, then %a\n", name, first.loss,
                  sums.loss);
      ++failures;
    }
    failures += Differences(count, grad.get(), again.get(), name);
  }
  std::printf("repeat: %s, %zu elements, %d times: %llu differ\n", name, count,
              kTimes, static_cast<Counter>(failures));
  return failures;
}

int RunRepeat() {
  const std::size_t kCount = (std::size_t(1) << 26) + 3;
  return Repeat<float>("float", kCount) + Repeat<double>("double", kCount) != 0;
}

// As many elements as there can be, against plain kernels with 64-bit indices

/// A case's input as those kernels see it.
struct Plain {
  Case shape;
  const float *scores, *targets, *weight;
  const double *cls_weight, *neg_weight, *balance;
  std::uint64_t count;

  __device__ std::uint64_t Instance(std::uint64_t i) const {
    return i / (shape.channels * shape.inner);
  }
  __device__ std::uint64_t Channel(std::uint64_t i) const {
    return i / shape.inner % shape.channels;
  }
  __device__ std::uint64_t Scope(std::uint64_t i) const {
    return shape.balance == 'i'   ? Instance(i)
           : shape.balance == 'c' ? Channel(i)
           : shape.balance == 'e' ? i / shape.inner
                                  : 0;
  }
  __device__ bool IsIgnored(std::uint64_t i) const {
    const float t = targets[i];
    const bool is_soft = t >= 1.f / 1048576 && t <= 1 - 1.f / 1048576;
    return (shape.has_ignore_label && t == -1) ||
           (shape.ignores_soft_targets && is_soft);
  }
  __device__ void Constants(std::uint64_t i, double scale, double* a,
                            double* b) const {
    const std::uint64_t c = shape.by_channel ? Channel(i) : 0;
    *a = scale * cls_weight[c];
    *b = scale * neg_weight[c];
    if (shape.balance != ' ') {
      *a *= balance[2 * Scope(i)];
      *b *= balance[2 * Scope(i) + 1];
    }
    if (shape.weight != ' ') {
      const float e = weight[shape.weight == 'f'
                                 ? i
                                 : Instance(i) * shape.inner + i % shape.inner];
      *a *= e;
      *b *= e;
    }
  }
};

__device__ double SumOfBlock(double value) {
  __shared__ double values[kThreads];
  __syncthreads();
  values[threadIdx.x] = value;
  __syncthreads();
  double sum = 0;
  for (unsigned k = 0; k < kThreads && threadIdx.x == 0; ++k) {
    sum += values[k];
  }
  return sum;
}

__global__ void PlainPassKernel(const Plain input, double scale,
                                const float* grad, Counter* found,
                                double* loss) {
  double sum = 0;
  for (std::uint64_t i = FirstIndex(); i < input.count; i += Step()) {
    double a, b;
    input.Constants(i, scale, &a, &b);
    const float x = input.scores[i], t = input.targets[i];
    const bool is_ignored = input.IsIgnored(i);
    const float u = ExpNegative(Abs(x));
    sum += is_ignored ? 0. : LossElement(x, t, a, b, Log1p(u));
    const float expected =
        is_ignored
            ? 0.f
            : GradientElement(x, t, Saturate<float>(a), Saturate<float>(b), u);
    if (!HaveSameBits(expected, grad[i])) {
      atomicAdd(&found[0], 1);
      atomicMin(&found[1], static_cast<Counter>(i));
    }
    if (is_ignored) {
      atomicAdd(&found[2], 1);
    }
  }
  sum = SumOfBlock(sum);
  if (threadIdx.x == 0) {
    loss[blockIdx.x] = sum;
  }
}

/// A block a scope.
__global__ void PlainBalanceKernel(const Plain input, std::uint64_t scopes,
                                   double* sums) {
  const std::uint64_t s = blockIdx.x, each = input.count / scopes;
  const Case& shape = input.shape;
  double positives = 0, negatives = 0;
  for (std::uint64_t k = threadIdx.x; k < each; k += kThreads) {
    const std::uint64_t i =
        shape.balance == 'c'
            ? (k / shape.inner * shape.channels + s) * shape.inner +
                  k % shape.inner
            : s * each + k;
    if (!input.IsIgnored(i)) {
      positives += input.targets[i];
      negatives += 1. - input.targets[i];
    }
  }
  positives = SumOfBlock(positives);
  negatives = SumOfBlock(negatives);
  if (threadIdx.x == 0) {
    sums[2 * s] = positives;
    sums[2 * s + 1] = negatives;
  }
}

/// Sums of 2^31 terms, added in two orders.
bool IsClose(double a, double b) {
  return std::abs(a - b) <= 1e-9 * std::abs(b);
}

/// All arrays of a case, and what it comes to.
class LargeCase {
 public:
  explicit LargeCase(const Case& c)
      : scores_(c.count()),
        targets_(c.count()),
        grad_(c.count()),
        weight_(c.weight == ' ' ? 1 : c.count()),
        cls_weight_(Ramp(c, 100)),
        neg_weight_(Ramp(c, 2)),
        workspace_(kGpuWorkspace),
        name_(c.Name()),
        elements_(MakeElements<float>(c, scores_.get(), targets_.get(),
                                      weight_.get(), cls_weight_.get(),
                                      neg_weight_.get())),
        balance_(2 * elements_.scope.size) {
    plain_.shape = c;
    plain_.scores = elements_.scores;
    plain_.targets = elements_.targets;
    plain_.weight = elements_.weight.data;
    plain_.cls_weight = cls_weight_.get();
    plain_.neg_weight = neg_weight_.get();
    plain_.balance = balance_.get();
    plain_.count = c.count();
    LAUNCH(FillKernel<float>, c.count(), scores_.get(), targets_.get(),
           c.weight == ' ' ? NULL : weight_.get());
  }

  /// Returns the number of failures.
  int Run() {
    if (plain_.shape.balance != ' ') {
      CheckBalance();
      elements_.balance = balance_.get();
    }
    float* grad = grad_.get();
    const std::size_t bytes = plain_.count * sizeof(float);
    const double kScale = 1. / 3;
    LossSums sums;
    Require(LossGpu(elements_, kScale, workspace_.get(), &sums), "LossGpu");
    Require(cudaMemset(grad, 0x55, bytes), "cudaMemset");
    Require(GradientGpu(elements_, kScale, grad), "GradientGpu");
    CheckPasses(kScale, grad, sums);
    std::printf("large: %s: %d failures\n", name_.c_str(), failures_);
    return failures_;
  }

 private:
  static std::vector<double> Ramp(const Case& c, double largest) {
    const std::size_t count = c.by_channel ? c.channels : 1;
    std::vector<double> values;
    for (std::size_t k = 1; k <= count; ++k) {
      values.push_back(largest * k / count);
    }
    return values;
  }

  void Expect(bool holds, const char* what) {
    if (!holds) {
      ++failures_;
      std::printf("FAILED: %s: %s\n", name_.c_str(), what);
    }
  }

  void CheckBalance() {
    const std::size_t scopes = elements_.scope.size;
    Require(BalanceGpu(elements_, workspace_.get(), balance_.get()),
            "BalanceGpu");
    const DeviceArray<double> sums(2 * scopes);
    // NOLINT_NEXT_LINE(whitespace/operators)
    PlainBalanceKernel<<<scopes, kThreads>>>(plain_, scopes, sums.get());
    Require(cudaGetLastError(), "PlainBalanceKernel");
    const std::vector<double> expected = sums.Get(2 * scopes);
    const std::vector<double> got = balance_.Get(2 * scopes);
    int wrong = 0;
    for (std::size_t s = 0; s < scopes; ++s) {
      const double p = expected[2 * s], q = expected[2 * s + 1];
      wrong += !IsClose(got[2 * s], q / (p + q));
      wrong += !IsClose(got[2 * s + 1], p / (p + q));
    }
    Expect(wrong == 0, "balance");
  }

  void CheckPasses(double scale, const float* grad, const LossSums& sums) {
    const std::vector<Counter> kNone = {0, ~0ull, 0};
    const DeviceArray<Counter> found(kNone);
    const DeviceArray<double> losses(kBlocks);
    LAUNCH(PlainPassKernel, plain_, scale, grad, found.get(), losses.get());
    const std::vector<Counter> got = found.Get(3);
    double loss = 0;
    for (const double part : losses.Get(kBlocks)) {
      loss += part;
    }
    if (got[0]) {
      std::printf("%llu gradients differ, the first at %llu\n", got[0], got[1]);
    }
    Expect(got[0] == 0, "gradients");
    Expect(IsClose(sums.loss, loss), "loss");
    Expect(sums.valid + got[2] == plain_.count, "number of ignored elements");
    Expect(sums.target_excess == 0 && sums.weight_excess == 0, "warnings");
  }

  const DeviceArray<float> scores_, targets_, grad_, weight_;
  const DeviceArray<double> cls_weight_, neg_weight_;
  const DeviceArray<char> workspace_;
  const std::string name_;
  Elements<float> elements_;
  const DeviceArray<double> balance_;
  Plain plain_;
  int failures_ = 0;
};

int RunLarge() {
  const std::size_t kMemory = std::size_t(36) << 30;
  std::size_t available, total;
  Require(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
  if (available < kMemory) {
    std::printf("large: not run: it takes %zu GiB, and %zu GiB are free\n",
                kMemory >> 30, available >> 30);
    return kCannotTell;
  }
  // 2^31 - 1 is prime; 2^31 - 2 is 21483 x 151 x 662.
  const Case kCases[] = {{1, 1, 2147483647, false, 'b', ' ', true, 0, false},
                         {1, 1, 2147483647, false, ' ', 'f', true, 0, false},
                         {21483, 151, 662, true, 'i', 'p', true, 0, false},
                         {21483, 151, 662, true, 'c', 'f', true, 0, false},
                         {21483, 151, 662, true, 'e', ' ', true, 0, true}};
  int failures = 0;
  for (const Case& c : kCases) {
    failures += LargeCase(c).Run();
  }
  return failures != 0;
}

__global__ void NoKernel() {}

/// A field a line.
int RunDescribe() {
  int devices = 0, runtime = 0, driver = 0;
  Require(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  cudaDeviceProp device;
  Require(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");
  Require(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  Require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  // Whether there is machine code for this GPU.
  // NOLINT_NEXT_LINE(whitespace/operators)
  NoKernel<<<1, kThreads>>>();
  Require(cudaGetLastError(), "a kernel");
  Require(cudaDeviceSynchronize(), "a kernel");
  std::printf("name: %s\ndevices: %d\n", device.name, devices);
  std::printf("compute capability: %d.%d\nmultiprocessors: %d\n", device.major,
              device.minor, device.multiProcessorCount);
  std::printf("memory: %zu\nlevel 2 cache: %d\n", device.totalGlobalMem,
              device.l2CacheSize);
  std::printf("CUDA runtime: %d.%d\nCUDA driver: %d.%d\n", runtime / 1000,
              runtime % 1000 / 10, driver / 1000, driver % 1000 / 10);
  return 0;
}

bool IsFused() {
#ifdef WEIGHTED_SIGMOID_LOSS_FMA
  return true;
#else
  return std::string(BestLoops<float>().name) != "baseline";
#endif
}

int Run(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  const std::int64_t stride = argc > 2 ? std::atoll(argv[2]) : 1;
  if (stride < 1 || argc > (what == "walk" ? 3 : 2)) {
    return 2;
  }
  if ((what == "walk" || what == "loss") && !IsFused()) {
    std::printf("%s: not run: this CPU has no fused multiply-add\n", argv[1]);
    return kCannotTell;
  }
  if (what == "walk") {
    return RunWalk(stride);
  }
  return what == "loss"       ? RunLoss()
         : what == "repeat"   ? RunRepeat()
         : what == "large"    ? RunLarge()
         : what == "describe" ? RunDescribe()
                              : 2;
}

}  // namespace

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

int main(int argc, char** argv) {
  const int status = caffe::weighted_sigmoid_loss::Run(argc, argv);
  if (status == 2) {
    std::fprintf(stderr,
                 "usage: %s describe | walk [STRIDE] | loss | repeat | large\n",
                 argv[0]);
  }
  return status;
}
