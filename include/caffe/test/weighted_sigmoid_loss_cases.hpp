#ifndef CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_CASES_HPP_
#define CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_CASES_HPP_

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "caffe/util/weighted_sigmoid_loss.hpp"

/**
 * @file
 * Inputs of all kinds for the CUDA kernel, which is compared with the CPU's:
 * emulated by tests/cuda_emulation, on a GPU by the tests of Caffe.
 */

namespace caffe {

namespace weighted_sigmoid_loss {

/// Numbers that are not targets, hard targets and a soft one.
const double kIgnoreLabels[] = {-1, 0, 1, 0.5};

/// Shapes (outer, channels, inner) and what an input has.
struct Case {
  std::size_t outer, channels, inner;
  bool by_channel;
  // ' ', b(atch), i(nstance), c(hannel), e(ach channel of each instance), and
  // g(rouped): the same of instances that have channels along a later axis
  char balance;
  char weight;  // ' ', f(ull), o(uter), p(ixel), c(hannel), r(ow's five)
  bool has_ignore_label;
  unsigned label;  // which of kIgnoreLabels
  bool ignores_soft_targets;

  std::size_t count() const { return outer * channels * inner; }

  /// With outer's least divisor but 1 as the length of the axis between.
  std::size_t instances() const {
    std::size_t between = 2;
    while (outer % between != 0 && between < outer) {
      ++between;
    }
    return balance == 'g' && outer > 1 ? outer / between : outer;
  }

  std::string Name() const {
    char text[200];
    std::snprintf(text, sizeof(text),
                  "%zu x %zu x %zu, by channel %d, balance '%c', weight '%c', "
                  "ignore %d, label %g, soft %d",
                  outer, channels, inner, by_channel, balance, weight,
                  has_ignore_label, kIgnoreLabels[label], ignores_soft_targets);
    return text;
  }
};

/// Small ones, each shape with each balance and each kind of element weights.
template <typename T>
std::vector<Case> Cases() {
  const std::size_t kShapes[][3] = {
      {1, 1, 1},    {3, 1, 1},    {1, 5, 1},    {7, 3, 5},     {64, 35, 1},
      {5, 4, 40},   {3, 21, 25},  {2, 2, 5000}, {100, 12, 10}, {1, 1, 40001},
      {2, 8200, 1}, {33, 300, 1}, {50, 5, 1}};
  std::vector<Case> cases;
  for (const auto& shape : kShapes) {
    for (const char balance : {' ', 'b', 'i', 'c', 'e', 'g'}) {
      for (const char weight : {' ', 'f', 'o', 'p', 'c', 'r'}) {
        if (weight == 'r' && shape[2] % 5 != 0) {
          continue;
        }
        const std::size_t n = cases.size();
        const Case c = {
            shape[0],  shape[1], shape[2],  n % 3 != 0,
            balance,   weight,   n % 5 < 3, n % 7 < 4 ? unsigned(n % 7) : 0,
            n % 4 == 1};
        cases.push_back(c);
      }
    }
  }
  return cases;
}

template <typename T>
void AddAxis(std::size_t size, std::size_t stride, ElementWeights<T>* weights) {
  weights->size[weights->axes] = size;
  weights->stride[weights->axes++] = stride;
}

template <typename T>
ElementWeights<T> MakeWeights(const Case& c, const T* data) {
  ElementWeights<T> made;
  made.data = data;
  switch (c.weight) {
    case 'f':
      AddAxis(c.count(), 1, &made);
      break;
    case 'o':
      AddAxis(c.outer, 1, &made);
      AddAxis(c.channels * c.inner, 0, &made);
      break;
    case 'p':
      AddAxis(c.outer, c.inner, &made);
      AddAxis(c.channels, 0, &made);
      AddAxis(c.inner, 1, &made);
      break;
    case 'c':
      AddAxis(c.outer, 0, &made);
      AddAxis(c.channels, 1, &made);
      AddAxis(c.inner, 0, &made);
      break;
    case 'r':
      AddAxis(c.outer, 0, &made);
      AddAxis(c.channels, 5, &made);
      AddAxis(c.inner / 5, 0, &made);
      AddAxis(5, 1, &made);
      break;
    default:
      made.data = NULL;
  }
  return made;
}

/// The values of a case: hard and soft targets, some of them ignored, -0, out
/// of range, or where soft ones begin and end; some element weights negative.
template <typename T>
struct CaseValues {
  explicit CaseValues(const Case& c)
      : scores(c.count()),
        targets(c.count()),
        weight(c.count()),
        cls_weight(c.by_channel ? c.channels : 1),
        neg_weight(cls_weight.size()) {
    std::mt19937 random(c.count());
    std::normal_distribution<double> score(0, 5);
    std::uniform_real_distribution<double> unit;
    for (std::size_t i = 0; i < c.count(); ++i) {
      scores[i] = score(random);
      const double kind = unit(random);
      targets[i] = kind < 0.1    ? -1
                   : kind < 0.7  ? 0
                   : kind < 0.9  ? 1
                   : kind < 0.93 ? 0.5
                   : kind < 0.95 ? NearSoft(random())
                                 : unit(random);
      if (kind > 0.998) {
        targets[i] = kind > 0.999 ? -0. : 255;
      }
    }
    for (std::size_t i = 0; i < c.count(); ++i) {
      weight[i] = i % 97 == 5 ? -2 : 3 * unit(random);
    }
    for (std::size_t k = 0; k < cls_weight.size(); ++k) {
      cls_weight[k] = 100 * unit(random);
      neg_weight[k] = unit(random);
    }
  }

