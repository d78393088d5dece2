#ifndef CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_INL_HPP_
#define CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_INL_HPP_

#include <cfloat>
#include <cstring>

#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

/**
 * @file
 * The loops of weighted_sigmoid_loss_loops.hpp, for the one source file of each
 * instruction set, which defines, before it includes this,
 *
 *   WEIGHTED_SIGMOID_LOSS_LOOPS   the function that returns them
 *   WEIGHTED_SIGMOID_LOSS_NAME    their name
 *   WEIGHTED_SIGMOID_LOSS_TARGET  what the compiler may use, with fused
 *                                 multiply-adds, where that is not said to it
 *
 * They have no branches and call nothing but inline functions of the file's own,
 * so that compilers make vector code of them.
 *
 * Nothing of the standard library is used here: its inline functions would be
 * compiled for this instruction set, and the linker might keep that copy for
 * all of the program.
 */

#ifdef WEIGHTED_SIGMOID_LOSS_TARGET
#define WEIGHTED_SIGMOID_LOSS_PRAGMA(tokens) _Pragma(#tokens)
#ifdef __clang__
#define WEIGHTED_SIGMOID_LOSS_SET_TARGET(target_name) \
  WEIGHTED_SIGMOID_LOSS_PRAGMA(clang attribute push(  \
      __attribute__((target(target_name))), apply_to = function))
#else
#define WEIGHTED_SIGMOID_LOSS_SET_TARGET(target_name) \
  WEIGHTED_SIGMOID_LOSS_PRAGMA(GCC target(target_name))
#endif
WEIGHTED_SIGMOID_LOSS_SET_TARGET(WEIGHTED_SIGMOID_LOSS_TARGET)
#define WEIGHTED_SIGMOID_LOSS_FMA
#endif

// Selects stand for comparisons that would trap for NaN, which nobody catches;
// and a sum of a product is only fused where it says so.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3", "no-trapping-math", "fp-contract=off")
#elif defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#include "caffe/util/weighted_sigmoid_loss_math.hpp"

namespace caffe {

namespace weighted_sigmoid_loss {

namespace {

// A loop over whole chunks has a constant count, for which compilers need no
// other code. Gradients may be where the scores are: no loop reads a score
// after it has written the gradient.
#if defined(__clang__)
#define WEIGHTED_SIGMOID_LOSS_IVDEP \
  _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define WEIGHTED_SIGMOID_LOSS_IVDEP _Pragma("GCC ivdep")
#else
#define WEIGHTED_SIGMOID_LOSS_IVDEP
#endif

// As many partial sums on every machine, in as many vectors as it takes: enough
// of them that an addition need not wait for the one before.
const std::size_t kLanes = 16;

double SumLanes(double* lanes) {
  for (std::size_t half = kLanes / 2; half > 0; half /= 2) {
    for (std::size_t k = 0; k < half; ++k) {
      lanes[k] += lanes[k + half];
    }
  }
  return lanes[0];
}

void AddToLanes(const double* values, std::size_t count, double* lanes) {
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) {
      lanes[k] += values[i + k];
    }
  }
  for (std::size_t k = 0; i + k < count; ++k) {
    lanes[k] += values[i + k];
  }
}

double Sum(const double* values, std::size_t count) {
  double lanes[kLanes] = {};
  AddToLanes(values, count, lanes);
  return SumLanes(lanes);
}

// The processor's own prefetching falls behind these loops and stops at the end
// of each page: they ask for what comes, a few lines at a time.
const std::size_t kChunk = 128;     // elements
const std::size_t kAhead = 512;     // elements, too
const std::size_t kCacheLine = 64;  // bytes

/// Asks for the lines of a chunk, which may lie beyond the array's end.
template <typename T>
void PrefetchChunk(const T* chunk) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(chunk);
  for (std::size_t i = 0; i < kChunk * sizeof(T); i += kCacheLine) {
    __builtin_prefetch(
        reinterpret_cast<const void*>(address + kAhead * sizeof(T) + i));
  }
}

