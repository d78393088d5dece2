#include "caffe/util/weighted_sigmoid_loss_pool.hpp"

#include <pthread.h>
#include <signal.h>
#ifdef __linux__
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

typedef std::unique_lock<std::mutex> Lock;

// At least: a thread that sleeps takes some 40 us to wake, two passes over
// these 70 us.
const std::size_t kElementsInThread = 65536;

// How long a thread looks for what it waits for before it sleeps: about as long
// as it takes to wake one.
const std::chrono::microseconds kSpin(50);

/// Until is_over(), or for kSpin.
template <typename IsOver>
void Spin(const IsOver& is_over) {
  typedef std::chrono::steady_clock Clock;
  const Clock::time_point end = Clock::now() + kSpin;
  while (!is_over() && Clock::now() < end) {
  }
}

/// By spinning at first: it is held for a shorter time than a sleep takes.
void Take(Lock* lock) {
  Spin([=] { return lock->try_lock(); });
  if (!*lock) {
    lock->lock();
  }
}

#ifdef __linux__
int Processor() { return sched_getcpu(); }

/// Where all processors are busy, the system may wake a helper on its caller's,
/// and leave it there: they would take turns. One that is busy with another's
/// work serves it better, above all where that is BLAS's thread that only looks
/// for work.
void Leave(int processor) {
  cpu_set_t all;
  if (Processor() == processor &&
      sched_getaffinity(0, sizeof(all), &all) == 0) {
    cpu_set_t others = all;
    CPU_CLR(processor, &others);
    sched_setaffinity(0, sizeof(others), &others);
    sched_setaffinity(0, sizeof(all), &all);
  }
}
#else
int Processor() { return 0; }
void Leave(int processor) { static_cast<void>(processor); }
#endif

/// What a caller and its helpers work at.
class Call {
 public:
  Call(std::size_t parts, std::size_t threads,
       const std::function<void(std::size_t)>& function)
      : processor(Processor()),
        places(threads - 1),
        helpers(0),
        next(NULL),
        parts_(parts),
        threads_(threads),
        function_(function),
        is_taken_() {}

  /// Takes parts, from this thread's share of them on, which it had in the last
  /// call, too: its cache may hold it.
  void Work(std::size_t thread) {
    const std::size_t begin = thread % threads_ * parts_ / threads_;
    for (std::size_t i = 0; i < parts_; ++i) {
      const std::size_t part = (begin + i) % parts_;
      if (!is_taken_[part].load(std::memory_order_relaxed) &&
          !is_taken_[part].exchange(true, std::memory_order_relaxed)) {
        function_(part);
      }
    }
  }

  const int processor;  // the caller's

  // The pool's:
  std::size_t places;                // for helpers that may still begin
  std::atomic<std::size_t> helpers;  // at work
  Call* next;

 private:
  const std::size_t parts_;
  const std::size_t threads_;
  const std::function<void(std::size_t)>& function_;
  std::atomic<bool> is_taken_[kMaxParts];
};

std::size_t ChosenThreads() {
  const char* const variable = std::getenv("OMP_NUM_THREADS");
  const std::int64_t chosen = variable ? std::strtol(variable, NULL, 10) : 0;
  if (chosen > 0) {
    return chosen;
  }
#ifdef __linux__
  cpu_set_t processors;
  if (sched_getaffinity(0, sizeof(processors), &processors) == 0) {
    return CPU_COUNT(&processors);
  }
#endif
  return std::max(1u, std::thread::hardware_concurrency());
}

class Pool {
 public:
  Pool() : max_threads_(0), calls_(NULL), places_(0), is_stopped_(false) {}

  std::size_t max_threads() {
    if (max_threads_ == 0) {
      max_threads_ = ChosenThreads();
    }
    return max_threads_;
  }

  void Run(Call* call) {
    Lock lock(mutex_, std::defer_lock);
    Take(&lock);
    StartHelpers(call->places);
    call->places = std::min(call->places, helpers_.size());
    places_ += call->places;
    call->next = calls_;
    calls_ = call;
    lock.unlock();
    work_.notify_one();
    call->Work(0);
    Take(&lock);
    Remove(call);
    Wait(&lock, &end_, [=] { return call->helpers == 0; });
  }

  void Stop() {
    {
      const Lock lock(mutex_);
      is_stopped_ = true;
    }
    work_.notify_all();
    for (std::thread& helper : helpers_) {
      helper.join();
    }
  }

 private:
  /// As many as the system has threads to give.
  void StartHelpers(std::size_t count) {
    if (helpers_.size() >= count || is_stopped_) {
      return;
    }
    // Signals are for the program's own threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      while (helpers_.size() < count) {
        helpers_.emplace_back(&Pool::Help, this, helpers_.size() + 1);
      }
    } catch (const std::exception&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
  }

  void Remove(const Call* call) {
    places_ -= call->places;
    Call** link = &calls_;
    while (*link != call) {
      link = &(*link)->next;
    }
    *link = call->next;
  }

  void Help(std::size_t number) {
    for (Lock lock(mutex_);;) {
      Wait(&lock, &work_, [=] { return places_ > 0 || is_stopped_; });
      if (is_stopped_) {
        return;
      }
      Call* call = calls_;
      while (call->places == 0) {
        call = call->next;
      }
      ++call->helpers;
      --call->places;
      const bool has_places = --places_ > 0;
      lock.unlock();
      if (has_places) {
        work_.notify_one();  // who wakes the next
      }
      Leave(call->processor);
      call->Work(number);
      Take(&lock);
      if (--call->helpers == 0) {
        end_.notify_all();
      }
    }
  }

  /// Until is_over(), which becomes so under the lock.
  template <typename IsOver>
  static void Wait(Lock* lock, std::condition_variable* change,
                   const IsOver& is_over) {
    lock->unlock();
    Spin(is_over);
    Take(lock);
    change->wait(*lock, is_over);
  }

  std::atomic<std::size_t> max_threads_;
  std::mutex mutex_;
  std::condition_variable work_;
  std::condition_variable end_;
  std::vector<std::thread> helpers_;
  Call* calls_;
  std::atomic<std::size_t> places_;  // of all calls
  std::atomic<bool> is_stopped_;
};

// Never destroyed: at the program's end others may still call.
std::aligned_storage<sizeof(Pool), alignof(Pool)>::type storage;
Pool& pool = reinterpret_cast<Pool&>(storage);

void MakePool() { new (&storage) Pool; }

/// What the library's loading and unloading do.
struct Library {
  Library() {
    MakePool();
    // A forked process has none of its parent's threads.
    pthread_atfork(NULL, NULL, MakePool);
  }
  ~Library() { pool.Stop(); }
};
const Library library;

}  // namespace

std::size_t Threads(std::size_t count) {
  return count < 2 * kElementsInThread
             ? 1
             : std::min(count / kElementsInThread, pool.max_threads());
}

void RunParts(std::size_t parts, std::size_t threads,
              const std::function<void(std::size_t)>& function) noexcept {
  Call call(parts, std::min(threads, parts), function);
  pool.Run(&call);
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
