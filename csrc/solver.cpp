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
// the model's step is zero. If it does not lie where the step points, it may be a saddle point of J,
// which the run is leaving by steps that grow. Then the proposal is the next plain centroids and
// most of the way from the last plain ones to these, as in momentum methods. A proposal is accepted
// only if J does not rise; otherwise the run takes the damped step.
//
// If a step points back along the move before it, the last move was too long. The next step is then
// shortened by the secant method, see secant_size.
#include "solver.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "kernels/kernels.h"
#include "parallel.h"
#include "simd/dispatch.h"

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
// Anderson's proposal is used if the cosine of the angle between the step and the way to it is at least
// this, and momentum otherwise. On 34 runs over 20,000 rows, of which 22 were chosen for being slow, both
// halved the mean number of passes (64 to 29); .3 to .7 and .8 to 1 did about the same.
constexpr double kLeastCosine = 0.5;
constexpr double kMomentum = 0.9;
// If the centroids of all runs are more numbers than this, threads save more time than waking them
// takes.
constexpr std::int64_t kNumbersForThreads = 1 << 14;
// Centroids of a run with more numbers are long: they are read from memory, and the time of a step is
// that of reading and writing vectors, of which there are as few as possible then (kernels/steps.inl).
// Proposals use kMostTurns earlier steps at most. Over 72 runs at tolerances of 1e-4 and 1e-6, of 120 passes
// at most, the mean number of passes was 76.8 with two, 74.2 with three and 73.9 with five, for which a
// pass takes longer.
constexpr std::int64_t kLong = 1 << 17;
// Numbers of each vector that are worked on at a time, so that they stay in the L2 cache.
constexpr std::size_t kPiece = 2048;
// Features of long centroids that are worked on at a time, so that what they share stays in the L2 cache.
constexpr std::int64_t kLongPiece = 8192;
// Shares of the runs that are iterated apart, for each thread: some end sooner than others.
constexpr std::size_t kSharesOfThread = 2;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

typedef LongVector<double> Vector;

const StepKernels& kernels() { return kernel_table(isa_in_use()).steps; }

