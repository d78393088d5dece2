// The kernel's pool as a library by itself, which tests/test_pool.py loads.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "caffe/util/weighted_sigmoid_loss_pool.hpp"

namespace {

namespace kernel = caffe::weighted_sigmoid_loss;

}  // namespace

extern "C" {
/// How many threads an input of that many elements takes.
int Threads(std::int64_t count) { return kernel::Threads(count); }

/// How many of 64 parts were done, on up to that many threads.
int Call(int threads) {
  std::atomic<int> done(0);
  kernel::ForEachPart(64, threads, [&](std::size_t) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
    ++done;
  });
  return done;
}

/// Calls until the program ends, on a thread of its own.
void CallOnAndOn() {
  std::thread([] {
    for (;;) {
      Call(4);
    }
  }).detach();
}
}  // extern "C"
