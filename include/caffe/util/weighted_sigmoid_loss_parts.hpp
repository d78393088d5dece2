#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_PARTS_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_PARTS_HPP_

#include <algorithm>
#include <cmath>
#include <cstddef>

/**
 * @file
 * How the CPU kernel cuts its work into parts for threads and adds up what they
 * find: in an order that depends on the shapes alone.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/// Neumaier's compensated sum; CompensatedSum() is 0.
class CompensatedSum {
 public:
  void Add(double value) {
    const double sum = sum_ + value;
    error_ += std::abs(sum_) >= std::abs(value) ? (sum_ - sum) + value
                                                : (value - sum) + sum_;
    sum_ = sum;
  }
  void Add(const CompensatedSum& other) {
    Add(other.sum_);
    error_ += other.error_;
  }
  /// The sum; infinity and NaN as plain addition gives them.
  double Get() const { return std::isfinite(sum_) ? sum_ + error_ : sum_; }

 private:
  double sum_;
  double error_;
};

/// Where part begins, of `parts` about equal ones of a whole.
inline std::size_t PartBegin(std::size_t part, std::size_t parts,
                             std::size_t whole) {
  return whole / parts * part + std::min(part, whole % parts);
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_PARTS_HPP_
