#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_POOL_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_POOL_HPP_

#include <cstddef>
#include <functional>

/**
 * @file
 * The CPU kernel's threads: those that call, and helpers, which are there from
 * the first large input on and sleep between calls. Whoever runs takes the next
 * part. A caller waits for no helper that has not begun, so that it does the
 * work itself where the cores are busy.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

const std::size_t kMaxParts = 256;

/// How many threads are worth their start for an input of count elements: at
/// most OMP_NUM_THREADS, or the processors that the process may use.
std::size_t Threads(std::size_t count);

/// Calls function(part), which throws nothing, for each of at most kMaxParts
/// parts, in any order, on this thread and as many helpers as there are, up to
/// `threads` together.
void RunParts(std::size_t parts, std::size_t threads,
              const std::function<void(std::size_t)>& function) noexcept;

/// The same; a plain loop where there is one thread.
template <typename Function>
void ForEachPart(std::size_t parts, std::size_t threads,
                 const Function& function) {
  if (threads > 1 && parts > 1) {
    RunParts(parts, threads, std::cref(function));
    return;
  }
  for (std::size_t part = 0; part < parts; ++part) {
    function(part);
  }
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_POOL_HPP_
