#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

#include "caffe/util/weighted_sigmoid_loss_pool.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

void Sleep() { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }

/// Whether each part was called once.
bool RunsEachPartOnce(std::size_t parts, std::size_t threads) {
  std::vector<int> calls(parts);
  ForEachPart(parts, threads, [&](std::size_t part) { ++calls[part]; });
  return calls == std::vector<int>(parts, 1);
}

/// How many threads work on parts that take their time.
std::size_t WorkingThreads(std::size_t threads) {
  std::mutex mutex;
  std::set<std::thread::id> working;
  ForEachPart(64, threads, [&](std::size_t) {
    Sleep();
    const std::lock_guard<std::mutex> lock(mutex);
    working.insert(std::this_thread::get_id());
  });
  return working.size();
}

/// The exit status of a forked process that ends with what function() returns.
template <typename Function>
int StatusOfChild(const Function& function) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(function() ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

/// Threads that call on and on while there is one of these.
class Callers {
 public:
  explicit Callers(int count) : is_over_(false), all_right_(true) {
    for (int i = 0; i < count; ++i) {
      callers_.emplace_back([=] {
        while (!is_over_) {
          if (!RunsEachPartOnce(17 + i, 2 + i)) {
            all_right_ = false;
          }
        }
      });
    }
  }
  ~Callers() {
    is_over_ = true;
    for (std::thread& caller : callers_) {
      caller.join();
    }
    EXPECT_TRUE(all_right_);
  }

 private:
  std::atomic<bool> is_over_;
  std::atomic<bool> all_right_;
  std::vector<std::thread> callers_;
};

}  // namespace

TEST(WeightedSigmoidLossPoolTest, TestEachPartOnce) {
  for (const std::size_t parts : {0, 1, 2, 3, 7, 255, 256}) {
    for (const std::size_t threads : {1, 2, 3, 8, 300}) {
      EXPECT_TRUE(RunsEachPartOnce(parts, threads)) << parts << ' ' << threads;
    }
  }
}

TEST(WeightedSigmoidLossPoolTest, TestAtMostSoManyThreads) {
  EXPECT_EQ(1, WorkingThreads(1));
  for (const std::size_t threads : {2, 4}) {
    const std::size_t working = WorkingThreads(threads);
    EXPECT_GT(working, 1);
    EXPECT_LE(working, threads);
  }
}

TEST(WeightedSigmoidLossPoolTest, TestFewElementsTakeOneThread) {
  EXPECT_EQ(1, Threads(0));
  EXPECT_EQ(1, Threads(2 * 65536 - 1));
  EXPECT_LE(Threads(2 * 65536), 2);
  EXPECT_GE(Threads(std::size_t(1) << 40), 1);
}

TEST(WeightedSigmoidLossPoolTest, TestManyCallers) {
  const Callers callers(8);
  for (int i = 0; i < 200; ++i) {
    EXPECT_TRUE(RunsEachPartOnce(64, 4));
  }
}

TEST(WeightedSigmoidLossPoolTest, TestCallInAPart) {
  std::atomic<int> right(0);
  ForEachPart(8, 4, [&](std::size_t) { right += RunsEachPartOnce(64, 4); });
  EXPECT_EQ(8, right);
}

TEST(WeightedSigmoidLossPoolTest, TestCallerWaitsForNoHelperThatIsBusy) {
  std::atomic<bool> is_over(false);
  std::atomic<std::size_t> busy(0);
  std::thread other([&] {
    ForEachPart(kMaxParts, kMaxParts, [&](std::size_t) {
      ++busy;
      while (!is_over) {
        Sleep();
      }
    });
  });
  // Or fewer, where the system does not give that many threads.
  for (int i = 0; i < 1000 && busy < kMaxParts; ++i) {
    Sleep();
  }
  EXPECT_TRUE(RunsEachPartOnce(64, 8));
  is_over = true;
  other.join();
}

TEST(WeightedSigmoidLossPoolTest, TestForkedProcess) {
  EXPECT_GT(WorkingThreads(4), 1);
  EXPECT_EQ(0, StatusOfChild([] { return WorkingThreads(4) > 1; }));
  // A child's child, after the child's own call and before it.
  EXPECT_EQ(0, StatusOfChild([] {
              return StatusOfChild([] { return WorkingThreads(4) > 1; }) == 0 &&
                     WorkingThreads(4) > 1 &&
                     StatusOfChild([] { return WorkingThreads(4) > 1; }) == 0;
            }));
  EXPECT_GT(WorkingThreads(4), 1);
}

TEST(WeightedSigmoidLossPoolTest, TestForkWhileOthersCall) {
  const Callers callers(4);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(0, StatusOfChild([] { return RunsEachPartOnce(64, 4); }));
  }
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
