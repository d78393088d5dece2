// Trains as `caffe train -gpu all` does with several GPUs, but with however
// many there are, one too: with one alone, `caffe train` leaves NCCL out.
//
//   nccl solver.prototxt

#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

#include "caffe/common.hpp"
#include "caffe/parallel.hpp"
#include "caffe/sgd_solvers.hpp"
#include "caffe/solver_factory.hpp"
#include "caffe/util/upgrade_proto.hpp"

int main(int argc, char** argv) {
  google::InitGoogleLogging(argv[0]);
  FLAGS_logtostderr = true;
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s solver.prototxt\n", argv[0]);
    return 2;
  }
  int count = 0;
  CUDA_CHECK(cudaGetDeviceCount(&count));
  std::vector<int> gpus;
  for (int device = 0; device < count; ++device) {
    gpus.push_back(device);
  }
  caffe::SolverParameter param;
  caffe::ReadSolverParamsFromTextFileOrDie(argv[1], &param);
  param.set_device_id(0);
  caffe::Caffe::SetDevice(0);
  caffe::Caffe::set_mode(caffe::Caffe::GPU);
  caffe::Caffe::set_solver_count(count);
  const boost::shared_ptr<caffe::Solver<float>> solver(
      caffe::SolverRegistry<float>::CreateSolver(param));
  caffe::NCCL<float> nccl(solver);
  nccl.Run(gpus, NULL);
  LOG(INFO) << "Trained through NCCL on " << count << " GPUs";
  return 0;
}
