// Compares the kernels of every instruction set of this processor with the formulas in double. It
// needs no Python, so that it can run on emulated processors and with sanitizers. It prints the
// largest errors, and exits with 1 if one is too large. tests/test_native.py and tests/sanitized build
// and run it.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "ekm.h"
#include "mixture.h"
#include "simd/dispatch.h"

namespace {

using i64 = std::int64_t;
using Vector = std::vector<double>;

// Errors are relative to the sum of the absolute values of the terms.
template <class T>
constexpr double kTolerance = sizeof(T) == 4 ? 3e-6 : 1e-14;

bool failed = false;

struct Worst {
  double error = 0;
  void take(double got, double wanted, double scale) {
    const double e = std::fabs(got - wanted) / (scale > 0 ? scale : 1.0);
    if (!(e <= error)) error = e;  // a NaN is the worst
  }
};

template <class T>
void report(const char* isa, const char* what, const Worst& worst, double tolerance) {
  const bool bad = !(worst.error <= tolerance);
  failed = failed || bad;
  std::printf("%-7s %-8s %-22s %.2e%s\n", isa, sizeof(T) == 4 ? "float32" : "float64", what,
              worst.error, bad ? "  TOO LARGE" : "");
}

std::size_t size(i64 count) { return static_cast<std::size_t>(count); }

template <class T>
struct Problem {
  i64 n, k, d;
  double alpha;
  std::vector<T> x, s;
  Vector c;

  Problem(i64 n_, i64 k_, i64 d_, unsigned seed) : n(n_), k(k_), d(d_) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::uniform_real_distribution<double> uniform(0.5, 2);
    alpha = 2.0 / static_cast<double>(d);
    for (i64 i = 0; i < n * d; ++i) x.push_back(static_cast<T>(3 + normal(random)));
    for (i64 i = 0; i < n; ++i) s.push_back(static_cast<T>(uniform(random)));
    for (i64 i = 0; i < k * d; ++i) c.push_back(3 + normal(random));
  }

  ekmfast::Samples<T> samples() const { return {x.data(), n, d, d, s.data()}; }

  double half_square(i64 row, const double* point) const {
    double sum = 0;
    for (i64 j = 0; j < d; ++j) {
      const double y = static_cast<double>(x[static_cast<std::size_t>(row * d + j)]) - point[j];
      sum += y * y;
    }
    return 0.5 * sum;
  }

  // p and w of a row, and its part of the objective
  double row(i64 i, Vector& p, Vector& w) const {
    Vector distance(static_cast<std::size_t>(k));
    for (i64 j = 0; j < k; ++j)
      distance[static_cast<std::size_t>(j)] = half_square(i, c.data() + j * d);
    const double least = *std::min_element(distance.begin(), distance.end());
    double total = 0, mean = 0;
    for (std::size_t j = 0; j < distance.size(); ++j)
      total += p[j] = std::exp(-alpha * (distance[j] - least));
    for (std::size_t j = 0; j < distance.size(); ++j) mean += (p[j] /= total) * distance[j];
    for (std::size_t j = 0; j < distance.size(); ++j)
      w[j] = p[j] * (1 - alpha * (distance[j] - mean));
    return mean;
  }
};

template <class T>
struct Errors {
  Worst sums, objective, weights, distances, labels, potentials, accumulated;
};

// Rows with gaps between them in memory, where nothing follows the last feature of the last row,
// and two problems at once, of which the first must give the same sums as alone. The other
// weightings only run, so that a sanitizer can find errors.
template <class T>
void check_apart(const Problem<T>& problem, const Vector& wx, const Vector& sum_w, double objective,
                 const Vector& scale_wx, const Vector& scale_w, const std::vector<T>& reference,
                 int n_threads, Errors<T>& errors) {
  const i64 n = problem.n, k = problem.k, d = problem.d, stride = d + 3;
  std::vector<T> apart(size((n - 1) * stride + d), std::numeric_limits<T>::quiet_NaN());
  for (i64 i = 0; i < n; ++i)
    for (i64 f = 0; f < d; ++f) apart[size(i * stride + f)] = problem.x[size(i * d + f)];
  Vector centroids = problem.c;
  centroids.insert(centroids.end(), problem.c.rbegin(), problem.c.rend());
  const Vector alphas = {problem.alpha, problem.alpha / 2};
  for (const auto weighting : {ekmfast::Weighting::equilibrium, ekmfast::Weighting::hard,
                               ekmfast::Weighting::maximum_entropy, ekmfast::Weighting::fuzzy})
    for (const T* sample_weight : {problem.s.data(), static_cast<const T*>(nullptr)}) {
      const ekmfast::Samples<T> samples = {apart.data(), n, d, stride, sample_weight};
      Vector both_wx(size(2 * k * d)), both_w(size(2 * k)), both_p(size(2 * k)),
          exponent(size(2 * k)), both_objective(2);
      ekmfast::statistics(samples, centroids.data(), alphas.data(), 2, k, reference.data(),
                          weighting, 2.0, true, n_threads, both_wx.data(), both_w.data(),
                          both_p.data(), exponent.data(), both_objective.data());
      for (double value : both_objective) errors.objective.take(std::isfinite(value), 1, 1);
      if (weighting != ekmfast::Weighting::equilibrium || !sample_weight) continue;
      errors.objective.take(both_objective[0], objective, objective);
      for (i64 j = 0; j < k; ++j) {
        errors.sums.take(both_w[size(j)], sum_w[size(j)], scale_w[size(j)]);
        for (i64 f = 0; f < d; ++f)
          errors.sums.take(both_wx[size(j * d + f)], wx[size(j * d + f)],
                           scale_wx[size(j * d + f)] + scale_w[size(j)]);
      }
    }
}

