#define WEIGHTED_SIGMOID_LOSS_NAME "baseline"
#define WEIGHTED_SIGMOID_LOSS_LOOPS BaselineLoops
#include "caffe/util/weighted_sigmoid_loss_loops_inl.hpp"