/// a or b of a chunk's elements.
template <bool kEach, bool kWeighted, typename T>
struct Constants {
  double At(std::size_t i) const {
    const double constant = kEach ? each[i] : same;
    return kWeighted ? constant * weights[i] : constant;
  }
  T RoundedAt(std::size_t i) const {
    return kWeighted ? Saturate<T>(At(i)) : kEach ? each_rounded[i] : rounded;
  }
  double same;
  T rounded;
  const double* each;
  const T* each_rounded;
  const T* weights;
};

/// The integers of T's size. As signed ones the bits of positive numbers have
/// their order, and are above those of negative ones; as unsigned ones, those
/// of negative numbers have the order of their magnitudes, and are above all
/// others.
template <typename T>
struct Bits;
template <>
struct Bits<float> {
  typedef std::int32_t Signed;
  typedef std::uint32_t Unsigned;
};
template <>
struct Bits<double> {
  typedef std::int64_t Signed;
  typedef std::uint64_t Unsigned;
};

/// The extremes of some values, 0 among them, in bits; NaN is beyond infinity.
template <typename T>
struct Extremes {
  typename Bits<T>::Signed largest;
  typename Bits<T>::Unsigned most_negative;
};

/// Adds the values of a chunk; kIgnores: of the elements that count.
template <bool kIgnores, typename T>
inline __attribute__((always_inline)) void AddExtremes(const T* values,
                                                       const T* targets,
                                                       T ignore_label,
                                                       Extremes<T>* extremes) {
  typedef typename Bits<T>::Signed Signed;
  typedef typename Bits<T>::Unsigned Unsigned;
  Signed largest = extremes->largest;
  Unsigned most_negative = extremes->most_negative;
  for (std::size_t i = 0; i < kChunk; ++i) {
    const bool counts = !kIgnores | (targets[i] != ignore_label);
    const Unsigned bits = BitCast<Unsigned>(values[i]) & (Unsigned(0) - counts);
    const Signed signed_bits = static_cast<Signed>(bits);
    largest = signed_bits > largest ? signed_bits : largest;
    most_negative = bits > most_negative ? bits : most_negative;
  }
  extremes->largest = largest;
  extremes->most_negative = most_negative;
}

/// What a block's chunks add up to.
template <typename T>
struct ChunkSums {
  double lanes[kLanes];
  std::uint32_t valid;
  Extremes<T> targets;
  Extremes<T> weights;
};

/// A whole chunk of elements, of which the first count are of interest.
template <bool kEach, bool kWeighted, typename T>
struct Chunk {
  std::size_t count;
  const T* scores;
  const T* targets;
  bool has_ignore_label;
  T ignore_label;
  Constants<kEach, kWeighted, T> a;
  Constants<kEach, kWeighted, T> b;
  double* losses;  // or NULL
  static const bool kIsWeighted = kWeighted;
};

/// At most a chunk's, in two stages: a processor does not look far enough ahead
/// to fill the waits of a single one that long.
template <typename T>
inline __attribute__((always_inline)) void ExpNegatives(const T* scores,
                                                        std::size_t count,
                                                        T* us) {
  T shifted_n[kChunk], r[kChunk];
  for (std::size_t i = 0; i < count; ++i) {
    const Reduced<T> reduced = Reduce(Abs(scores[i]));
    shifted_n[i] = reduced.shifted_n;
    r[i] = reduced.r;
  }
  for (std::size_t i = 0; i < count; ++i) {
    us[i] = ExpReduced(Abs(scores[i]), shifted_n[i], r[i]);
  }
}

/// Of any number of scores.
template <typename T>
void AllExpNegatives(const T* scores, std::size_t count, T* us) {
  for (std::size_t i = 0; i < count; i += kChunk) {
    ExpNegatives(scores + i, count - i < kChunk ? count - i : kChunk, us + i);
  }
}

template <typename T>
inline __attribute__((always_inline)) void Log1ps(const T* us,
                                                  std::size_t count,
                                                  T* log1p_us) {
  for (std::size_t i = 0; i < count; ++i) {
    log1p_us[i] = Log1p(us[i]);
  }
}