template <class T>
void check(const Problem<T>& problem, int n_threads, Errors<T>& errors) {
  const i64 n = problem.n, k = problem.k, d = problem.d;
  const auto samples = problem.samples();
  std::vector<T> reference(size(d));
  ekmfast::find_reference(samples, reference.data());

  Vector wx(size(k * d)), sum_w(size(k)), sum_p(size(k)), exponent(size(k)), objective(1);
  ekmfast::statistics(samples, problem.c.data(), &problem.alpha, 1, k, reference.data(),
                      ekmfast::Weighting::equilibrium, 2.0, true, n_threads, wx.data(),
                      sum_w.data(), sum_p.data(), exponent.data(), objective.data());
  std::vector<T> weights(size(n * k));
  ekmfast::weights(samples, problem.c.data(), problem.alpha, k, reference.data(), n_threads,
                   weights.data());
  std::vector<std::int32_t> labels(size(n));
  std::vector<T> distances(size(n));
  ekmfast::assign(samples, problem.c.data(), k, reference.data(), n_threads, labels.data(),
                  distances.data());

  Vector p(size(k)), w(size(k)), want_wx(size(k * d)), scale_wx(size(k * d)), want_w(size(k)),
      want_p(size(k)), scale_w(size(k));
  double want_objective = 0;
  for (i64 i = 0; i < n; ++i) {
    const double s = static_cast<double>(problem.s[size(i)]);
    want_objective += s * problem.row(i, p, w);
    double nearest = std::numeric_limits<double>::infinity();
    for (i64 j = 0; j < k; ++j) {
      nearest = std::min(nearest, 2 * problem.half_square(i, problem.c.data() + j * d));
      errors.weights.take(static_cast<double>(weights[size(i * k + j)]), w[size(j)], 1);
      want_w[size(j)] += s * w[size(j)];
      scale_w[size(j)] += s * std::fabs(w[size(j)]);
      want_p[size(j)] += s * p[size(j)];
      for (i64 f = 0; f < d; ++f) {
        const double y = static_cast<double>(problem.x[size(i * d + f)]) -
                         static_cast<double>(reference[size(f)]);
        want_wx[size(j * d + f)] += s * w[size(j)] * y;
        scale_wx[size(j * d + f)] += s * std::fabs(w[size(j)] * y);
      }
    }
    const double chosen =
        2 * problem.half_square(i, problem.c.data() + static_cast<i64>(labels[size(i)]) * d);
    errors.distances.take(static_cast<double>(distances[size(i)]), chosen, chosen);
    errors.labels.take(chosen, nearest, nearest);
  }
  for (i64 j = 0; j < k; ++j) {
    const double unit = std::exp2(exponent[size(j)]);
    errors.sums.take(sum_w[size(j)] * unit, want_w[size(j)], scale_w[size(j)]);
    errors.sums.take(sum_p[size(j)] * unit, want_p[size(j)], want_p[size(j)]);
    for (i64 f = 0; f < d; ++f) {
      // If the reference lies on a row, the sum of a feature may consist only of rounding errors.
      const double scale = scale_wx[size(j * d + f)] + scale_w[size(j)];
      errors.sums.take(wx[size(j * d + f)] * unit, want_wx[size(j * d + f)], scale);
    }
  }
  errors.objective.take(objective[0], want_objective, want_objective);

  std::vector<T> so_far(size(n), std::numeric_limits<T>::infinity());
  double potential = 0, want_potential = 0;
  ekmfast::closest(samples, problem.c.data(), 1, 1, reference.data(), n_threads, true,
                   so_far.data(), &potential);
  for (i64 i = 0; i < n; ++i) {
    const double square = 2 * problem.half_square(i, problem.c.data());
    want_potential += static_cast<double>(problem.s[size(i)]) * square;
    errors.distances.take(static_cast<double>(so_far[size(i)]), square, square + 1);
  }
  errors.potentials.take(potential, want_potential, want_potential);

  check_apart(problem, wx, sum_w, objective[0], scale_wx, scale_w, reference, n_threads, errors);

  Vector again(size(k * d)), again_w(size(k));
  ekmfast::accumulate(samples, weights.data(), k, reference.data(), n_threads, again.data(),
                      again_w.data());
  for (i64 j = 0; j < k; ++j) {
    double want = 0, scale = 0;
    for (i64 i = 0; i < n; ++i) {
      const double value = static_cast<double>(weights[size(i * k + j)]);
      want += value;
      scale += std::fabs(value);
    }
    errors.accumulated.take(again_w[size(j)], want, scale);
    for (i64 f = 0; f < d; ++f) {
      double want_x = 0, scale_x = 1;
      for (i64 i = 0; i < n; ++i) {
        const double term = static_cast<double>(weights[size(i * k + j)]) *
                            (static_cast<double>(problem.x[size(i * d + f)]) -
                             static_cast<double>(reference[size(f)]));
        want_x += term;
        scale_x += std::fabs(term);
      }
      errors.accumulated.take(again[size(j * d + f)], want_x, scale_x);
    }
  }
}

