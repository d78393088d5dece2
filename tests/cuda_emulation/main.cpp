// Runs the CUDA kernels, emulated, on inputs of all kinds and compares them
// with the CPU kernel: gradients and counts exactly, sums within rounding.
// test_cuda_kernels.py puts it at the end of the kernels' own file.

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "caffe/test/weighted_sigmoid_loss_cases.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

int failures = 0;

void Expect(bool holds, const std::string& where, const char* what) {
  if (!holds) {
    ++failures;
    std::printf("FAILED: %s: %s\n", where.c_str(), what);
  }
}

/// Values from a multiple of 16 bytes on, that end before memory that cannot be
/// touched; what is between is NaN and has to stay so.
template <typename T>
class Buffer {
 public:
  explicit Buffer(std::size_t count) {
    const std::size_t page = sysconf(_SC_PAGESIZE);
    bytes_ = (count * sizeof(T) + 32 + page - 1) / page * page;
    base_ = static_cast<char*>(mmap(NULL, bytes_ + page, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(base_ + bytes_, page, PROT_NONE);
    mapped_ = bytes_ + page;
    const std::size_t start = (bytes_ - count * sizeof(T)) / 16 * 16;
    data_ = reinterpret_cast<T*>(base_ + start);
    count_ = count;
    std::fill(reinterpret_cast<T*>(base_), reinterpret_cast<T*>(base_ + bytes_),
              std::numeric_limits<T>::quiet_NaN());
  }
  ~Buffer() { munmap(base_, mapped_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  T* data() { return data_; }
  bool IsRestUntouched() const {
    for (const T* p = reinterpret_cast<T*>(base_);
         p < reinterpret_cast<T*>(base_ + bytes_); ++p) {
      if ((p < data_ || p >= data_ + count_) && !std::isnan(*p)) {
        return false;
      }
    }
    return true;
  }

 private:
  char* base_;
  std::size_t bytes_, mapped_, count_;
  T* data_;
};

template <typename T>
class Run {
 public:
  explicit Run(const Case& c)
      : case_(c),
        count_(c.count()),
        values_(c),
        scores_(count_),
        targets_(count_),
        grad_(count_),
        weight_(count_),
        workspace_(kGpuWorkspace),
        elements_(MakeElements(c, scores_.data(), targets_.data(),
                               weight_.data(), values_.cls_weight.data(),
                               values_.neg_weight.data())) {
    std::copy(values_.scores.begin(), values_.scores.end(), scores_.data());
    std::copy(values_.targets.begin(), values_.targets.end(), targets_.data());
    std::copy(values_.weight.begin(), values_.weight.end(), weight_.data());
  }

  void Check() {
    if (case_.balance != ' ') {
      CheckBalance();
    }
    for (const double scale : {1., 1. / 512}) {
      CheckPasses(scale);
    }
    Expect(grad_.IsRestUntouched(), case_.Name(),
           "writes beyond its gradients");
  }

 private:
  void CheckBalance() {
    std::vector<double> expected(2 * elements_.scope.size);
    Balance(elements_, expected.data());
    balance_.resize(expected.size());
    BalanceGpu(elements_, workspace_.data(), balance_.data());
    for (std::size_t k = 0; k < expected.size(); ++k) {
      Expect(IsNearFactor(balance_[k], expected[k]), case_.Name(), "balance");
    }
    elements_.balance = balance_.data();
  }

  void CheckPasses(double scale) {
    const std::string name = case_.Name();
    std::vector<T> expected(count_);
    Gradient(elements_, scale, expected.data());
    GradientGpu(elements_, scale, grad_.data());
    Expect(HasGradients(expected), name, "gradient");
    const LossSums loss = Loss(elements_, scale);
    LossSums got;
    LossGpu(elements_, scale, workspace_.data(), &got);
    Expect(IsNear(got.loss, loss.loss), name, "loss");
    Expect(got.valid == loss.valid, name, "valid");
    Expect(got.target_excess == loss.target_excess, name, "target excess");
    Expect(got.weight_excess == loss.weight_excess, name, "weight excess");
    CheckInPlace(scale, expected);
  }

  void CheckInPlace(double scale, const std::vector<T>& expected) {
    Elements<T> elements = elements_;
    elements.scores = grad_.data();
    std::copy_n(elements_.scores, count_, grad_.data());
    GradientGpu(elements, scale, grad_.data());
    Expect(HasGradients(expected), case_.Name(), "gradient in place");
  }

  bool HasGradients(const std::vector<T>& expected) {
    return std::memcmp(grad_.data(), expected.data(), count_ * sizeof(T)) == 0;
  }

  const Case case_;
  const std::size_t count_;
  const CaseValues<T> values_;
  Buffer<T> scores_, targets_, grad_, weight_;
  std::vector<double> balance_;
  std::vector<char> workspace_;
  Elements<T> elements_;
};

template <typename T>
int CheckKernels() {
  const std::vector<Case> cases = Cases<T>();
  for (const Case& c : cases) {
    Run<T>(c).Check();
  }
  return cases.size();
}

/// An empty batch of three channels.
template <typename T>
void CheckEmpty() {
  Elements<T> elements = Elements<T>();
  elements.channel = elements.scope = Axis(3, 1);
  double balance[6] = {9, 9, 9, 9, 9, 9};
  LossSums sums;
  Expect(BalanceGpu(elements, NULL, balance) == cudaSuccess &&
             std::count(balance, balance + 6, 0) == 6,
         "empty", "balance");
  Expect(LossGpu(elements, 1, NULL, &sums) == cudaSuccess && sums.loss == 0 &&
             sums.valid == 0 &&
             GradientGpu<T>(elements, 1, NULL) == cudaSuccess,
         "empty", "passes");
}

/// An infinite score or NaN, after hard targets, has the CPU's loss: infinite,
/// or NaN.
template <typename T>
void CheckNotFinite() {
  const T kInfinity = std::numeric_limits<T>::infinity();
  const T kNaN = std::numeric_limits<T>::quiet_NaN();
  const double weight = 3;
  std::vector<char> workspace(kGpuWorkspace);
  alignas(16) T scores[] = {1, -1, 2, 0}, targets[] = {0, 0, 1, 0};
  for (const T score : {kInfinity, -kInfinity, kNaN}) {
    for (const T target : {T(0), T(1)}) {
      scores[3] = score;
      targets[3] = target;
      Elements<T> elements = Elements<T>();
      elements.count = 4;
      elements.scores = scores;
      elements.targets = targets;
      elements.cls_weight = elements.neg_weight = &weight;
      const double expected = Loss(elements, 1.).loss;
      LossSums got;
      LossGpu(elements, 1., workspace.data(), &got);
      Expect(std::isnan(expected) ? std::isnan(got.loss) : got.loss == expected,
             "score " + std::to_string(score), "loss");
    }
  }
}

/// Weights in double whose product overflows: as on the CPU, whose layer begins
/// again with smaller ones.
void CheckOverflow() {
  const double weight = 100;
  std::vector<char> workspace(kGpuWorkspace);
  alignas(16) double element_weights[] = {1, 1e307};
  for (const double score : {10., -10.}) {
    for (const double target : {0., 1.}) {
      alignas(16) const double scores[] = {-2, score}, targets[] = {0, target};
      Elements<double> elements = Elements<double>();
      elements.count = 2;
      elements.scores = scores;
      elements.targets = targets;
      elements.cls_weight = elements.neg_weight = &weight;
      elements.weight.data = element_weights;
      elements.weight.axes = 1;
      elements.weight.size[0] = 2;
      elements.weight.stride[0] = 1;
      const double expected = Loss(elements, 1.).loss;
      LossSums got;
      LossGpu(elements, 1., workspace.data(), &got);
      Expect(!std::isfinite(expected) && !std::isfinite(got.loss),
             "weights that overflow", "loss");
    }
  }
}

/// Divisors near powers of two are the hard ones, and dividends near multiples.
void CheckDivider() {
  const std::uint64_t kEnd = std::uint64_t(1) << 31;
  std::mt19937 random(1);
  std::vector<std::uint64_t> divisors;
  for (int shift = 0; shift <= 31; ++shift) {
    for (int d = -2; d <= 2; ++d) {
      divisors.push_back((std::uint64_t(1) << shift) + d);
    }
  }
  for (int k = 0; k < 1000; ++k) {
    divisors.push_back(random() >> (1 + k % 31));
  }
  for (const std::uint64_t divisor : divisors) {
    if (divisor < 1 || divisor >= kEnd) {
      continue;
    }
    const Divider divider = MakeDivider(divisor);
    const std::uint64_t last = (kEnd - 1) / divisor * divisor;
    std::vector<std::uint64_t> dividends = {0, 1, kEnd - 1, last, last - 1};
    for (int k = 0; k < 100; ++k) {
      const std::uint64_t n = random() >> (1 + k % 31);
      dividends.push_back(n);
      dividends.push_back(n / divisor * divisor);
      dividends.push_back(n / divisor * divisor - 1);
    }
    for (const std::uint64_t n : dividends) {
      if (n < kEnd) {
        Expect(divider.Quotient(n) == n / divisor &&
                   divider.Remainder(n) == n % divisor,
               std::to_string(n) + " / " + std::to_string(divisor), "division");
      }
    }
  }
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

int main() {
  using namespace caffe::weighted_sigmoid_loss;  // NOLINT(build/namespaces)
  CheckDivider();
  CheckEmpty<float>();
  CheckNotFinite<float>();
  CheckNotFinite<double>();
  CheckOverflow();
  const int cases = CheckKernels<float>() + CheckKernels<double>();
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures != 0;
}