template <bool kIgnores, typename C, typename T>
inline __attribute__((always_inline)) void VisitLosses(const C& chunk,
                                                       const T* us,
                                                       ChunkSums<T>* sums) {
  const T* const scores = chunk.scores;
  const T* const targets = chunk.targets;
  const T ignore_label = chunk.ignore_label;
  T positive[kChunk], negative[kChunk];
  T log1p_us[kChunk];
  Log1ps(us, kChunk, log1p_us);
  for (std::size_t i = 0; i < kChunk; ++i) {
    positive[i] = PositiveLoss(scores[i], targets[i], log1p_us[i]);
    negative[i] = NegativeLoss(scores[i], targets[i], log1p_us[i]);
  }
  AddExtremes<kIgnores>(targets, targets, ignore_label, &sums->targets);
  if (kIgnores) {
    typename Bits<T>::Unsigned valid = 0;
    for (std::size_t i = 0; i < kChunk; ++i) {
      valid += targets[i] != ignore_label;
    }
    sums->valid += static_cast<std::uint32_t>(valid);
  }
  if (chunk.count == kChunk && !chunk.losses) {
    double lanes[kLanes];
    __builtin_memcpy(lanes, sums->lanes, sizeof(lanes));
    for (std::size_t row = 0; row < kChunk / kLanes; ++row) {
      for (std::size_t k = 0; k < kLanes; ++k) {
        const std::size_t i = row * kLanes + k;
        const double loss =
            WeighLosses(positive[i], negative[i], chunk.a.At(i), chunk.b.At(i));
        const bool counts = !kIgnores | (targets[i] != ignore_label);
        lanes[k] += counts ? loss : 0.;
      }
    }
    __builtin_memcpy(sums->lanes, lanes, sizeof(lanes));
  } else {
    double losses[kChunk];
    for (std::size_t i = 0; i < kChunk; ++i) {
      const double loss =
          WeighLosses(positive[i], negative[i], chunk.a.At(i), chunk.b.At(i));
      const bool counts = !kIgnores | (targets[i] != ignore_label);
      losses[i] = counts ? loss : 0.;
    }
    AddToLanes(losses, chunk.count, sums->lanes);
    if (chunk.losses) {
      __builtin_memcpy(chunk.losses, losses, chunk.count * sizeof(*losses));
    }
  }
}

template <bool kIgnores, typename C, typename T>
inline __attribute__((always_inline)) void VisitGradients(const C& chunk,
                                                          const T* us,
                                                          T* grad) {
  const T* const scores = chunk.scores;
  const T* const targets = chunk.targets;
  const T ignore_label = chunk.ignore_label;
  WEIGHTED_SIGMOID_LOSS_IVDEP
  for (std::size_t i = 0; i < kChunk; ++i) {
    const T t = targets[i];
    const T gradient = GradientElement(scores[i], t, chunk.a.RoundedAt(i),
                                       chunk.b.RoundedAt(i), us[i]);
    const bool counts = !kIgnores | (t != ignore_label);
    grad[i] = counts ? gradient : T(0);
  }
}

/// One function of all elements after the other: a processor looks too short a
/// way ahead to work on many elements at a time by itself. What is between the
/// functions stays in the nearest cache.
template <bool kIgnores, bool kLosses, bool kGradients, typename C, typename T>
inline __attribute__((always_inline)) void VisitChunk(const C& chunk, T* grad,
                                                      ChunkSums<T>* sums) {
  T us[kChunk];
  ExpNegatives(chunk.scores, kChunk, us);
  if (kLosses) {
    VisitLosses<kIgnores>(chunk, us, sums);
    if (C::kIsWeighted) {
      AddExtremes<kIgnores>(chunk.a.weights, chunk.targets, chunk.ignore_label,
                            &sums->weights);
    }
  }
  if (kGradients) {
    VisitGradients<kIgnores>(chunk, us, grad);
  }
}

/// Copies of what is left of a block, filled up to a chunk with elements that
/// do not count.
template <bool kEach, bool kWeighted, typename T>
class Padding {
 public:
  explicit Padding(const Chunk<kEach, kWeighted, T>& chunk) : chunk_(chunk) {
    const std::size_t count = chunk.count;
    chunk_.scores = Pad(chunk.scores, count, T(0), scores_);
    chunk_.targets =
        Pad(chunk.targets, count,
            chunk.has_ignore_label ? chunk.ignore_label : T(0), targets_);
    if (kEach) {
      chunk_.a.each = Pad(chunk.a.each, count, 0., a_);
      chunk_.b.each = Pad(chunk.b.each, count, 0., b_);
    }
    if (kEach && !kWeighted) {
      chunk_.a.each_rounded =
          Pad(chunk.a.each_rounded, count, T(0), rounded_a_);
      chunk_.b.each_rounded =
          Pad(chunk.b.each_rounded, count, T(0), rounded_b_);
    }
    if (kWeighted) {
      chunk_.a.weights = chunk_.b.weights =
          Pad(chunk.a.weights, count, T(0), weights_);
    }
  }
  const Chunk<kEach, kWeighted, T>& chunk() const { return chunk_; }