// One in twenty weights is not zero, so that rows are gathered.
template <class T>
void check_sparse(const Problem<T>& problem, Errors<T>& errors) {
  const i64 n = problem.n, k = problem.k, d = problem.d;
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform(0, 20);
  std::vector<T> weights(size(n * k)), reference(size(d));
  for (T& w : weights) {
    const double drawn = uniform(random);
    w = static_cast<T>(drawn < 1 ? drawn - 0.5 : 0);
  }
  Vector wx(size(k * d)), sum_w(size(k));
  ekmfast::accumulate(problem.samples(), weights.data(), k, reference.data(), 1, wx.data(),
                      sum_w.data());
  for (i64 j = 0; j < k; ++j)
    for (i64 f = 0; f < d; ++f) {
      double want = 0, scale = 1;
      for (i64 i = 0; i < n; ++i) {
        const double term = static_cast<double>(weights[size(i * k + j)]) *
                            static_cast<double>(problem.x[size(i * d + f)]);
        want += term;
        scale += std::fabs(term);
      }
      errors.accumulated.take(wx[size(j * d + f)], want, scale);
    }
}

// A Student and a Gaussian mixture in one pass, over rows with gaps between them in memory.
template <class T>
void check_mixture(const Problem<T>& problem, bool full, int n_threads, Worst& sums,
                   Worst& densities) {
  const i64 n = problem.n, k = problem.k, d = problem.d, stride = d + 3;
  const double unit = 1.5;
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  std::vector<T> apart(size((n - 1) * stride + d), std::numeric_limits<T>::quiet_NaN());
  for (i64 i = 0; i < n; ++i)
    for (i64 f = 0; f < d; ++f) apart[size(i * stride + f)] = problem.x[size(i * d + f)];
  const ekmfast::Samples<T> samples = {apart.data(), n, d, stride, problem.s.data()};
  const i64 matrix = full ? d * d : d;
  Vector centre(size(d), 3.1), means(size(2 * k * d)), whiteners(size(2 * k * matrix)),
      offsets(size(2 * k));
  for (double& mean : means) mean = 0.5 * normal(random);
  for (double& offset : offsets) offset = normal(random);
  for (i64 i = 0; i < 2 * k; ++i)
    for (i64 row = 0; row < d; ++row)
      for (i64 f = full ? 0 : row; f <= row; ++f)  // column `row`, from row f on
        whiteners[size(i * matrix + (full ? f * d + row : row))] =
            f == row ? 1 + 0.1 * std::fabs(normal(random)) : 0.2 * normal(random) / std::sqrt(d);
  const Vector degrees = {5, std::numeric_limits<double>::infinity()};
  // The first has a background, about as dense as its components.
  const Vector background = {-2 - 0.5 * static_cast<double>(d),
                             -std::numeric_limits<double>::infinity()};
  const ekmfast::Mixtures both = {2, k, full, means.data(), whiteners.data(), offsets.data(),
                                  degrees.data(), background.data()};
  Vector mass(size(2 * k)), weight(size(2 * k)), first(size(2 * k * d)),
      second(size(2 * k * matrix)), beside(2), likelihood(2), classified(2);
  ekmfast::expectation(samples, both, centre.data(), unit, n_threads, mass.data(), weight.data(),
                       first.data(), second.data(), beside.data(), likelihood.data(),
                       classified.data());
  for (i64 m = 0; m < 2; ++m) {
    const double v = degrees[size(m)], dimensions = static_cast<double>(d);
    const ekmfast::Mixtures one = {1, k, full, means.data() + m * k * d,
                                   whiteners.data() + m * k * matrix, offsets.data() + m * k,
                                   &degrees[size(m)], &background[size(m)]};
    std::vector<T> joint(size(n * k)), largest(size(n)), density(size(n));
    std::vector<std::int32_t> labels(size(n));
    ekmfast::densities(samples, one, centre.data(), unit, n_threads, joint.data(), labels.data(),
                       largest.data(), density.data());
    Vector want_mass(size(k)), want_weight(size(k)), want_first(size(k * d)),
        scale_first(size(k * d)), want_second(size(k * matrix)), scale_second(size(k * matrix));
    double want_beside = 0, want_likelihood = 0, want_classified = 0, scale = 0;
    for (i64 i = 0; i < n; ++i) {
      Vector t(size(k)), u(size(k)), y(size(k * d));
      for (i64 j = 0; j < k; ++j) {
        double q = 0;
        for (i64 f = 0; f < d; ++f)
          y[size(j * d + f)] =
              (static_cast<double>(problem.x[size(i * d + f)]) - centre[size(f)]) / unit -
              one.means[j * d + f];
        for (i64 f = 0; f < d; ++f) {
          double z = 0;
          for (i64 row = full ? 0 : f; row <= f; ++row)
            z += y[size(j * d + row)] * one.whiteners[j * matrix + (full ? row * d + f : f)];
          q += z * z;
        }
        t[size(j)] = one.offsets[j] -
                     (std::isinf(v) ? q / 2 : (v + dimensions) / 2 * std::log1p(q / v));
        u[size(j)] = std::isinf(v) ? 1 : (v + dimensions) / (v + q);
        densities.take(static_cast<double>(joint[size(i * k + j)]), t[size(j)],
                       std::fabs(t[size(j)]) + 1);
      }
      const double constant = background[size(m)],
                   most = std::max(*std::max_element(t.begin(), t.end()), constant);
      double total = std::exp(constant - most);
      for (double value : t) total += std::exp(value - most);
      const double all = most + std::log(total), s = static_cast<double>(problem.s[size(i)]);
      densities.take(static_cast<double>(density[size(i)]), all, std::fabs(all) + 1);
      densities.take(static_cast<double>(largest[size(i)]), most, std::fabs(most) + 1);
      const std::int32_t label = labels[size(i)];
      densities.take(label < 0 ? constant : t[size(label)], most, std::fabs(most) + 1);
      want_beside += s * std::exp(constant - all);
      want_likelihood += s * all;
      want_classified += s * most;
      scale += s * (std::fabs(all) + std::fabs(most));
      for (i64 j = 0; j < k; ++j) {
        const double r = s * std::exp(t[size(j)] - all), w = r * u[size(j)];
        const double* c = y.data() + j * d;
        want_mass[size(j)] += r;
        want_weight[size(j)] += w;
        for (i64 a = 0; a < d; ++a) {
          want_first[size(j * d + a)] += w * c[a];
          scale_first[size(j * d + a)] += w * std::fabs(c[a]);
          for (i64 b = full ? 0 : a; b < (full ? d : a + 1); ++b) {
            const i64 at = j * matrix + (full ? a * d + b : a);
            want_second[size(at)] += w * c[a] * c[b];
            scale_second[size(at)] += w * std::fabs(c[a] * c[b]);
          }
        }
      }
    }
    sums.take(beside[size(m)], want_beside, want_beside + 1e-3 * static_cast<double>(n));
    sums.take(likelihood[size(m)], want_likelihood, scale);
    sums.take(classified[size(m)], want_classified, scale);
    // Memberships far below those of other components have large relative errors.
    const double least = 1e-3 * static_cast<double>(n);
    for (i64 j = 0; j < k; ++j) {
      sums.take(mass[size(m * k + j)], want_mass[size(j)], want_mass[size(j)] + least);
      sums.take(weight[size(m * k + j)], want_weight[size(j)], want_weight[size(j)] + least);
    }
    for (i64 j = 0; j < k * d; ++j)
      sums.take(first[size(m * k * d + j)], want_first[size(j)], scale_first[size(j)] + least);
    for (i64 j = 0; j < k * matrix; ++j)
      sums.take(second[size(m * k * matrix + j)], want_second[size(j)],
                scale_second[size(j)] + least);
  }
}