// sum_i a(i) b(i)
template <class A, class B>
double dot_of(std::size_t size, A a, B b) {
  double sum[4] = {0, 0, 0, 0};  // independent of each other, so that additions overlap
  std::size_t i = 0;
  for (; i + 4 <= size; i += 4)
    for (std::size_t j = 0; j < 4; ++j) sum[j] += a(i + j) * b(i + j);
  for (; i < size; ++i) sum[0] += a(i) * b(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

double dot(const double* a, const double* b, std::size_t size) {
  return dot_of(size, [a](std::size_t i) { return a[i]; }, [b](std::size_t i) { return b[i]; });
}

double dot(const Vector& a, const Vector& b) { return dot(a.data(), b.data(), a.size()); }

// 0 if all numbers are finite, else NaN: 0 times infinity or NaN is NaN.
double finite_witness(const double* a, std::size_t size) {
  double sum[4] = {0, 0, 0, 0};
  std::size_t i = 0;
  for (; i + 4 <= size; i += 4)
    for (std::size_t j = 0; j < 4; ++j) sum[j] += 0 * a[i + j];
  for (; i < size; ++i) sum[0] += 0 * a[i];
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

double norm(const Vector& a) { return std::sqrt(dot(a, a)); }

// body(i, begin, end) for pieces of all long centroids, the same features of one after the other.
template <class Body>
void for_pieces(std::int64_t k, std::int64_t d, Body body) {
  for (std::int64_t begin = 0; begin < d; begin += kLongPiece)
    for (std::int64_t i = 0; i < k; ++i) body(i, begin, std::min(d, begin + kLongPiece));
}

// n columns of `size` numbers, one after another: memory for each took longer than short columns.
struct Columns {
  std::size_t n, size;
  Vector numbers;

  Columns(std::size_t count, std::size_t length) : n(count), size(length), numbers(n * size, 0.0) {}
  double* operator[](std::size_t j) { return numbers.data() + j * size; }
  const double* operator[](std::size_t j) const { return numbers.data() + j * size; }
  double product(std::size_t i, std::size_t j) const { return dot((*this)[i], (*this)[j], size); }
  double norm(std::size_t j) const { return std::sqrt(product(j, j)); }
};

// What is left of a least-squares problem ||b - A gamma|| after A = Q R: the small R, and Q' b.
struct Triangle {
  Columns R;
  Vector coefficients;

  explicit Triangle(std::size_t n) : R(n, n), coefficients(n, 0.0) {}
};

// Gram-Schmidt orthogonalisation. Overwrites the columns of A.
Triangle orthogonalised(Columns& columns, Vector b) {
  const std::size_t n = columns.n, size = columns.size;
  Triangle found(n);
  auto& [R, coefficients] = found;
  for (std::size_t j = 0; j < n; ++j) {
    double* const q = columns[j];
    const double before = columns.norm(j);
    for (int pass = 0; pass < 2; ++pass)  // the second one removes rounding errors of the first
      for (std::size_t i = 0; i < j; ++i) {
        const double share = columns.product(i, j);
        const double* const earlier = columns[i];
        R[j][i] += share;
        for (std::size_t m = 0; m < size; ++m) q[m] -= share * earlier[m];
      }
    const double length = columns.norm(j);
    if (!(length > 1e-14 * before)) {  // it is a linear combination of the columns before it
      std::fill(q, q + size, 0.0);
      continue;
    }
    R[j][j] = length;
    for (std::size_t m = 0; m < size; ++m) q[m] /= length;
    const double share = dot(q, b.data(), size);
    coefficients[j] = share;
    for (std::size_t m = 0; m < size; ++m) b[m] -= share * q[m];
  }
  return found;
}

// The same for the n turns of long centroids, divided by their lengths `scale`, which is OUT, and b = g:
// R is the Cholesky factor of the matrix of their products. Singular values have the error 1e-8 then,
// relative to the largest; those below kWeakDirection are left out.
Triangle from_products(const TurningSums& sums, std::size_t n, Vector& scale) {
  for (std::size_t j = 0; j < n; ++j) scale.push_back(std::sqrt(sums.products[j][j]));
  Triangle found(n);
  auto& [R, coefficients] = found;
  for (std::size_t j = 0; j < n; ++j) {
    double left = 1, share = sums.shares[j] / scale[j];
    for (std::size_t i = 0; i < j; ++i) {
      double product = sums.products[j][i] / (scale[i] * scale[j]);
      for (std::size_t m = 0; m < i; ++m) product -= R[i][m] * R[j][m];
      R[j][i] = R[i][i] > 0 ? product / R[i][i] : 0;
      left -= R[j][i] * R[j][i];
      share -= R[j][i] * coefficients[i];
    }
    if (!(left > 1e-14)) continue;  // it is a linear combination of the columns before it
    R[j][j] = std::sqrt(left);
    coefficients[j] = share / R[j][j];
  }
  return found;
}

// Writes gamma = R^-1 Q' b and returns whether no singular value of R is small: the largest is at most
// ||R||, and the smallest at least 1 / ||R^-1||, in Frobenius norms.
bool solve_well_conditioned(const Triangle& triangle, Vector& gamma) {
  const auto& [R, coefficients] = triangle;
  const std::size_t n = coefficients.size();
  Columns inverse(n, n);
  for (std::size_t j = 0; j < n; ++j) {
    double* const x = inverse[j];
    if (!(R[j][j] > 0)) return false;
    x[j] = 1 / R[j][j];
    for (std::size_t i = j; i-- > 0;) {
      double sum = 0;
      for (std::size_t m = i + 1; m <= j; ++m) sum += R[m][i] * x[m];
      x[i] = -sum / R[i][i];
    }
    for (std::size_t i = 0; i <= j; ++i) gamma[i] += x[i] * coefficients[j];
  }
  return norm(R.numbers) * norm(inverse.numbers) < 1 / kWeakDirection;
}

// The gamma of least norm that minimises ||b - A gamma||, without the directions of small singular
// values. One-sided Jacobi rotations give the singular value decomposition R V = U S, so that
// gamma = V S^-1 U' Q' b.
Vector least_squares(Triangle triangle) {
  auto& [R, coefficients] = triangle;
  const std::size_t n = coefficients.size();
  Vector gamma(n, 0.0);
  if (solve_well_conditioned(triangle, gamma)) return gamma;
  Columns V(n, n);
  for (std::size_t j = 0; j < n; ++j) V[j][j] = 1;
  for (int sweep = 0; sweep < 30; ++sweep) {
    bool turned = false;
    for (std::size_t p = 0; p < n; ++p)
      for (std::size_t q = p + 1; q < n; ++q) {
        const double pp = R.product(p, p), qq = R.product(q, q), pq = R.product(p, q);
        if (!(std::fabs(pq) > 1e-15 * std::sqrt(pp * qq))) continue;
        turned = true;
        const double zeta = (qq - pp) / (2 * pq);
        const double t = std::copysign(1.0, zeta) / (std::fabs(zeta) + std::sqrt(1 + zeta * zeta));
        const double cosine = 1 / std::sqrt(1 + t * t), sine = cosine * t;
        for (Columns* matrix : {&R, &V}) {
          double *const a = (*matrix)[p], *const c = (*matrix)[q];
          for (std::size_t m = 0; m < n; ++m) {
            const double old = a[m];
            a[m] = cosine * old - sine * c[m];
            c[m] = sine * old + cosine * c[m];
          }
        }
      }
    if (!turned) break;
  }
  double strongest = 0;
  for (std::size_t j = 0; j < n; ++j) strongest = std::max(strongest, R.norm(j));
  std::fill(gamma.begin(), gamma.end(), 0.0);
  for (std::size_t j = 0; j < n; ++j) {
    const double s = R.norm(j);
    if (!(s > kWeakDirection * strongest)) continue;
    const double share = dot(R[j], coefficients.data(), n) / (s * s);
    for (std::size_t m = 0; m < n; ++m) gamma[m] += share * V[j][m];
  }
  return gamma;
}

// Moves centroids (k, d) into the bounds (d,).
void clamp(Vector& centroids, const std::vector<double>& low, const std::vector<double>& high) {
  const std::size_t d = low.size();
  for (std::size_t row = 0; row < centroids.size(); row += d)
    for (std::size_t j = 0; j < d; ++j)
      centroids[row + j] = std::clamp(centroids[row + j], low[j], high[j]);
}

// Whether a proposal lies where the step points, from <move, step>, <move, move> and <step, step>. Not so
// if the proposal is not finite.
bool points_on(double along, double way, double length) {
  return along >= kLeastCosine * std::sqrt(way) * std::sqrt(length) && std::isfinite(way);
}

// Writes Anderson's proposal and returns whether it is one that lies where the step points.
//
// With dC_j = C - C_j and dG_j = g - g_j for the last centroids C_j and their steps g_j, gamma
// minimises ||g - sum gamma_j dG_j||, and the proposal is C + g - sum gamma_j (dC_j + dG_j).
bool anderson(const Run& run, double* proposal) {
  const std::size_t n = run.past_steps.size(), size = run.step.size();
  Vector scale(n);
  Columns turns(n, size);
  for (std::size_t j = 0; j < n; ++j) {
    double* const turn = turns[j];
    const double *own = run.step.data(), *past = run.past_steps[j].data();
    for (std::size_t i = 0; i < size; ++i) turn[i] = own[i] - past[i];
    scale[j] = turns.norm(j);
    for (std::size_t i = 0; i < size; ++i) turn[i] /= scale[j];
  }
  if (!(*std::min_element(scale.begin(), scale.end()) > 0)) return false;
  const Vector gamma = least_squares(orthogonalised(turns, run.step));
  const double *at = run.centroids.data(), *step = run.step.data();
  double along = 0, way = 0, length = 0;  // <move, step>, <move, move> and <step, step>
  for (std::size_t first = 0; first < size; first += kPiece) {
    const std::size_t last = std::min(size, first + kPiece);
    for (std::size_t i = first; i < last; ++i) proposal[i] = at[i] + step[i];
    for (std::size_t j = 0; j < n; ++j) {
      const double share = gamma[j] / scale[j];
      const double *past_at = run.past_centroids[j].data(), *past_step = run.past_steps[j].data();
      for (std::size_t i = first; i < last; ++i)
        proposal[i] -= share * ((at[i] - past_at[i]) + (step[i] - past_step[i]));
    }
    const auto move = [&](std::size_t i) { return proposal[first + i] - at[first + i]; };
    const auto own = [&](std::size_t i) { return step[first + i]; };
    along += dot_of(last - first, move, own);
    way += dot_of(last - first, move, move);
    length += dot_of(last - first, own, own);
  }
  return points_on(along, way, length);
}

// Writes the proposal of momentum, and returns whether the step points on along the last move.
//
// With v = C + g and v_1 the same at the last centroids, the proposal is v + kMomentum (v - v_1).
bool momentum(const Run& run, double* proposal) {
  const double *at = run.centroids.data(), *step = run.step.data();
  const double *past_at = run.past_centroids.back().data(), *past_step = run.past_steps.back().data();
  const auto moved = [&](std::size_t i) { return at[i] - past_at[i]; };
  const auto own = [&](std::size_t i) { return step[i]; };
  const std::size_t size = run.step.size();
  if (!(dot_of(size, moved, own) > 0)) return false;
  for (std::size_t i = 0; i < size; ++i)
    proposal[i] = at[i] + step[i] + kMomentum * (moved(i) + (step[i] - past_step[i]));
  return finite_witness(proposal, size) == 0;
}

// Writes the next centroids to try before the step, and returns whether there are such.
bool leap(const Run& run, bool bounded, const Rules& rules, Vector& proposal) {
  if (run.past_steps.empty()) return false;
  if (!anderson(run, proposal.data()) && !momentum(run, proposal.data())) return false;
  if (bounded) clamp(proposal, rules.low, rules.high);
  return true;
}

// The same for long centroids. Both proposals are C + g and shares of the last moves.
bool long_leap(const Run& run, std::int64_t k, std::int64_t d, const TurningSums& sums, bool bounded,
               const Rules& rules, double* proposal) {
  const std::size_t n = run.turns.size();
  if (n == 0) return false;
  Leaping leaping{run.centroids.data(), run.step.data(), {}, {}, static_cast<int>(n), nullptr, nullptr,
                  proposal};
  for (std::size_t j = 0; j < n; ++j) leaping.moves[j] = run.moves[j].data();
  const auto leap = [&](double* along, double* way) {
    *along = *way = 0;
    for_pieces(k, d, [&](std::int64_t i, std::int64_t begin, std::int64_t end) {
      if (bounded) {
        leaping.low = rules.low.data() + begin;
        leaping.high = rules.high.data() + begin;
      }
      kernels().leap(leaping, i * d + begin, end - begin, along, way);
    });
  };
  Vector scale;
  double along = 0, way = 0;
  const Triangle triangle = from_products(sums, n, scale);
  if (*std::min_element(scale.begin(), scale.end()) > 0) {
    const Vector gamma = least_squares(triangle);
    for (std::size_t j = 0; j < n; ++j) leaping.shares[j] = -gamma[j] / scale[j];
    leap(&along, &way);
    if (points_on(along, way, sums.length)) return true;
  }
  if (!(sums.along > 0)) return false;
  for (std::size_t j = 0; j < n; ++j) leaping.shares[j] = j + 1 == n ? kMomentum : 0;
  leap(&along, &way);
  return std::isfinite(way);
}

// The share of the step to take, 1 unless the step points back along the last move.
//
// If the step along one direction is g(c) = s (c* - c), two values of g give s, and c* is reached
// by the share 1 / s = <moved, moved> / <moved, g_last - g>.
double secant_size(double along, double way, double fall) {
  if (!(along < 0)) return 1;
  const double share = way / fall;
  return std::isnan(share) ? share : std::clamp(share, kLeastSize, 1.0);
}

double secant_size(const Vector& now, const Vector& before, const Vector& step,
                   const Vector& last_step) {
  const std::size_t size = now.size();
  const auto moved = [&](std::size_t i) { return now[i] - before[i]; };
  const auto own = [&](std::size_t i) { return step[i]; };
  const auto fall = [&](std::size_t i) { return last_step[i] - step[i]; };
  const double along = dot_of(size, moved, own);
  if (!(along < 0)) return 1;
  return secant_size(along, dot_of(size, moved, moved), dot_of(size, moved, fall));
}

void forget(Run& run) {
  run.past_centroids.clear();
  run.past_steps.clear();
  for (auto* kept : {&run.moves, &run.turns}) {
    std::move(kept->begin(), kept->end(), std::back_inserter(run.unused));
    kept->clear();
  }
  run.remembers = false;
}

// Moves the oldest of n vectors to `spare`, so that its memory is used again.
void drop_oldest(std::vector<Vector>& vectors, Vector& spare) {
  spare = std::move(vectors.front());
  vectors.erase(vectors.begin());
}

}  // namespace

Run::Run(const double* start, std::int64_t n, double sharpness)
    : alpha(sharpness), centroids(start, start + n), objective(kInfinity), least(kInfinity) {}

Solver::Solver(const double* starts, const double* alpha, std::int64_t n_runs, std::int64_t k,
               std::int64_t d, Rules rules)
    : k_(k), d_(d), rules_(std::move(rules)) {
  if (is_long()) rules_.window = std::min<std::int64_t>(rules_.window, kMostTurns);
  for (std::int64_t i = 0; i < n_runs; ++i) {
    runs_.emplace_back(starts + i * k * d, k * d, alpha[i]);
    make_allowed(runs_.back().centroids.data());
  }
}

// Divides centroids (k, d) by their lengths if these must be 1. The origin stays where it is.
void Solver::make_allowed(double* centroids) const {
  if (rules_.space != Space::unit) return;
  for (double* row = centroids; row != centroids + k_ * d_; row += d_) {
    double square = 0;
    for (double* v = row; v != row + d_; ++v) square += *v * *v;
    const double length = std::sqrt(square);
    if (!(length > 0)) continue;
    for (double* v = row; v != row + d_; ++v) *v /= length;
  }
}

bool Solver::is_long() const { return k_ * d_ > kLong; }

std::int64_t Solver::n_going() const {
  return std::count_if(runs_.begin(), runs_.end(), [](const Run& run) { return !run.done; });
}

void Solver::candidates(double* centroids, double* alpha) const {
  for (const Run& run : runs_) {
    if (run.done) continue;
    propose(run, centroids);
    centroids += k_ * d_;
    *alpha++ = run.alpha;
  }
}

Solver::Several Solver::going(const Several& runs) {
  Several found;
  for (Run* run : runs)
    if (!run->done) found.push_back(run);
  return found;
}

Solver::Several Solver::all_runs() {
  Several found;
  for (Run& run : runs_) found.push_back(&run);
  return found;
}

void Solver::advance(const double* sum_wx, const double* sum_w, const double* sum_p,
                     const double* objective, const double* reference, int n_threads) {
  advance_all(all_runs(), sum_wx, sum_w, sum_p, objective, reference, n_threads);
}

void Solver::advance_all(const Several& runs, const double* sum_wx, const double* sum_w,
                         const double* sum_p, const double* objective, const double* reference,
                         int n_threads) const {
  const Several own = going(runs);
  const std::int64_t n = static_cast<std::int64_t>(own.size()), size = k_ * d_;
  const auto advance_run = [&](Run& run, std::int64_t i) {
    ++run.n_iter;
    const std::int64_t weights = n_weights();
    advance_one(run, sum_wx + i * size, sum_w + i * weights, sum_p + i * weights, objective[i],
                reference);
  };
  // The copies below would take longer than the threads save if the centroids are long.
  if (n_threads == 1 || n == 1 || n * size <= kNumbersForThreads || is_long()) {
    for (std::int64_t i = 0; i < n; ++i) advance_run(*own[static_cast<std::size_t>(i)], i);
  } else {
    // Each run advances by itself, so the threads do not change what it does. A process that forks
    // meanwhile repeats this in its child (bind.cpp), so copies advance, which then replace the runs.
    std::vector<Run> next;
    for (const Run* run : own) next.push_back(*run);
    parallel_for(n, n_threads, [&](std::int64_t i, int) {
      advance_run(next[static_cast<std::size_t>(i)], i);
    });
    for (std::size_t i = 0; i < next.size(); ++i) *own[i] = std::move(next[i]);
  }
  if (rules_.compete) give_up_losing_runs(runs);
}

std::int64_t Solver::n_groups() const {
  std::set<double> alphas;
  for (const Run& run : runs_)
    if (!run.done) alphas.insert(run.alpha);
  return rules_.compete ? static_cast<std::int64_t>(alphas.size()) : n_going();
}

// Which runs each thread iterates: about as many, and those of one group together.
std::vector<std::vector<std::size_t>> Solver::shares(int n_threads) const {
  std::map<double, std::vector<std::size_t>> alike;
  std::vector<std::vector<std::size_t>> groups;
  for (std::size_t i = 0; i < runs_.size(); ++i) {
    if (rules_.compete) alike[runs_[i].alpha].push_back(i);
    else if (!runs_[i].done) groups.push_back({i});
  }
  for (auto& [alpha, group] : alike) groups.push_back(std::move(group));
  std::stable_sort(groups.begin(), groups.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
  // A pass for several runs takes less time than one for each, so that there are not many shares.
  std::vector<std::vector<std::size_t>> found(
      std::min(groups.size(), kSharesOfThread * static_cast<std::size_t>(n_threads)));
  for (const auto& group : groups) {
    auto& least = *std::min_element(found.begin(), found.end(), [](const auto& a, const auto& b) {
      return a.size() < b.size();
    });
    least.insert(least.end(), group.begin(), group.end());
  }
  return found;
}

void Solver::iterate(const SumsOfPass& pass, const double* reference, Passes passes, int n_threads,
                     std::int64_t& left) {
  if (passes == Passes::single || runs_.size() == 1)
    return iterate_singly(all_runs(), pass, reference, n_threads, left);
  if (n_threads == 1 || passes == Passes::shared)
    return iterate_all(all_runs(), pass, reference, n_threads, left);
  // Copies iterate, which then replace the runs: see advance_all.
  const auto numbers = shares(n_threads);
  std::vector<std::vector<Run>> copies(numbers.size());
  std::vector<std::int64_t> unused(numbers.size(), left);
  parallel_for(static_cast<std::int64_t>(numbers.size()), n_threads, [&](std::int64_t i, int) {
    const std::size_t own = static_cast<std::size_t>(i);
    Several runs;
    for (std::size_t number : numbers[own]) copies[own].push_back(runs_[number]);
    for (Run& run : copies[own]) runs.push_back(&run);
    iterate_all(runs, pass, reference, 1, unused[own]);
  });
  for (std::size_t i = 0; i < numbers.size(); ++i)
    for (std::size_t j = 0; j < numbers[i].size(); ++j) runs_[numbers[i][j]] = std::move(copies[i][j]);
  for (std::int64_t others : unused) left = std::min(left, others);
}

void Solver::iterate_all(const Several& runs, const SumsOfPass& pass, const double* reference,
                         int n_threads, std::int64_t& left) const {
  const std::size_t size = static_cast<std::size_t>(k_ * d_);
  const std::size_t weights = static_cast<std::size_t>(n_weights());
  LongVector<double> centroids, alpha, wx, w, p, objective;
  for (Several own = going(runs); left > 0 && !own.empty(); own = going(runs)) {
    poll_between_calls();
    const std::size_t n = own.size();
    if (centroids.empty()) {  // later passes serve fewer runs
      for (auto* one : {&centroids, &wx}) one->resize(n * size);
      for (auto* one : {&w, &p}) one->resize(n * weights);
      for (auto* one : {&alpha, &objective}) one->resize(n);
    }
    for (std::size_t i = 0; i < n; ++i) {
      propose(*own[i], centroids.data() + i * size);
      alpha[i] = own[i]->alpha;
    }
    pass(centroids.data(), alpha.data(), static_cast<std::int64_t>(n), n_threads, wx.data(), w.data(),
         p.data(), objective.data());
    advance_all(runs, wx.data(), w.data(), p.data(), objective.data(), reference, n_threads);
    --left;
  }
}

// The same with a pass for each run.
void Solver::iterate_singly(const Several& runs, const SumsOfPass& pass, const double* reference,
                            int n_threads, std::int64_t& left) const {
  const std::size_t weights = static_cast<std::size_t>(n_weights());
  const KeptNumbers wx(memory_, k_ * d_);
  Vector memory, w(weights), p(weights);
  for (Several own = going(runs); left > 0 && !own.empty(); own = going(runs)) {
    // The child of a fork begins again where its parent was: some runs may have had this pass.
    std::int64_t n_iter = own.front()->n_iter;
    for (const Run* run : own) n_iter = std::min(n_iter, run->n_iter);
    for (Run* run : own) {
      if (run->n_iter > n_iter) continue;
      poll_between_calls();
      double objective = 0;
      pass(candidate(*run, memory), &run->alpha, 1, n_threads, wx.get(), w.data(), p.data(), &objective);
      ++run->n_iter;
      advance_one(*run, wx.get(), w.data(), p.data(), objective, reference);
    }
    if (rules_.compete) give_up_losing_runs(runs);
    --left;
  }
}

// Where the run goes next, as `propose` writes it, but without a copy where it is a vector of the run.
// `memory` is for a proposal that may not be changed.
const double* Solver::candidate(Run& run, Vector& memory) const {
  if (rules_.space != Space::unit) {
    if (!run.leap.empty()) return run.leap.data();
    if (run.step.empty()) return run.centroids.data();
  }
  Vector& there = run.leap.empty() ? run.spare[0] : memory;
  there.resize(run.centroids.size());
  propose(run, there.data());
  return there.data();
}

void Solver::advance_one(Run& run, const double* wx, const double* w, const double* p,
                         double objective, const double* reference) const {
  if (!std::isfinite(objective)) objective = kInfinity;  // centroids so far away that J overflows
  const bool rises = objective > run.objective + rules_.resolution * std::fabs(run.objective);
  if (rises && !run.leap.empty()) {
    run.spare[0] = std::move(run.leap);
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
  const bool leapt = !run.leap.empty(), stepped = !run.step.empty();
  Vector next = std::move(leapt ? run.leap : run.spare[0]);
  run.leap.clear();
  if (leapt) {
    make_allowed(next.data());
  } else {
    next.resize(run.centroids.size());
    propose(run, next.data());
  }
  std::swap(next, run.centroids);
  run.objective = objective;
  run.history.push_back(objective);
  run.n_halvings = 0;
  const bool bounded = !rules_.low.empty() && rules_.space != Space::unit;
  run.jumping = run.held = false;
  run.size = 1;
  const bool shorten = stepped && !leapt;  // if the step points back
  const Pass pass{wx, w, p, reference};
  const TurningSums sums = is_long() ? turn_long(run, std::move(next), pass, shorten)
                                     : turn_short(run, std::move(next), pass, shorten);
  run.n_jumps += run.jumping;
  run.remembers = false;
  const double length = std::sqrt(sums.length);
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
    Vector& proposal = run.spare[0];
    proposal.resize(run.step.size());
    if (is_long() ? long_leap(run, k_, d_, sums, bounded, rules_, proposal.data())
                  : leap(run, bounded, rules_, proposal)) {
      run.leap = std::move(proposal);
      proposal.clear();
    }
    run.remembers = true;
  }
}

// Where the run goes next, written to `there`: the proposal, or a share of the step.
void Solver::propose(const Run& run, double* there) const {
  const Vector& from = run.leap.empty() ? run.centroids : run.leap;
  if (run.leap.empty() && !run.step.empty())
    for (std::size_t i = 0; i < from.size(); ++i) there[i] = from[i] + run.size * run.step[i];
  else
    std::copy(from.begin(), from.end(), there);
  make_allowed(there);
}

// Replaces the step of a run, of which `before` were the centroids before.
TurningSums Solver::turn_short(Run& run, Vector before, const Pass& pass, bool shorten) const {
  Vector last_step = std::move(run.step);
  run.step = std::move(run.spare[1]);
  run.step.resize(before.size());
  Rule rule;
  for (std::int64_t i = 0; i < k_; ++i)
    step_numbers(run, pass, i, 0, d_, rule, run.step.data() + i * d_);
  if (shorten) run.size = secant_size(run.centroids, before, run.step, last_step);
  if (run.remembers) {
    run.past_centroids.push_back(std::move(before));
    run.past_steps.push_back(std::move(last_step));
    if (static_cast<std::int64_t>(run.past_steps.size()) > rules_.window) {
      drop_oldest(run.past_centroids, run.spare[0]);
      drop_oldest(run.past_steps, run.spare[1]);
    }
  } else {
    run.spare[0] = std::move(before);
    run.spare[1] = std::move(last_step);
  }
  TurningSums sums{};
  sums.length = dot(run.step, run.step);
  return sums;
}

// The same for long centroids. The new step replaces the last one in its memory, and the newest turn and
// move the oldest.
TurningSums Solver::turn_long(Run& run, Vector before, const Pass& pass, bool shorten) const {
  run.step.resize(before.size(), 0.0);
  Turning t{before.data(), run.centroids.data(), run.step.data(), nullptr, {}, nullptr, nullptr, 0};
  if (run.remembers) {
    for (auto* kept : {&run.turns, &run.moves}) {
      if (static_cast<std::int64_t>(kept->size()) == rules_.window) {
        std::rotate(kept->begin(), kept->begin() + 1, kept->end());
      } else if (run.unused.empty()) {
        kept->emplace_back(before.size());
      } else {
        kept->push_back(std::move(run.unused.back()));
        run.unused.pop_back();
      }
    }
    t.n = static_cast<int>(run.turns.size());
    for (std::size_t j = 0; j + 1 < run.turns.size(); ++j) t.turns[j] = run.turns[j].data();
    t.turn = run.turns.back().data();
    t.move = run.moves.back().data();
  }
  TurningSums sums{};
  std::vector<Rule> rules(static_cast<std::size_t>(k_));
  Vector fresh(static_cast<std::size_t>(std::min(kLongPiece, d_)));
  t.fresh = fresh.data();
  for_pieces(k_, d_, [&](std::int64_t i, std::int64_t begin, std::int64_t end) {
    step_numbers(run, pass, i, begin, end, rules[static_cast<std::size_t>(i)], fresh.data());
    kernels().turn(t, i * d_ + begin, end - begin, &sums);
  });
  if (shorten) run.size = secant_size(sums.along, sums.way, sums.fall);
  run.spare[0] = std::move(before);
  return sums;
}

// Writes the features begin to end of the step of centroid i. `rule` is found with the first of them.
void Solver::step_numbers(Run& run, const Pass& pass, std::int64_t i, std::int64_t begin,
                          std::int64_t end, Rule& rule, double* step) const {
  const bool may_jump = run.n_jumps < kMaxWeakJumps;
  const double *at = run.centroids.data() + i * d_, *wx = pass.wx + i * d_;
  bool held = false;
  if (rules_.space == Space::features) {
    run.jumping |= features_step(may_jump, at, wx, pass.w + i * d_, pass.p + i * d_, pass.reference,
                                 begin, end, step);
    held = hold(at, begin, end, step);
  } else if (rules_.space == Space::unit) {
    if (begin == 0) rule = unit_rule(may_jump, at, wx, pass.w[i], pass.p[i], pass.reference);
    unit_step(rule, at, wx, pass.w[i], pass.reference, begin, end, step);
    run.jumping |= rule.weak;
  } else {
    if (begin == 0) rule = free_rule(may_jump, at, wx, pass.w[i], pass.p[i], pass.reference);
    if (is_long()) {
      const bool moves = pass.w[i] != 0, bounded = !rules_.low.empty();
      held = kernels().free({at, wx, pass.reference, bounded ? rules_.low.data() : nullptr,
                             rules_.high.data(), moves ? pass.w[i] : 1, moves ? rule.share : 0},
                            begin, end, step);
    } else {
      free_step(rule, at, wx, pass.w[i], pass.reference, begin, end, step);
      held = hold(at, begin, end, step);
    }
    run.jumping |= rule.weak;
  }
  run.held |= held;
}

// Shortens a step that would leave the bounds, and returns whether there was one.
bool Solver::hold(const double* at, std::int64_t begin, std::int64_t end, double* step) const {
  if (rules_.low.empty()) return false;
  bool held = false;
  for (std::int64_t j = begin; j < end; ++j) {
    double& own = step[j - begin];
    const std::size_t c = static_cast<std::size_t>(j);
    const double there = at[j] + own;
    const double nearest = std::min(std::max(there, rules_.low[c]), rules_.high[c]);
    const bool inside = nearest == there || std::isnan(own);
    own = inside ? own : nearest - at[j];
    held = held || !inside;
  }
  return held;
}

Solver::Rule Solver::free_rule(bool may_jump, const double* at, const double* wx, double w, double p,
                               const double* reference) const {
  // If B is near zero, the ratio may be far away on either side, whereas the damped step points to
  // where J falls.
  Rule rule;
  rule.weak = may_jump && w < kTheta * p;
  for (std::int64_t j = 0; rule.weak && j < d_; ++j)
    rule.weak = inside(j, ratio(at[j], wx[j], w, reference[j]));
  // If B >= theta P, the share is 1, and the step is A / B - C.
  rule.share = w / std::max(w, kTheta * p);
  if (rule.weak || !std::isfinite(rule.share)) rule.share = 1;
  return rule;
}

void Solver::free_step(const Rule& rule, const double* at, const double* wx, double w,
                       const double* reference, std::int64_t begin, std::int64_t end,
                       double* step) const {
  for (std::int64_t j = begin; j < end; ++j)
    step[j - begin] = rule.share * (ratio(at[j], wx[j], w, reference[j]) - at[j]);
}

// On the sphere the distance is 1 - x . c, so that J falls fastest along the part of A that is
// tangent to the sphere, A - L C with L = A . C. The step is this part over max(L, theta P). If
// L >= theta P, it leads to A / L, which is a point of the direction of A: there the next centroid
// is. A weak column goes to the direction of the exact ratio A / B.
Solver::Rule Solver::unit_rule(bool may_jump, const double* at, const double* wx, double w, double p,
                               const double* reference) const {
  Rule rule;
  rule.weak = may_jump && w < kTheta * p;
  double square = 0;
  for (std::int64_t j = 0; j < d_; ++j) {
    const double a = wx[j] + w * reference[j];
    rule.along += a * at[j];
    square += a * a;
    rule.weak = rule.weak && inside(j, a / w);
  }
  rule.weak = rule.weak && square > 0;
  rule.share = 1 / std::max(rule.along, kTheta * p);
  rule.to_ratio = (w < 0 ? -1 : 1) / std::sqrt(square);
  return rule;
}

void Solver::unit_step(const Rule& rule, const double* at, const double* wx, double w,
                       const double* reference, std::int64_t begin, std::int64_t end,
                       double* step) const {
  for (std::int64_t j = begin; j < end; ++j) {
    const double a = wx[j] + w * reference[j];
    if (rule.weak) step[j - begin] = rule.to_ratio * a - at[j];
    else step[j - begin] = std::isfinite(rule.share) ? rule.share * (a - rule.along * at[j]) : 0;
  }
}

// The same as for free centroids for each feature, since A, B and P are sums over other rows for each.
bool Solver::features_step(bool may_jump, const double* at, const double* wx, const double* w,
                           const double* p, const double* reference, std::int64_t begin,
                           std::int64_t end, double* step) const {
  bool any = false;
  for (std::int64_t j = begin; j < end; ++j) {
    const double to = ratio(at[j], wx[j], w[j], reference[j]);
    const bool weak = may_jump && w[j] < kTheta * p[j] && inside(j, to);
    const double share = w[j] / std::max(w[j], kTheta * p[j]);
    step[j - begin] = (weak || !std::isfinite(share) ? 1 : share) * (to - at[j]);
    any = any || weak;
  }
  return any;
}

// Only runs with a proposal of Anderson's are given up, since their decreases of J become smaller
// and smaller. Lloyd's iteration, which has no proposals, may decrease J by much after small
// decreases: with the same rule it lost its best run in 4 of 125 fits (by up to 0.9 % of J), and
// saved a quarter of the passes.
void Solver::give_up_losing_runs(const Several& runs) const {
  std::map<double, double> best;  // objective, by alpha
  for (const Run* run : runs)
    if (run->converged) {
      const auto entry = best.emplace(run->alpha, run->objective).first;
      entry->second = std::min(entry->second, run->objective);
    }
  for (Run* one : runs) {
    Run& run = *one;
    const std::size_t n = run.history.size();
    const auto lowest = best.find(run.alpha);
    if (run.done || run.jumping || run.leap.empty() || n < 4 || lowest == best.end()) continue;
    // A rise, caused by rounding, counts as a decrease of 0, so that a run at the best J is kept.
    const double fall = std::max({0.0, run.history[n - 3] - run.history[n - 2],
                                  run.history[n - 2] - run.history[n - 1]});
    if (run.objective - kFallsToReachBest * fall > lowest->second) run.done = run.given_up = true;
  }
  for (Run* run : runs) {
    if (!run->done) continue;
    forget(*run);  // a finished run needs its past no more
    for (Vector& spare : run->spare) Vector().swap(spare);
    run->unused.clear();
  }
}

}  // namespace ekmfast