  /// The first or the last soft target, or its neighbour that is hard.
  static T NearSoft(unsigned which) {
    const T edge = which & 1 ? T(kHardTargetSlack) : T(1 - kHardTargetSlack);
    return which & 2 ? edge : std::nextafter(edge, T(which & 1 ? 0 : 1));
  }

  std::vector<T> scores, targets, weight;
  std::vector<double> cls_weight, neg_weight;
};

/// The input of a case whose values lie at these addresses; no balance yet.
template <typename T>
Elements<T> MakeElements(const Case& c, const T* scores, const T* targets,
                         const T* weight, const double* cls_weight,
                         const double* neg_weight) {
  Elements<T> elements;
  elements.count = c.count();
  elements.scores = scores;
  elements.targets = targets;
  elements.channel = c.by_channel ? Axis(c.channels, c.inner) : Axis();
  elements.cls_weight = cls_weight;
  elements.neg_weight = neg_weight;
  elements.scope =
      c.balance == 'i'   ? Axis(c.outer, c.channels * c.inner)
      : c.balance == 'c' ? Axis(c.channels, c.inner)
      : c.balance == 'e' || c.balance == 'g'
          ? InEachInstance(Axis(c.channels, c.inner), c.instances(), c.count())
          : Axis(1, c.count());
  elements.balance = NULL;
  elements.weight = MakeWeights(c, weight);
  elements.has_ignore_label = c.has_ignore_label;
  elements.ignore_label = T(kIgnoreLabels[c.label]);
  elements.ignores_soft_targets = c.ignores_soft_targets;
  return elements;
}

/// Whether sums are equal but for rounding. Targets and weights that are out of
/// range make terms negative, which takes some digits.
inline bool IsNear(double a, double b) {
  return std::abs(a - b) <= 1e-12 * std::abs(b);
}

/// Likewise balance factors: in a scope of few elements such targets may cancel
/// to one that is all but 0.
inline bool IsNearFactor(double a, double b) {
  return std::abs(a - b) <= 1e-12 * std::max(1., std::abs(b));
}

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

#endif  // CAFFE_TEST_WEIGHTED_SIGMOID_LOSS_CASES_HPP_