 private:
  template <typename Value>
  static const Value* Pad(const Value* from, std::size_t count, Value value,
                          Value* to) {
    __builtin_memcpy(to, from, count * sizeof(*to));
    for (std::size_t i = count; i < kChunk; ++i) {
      to[i] = value;
    }
    return to;
  }

  Chunk<kEach, kWeighted, T> chunk_;
  T scores_[kChunk], targets_[kChunk], weights_[kWeighted ? kChunk : 1];
  double a_[kEach ? kChunk : 1], b_[kEach ? kChunk : 1];
  T rounded_a_[kEach ? kChunk : 1], rounded_b_[kEach ? kChunk : 1];
};

/// VisitChunk of what is left of a block; not inlined, to stay out of the loop
/// over whole chunks.
template <bool kIgnores, bool kLosses, bool kGradients, bool kEach,
          bool kWeighted, typename T>
__attribute__((noinline)) void VisitRest(
    const Chunk<kEach, kWeighted, T>& chunk, T* grad, ChunkSums<T>* sums) {
  const Padding<kEach, kWeighted, T> padded(chunk);
  T padded_grad[kChunk];
  VisitChunk<kIgnores, kLosses, kGradients>(padded.chunk(), padded_grad, sums);
  for (std::size_t i = 0; kGradients && i < chunk.count; ++i) {
    grad[i] = padded_grad[i];
  }
}

/// How far beyond [0, largest] some of the values are; NaN: infinitely.
template <typename T>
double Excess(const Extremes<T>& extremes, double largest) {
  const double below = -static_cast<double>(BitCast<T>(extremes.most_negative));
  const double above =
      static_cast<double>(BitCast<T>(extremes.largest)) - largest;
  const double excess = below > above ? below : above;
  const bool is_nan = (below != below) | (above != above);
  return is_nan ? __builtin_huge_val() : excess > 0 ? excess : 0.;
}

template <bool kIgnores, bool kLosses, bool kGradients, bool kEach,
          bool kWeighted, typename T>
BlockSums VisitChunks(const Block<T>& block, double* losses, T* grad) {
  ChunkSums<T> sums = ChunkSums<T>();
  Chunk<kEach, kWeighted, T> chunk;
  chunk.has_ignore_label = kIgnores;
  chunk.ignore_label = block.ignore_label;
  chunk.a.same = *block.a;
  chunk.b.same = *block.b;
  chunk.a.rounded = Saturate<T>(*block.a);
  chunk.b.rounded = Saturate<T>(*block.b);
  for (std::size_t begin = 0; begin < block.count; begin += kChunk) {
    const std::size_t left = block.count - begin;
    chunk.count = left < kChunk ? left : kChunk;
    chunk.scores = block.scores + begin;
    chunk.targets = block.targets + begin;
    chunk.a.each = kEach ? block.a + begin : NULL;
    chunk.b.each = kEach ? block.b + begin : NULL;
    chunk.a.each_rounded = kEach ? block.rounded_a + begin : NULL;
    chunk.b.each_rounded = kEach ? block.rounded_b + begin : NULL;
    chunk.a.weights = chunk.b.weights =
        kWeighted ? block.weights + begin : NULL;
    chunk.losses = losses ? losses + begin : NULL;
    T* const to = kGradients ? grad + begin : NULL;
    if (left >= kChunk) {
      PrefetchChunk(chunk.scores);
      PrefetchChunk(chunk.targets);
      if (kWeighted) {
        PrefetchChunk(chunk.a.weights);
      }
      if (kGradients) {
        PrefetchChunk(to);
      }
      VisitChunk<kIgnores, kLosses, kGradients>(chunk, to, &sums);
    } else {
      VisitRest<kIgnores, kLosses, kGradients>(chunk, to, &sums);
    }
  }
  const BlockSums block_sums = {
      SumLanes(sums.lanes),
      kIgnores ? sums.valid : static_cast<std::uint32_t>(block.count),
      Excess(sums.targets, 1.),
      Excess(sums.weights, sizeof(T) == sizeof(float) ? FLT_MAX : DBL_MAX)};
  return block_sums;
}

