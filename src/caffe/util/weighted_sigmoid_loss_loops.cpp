#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const char* const kVariable = "WEIGHTED_SIGMOID_LOSS_ISA";

enum InstructionSet { kBaseline, kAvx2, kAvx512 };

InstructionSet BestSet() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return kAvx2;
  }
#endif
  return kBaseline;
}

/// The best one, or the one that the environment names if it is below.
InstructionSet ChosenSet() {
  const char* const kNames[] = {"baseline", "avx2", "avx512"};
  const InstructionSet best = BestSet();
  const char* const name = std::getenv(kVariable);
  if (!name) {
    return best;
  }
  for (int i = kBaseline; i <= best; ++i) {
    if (std::strcmp(name, kNames[i]) == 0) {
      return static_cast<InstructionSet>(i);
    }
  }
  std::fprintf(stderr,
               "%s=%s is not used: this machine has %s, of baseline, avx2 and "
               "avx512.\n",
               kVariable, name, kNames[best]);
  return best;
}

template <typename T>
Loops<T> ChosenLoops() {
  switch (ChosenSet()) {
#ifdef __x86_64__
    case kAvx512:
      return Avx512Loops<T>();
    case kAvx2:
      return Avx2Loops<T>();
#endif
    default:
      return BaselineLoops<T>();
  }
}

}  // namespace

template <typename T>
const Loops<T>& BestLoops() {
  static const Loops<T> loops = ChosenLoops<T>();
  return loops;
}

template const Loops<float>& BestLoops<float>();
template const Loops<double>& BestLoops<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
