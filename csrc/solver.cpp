// The safeguarded fixed-point iteration.
//
// The plain iteration c <- A / B (Eq. 39) does not always lower the objective J: weights may be
// negative, so that B may be near zero and A / B far from the data. With P the sum of memberships:
//
// - If all B_k >= theta P_k, the step is (A - B C) / max(B, theta P), which then equals A / B - C.
//   It is halved while J rises.
// - A column with B_k < theta P_k is called *weak*. It moves to its exact ratio A_k / B_k, and J
//   may rise: in this way a centroid without members returns to the data. This is done only if the
//   ratio is within the bounds of the data, and only a limited number of times, since it could
//   loop. Otherwise the column takes the damped step (A - B C) / max(B, theta P).
//
// A centroid without members would drift away without end, so no centroid may leave the bounding
// box of the data by more than the box's width. A run that ends at this bound has not converged.
//
// Without weak columns, Anderson acceleration proposes the next centroids: a linear model of the
// step as a function of the centroids is fitted to the last few steps, and the proposal is where
// the model's step is zero. It is accepted only if J does not rise; otherwise the run takes the
// damped step.
//
// If a step points back along the move before it, the last move was too long. The next step is then
// shortened by the secant method, see secant_size.
#include "solver.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "parallel.h"

namespace ekmfast {
namespace {

constexpr std::int64_t kMaxWeakJumps = 20;
// Steps shorter than Rules::noise may be rounding error. If so many passes bring no shorter step,
// the run is as near to its fixed point as it can get.
constexpr std::int64_t kStillPasses = 16;
// A run is given up if J would still be above that of the best run after so many decreases as large
// as its last ones.
constexpr double kFallsToReachBest = 50;
constexpr double kLeastSize = 1.0 / 64;
// Anderson's model leaves out directions whose singular value is below this share of the largest.
constexpr double kWeakDirection = 1e-6;
// If the centroids of all runs are more numbers than this, threads save more time than waking them
// takes.
constexpr std::int64_t kNumbersForThreads = 1 << 14;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

typedef std::vector<double> Vector;

double dot(const Vector& a, const Vector& b) {
  double sum[4] = {0, 0, 0, 0};  // independent of each other, so that additions overlap
  std::size_t i = 0;
  for (; i + 4 <= a.size(); i += 4)
    for (std::size_t j = 0; j < 4; ++j) sum[j] += a[i + j] * b[i + j];
  for (; i < a.size(); ++i) sum[0] += a[i] * b[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

double norm(const Vector& a) { return std::sqrt(dot(a, a)); }

Vector difference(const Vector& a, const Vector& b) {
  Vector out(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) out[i] = a[i] - b[i];
  return out;
}

bool all_finite(const Vector& a) {
  double witness = 0;  // 0 times infinity or NaN is NaN
  for (double v : a) witness += 0 * v;
  return witness == 0;
}

// The gamma of least norm that minimises ||b - sum_j gamma_j columns_j||, without the directions of
// small singular values. Overwrites the columns: Gram-Schmidt orthogonalisation gives
// columns = Q R, and one-sided Jacobi rotations the singular value decomposition R V = U S of the
// small R, so that gamma = V S^-1 U' Q' b.
Vector least_squares(std::vector<Vector>& columns, Vector b) {
  const std::size_t n = columns.size();
  std::vector<Vector> R(n, Vector(n, 0.0));  // by columns
  Vector coefficients(n, 0.0);
  for (std::size_t j = 0; j < n; ++j) {
    Vector& q = columns[j];
    const double before = norm(q);
    for (int pass = 0; pass < 2; ++pass)  // the second one removes rounding errors of the first
      for (std::size_t i = 0; i < j; ++i) {
        const double share = dot(columns[i], q);
        R[j][i] += share;
        for (std::size_t m = 0; m < q.size(); ++m) q[m] -= share * columns[i][m];
      }
    const double length = norm(q);
    if (!(length > 1e-14 * before)) {  // it is a linear combination of the columns before it
      std::fill(q.begin(), q.end(), 0.0);
      continue;
    }
    R[j][j] = length;
    for (double& v : q) v /= length;
    coefficients[j] = dot(q, b);
    for (std::size_t m = 0; m < q.size(); ++m) b[m] -= coefficients[j] * q[m];
  }
  std::vector<Vector> V(n, Vector(n, 0.0));
  for (std::size_t j = 0; j < n; ++j) V[j][j] = 1;
  for (int sweep = 0; sweep < 30; ++sweep) {
    bool turned = false;
    for (std::size_t p = 0; p < n; ++p)
      for (std::size_t q = p + 1; q < n; ++q) {
        const double pp = dot(R[p], R[p]), qq = dot(R[q], R[q]), pq = dot(R[p], R[q]);
        if (!(std::fabs(pq) > 1e-15 * std::sqrt(pp * qq))) continue;
        turned = true;
        const double zeta = (qq - pp) / (2 * pq);
        const double t = std::copysign(1.0, zeta) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
        const double cosine = 1 / std::sqrt(1 + t * t), sine = cosine * t;
        for (std::vector<Vector>* matrix : {&R, &V})
          for (std::size_t m = 0; m < n; ++m) {
            double &a = (*matrix)[p][m], &c = (*matrix)[q][m];
            const double old = a;
            a = cosine * old - sine * c;
            c = sine * old + cosine * c;
          }
      }
    if (!turned) break;
  }
  double strongest = 0;
  for (const Vector& column : R) strongest = std::max(strongest, norm(column));
  Vector gamma(n, 0.0);
  for (std::size_t j = 0; j < n; ++j) {
    const double s = norm(R[j]);
    if (!(s > kWeakDirection * strongest)) continue;
    const double share = dot(R[j], coefficients) / (s * s);
    for (std::size_t m = 0; m < n; ++m) gamma[m] += share * V[j][m];
  }
  return gamma;
}

// Anderson's proposal; empty if there is none. Also stores these centroids C and their step g.
//
// With dC_j = C - C_j and dG_j = g - g_j for the last centroids C_j and their steps g_j, gamma
// minimises ||g - sum gamma_j dG_j||, and the proposal is C + g - sum gamma_j (dC_j + dG_j).
Vector anderson(Run& run, std::int64_t window) {
  Vector proposal;
  const std::size_t n = run.past_steps.size(), size = run.step.size();
  std::vector<Vector> turns;
  Vector scale;
  for (const Vector& past : run.past_steps) {
    turns.push_back(difference(run.step, past));
    scale.push_back(norm(turns.back()));
    for (double& v : turns.back()) v /= scale.back();
  }
  if (n > 0 && *std::min_element(scale.begin(), scale.end()) > 0) {
    const Vector gamma = least_squares(turns, run.step);
    proposal = run.centroids;
    for (std::size_t i = 0; i < size; ++i) {
      double there = proposal[i] + run.step[i];
      for (std::size_t j = 0; j < n; ++j)
        there -= gamma[j] / scale[j] * ((run.centroids[i] - run.past_centroids[j][i]) +
                                        (run.step[i] - run.past_steps[j][i]));
      proposal[i] = there;
    }
    if (!all_finite(proposal)) proposal.clear();
  }
  run.past_centroids.push_back(run.centroids);
  run.past_steps.push_back(run.step);
  if (static_cast<std::int64_t>(run.past_steps.size()) > window) {
    run.past_centroids.erase(run.past_centroids.begin());
    run.past_steps.erase(run.past_steps.begin());
  }
  return proposal;
}

// The share of the step to take, 1 unless the step points back along the last move.
//
// If the step along one direction is g(c) = s (c* - c), two values of g give s, and c* is reached
// by the share 1 / s = <moved, moved> / <moved, g_last - g>.
double secant_size(const Vector& moved, const Vector& last_step, const Vector& step) {
  if (!(dot(step, moved) < 0)) return 1;
  const double share = dot(moved, moved) / dot(moved, difference(last_step, step));
  return std::isnan(share) ? share : std::clamp(share, kLeastSize, 1.0);
}

void forget(Run& run) {
  run.past_centroids.clear();
  run.past_steps.clear();
}

}  // namespace

Run::Run(const double* start, std::int64_t n, double sharpness)
    : alpha(sharpness), centroids(start, start + n), objective(kInfinity), least(kInfinity) {}

Solver::Solver(const double* starts, const double* alpha, std::int64_t n_runs, std::int64_t k,
               std::int64_t d, Rules rules)
    : k_(k), d_(d), rules_(std::move(rules)) {
  for (std::int64_t i = 0; i < n_runs; ++i) {
    runs_.emplace_back(starts + i * k * d, k * d, alpha[i]);
    make_allowed(runs_.back().centroids);
  }
}

// Divides centroids (k, d) by their lengths if these must be 1. The origin stays where it is.
void Solver::make_allowed(Vector& centroids) const {
  if (rules_.space != Space::unit) return;
  for (auto row = centroids.begin(); row != centroids.end(); row += d_) {
    double square = 0;
    for (auto v = row; v != row + d_; ++v) square += *v * *v;
    const double length = std::sqrt(square);
    if (!(length > 0)) continue;
    for (auto v = row; v != row + d_; ++v) *v /= length;
  }
}

std::int64_t Solver::n_going() const {
  return std::count_if(runs_.begin(), runs_.end(), [](const Run& run) { return !run.done; });
}

void Solver::candidates(double* centroids, double* alpha) const {
  for (const Run& run : runs_) {
    if (run.done) continue;
    std::copy_n(proposal(run).begin(), k_ * d_, centroids);
    centroids += k_ * d_;
    *alpha++ = run.alpha;
  }
}

void Solver::advance(const double* sum_wx, const double* sum_w, const double* sum_p,
                     const double* objective, const double* reference, int n_threads) {
  std::vector<Run*> going;
  for (Run& run : runs_)
    if (!run.done) going.push_back(&run);
  const std::int64_t n = static_cast<std::int64_t>(going.size()), size = k_ * d_;
  const auto advance_run = [&](Run& run, std::int64_t i) {
    ++run.n_iter;
    const std::int64_t weights = n_weights();
    advance_one(run, sum_wx + i * size, sum_w + i * weights, sum_p + i * weights, objective[i],
                reference);
  };
  if (n_threads == 1 || n * size <= kNumbersForThreads) {
    for (std::int64_t i = 0; i < n; ++i) advance_run(*going[static_cast<std::size_t>(i)], i);
  } else {
    // Each run advances by itself, so the threads do not change what it does. A process that forks
    // meanwhile repeats this in its child (bind.cpp), so copies advance, which then replace the runs.
    std::vector<Run> next;
    for (const Run* run : going) next.push_back(*run);
    parallel_for(n, n_threads, [&](std::int64_t i, int) {
      advance_run(next[static_cast<std::size_t>(i)], i);
    });
    for (std::size_t i = 0; i < next.size(); ++i) *going[i] = std::move(next[i]);
  }
  if (rules_.compete) give_up_losing_runs();
}

void Solver::advance_one(Run& run, const double* wx, const double* w, const double* p,
                     double objective, const double* reference) {
  if (!std::isfinite(objective)) objective = kInfinity;  // centroids so far away that J overflows
  const bool rises = objective > run.objective + rules_.resolution * std::fabs(run.objective);
  if (rises && !run.leap.empty()) {
    run.leap.clear();
    forget(run);
    return;
  }
  if (rises && !run.step.empty() && !run.jumping) {
    run.size /= 2;
    if (++run.n_halvings > kMaxHalvings) {
      // Even a tiny part of the step does not lower J, as far as the rounding of J can show.
      const double length = norm(run.step);
      run.done = true;
      run.converged = length * run.size <= rules_.threshold || length <= rules_.noise;
    }
    return;
  }
  const bool leapt = !run.leap.empty();
  Vector moved = proposal(run);
  std::swap(moved, run.centroids);
  for (std::size_t i = 0; i < moved.size(); ++i) moved[i] = run.centroids[i] - moved[i];
  const Vector last_step = std::move(run.step);
  run.objective = objective;
  run.leap.clear();
  run.history.push_back(objective);
  run.n_halvings = 0;

  run.step.assign(static_cast<std::size_t>(k_ * d_), 0.0);
  run.jumping = run.held = false;
  const bool bounded = !rules_.low.empty() && rules_.space != Space::unit;
  const bool may_jump = run.n_jumps < kMaxWeakJumps;
  for (std::int64_t i = 0; i < k_; ++i) {
    const double *at = run.centroids.data() + i * d_, *sums = wx + i * d_;
    double* step = run.step.data() + i * d_;
    const bool jumps =
        rules_.space == Space::features
            ? features_step(may_jump, at, sums, w + i * d_, p + i * d_, reference, step)
        : rules_.space == Space::unit
            ? unit_step(may_jump, at, sums, w[i], p[i], reference, step)
            : free_step(may_jump, at, sums, w[i], p[i], reference, step);
    run.jumping = run.jumping || jumps;
    for (std::int64_t j = 0; bounded && j < d_; ++j) {
      const std::size_t c = static_cast<std::size_t>(j);
      const double there = at[j] + step[j];
      const double nearest = std::min(std::max(there, rules_.low[c]), rules_.high[c]);
      if (nearest == there || std::isnan(step[j])) continue;
      step[j] = nearest - at[j];
      run.held = true;
    }
  }
  run.n_jumps += run.jumping;
  run.size = last_step.empty() || leapt ? 1.0 : secant_size(moved, last_step, run.step);
  const double length = norm(run.step);
  run.n_still = length < run.least ? 0 : run.n_still + 1;
  run.least = std::min(length, run.least);
  const bool still = run.n_still >= kStillPasses && length <= rules_.noise;
  if (!std::isfinite(length)) {
    run.done = true;
  } else if (length <= rules_.threshold || still) {
    run.done = true;
    run.converged = !run.held;
  } else if (run.jumping || run.held) {
    forget(run);
  } else if (rules_.window > 0) {
    run.leap = anderson(run, rules_.window);
    if (bounded)
      for (std::size_t i = 0; i < run.leap.size(); ++i) {
        const std::size_t c = i % static_cast<std::size_t>(d_);
        run.leap[i] = std::clamp(run.leap[i], rules_.low[c], rules_.high[c]);
      }
  }
}

// Where the run goes next: Anderson's proposal, or a share of the step.
Vector Solver::proposal(const Run& run) const {
  Vector there = run.leap.empty() ? run.centroids : run.leap;
  if (run.leap.empty() && !run.step.empty())
    for (std::size_t i = 0; i < there.size(); ++i) there[i] += run.size * run.step[i];
  make_allowed(there);
  return there;
}

bool Solver::free_step(bool may_jump, const double* at, const double* wx, double w, double p,
                       const double* reference, double* step) const {
  bool weak = may_jump && w < kTheta * p;
  for (std::int64_t j = 0; j < d_; ++j) {
    // A column that sums to exactly zero keeps its centroid.
    const double ratio = w == 0 ? at[j] : reference[j] + wx[j] / w;
    // If B is near zero, the ratio may be far away on either side, whereas the damped step points
    // to where J falls.
    weak = weak && inside(j, ratio);
    step[j] = ratio - at[j];
  }
  // If B >= theta P, the share is 1, and the step is A / B - C.
  const double share = w / std::max(w, kTheta * p);
  if (!weak && std::isfinite(share))
    for (std::int64_t j = 0; j < d_; ++j) step[j] *= share;
  return weak;
}

// On the sphere the distance is 1 - x . c, so that J falls fastest along the part of A that is
// tangent to the sphere, A - L C with L = A . C. The step is this part over max(L, theta P). If
// L >= theta P, it leads to A / L, which is a point of the direction of A: there the next centroid
// is. A weak column goes to the direction of the exact ratio A / B.
bool Solver::unit_step(bool may_jump, const double* at, const double* wx, double w, double p,
                       const double* reference, double* step) const {
  bool weak = may_jump && w < kTheta * p;
  double along = 0, square = 0;
  for (std::int64_t j = 0; j < d_; ++j) {
    const double a = wx[j] + w * reference[j];
    step[j] = a;
    along += a * at[j];
    square += a * a;
    weak = weak && inside(j, a / w);
  }
  weak = weak && square > 0;
  const double share = 1 / std::max(along, kTheta * p);
  const double to_ratio = (w < 0 ? -1 : 1) / std::sqrt(square);
  for (std::int64_t j = 0; j < d_; ++j) {
    if (weak) step[j] = to_ratio * step[j] - at[j];
    else step[j] = std::isfinite(share) ? share * (step[j] - along * at[j]) : 0;
  }
  return weak;
}

// The same as `free_step` for each feature, since A, B and P are sums over other rows for each.
bool Solver::features_step(bool may_jump, const double* at, const double* wx, const double* w,
                           const double* p, const double* reference, double* step) const {
  bool any = false;
  for (std::int64_t j = 0; j < d_; ++j) {
    const double ratio = w[j] == 0 ? at[j] : reference[j] + wx[j] / w[j];
    const bool weak = may_jump && w[j] < kTheta * p[j] && inside(j, ratio);
    const double share = w[j] / std::max(w[j], kTheta * p[j]);
    step[j] = (weak || !std::isfinite(share) ? 1 : share) * (ratio - at[j]);
    any = any || weak;
  }
  return any;
}

// Only runs with a proposal of Anderson's are given up, since their decreases of J become smaller
// and smaller. Lloyd's iteration, which has no proposals, may decrease J by much after small
// decreases: with the same rule it lost its best run in 4 of 125 fits (by up to 0.9 % of J), and
// saved a quarter of the passes.
void Solver::give_up_losing_runs() {
  std::map<double, double> best;  // objective, by alpha
  for (const Run& run : runs_)
    if (run.converged) {
      const auto entry = best.emplace(run.alpha, run.objective).first;
      entry->second = std::min(entry->second, run.objective);
    }
  for (Run& run : runs_) {
    const std::size_t n = run.history.size();
    const auto lowest = best.find(run.alpha);
    if (run.done || run.jumping || run.leap.empty() || n < 4 || lowest == best.end()) continue;
    // A rise, caused by rounding, counts as a decrease of 0, so that a run at the best J is kept.
    const double fall = std::max({0.0, run.history[n - 3] - run.history[n - 2],
                                  run.history[n - 2] - run.history[n - 1]});
    if (run.objective - kFallsToReachBest * fall > lowest->second) run.done = run.given_up = true;
  }
  for (Run& run : runs_)
    if (run.done) forget(run);  // a finished run needs its past no more
}

}  // namespace ekmfast