template <bool kIgnores, bool kEach, bool kWeighted, typename T>
BlockSums VisitWanted(const Block<T>& block, bool wants_loss, double* losses,
                      T* grad) {
  return !wants_loss ? VisitChunks<kIgnores, false, true, kEach, kWeighted>(
                           block, losses, grad)
         : grad      ? VisitChunks<kIgnores, true, true, kEach, kWeighted>(
                           block, losses, grad)
                     : VisitChunks<kIgnores, true, false, kEach, kWeighted>(
                           block, losses, grad);
}

template <bool kIgnores, typename T>
BlockSums VisitWith(const Block<T>& block, bool wants_loss, double* losses,
                    T* grad) {
  return block.is_same   ? block.weights ? VisitWanted<kIgnores, false, true>(
                                               block, wants_loss, losses, grad)
                                         : VisitWanted<kIgnores, false, false>(
                                               block, wants_loss, losses, grad)
         : block.weights ? VisitWanted<kIgnores, true, true>(block, wants_loss,
                                                             losses, grad)
                         : VisitWanted<kIgnores, true, false>(block, wants_loss,
                                                              losses, grad);
}

template <typename T>
BlockSums Visit(const Block<T>& block, bool wants_loss, double* losses,
                T* grad) {
  return block.has_ignore_label
             ? VisitWith<true>(block, wants_loss, losses, grad)
             : VisitWith<false>(block, wants_loss, losses, grad);
}

template <typename T>
void LabelSoft(const T* __restrict targets, std::size_t count, T label,
               T* __restrict labelled) {
  for (std::size_t i = 0; i < count; ++i) {
    const T t = targets[i];
    labelled[i] = IsSoft(t) ? label : t;
  }
}

template <typename T>
void AddTargets(const Block<T>& block, double* __restrict positives,
                double* __restrict negatives) {
  const T* targets = block.targets;
  for (std::size_t i = 0; i < block.count; ++i) {
    const T t = targets[i];
    const bool counts = !(block.has_ignore_label & (t == block.ignore_label));
    positives[i] += counts ? static_cast<double>(t) : 0.;
    negatives[i] += counts ? 1. - t : 0.;
  }
}

void Fill(double value, std::size_t count, double* values) {
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = value;
  }
}

void Multiply(const double* __restrict pairs, std::size_t count,
              double* __restrict a, double* __restrict b) {
  for (std::size_t i = 0; i < count; ++i) {
    a[i] *= pairs[2 * i];
    b[i] *= pairs[2 * i + 1];
  }
}

void Scale(const double* values, std::size_t count, double factor,
           double* products) {
  for (std::size_t i = 0; i < count; ++i) {
    products[i] = factor * values[i];
  }
}

template <typename T>
void RoundAll(const double* values, std::size_t count, T* rounded) {
  for (std::size_t i = 0; i < count; ++i) {
    rounded[i] = Saturate<T>(values[i]);
  }
}

}  // namespace

template <typename T>
Loops<T> WEIGHTED_SIGMOID_LOSS_LOOPS() {
  const Loops<T> loops = {WEIGHTED_SIGMOID_LOSS_NAME,
                          Visit<T>,
                          LabelSoft<T>,
                          AddTargets<T>,
                          Sum,
                          Fill,
                          Multiply,
                          Scale,
                          RoundAll<T>,
                          AllExpNegatives<T>,
                          Log1ps<T>};
  return loops;
}

template Loops<float> WEIGHTED_SIGMOID_LOSS_LOOPS<float>();
template Loops<double> WEIGHTED_SIGMOID_LOSS_LOOPS<double>();

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#if defined(WEIGHTED_SIGMOID_LOSS_TARGET) && defined(__clang__)
#pragma clang attribute pop
#endif

#endif  // CAFFE_UTIL_WEIGHTED_SIGMOID_LOSS_LOOPS_INL_HPP_