template <class T>
void check_all(const char* isa) {
  Errors<T> errors;
  const i64 shapes[][3] = {{1, 1, 1},   {2, 2, 1},    {47, 3, 2},   {500, 3, 2},   {333, 8, 8},
                           {97, 5, 7},  {211, 9, 29}, {211, 7, 30}, {130, 16, 33}, {70, 33, 128},
                           {50, 3, 257}, {1501, 13, 17},
                           {49, 1, 32}, {101, 4, 64}, {33, 2, 100},
                           {700, 8, 8}, {900, 4, 2}, {150, 70, 130}, {300, 5, 40}, {200, 2, 700}};
  unsigned seed = 0;
  for (const auto& shape : shapes)
    for (int n_threads : {1, 2})
      check<T>(Problem<T>(shape[0], shape[1], shape[2], ++seed), n_threads, errors);
  const i64 sparse_shapes[][3] = {{500, 17, 30}, {97, 16, 65}, {1, 16, 64}, {333, 20, 140},
                                  {48, 16, 257}, {1000, 16, 64}};
  for (const auto& shape : sparse_shapes)
    check_sparse<T>(Problem<T>(shape[0], shape[1], shape[2], ++seed), errors);
  // A centroid far from all rows, whose column is recomputed (rescue.cpp) over several chunks.
  for (int n_threads : {1, 2}) {
    Problem<T> far(9000, 3, 5, ++seed);
    for (std::size_t f = far.c.size() - 5; f < far.c.size(); ++f) far.c[f] += 100;
    check<T>(far, n_threads, errors);
  }
  Worst mixture_sums, mixture_densities;
  const i64 mixture_shapes[][3] = {{1, 1, 1},  {47, 2, 3},  {49, 3, 5},   {300, 3, 8}, {211, 9, 9},
                                   {97, 4, 16}, {130, 5, 21}, {70, 2, 33}, {3500, 3, 4}};
  for (const auto& shape : mixture_shapes)
    for (const bool full : {false, true})
      check_mixture<T>(Problem<T>(shape[0], shape[1], shape[2], ++seed), full, 2, mixture_sums,
                       mixture_densities);
  report<T>(isa, "sums", errors.sums, kTolerance<T>);
  report<T>(isa, "objective", errors.objective, kTolerance<T>);
  report<T>(isa, "weights", errors.weights, kTolerance<T>);
  report<T>(isa, "squared distances", errors.distances, kTolerance<T>);
  report<T>(isa, "nearest centroid", errors.labels, kTolerance<T>);
  report<T>(isa, "potentials", errors.potentials, kTolerance<T>);
  report<T>(isa, "sums of given weights", errors.accumulated, kTolerance<T>);

  // The relative error of a membership is the absolute error of its log density.
  report<T>(isa, "sums of mixtures", mixture_sums, 10 * kTolerance<T>);
  report<T>(isa, "densities of mixtures", mixture_densities, kTolerance<T>);

  Worst exponentials;
  std::vector<T> x, y;
  const double lowest = sizeof(T) == 4 ? -100 : -900;
  for (double v = lowest; v <= 0; v += 0.00390625 * 0.37) x.push_back(static_cast<T>(v));
  y.resize(x.size());
  ekmfast::exp2_kernel(x.data(), static_cast<i64>(x.size()), y.data());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double want = std::exp2(static_cast<double>(x[i]));
    exponentials.take(static_cast<double>(y[i]) / want, 1, 1);
  }
  report<T>(isa, "2^x", exponentials, sizeof(T) == 4 ? 3e-7 : 6e-16);
}

}  // namespace

int main() {
  int n_checked = 0;
  for (ekmfast::Isa isa : ekmfast::kAllIsas) {
    if (!ekmfast::isa_available(isa)) continue;
    ekmfast::set_isa(isa);
    check_all<float>(ekmfast::isa_name(isa));
    check_all<double>(ekmfast::isa_name(isa));
    ++n_checked;
  }
  std::printf("%d instruction sets checked\n", n_checked);
  return failed ? 1 : 0;
}
