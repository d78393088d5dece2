#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

const char* const kVariable = "WEIGHTED_SIGMOID_LOSS_ISA";

template <typename T>
Loops<T> ChosenLoops() {
  Loops<T> loops[kMaxLoops];
  const int available = AvailableLoops(loops);
  const char* const name = std::getenv(kVariable);
  if (!name) {
    return loops[0];
  }
  for (int i = 0; i < available; ++i) {
    if (std::strcmp(name, loops[i].name) == 0) {
      return loops[i];
    }
  }
  std::fprintf(stderr, "%s=%s is not used: this machine has", kVariable, name);
  for (int i = 0; i < available; ++i) {
    std::fprintf(stderr, " %s", loops[i].name);
  }
  std::fprintf(stderr, "; %s is.\n", loops[0].name);
  return loops[0];
}

}  // namespace

template <typename T>
int AvailableLoops(Loops<T> loops[kMaxLoops]) {
  int available = 0;
#ifdef __x86_64__
  __builtin_cpu_init();
#ifdef WEIGHTED_SIGMOID_LOSS_HAS_AVX512
  if (__builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    loops[available++] = Avx512Loops<T>();
  }
#endif
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    loops[available++] = Avx2Loops<T>();
  }
#endif
  loops[available++] = BaselineLoops<T>();
  return available;
}

template <typename T>
const Loops<T>& BestLoops() {
  static const Loops<T> loops = ChosenLoops<T>();
  return loops;
}

template int AvailableLoops<float>(Loops<float> loops[kMaxLoops]);
template int AvailableLoops<double>(Loops<double> loops[kMaxLoops]);
template const Loops<float>& BestLoops<float>();
template const Loops<double>& BestLoops<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
