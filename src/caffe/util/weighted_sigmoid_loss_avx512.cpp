#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

#ifdef WEIGHTED_SIGMOID_LOSS_HAS_AVX512
#ifdef __clang__
#define WEIGHTED_SIGMOID_LOSS_TARGET "avx512bw,avx512dq,avx512vl,fma"
#else
#define WEIGHTED_SIGMOID_LOSS_TARGET \
  "avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"
#endif
#define WEIGHTED_SIGMOID_LOSS_NAME "avx512"
#define WEIGHTED_SIGMOID_LOSS_LOOPS Avx512Loops
#include "caffe/util/weighted_sigmoid_loss_loops_inl.hpp"
#endif
