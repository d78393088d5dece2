// The proof of the kernel's accuracy, `make exhaustive`: all float scores and a
// billion double ones, with targets 0 and 1, and a long search for the worst
// soft target and weights, on every instruction set that this machine has. Exit
// status 0 means that the bounds hold which weighted_sigmoid_loss_math.hpp and
// weighted_sigmoid_loss.hpp state. --stride N takes one score, one step in N.

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "caffe/test/weighted_sigmoid_loss_climb.hpp"
#include "caffe/test/weighted_sigmoid_loss_walk.hpp"

#ifdef HAS_QUADMATH
#include <quadmath.h>
#endif

namespace caffe {

namespace weighted_sigmoid_loss {

#ifdef HAS_QUADMATH
template <>
__float128 ExactExp(__float128 x) {
  return expq(x);
}
template <>
__float128 ExactLog1p(__float128 x) {
  return log1pq(x);
}
typedef __float128 Widest;
#else
typedef long double Widest;
#endif

namespace {

const char* Name(float /* type */) { return "float"; }
const char* Name(double /* type */) { return "double"; }

/// Shows how far a walk is, where somebody looks at it.
class Progress {
 public:
  explicit Progress(const char* name)
      : name_(name), start_(Clock::now()), is_shown_(isatty(STDERR_FILENO)) {}

  double Seconds() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

  void Show(double done) const {
    if (is_shown_ && done > 0) {
      std::fprintf(stderr, "\r%s: %3.0f%%, %.0f s left ", name_, 100 * done,
                   Seconds() * (1 - done) / done);
    }
  }

  void Clear() const {
    if (is_shown_) {
      std::fprintf(stderr, "\r%40s\r", "");
    }
  }

 private:
  typedef std::chrono::steady_clock Clock;
  const char* name_;
  Clock::time_point start_;
  bool is_shown_;
};

/// What is found out about some functions, on all arguments they are for.
template <typename T>
struct FunctionReport {
  explicit FunctionReport(const Loops<T>& the_loops)
      : loops(the_loops), exp_negative(Ulp<T>()), log1p(Ulp<T>()) {}

  bool IsGood() const {
    return exp_negative.ulp() + ExactUlp<T>() <= kExpNegativeUlp &&
           log1p.ulp() + ExactUlp<T>() <= kLog1pUlp;
  }

  Loops<T> loops;
  WalkError exp_negative, log1p;
};

/// A walk through the arguments of ExpNegative and Log1p.
template <typename T>
class FunctionWalk {
 public:
  FunctionWalk() : results_(kWalkBlock) {
    Loops<T> loops[kMaxLoops];
    const int available = AvailableLoops(loops);
    for (int k = 0; k < available; ++k) {
      reports_.push_back(FunctionReport<T>(loops[k]));
    }
  }

  static uint64_t Count(uint64_t stride) { return Walk<T>::Count(stride); }

  void Visit(uint64_t stride, uint64_t first, uint64_t last) {
    for (; first < last; first += kWalkBlock) {
      const std::size_t count = std::min<uint64_t>(kWalkBlock, last - first);
      std::vector<T> a(count), u(count);
      for (std::size_t i = 0; i < count; ++i) {
        a[i] = Magnitude((first + i) * stride, T());
        u[i] = a[i] <= 1 ? a[i] : T(1);
      }
      VisitExpNegative(a);
      VisitLog1p(u);
    }
  }

  void Add(const FunctionWalk& other) {
    for (std::size_t k = 0; k < reports_.size(); ++k) {
      reports_[k].exp_negative.Add(other.reports_[k].exp_negative);
      reports_[k].log1p.Add(other.reports_[k].log1p);
    }
  }

  const std::vector<FunctionReport<T> >& reports() const { return reports_; }

 private:
  typedef typename Wider<T>::Type Real;

  void VisitExpNegative(const std::vector<T>& a) {
    std::vector<Real> exact(a.size());
    for (std::size_t i = 0; i < a.size(); ++i) {
      const Real u = ExactExp<Real>(-static_cast<Real>(a[i]));
      exact[i] = u < std::numeric_limits<T>::min() ? 0 : u;
    }
    exact_.Set(exact.data(), Real(1), a.size());
    for (FunctionReport<T>& report : reports_) {
      report.loops.exp_negatives(a.data(), a.size(), results_.data());
      report.exp_negative.Add(results_.data(), exact_, a.size(), 0, a.data(),
                              Place());
    }
  }

