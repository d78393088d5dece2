#ifndef CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_CLIMB_HPP_
#define CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_CLIMB_HPP_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "caffe/test/weighted_sigmoid_loss_walk.hpp"
#include "caffe/util/weighted_sigmoid_loss_loops.hpp"

/**
 * @file
 * A search by climbing for the soft target and the weights with the largest
 * error: there are too many to walk through. Short in the tests, longer in
 * tests/exhaustive.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/// What is climbed: the error of losses or gradients, with constants that are
/// numbers of T, as the formulas take them, or products that the loops round.
enum Peak { kLoss, kGradient, kLossOfProducts, kGradientOfProducts };
const Peak kPeaks[] = {kLoss, kGradient, kLossOfProducts, kGradientOfProducts};
const char* const kPeakNames[] = {"loss", "gradient", "loss, products",
                                  "gradient, products"};

/// What is promised of it.
template <typename T>
double PeakBound(Peak peak) {
  return peak == kLoss             ? kLossElementUlp
         : peak == kGradient       ? kGradientElementUlp
         : peak == kLossOfProducts ? LossUlp<T>()
                                   : GradientUlp<T>();
}

/// An element with the factors of its constants.
template <typename T>
struct Climber {
  T score, target, weight;
  double cls_weight, neg_weight, scale;

  std::string Name() const {
    char text[300];
    std::snprintf(text, sizeof(text),
                  "score %.17g, target %.17g, weight %.17g, cls_weight %.17g, "
                  "neg_weight %.17g, scale %.17g",
                  static_cast<double>(score), static_cast<double>(target),
                  static_cast<double>(weight), cls_weight, neg_weight, scale);
    return text;
  }
};

/// Climbers on one instruction set, a block of them at a time.
template <typename T>
class Climb {
 public:
  Climb(const Loops<T>& loops, Peak peak, unsigned seed)
      : loops_(loops),
        is_loss_(peak == kLoss || peak == kLossOfProducts),
        has_products_(peak == kLossOfProducts || peak == kGradientOfProducts),
        random_(seed),
        ulp_(0),
        place_(),
        climbers_(kBlock),
        errors_(kBlock),
        patience_(kBlock) {}

  void Step(uint64_t steps) {
    for (; steps > 0; --steps) {
      TakeStep();
    }
  }

  double ulp() const { return ulp_; }
  const Climber<T>& place() const { return place_; }

 private:
  typedef typename Wider<T>::Type Real;
  static const int kPatience = 400;  // steps that lead no higher

  void TakeStep() {
    std::vector<Climber<T> > tried(climbers_);
    for (std::size_t i = 0; i < kBlock; ++i) {
      if (patience_[i] == 0) {
        tried[i] = Start();
        errors_[i] = -1;
      } else {
        Change(&tried[i]);
      }
    }
    const std::vector<double> errors = Errors(tried);
    for (std::size_t i = 0; i < kBlock; ++i) {
      --patience_[i];
      if (errors[i] > errors_[i]) {
        climbers_[i] = tried[i];
        errors_[i] = errors[i];
        patience_[i] = kPatience;
      }
      if (!(errors[i] <= ulp_) && !std::isnan(ulp_)) {
        ulp_ = errors[i];
        place_ = tried[i];
      }
    }
  }

  double Uniform() { return std::uniform_real_distribution<double>()(random_); }

  /// Hard ones are walked through.
  static T Soft(double target) {
    return T(std::min(std::max(target, 0.001), 0.999));
  }

  /// Not far from where the terms of a gradient cancel.
  Climber<T> Start() {
    Climber<T> c = {};
    c.score = T((random_() % 2 ? 16 : -16) * std::exp2(-8 * Uniform()));
    c.target = Soft(random_() % 2 ? 0.5 - 0.1 * Uniform() : Uniform());
    c.neg_weight = T(1 + Uniform());
    c.weight = has_products_ ? T(1 + Uniform()) : T(1);
    c.scale = has_products_ ? 1 + Uniform() : 1;
    Cancel(&c);
    return c;
  }

  static void Cancel(Climber<T>* c) {
    const double odds = (1. - c->target) / c->target;
    c->cls_weight = T(c->neg_weight * odds * std::exp(double{c->score}));
  }

  void Change(Climber<T>* c) {
    switch (random_() % (has_products_ ? 7 : 5)) {
      case 0:
        Move(&c->score);
        break;
      case 1:
        Move(&c->target);
        break;
      case 2:
        MoveWeight(&c->cls_weight);
        break;
      case 3:
        MoveWeight(&c->neg_weight);
        break;
      case 4:
        Move(&c->score);
        Cancel(c);
        break;
      case 5:
        Move(&c->weight);
        break;
      default:
        Move(&c->scale);
    }
    c->target = Soft(c->target);
  }

  /// By that many of the numbers that there are, few or many.
  template <typename Value>
  void Move(Value* value) {
    typedef typename std::conditional<sizeof(Value) == sizeof(int32_t), int32_t,
                                      int64_t>::type Bits;
    const int kDigits = std::numeric_limits<Value>::digits - 3;
    const Bits most = Bits(1) << random_() % kDigits;
    const Bits by = static_cast<Bits>(random_() % (2 * most + 1)) - most;
    *value = BitCast<Value>(BitCast<Bits>(*value) + by);
  }

  void MoveWeight(double* weight) {
    T moved = T(*weight);
    Move(&moved);
    *weight = moved;
  }

  std::vector<double> Errors(const std::vector<Climber<T> >& climbers) const {
    std::vector<T> scores, targets, weights, gradients(kBlock);
    std::vector<double> a, b, losses(kBlock), errors;
    for (const Climber<T>& c : climbers) {
      scores.push_back(c.score);
      targets.push_back(c.target);
      weights.push_back(c.weight);
      a.push_back(c.scale * c.cls_weight);
      b.push_back(c.scale * c.neg_weight);
    }
    const Block<T> block = {
        kBlock,   scores.data(), targets.data(), false, 0,   false,
        a.data(), b.data(),      weights.data(), NULL,  NULL};
    loops_.visit(block, true, losses.data(), gradients.data());
    for (std::size_t i = 0; i < kBlock; ++i) {
      const Climber<T>& c = climbers[i];
      const Real both = Real(c.scale) * c.weight;
      const ExactElement<Real> exact(c.score, c.target, both * c.cls_weight,
                                     both * c.neg_weight);
      const Real error =
          is_loss_ ? (losses[i] - exact.loss) / exact.loss
                   : (gradients[i] - exact.gradient) / exact.larger_term;
      errors.push_back(static_cast<double>(std::abs(error) / Ulp<T>()));
    }
    return errors;
  }

  const Loops<T> loops_;
  const bool is_loss_, has_products_;
  std::mt19937_64 random_;
  double ulp_;
  Climber<T> place_;
  std::vector<Climber<T> > climbers_;
  std::vector<double> errors_;
  std::vector<int> patience_;
};

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_CLIMB_HPP_
