#ifndef BENCHMARKS_ON_CPU_HPP_
#define BENCHMARKS_ON_CPU_HPP_

#include <chrono>
#include <string>

#include "caffe/blob.hpp"
#include "caffe/common.hpp"
#include "caffe/syncedmem.hpp"
#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "loops.hpp"

// What adapter.cpp does otherwise on each device: here on the CPU.

namespace device {

namespace kernel = caffe::weighted_sigmoid_loss;

const caffe::Caffe::Brew kMode = caffe::Caffe::CPU;

template <typename T>
const T* Data(const caffe::Blob<T>& blob) {
  return blob.cpu_data();
}

inline const void* Data(caffe::SyncedMemory* memory) {
  return memory->cpu_data();
}

template <typename T>
T* MutableDiff(caffe::Blob<T>* blob) {
  return blob->mutable_cpu_diff();
}

template <typename T>
void Baseline(caffe::Blob<T>* scores, const caffe::Blob<T>& targets) {
  Floor(scores->cpu_data(), targets.cpu_data(), scores->count(),
        scores->mutable_cpu_diff());
}

/// NULL where the way is none of these.
template <typename T>
LossLoop<T> LossLoopOf(const std::string& way) {
  return way == "plain"     ? PlainLoss<T>
         : way == "highway" ? HighwayLoss<T>
                            : NULL;
}

struct KernelCalls {
  template <typename T>
  double Step(const kernel::Elements<T>& elements, bool in_one_pass,
              T* gradient) {
    if (in_one_pass) {
      return kernel::LossAndGradient(elements, 1, gradient).loss;
    }
    const double loss = kernel::Loss(elements, 1).loss;
    kernel::Gradient(elements, 1, gradient);
    return loss;
  }
};

class Stopwatch {
 public:
  Stopwatch() : begin_(std::chrono::steady_clock::now()) {}
  double Seconds() const {
    const std::chrono::duration<double> spent =
        std::chrono::steady_clock::now() - begin_;
    return spent.count();
  }

 private:
  const std::chrono::steady_clock::time_point begin_;
};

inline std::string InstructionSets() {
  std::string names = kernel::BestLoops<float>().name;
  kernel::Loops<float> loops[kernel::kMaxLoops];
  const int available = kernel::AvailableLoops(loops);
  for (int i = 0; i < available; ++i) {
    names += std::string(" ") + loops[i].name;
  }
  return names;
}

inline std::string Compiler() {
#ifdef __clang__
  return __VERSION__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace device

#endif  // BENCHMARKS_ON_CPU_HPP_