  void VisitLog1p(const std::vector<T>& u) {
    std::vector<Real> exact(u.size());
    for (std::size_t i = 0; i < u.size(); ++i) {
      exact[i] = ExactLog1p<Real>(u[i]);
    }
    exact_.Set(exact.data(), Real(1), u.size());
    for (FunctionReport<T>& report : reports_) {
      report.loops.log1ps(u.data(), u.size(), results_.data());
      report.log1p.Add(results_.data(), exact_, u.size(), 0, u.data(), Place());
    }
  }

  std::vector<T> results_;
  RealBlock exact_;
  std::vector<FunctionReport<T> > reports_;
};

unsigned Cores() { return std::max(1u, std::thread::hardware_concurrency()); }

/// Takes parts of a walk until none is left.
template <typename AnyWalk>
void WalkParts(uint64_t stride, std::atomic<uint64_t>* next, AnyWalk* walk) {
  const uint64_t kPart = 16 * kWalkBlock;
  const uint64_t count = AnyWalk::Count(stride);
  for (;;) {
    const uint64_t first = next->fetch_add(kPart);
    if (first >= count) {
      return;
    }
    walk->Visit(stride, first, std::min(first + kPart, count));
  }
}

/// Walks on all cores.
template <typename AnyWalk>
void WalkAll(uint64_t stride, const Progress& progress, AnyWalk* total) {
  const uint64_t count = AnyWalk::Count(stride);
  std::vector<AnyWalk> walks(Cores());
  std::vector<std::thread> threads;
  std::atomic<uint64_t> next(0);
  for (AnyWalk& walk : walks) {
    threads.push_back(std::thread(WalkParts<AnyWalk>, stride, &next, &walk));
  }
  while (next < count) {
    progress.Show(static_cast<double>(next) / count);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (const AnyWalk& walk : walks) {
    total->Add(walk);
  }
  progress.Clear();
}

/// The error of what stands for real numbers, in ulp of T, on some scores.
template <typename T>
double ExactErrorUlp() {
  typedef typename Wider<T>::Type Real;
  const uint64_t kScores = 20000;
  const Widest kNone = std::numeric_limits<Real>::min();
  double largest = 0;
  for (uint64_t k = 0; k < kScores; ++k) {
    const T x = Magnitude(k * (Magnitudes(T()) / kScores), T());
    if (!std::isfinite(x)) {
      continue;
    }
    const ExactFunctions<Real> used(x);
    const ExactFunctions<Widest> exact(x);
    const Widest pairs[][2] = {{used.softplus, exact.softplus},
                               {used.softplus_neg, exact.softplus_neg},
                               {used.sigmoid, exact.sigmoid},
                               {used.sigmoid_neg, exact.sigmoid_neg}};
    for (const Widest(&pair)[2] : pairs) {
      const Widest error = pair[0] - pair[1];
      const Widest excess = (error < 0 ? -error : error) - kNone;
      if (excess > 0) {
        largest = std::max(largest, static_cast<double>(excess / pair[1]));
      }
    }
  }
  return largest / Ulp<T>();
}

template <typename T>
bool CheckExact() {
  const double error = ExactErrorUlp<T>();
  const bool is_good = error <= ExactUlp<T>();
  std::printf("  compared with %s: within %.2g ulp, taken as %.2g%s\n",
              sizeof(T) == 4 ? "double" : "long double", error, ExactUlp<T>(),
              is_good ? "" : ": FAILED");
  return is_good;
}

/// A double as an argument of type T, that is with no more digits than it has.
template <typename T>
void PrintError(const char* name, const WalkError& error, double bound) {
  std::printf("    %-12s %.3f ulp of %.2f at %.*g", name, error.ulp(), bound,
              std::numeric_limits<T>::max_digits10, error.place().score);
}

template <typename T>
bool PrintReport(const FunctionReport<T>& report) {
  std::printf("  functions, %s: %s\n", report.loops.name,
              report.IsGood() ? "good" : "FAILED");
  PrintError<T>("ExpNegative", report.exp_negative, kExpNegativeUlp);
  std::printf("\n");
  PrintError<T>("Log1p", report.log1p, kLog1pUlp);
  std::printf("\n");
  return report.IsGood();
}

void PrintElement(const Place& place) {
  std::printf(", target %g, a %.3g, b %.3g\n", place.target, place.a, place.b);
}

template <typename T>
bool PrintReport(const WalkReport<T>& report) {
  std::printf("  elements, %s: %s, checksum %016llx\n", report.loops.name,
              report.IsGood() ? "good" : "FAILED",
              static_cast<unsigned long long>(report.checksum));  // NOLINT
  PrintError<T>("loss", report.loss, kLossElementUlp);
  PrintElement(report.loss.place());
  PrintError<T>("gradient", report.gradient, kGradientElementUlp);
  PrintElement(report.gradient.place());
  if (report.differs) {
    std::printf("    differs from the first set at score %.17g",
                report.difference.score);
    PrintElement(report.difference);
  }
  return report.IsGood();
}

template <typename T>
bool IsLower(const Climb<T>& a, const Climb<T>& b) {
  return a.ulp() < b.ulp();
}

/// Climbs on all cores; the highest.
template <typename T>
Climb<T> ClimbAll(const Loops<T>& loops, Peak peak, uint64_t steps) {
  std::vector<Climb<T> > climbs;
  std::vector<std::thread> threads;
  for (unsigned k = 0; k < Cores(); ++k) {
    climbs.push_back(Climb<T>(loops, peak, k));
  }
  for (Climb<T>& climb : climbs) {
    threads.push_back(std::thread(&Climb<T>::Step, &climb, steps));
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return *std::max_element(climbs.begin(), climbs.end(), IsLower<T>);
}

/// As many steps as make this the smaller part of the proof.
const uint64_t kSteps = 40000;

template <typename T>
bool PrintClimbs(const Loops<T>& loops, uint64_t stride) {
  bool is_good = true;
  std::printf("  climbs, %s:\n", loops.name);
  for (const Peak peak : kPeaks) {
    const Climb<T> climb = ClimbAll(loops, peak, kSteps / stride + 1);
    const double bound = PeakBound<T>(peak);
    const bool holds = climb.ulp() + ExactUlp<T>() <= bound;
    std::printf("    %-18s %.3f ulp of %.2f at %s%s\n", kPeakNames[peak],
                climb.ulp(), bound, climb.place().Name().c_str(),
                holds ? "" : ": FAILED");
    is_good &= holds;
  }
  return is_good;
}

template <typename T>
bool Prove(uint64_t stride) {
  FunctionWalk<T> functions;
  const Progress progress(Name(T()));
  WalkAll(stride, progress, &functions);
  Walk<T> elements;
  WalkAll(stride, Progress(Name(T())), &elements);
  std::printf("%s: %llu scores, %.0f s\n", Name(T()),
              static_cast<unsigned long long>(  // NOLINT(runtime/int)
                  2 * Walk<T>::Count(stride)),
              progress.Seconds());
  bool is_good = CheckExact<T>();
  for (const FunctionReport<T>& report : functions.reports()) {
    is_good &= PrintReport(report);
  }
  for (const WalkReport<T>& report : elements.reports()) {
    is_good &= PrintReport(report);
    is_good &= PrintClimbs(report.loops, stride);
  }
  std::fflush(stdout);
  return is_good;
}

}  // namespace

}  // namespace weighted_sigmoid_loss

}  // namespace caffe

int main(int argc, char** argv) {
  uint64_t stride = 1;
  if (argc == 3 && std::strcmp(argv[1], "--stride") == 0) {
    stride = std::strtoull(argv[2], NULL, 10);
  }
  if (argc != 1 && (argc != 3 || stride == 0)) {
    std::fprintf(stderr, "usage: %s [--stride N]\n", argv[0]);
    return 2;
  }
  using caffe::weighted_sigmoid_loss::Prove;
  const bool is_float_good = Prove<float>(stride);
  const bool is_double_good = Prove<double>(stride);
  return is_float_good && is_double_good ? 0 : 1;
}
