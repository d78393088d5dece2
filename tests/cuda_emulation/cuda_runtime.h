#ifndef CUDA_EMULATION_CUDA_RUNTIME_H_
#define CUDA_EMULATION_CUDA_RUNTIME_H_

// As much of CUDA as the kernels and tests/gpu/device.cu take, on the CPU. The
// threads of a block take turns: each runs until it waits for its warp or block.
// A launch is Emulate(grid, threads, function): test_cuda_kernels.py writes it
// for <<<>>>.

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

struct dim3 {
  dim3(unsigned x_value = 1, unsigned y_value = 1) : x(x_value), y(y_value) {}
  unsigned x, y;
};

typedef int cudaError_t;
enum { cudaSuccess = 0, cudaErrorMemoryAllocation = 2 };
enum { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "out of memory";
}

template <typename T>
cudaError_t cudaMalloc(T** to, size_t size) {
  *to = static_cast<T*>(std::malloc(size));
  return *to ? cudaSuccess : cudaErrorMemoryAllocation;
}
template <typename T>
cudaError_t cudaMallocHost(T** to, size_t size) {
  return cudaMalloc(to, size);
}
inline cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}
inline cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }

inline cudaError_t cudaMemset(void* to, int value, size_t size) {
  std::memset(to, value, size);
  return cudaSuccess;
}

inline cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *available = *total = size_t(1) << 40;
  return cudaSuccess;
}

struct cudaDeviceProp {
  char name[256];
  int major, minor, multiProcessorCount, l2CacheSize;
  size_t totalGlobalMem;
};

inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* device, int) {
  *device = cudaDeviceProp();
  std::strcpy(device->name, "emulation");  // NOLINT(runtime/printf)
  return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  return cudaRuntimeGetVersion(version);
}

inline cudaError_t cudaMemcpy(void* to, const void* from, size_t size, int) {
  std::memcpy(to, from, size);
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t size) {
  std::memset(to, value, size);
  return cudaSuccess;
}

using std::isfinite;
using std::isnan;
using std::min;

inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
inline int64_t __double_as_longlong(double value) {
  int64_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// One thread runs at a time.
template <typename T, typename Value>
void atomicAdd(T* to, Value value) {
  *to += value;
}
template <typename T, typename Value>
void atomicMin(T* to, Value value) {
  *to = min<T>(*to, value);
}

inline unsigned __umulhi(unsigned a, unsigned b) {
  return (static_cast<uint64_t>(a) * b) >> 32;
}

namespace emulation {

const unsigned kWarp = 32;
const size_t kStackBytes = 64 << 10;

struct Thread {
  std::vector<char> stack = std::vector<char>(kStackBytes);
  ucontext_t start;
  jmp_buf state;
  bool is_started, is_done;
  unsigned warp_waits, block_waits;  // how often it has waited
  double shuffled;
};

inline std::vector<Thread>& Threads() {
  static std::vector<Thread> threads(1024);
  return threads;
}

struct Running {
  unsigned thread, threads;
  jmp_buf scheduler;
  ucontext_t base;
  const std::function<void()>* function;
};

inline Running& Now() {
  static Running now;
  return now;
}

inline void Fail(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::abort();
}

inline Thread& This() { return Threads()[Now().thread]; }

/// Back to the scheduler, until it is this thread's turn again.
inline void Wait() {
  if (_setjmp(This().state) == 0) {
    _longjmp(Now().scheduler, 1);
  }
}

inline void Main() {
  (*Now().function)();
  This().is_done = true;
  _longjmp(Now().scheduler, 1);
}

inline void Resume(Thread* thread) {
  if (_setjmp(Now().scheduler) != 0) {
    return;
  }
  if (thread->is_started) {
    _longjmp(thread->state, 1);
  }
  thread->is_started = true;
  getcontext(&thread->start);
  thread->start.uc_stack.ss_sp = thread->stack.data();
  thread->start.uc_stack.ss_size = thread->stack.size();
  thread->start.uc_link = &Now().base;
  makecontext(&thread->start, Main, 0);
  setcontext(&thread->start);
}

}  // namespace emulation

struct Index {
  unsigned x, y;
};

inline Index& BlockIndex() {
  static Index index;
  return index;
}

inline Index& GridSize() {
  static Index size;
  return size;
}

#define threadIdx (Index{emulation::Now().thread, 0})
#define blockIdx (BlockIndex())
#define gridDim (GridSize())

inline void __syncthreads() {
  ++emulation::This().block_waits;
  emulation::Wait();
}

inline std::uint32_t max(std::uint32_t a, std::uint32_t b) {
  return a > b ? a : b;
}

/// The float next to the value from above, or the value.
inline float __double2float_ru(double value) {
  const float rounded = static_cast<float>(value);
  return rounded < value ? std::nextafter(rounded, HUGE_VALF) : rounded;
}

/// The value of the lane `lanes` further on; its own where there is none.
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes) {
  using namespace emulation;  // NOLINT(build/namespaces)
  if (mask != 0xffffffffu) {
    Fail("a shuffle leaves out lanes");
  }
  std::memcpy(&This().shuffled, &value, sizeof(value));
  ++This().warp_waits;
  Wait();
  const unsigned lane = Now().thread % kWarp;
  const unsigned from = Now().thread + (lane + lanes < kWarp ? lanes : 0);
  std::memcpy(&value, &Threads()[from].shuffled, sizeof(value));
  // Nobody writes the next value before all have read this one.
  ++This().warp_waits;
  Wait();
  return value;
}

namespace emulation {

/// Each warp goes on while its threads wait for one another; then all do. What
/// would hang or is undefined on a GPU ends the program.
inline void RunBlock(unsigned count) {
  std::vector<Thread>& threads = Threads();
  for (unsigned k = 0; k < count; ++k) {
    threads[k].is_started = threads[k].is_done = false;
    threads[k].warp_waits = threads[k].block_waits = 0;
  }
  for (bool is_done = false; !is_done;) {
    is_done = true;
    for (unsigned warp = 0; warp < count; warp += kWarp) {
      unsigned waits;
      do {
        waits = threads[warp].warp_waits;
        for (unsigned k = warp; k < warp + kWarp; ++k) {
          if (!threads[k].is_done) {
            Now().thread = k;
            Resume(&threads[k]);
          }
          if (threads[k].warp_waits != threads[warp].warp_waits ||
              threads[k].is_done != threads[warp].is_done) {
            Fail("a warp's threads wait in different places");
          }
        }
      } while (threads[warp].warp_waits != waits);
      is_done = is_done && threads[warp].is_done;
    }
    for (unsigned k = 1; k < count; ++k) {
      if (threads[k].block_waits != threads[0].block_waits) {
        Fail("a block's threads wait in different places");
      }
    }
  }
}

}  // namespace emulation

inline void Emulate(dim3 grid, unsigned threads,
                    const std::function<void()>& function) {
  if (grid.x == 0 || grid.y == 0 || grid.y > 65535 || threads % 32 != 0) {
    emulation::Fail("no such grid");
  }
  emulation::Now().function = &function;
  gridDim = Index{grid.x, grid.y};
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = Index{x, y};
      emulation::RunBlock(threads);
    }
  }
}

#endif  // CUDA_EMULATION_CUDA_RUNTIME_H_
