#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

#ifdef __x86_64__
#define WEIGHTED_SIGMOID_LOSS_TARGET "avx2,fma"
#define WEIGHTED_SIGMOID_LOSS_NAME "avx2"
#define WEIGHTED_SIGMOID_LOSS_LOOPS Avx2Loops
#include "caffe/util/weighted_sigmoid_loss_loops_inl.hpp"
#endif
