#include <algorithm>

#include "caffe/util/weighted_sigmoid_loss.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"
#include "caffe/util/weighted_sigmoid_loss_math.hpp"
#include "caffe/util/weighted_sigmoid_loss_parts.hpp"
#include "caffe/util/weighted_sigmoid_loss_pool.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

// Balance takes this many scopes at a time, in one sweep over a batch of few
// channels, and cuts the fewer the more parts: with a fixed number of sums on
// the stack.
const std::size_t kScopes = 256;
const std::size_t kTargetSums = 2048;

/// What the targets of a scope add up to.
struct TargetSums {
  CompensatedSum positives;
  CompensatedSum negatives;
};

// Additions of targets in a row, no more than there are in a block's sum.
const std::size_t kDepth = 32;

/// Adds up targets column by column.
template <typename T>
class TargetColumns {
 public:
  explicit TargetColumns(const Elements<T>& elements)
      : elements_(elements),
        loops_(BestLoops<T>()),
        positives_(),
        negatives_() {}

  /// Adds the targets from `begin` on to the first count columns.
  void Add(std::size_t begin, std::size_t count) {
    T copy[kBlock];
    Block<T> block = Block<T>();
    block.count = count;
    SetTargets(elements_, begin, loops_, copy, &block);
    loops_.add_targets(block, positives_, negatives_);
  }

  /// Adds columns to the sums of their scope.
  void Flush(std::size_t column, std::size_t count, TargetSums* sums) const {
    sums->positives.Add(Sum(positives_ + column, count));
    sums->negatives.Add(Sum(negatives_ + column, count));
  }

 private:
  double Sum(const double* values, std::size_t count) const {
    return count == 1 ? *values : loops_.sum(values, count);
  }

  const Elements<T>& elements_;
  const Loops<T>& loops_;
  double positives_[kBlock];
  double negatives_[kBlock];
};

/// Neighbouring columns and rows of the targets as a matrix with a row for each
/// round through all scopes.
struct Part {
  std::size_t row;
  std::size_t end_row;
  std::size_t column;
  std::size_t end_column;
};

/// Adds a part of scopes so long that each fills columns by itself.
template <typename T>
void AddLongScopes(const Elements<T>& elements, const Part& part,
                   std::size_t first_scope, TargetSums* sums) {
  const Axis& scope = elements.scope;
  for (std::size_t row = part.row; row < part.end_row; ++row) {
    const std::size_t row_begin = row * scope.size * scope.inner;
    for (std::size_t column = part.column; column < part.end_column;) {
      const std::size_t s = column / scope.inner;
      const std::size_t end =
          std::min(std::min((s + 1) * scope.inner, part.end_column),
                   column + kDepth * kBlock);
      const std::size_t width = std::min(kBlock, end - column);
      TargetColumns<T> columns(elements);
      for (; column < end; column += std::min(kBlock, end - column)) {
        columns.Add(row_begin + column, std::min(kBlock, end - column));
      }
      columns.Flush(0, width, sums + (s - first_scope));
    }
  }
}

/// Adds a part of scopes of less than kBlock columns.
template <typename T>
void AddShortScopes(const Elements<T>& elements, const Part& part,
                    std::size_t first_scope, TargetSums* sums) {
  const Axis& scope = elements.scope;
  for (std::size_t row = part.row; row < part.end_row; row += kDepth) {
    const std::size_t end_row = std::min(row + kDepth, part.end_row);
    for (std::size_t column = part.column; column < part.end_column;) {
      const std::size_t end = std::min(column + kBlock, part.end_column);
      TargetColumns<T> columns(elements);
      for (std::size_t k = row; k < end_row; ++k) {
        columns.Add(k * scope.size * scope.inner + column, end - column);
      }
      for (std::size_t i = column; i < end;) {
        const std::size_t s = i / scope.inner;
        const std::size_t next = std::min((s + 1) * scope.inner, end);
        columns.Flush(i - column, next - i, sums + (s - first_scope));
        i = next;
      }
      column = end;
    }
  }
}

/// The balance factors of the scopes [first, last), at most kScopes.
template <typename T>
void BalanceScopes(const Elements<T>& elements, std::size_t first,
                   std::size_t last, double* balance) {
  const std::size_t scopes = last - first;
  const std::size_t inner = elements.scope.inner;
  const std::size_t rows = elements.count / (elements.scope.size * inner);
  const std::size_t width = scopes * inner;
  const std::size_t kMostParts = 64;
  const std::size_t kPart = 4096;  // elements, at least
  const std::size_t parts = std::min(std::min(kMostParts, kTargetSums / scopes),
                                     std::max(rows * width, kPart) / kPart);
  TargetSums sums[kTargetSums];
  ForEachPart(parts, Threads(rows * width), [&](std::size_t k) {
    Part part = {0, rows, first * inner, last * inner};
    if (rows >= parts) {
      part.row = PartBegin(k, parts, rows);
      part.end_row = PartBegin(k + 1, parts, rows);
    } else {
      part.column = first * inner + PartBegin(k, parts, width);
      part.end_column = first * inner + PartBegin(k + 1, parts, width);
    }
    TargetSums* const part_sums = sums + k * scopes;
    std::fill_n(part_sums, scopes, TargetSums());
    if (inner < kBlock) {
      AddShortScopes(elements, part, first, part_sums);
    } else {
      AddLongScopes(elements, part, first, part_sums);
    }
  });
  for (std::size_t s = 0; s < scopes; ++s) {
    for (std::size_t part = 1; part < parts; ++part) {
      sums[s].positives.Add(sums[part * scopes + s].positives);
      sums[s].negatives.Add(sums[part * scopes + s].negatives);
    }
    BalanceFactors(sums[s].positives.Get(), sums[s].negatives.Get(),
                   balance + 2 * (first + s));
  }
}

/// Balance for scopes that are not grouped.
template <typename T>
void BalanceGroup(const Elements<T>& elements, double* balance) {
  const std::size_t scopes = elements.scope.size;
  for (std::size_t first = 0; first < scopes; first += kScopes) {
    BalanceScopes(elements, first, std::min(first + kScopes, scopes), balance);
  }
}

}  // namespace

template <typename T>
void Balance(const Elements<T>& elements, double* balance) {
  const Axis& scope = elements.scope;
  if (!scope.IsGrouped()) {
    BalanceGroup(elements, balance);
    return;
  }
  Elements<T> group = elements;
  group.count = scope.group;
  group.scope = Axis(scope.cycle, scope.inner);
  for (std::size_t s = 0; s < scope.size; s += scope.cycle) {
    BalanceGroup(group, balance + 2 * s);
    group.targets += scope.group;
  }
}

template void Balance<float>(const Elements<float>& elements, double* balance);
template void Balance<double>(const Elements<double>& elements,
                              double* balance);

}  // namespace weighted_sigmoid_loss

}  // namespace caffe
