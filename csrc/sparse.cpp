#include "sparse.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>

#include "driver.h"
#include "kernels/kernels.h"
#include "parallel.h"
#include "rescue.h"
#include "simd/dispatch.h"
#include "sparse_driver.h"

namespace ekmfast {
namespace {

double work(const SparseSamples& s, i64 k) {
  // A number of a row costs two lines of centroids, a score ten multiply-adds (see ekm.cpp).
  return static_cast<double>(k) *
         (4 * static_cast<double>(s.n_stored()) + 10 * static_cast<double>(s.n));
}

// Centroids as the kernels read them. Scores have a scale q (see kernels.h), distances have none.
struct Lines {
  KeptNumbers lines;
  std::vector<double> bias;
  SparseCentroids view;

  Lines(const SparseSamples& s, const double* centroids, i64 k, double q, bool for_distances,
        int n_threads)
      : lines(s.memory, s.d * padded(k)), bias(static_cast<std::size_t>(padded(k))) {
    const i64 d = s.d;
    const i64 kp = padded(k), n_tasks = (d + kTileColumns - 1) / kTileColumns;
    double* out = lines.get();
    // The squares of each centroid, summed for each task, and then in the order of the tasks.
    std::vector<double> squares(static_cast<std::size_t>(n_tasks * kp));
    parallel_for(n_tasks, n_threads, [&](i64 task, int) {
      if (task % 64 == 0) checkpoint();
      const i64 first = task * kTileColumns, last = std::min(d, first + kTileColumns);
      table().to_lines(centroids, d, k, kp, q, first, last, out, squares.data() + task * kp);
    });
    if (for_distances) {
      table().sparse_norms(out, d, kp, bias.data());
    } else {
      for (std::size_t at = 0; at < squares.size(); ++at)
        bias[at % static_cast<std::size_t>(kp)] += squares[at];
      for (double& b : bias) b *= -0.5 * q;
    }
    view = {k, kp, out, bias.data(), 1 / q, 1};
  }
};

// Sums over all rows: `sum_lines`. `weigh(begin, end, weights, sums)` adds to its `sums`, whose sum_wx it
// leaves alone.
// OUT sum_wx (k, d), totals (2 k + 1,): sum_w, sum_p and the objective.
template <class Kernel, class Rows, class Weigh>
void sum_rows(const SparseSamples& s, const Rows& rows, const Kernel& kernels, i64 k,
              int n_threads, Weigh weigh, double* sum_wx, double* totals) {
  const i64 kp = padded(k), d = s.d;
  if (s.n == 0) std::fill(sum_wx, sum_wx + k * d, 0.0);
  sum_lines(
      s, kp, kp, 2 * k + 1, n_threads,
      [&](i64 begin, i64 end, double* weights, double* at) {
        weigh(begin, end, weights, Sums{nullptr, at, at + k, at + 2 * k});
      },
      [&](i64 begin, i64 end, i64 left, i64 right, const double* weights, double* lines) {
        kernels.scatter(rows, begin, end, left, right, weights, kp, lines);
      },
      [&](const double* lines, i64 left, i64 right, bool add) {
        take_lines(lines, left, right, kp, k, d, add, sum_wx);
      },
      totals);
}

// log2 of the memberships of a row from its scores, never clamped, and in `scores` the scores
// relative to the largest. Returns the mean of these under the memberships.
double unclamped(double* scores, i64 k, double* log_p) {
  double best = -std::numeric_limits<double>::infinity(), total = 0, moment = 0;
  for (i64 i = 0; i < k; ++i) best = std::max(best, scores[i]);
  for (i64 i = 0; i < k; ++i) {
    scores[i] -= best;
    const double u = std::exp2(scores[i]);
    total += u;
    if (u > 0) moment += u * scores[i];
  }
  for (i64 i = 0; i < k; ++i) log_p[i] = scores[i] - std::log2(total);
  return moment / total;
}

// Recomputes columns whose memberships underflow, each with its own scale (see rescue.h).
template <class Kernel, class Rows>
void rescue(const SparseSamples& s, const Rows& rows, const Kernel& kernels, Weighting weighting,
            const SparseCentroids& c, const std::vector<i64>& columns, int n_threads,
            double* sum_wx, double* sum_w, double* sum_p, double* exponent) {
  const double lowest = -std::numeric_limits<double>::infinity();
  const auto weight_of = [&](i64 i) {
    return s.sample_weight.empty() ? 1.0 : s.sample_weight[static_cast<std::size_t>(i)];
  };
  // The scale of a column is its largest membership.
  const std::size_t k = static_cast<std::size_t>(c.k);
  std::vector<double> largest(static_cast<std::size_t>(n_blocks(s.n)) * k, lowest);
  for_blocks(0, s.n, kBlockRows * c.kp, n_threads, [&](i64 begin, i64 end, double* scores) {
    kernels.scores(rows, begin, end, c, scores);
    std::vector<double> log_p(k);
    double* mine = largest.data() + static_cast<std::size_t>(begin / kBlockRows) * k;
    for (i64 i = begin; i < end; ++i) {
      if (!(weight_of(i) > 0)) continue;
      unclamped(scores + (i - begin) * c.kp, c.k, log_p.data());
      for (std::size_t j = 0; j < k; ++j) mine[j] = std::max(mine[j], log_p[j]);
    }
  });
  std::vector<double> scale(k, lowest);
  for (std::size_t i = 0; i < largest.size(); ++i)
    scale[i % k] = std::max(scale[i % k], largest[i]);

  const auto weigh = [&](i64 begin, i64 end, double* weights, const Sums& sums) {
    kernels.scores(rows, begin, end, c, weights);
    std::vector<double> log_p(k);
    for (i64 i = begin; i < end; ++i) {
      double* own = weights + (i - begin) * c.kp;
      const double mean = unclamped(own, c.k, log_p.data());
      for (std::size_t j = 0; j < k; ++j) {
        double p = std::isfinite(scale[j]) && std::isfinite(log_p[j])
                       ? weight_of(i) * std::exp2(log_p[j] - scale[j]) : 0;
        const double w = p > 0 && weighting == Weighting::equilibrium
                             ? p * (1 + kLn2 * (own[j] - mean)) : p;
        own[j] = w;
        sums.sum_p[j] += p;
        sums.sum_w[j] += w;
      }
      std::fill(own + c.k, own + c.kp, 0.0);
    }
  };
  const KeptNumbers all(s.memory, c.k * s.d);
  std::vector<double> totals(2 * k + 1);
  sum_rows(s, rows, kernels, c.k, n_threads, weigh, all.get(), totals.data());
  for (i64 j : columns) {
    const std::size_t at = static_cast<std::size_t>(j);
    sum_w[j] = totals[at];
    sum_p[j] = totals[k + at];
    exponent[j] = std::isfinite(scale[at]) ? scale[at] : 0.0;
    std::copy(all.get() + j * s.d, all.get() + (j + 1) * s.d, sum_wx + j * s.d);
  }
}

double total_weight(const SparseSamples& s) {
  if (s.sample_weight.empty()) return static_cast<double>(s.n);
  return std::accumulate(s.sample_weight.begin(), s.sample_weight.end(), 0.0);
}

double scale_of(const SparseSamples& s, const double* centroids, double alpha, i64 k) {
  const std::vector<double> origin(static_cast<std::size_t>(s.d));
  return exponent_scale<double>(centroids, alpha, k, s.d, origin.data());
}

}  // namespace

SparseOrder check_columns(SparseSamples& s, std::int64_t* row) {
  s.counts.assign(static_cast<std::size_t>(s.d), 0);
  return with_rows(s, [&](const auto& rows, const auto&) {
    SparseOrder order = SparseOrder::ascending;
    for (i64 i = 0; i < s.n; ++i) {
      i64 before = -1;
      for (i64 e = rows.start[i]; e < rows.start[i + 1]; ++e) {
        const i64 j = static_cast<i64>(rows.columns[e]);
        if (j < 0 || j >= s.d) {
          *row = i;
          return SparseOrder::out_of_range;
        }
        if (j <= before) order = SparseOrder::unordered;
        before = j;
        ++s.counts[static_cast<std::size_t>(j)];
      }
    }
    return order;
  });
}

void statistics(const SparseSamples& s, const double* centroids, const double* alpha,
                i64 n_problems, i64 k, Weighting weighting, double fuzzifier, int n_threads,
                double* sum_wx, double* sum_w, double* sum_p, double* exponent,
                double* objective) {
  const i64 d = s.d;
  const bool fuzzy = weighting == Weighting::fuzzy;
  const bool softmax = !fuzzy && weighting != Weighting::hard;
  const double weight = total_weight(s);
  n_threads = useful_threads(n_threads, work(s, k));
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    const auto kernel = kernels.weigh[static_cast<int>(weighting)];
    const i64 bytes = table().sparse_scratch_bytes(k);
    for (i64 problem = 0; problem < n_problems; ++problem) {
      poll_between_calls();
      const double* own = centroids + problem * k * d;
      const double q = softmax ? scale_of(s, own, alpha[problem], k) : 1;
      Lines lines(s, own, k, q, fuzzy, n_threads);
      if (fuzzy) lines.view.inv_q = 0.5;
      lines.view.power = 1 / (fuzzifier - 1);
      double *wx = sum_wx + problem * k * d, *w = sum_w + problem * k, *p = sum_p + problem * k,
             *e = exponent + problem * k;
      std::vector<double> totals(static_cast<std::size_t>(2 * k + 1));
      sum_rows(s, rows, kernels, k, n_threads,
               [&](i64 begin, i64 end, double* weights, const Sums& sums) {
                 const Scratch scratch = allocate_scratch(bytes);
                 kernel(rows, begin, end, lines.view, weights, sums, scratch.get());
               },
               wx, totals.data());
      std::copy(totals.begin(), totals.begin() + k, w);
      std::copy(totals.begin() + k, totals.begin() + 2 * k, p);
      objective[problem] = reported(totals.back(), weighting);
      std::fill(e, e + k, 0.0);
      if (!softmax || s.n == 0 || !std::isfinite(objective[problem])) continue;
      std::vector<i64> columns;
      for (i64 i = 0; i < k; ++i)
        if (underflowed<double>(p[i], weight) ||
            products_underflowed<double>(wx + i * d, d, p[i], weight, s.n))
          columns.push_back(i);
      if (!columns.empty())
        rescue(s, rows, kernels, weighting, lines.view, columns, n_threads, wx, w, p, e);
    }
  });
}

void iterate(Solver& solver, const SparseSamples& s, Weighting weighting, double fuzzifier,
             int n_threads, std::int64_t& left) {
  const i64 k = solver.k(), n_groups = solver.n_groups();
  const auto pass = [&](const double* centroids, const double* alpha, i64 n, int threads,
                        double* sum_wx, double* sum_w, double* sum_p, double* objective) {
    std::vector<double> exponent(static_cast<std::size_t>(n * k));
    statistics(s, centroids, alpha, n, k, weighting, fuzzifier, threads, sum_wx, sum_w, sum_p,
               exponent.data(), objective);
  };
  const std::vector<double> origin(static_cast<std::size_t>(s.d));
  // Problems do not share what a pass reads. Those of several runs at a time, or copies of runs that go on
  // apart from each other, would take memory in vain if the centroids are long.
  Passes passes = n_groups > 1 && n_groups >= n_threads ? Passes::apart : Passes::shared;
  if (solver.is_long()) passes = Passes::single;
  solver.iterate(pass, origin.data(), passes, n_threads, left);
}

template <class U>
double weights(const SparseSamples& s, const double* centroids, double alpha, i64 k,
               int n_threads, U* out) {
  n_threads = useful_threads(n_threads, work(s, k));
  const Lines lines(s, centroids, k, scale_of(s, centroids, alpha, k), false, n_threads);
  std::vector<double> witness(static_cast<std::size_t>(n_blocks(s.n)));
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    auto unweighted = rows;
    unweighted.sample_weight = nullptr;
    const i64 bytes = table().sparse_scratch_bytes(k), kp = lines.view.kp;
    for_blocks(0, s.n, kBlockRows * kp, n_threads, [&](i64 begin, i64 end, double* w) {
      const Scratch scratch = allocate_scratch(bytes);
      std::vector<double> unused(static_cast<std::size_t>(2 * k));
      const Sums sums{nullptr, unused.data(), unused.data() + k,
                      &witness[static_cast<std::size_t>(begin / kBlockRows)]};
      kernels.weigh[static_cast<int>(Weighting::equilibrium)](unweighted, begin, end, lines.view, w,
                                                              sums, scratch.get());
      for (i64 i = begin; i < end; ++i)
        for (i64 j = 0; j < k; ++j) out[i * k + j] = static_cast<U>(w[(i - begin) * kp + j]);
    });
  });
  return std::accumulate(witness.begin(), witness.end(), 0.0);
}

template <class U>
double assign(const SparseSamples& s, const double* centroids, i64 k, int n_threads,
              std::int32_t* labels, U* squared_distances) {
  n_threads = useful_threads(n_threads, work(s, k));
  const Lines lines(s, centroids, k, 1, true, n_threads);
  std::vector<double> sums(static_cast<std::size_t>(n_blocks(s.n)));
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    const i64 kp = lines.view.kp;
    for_blocks(0, s.n, kBlockRows * kp, n_threads, [&](i64 begin, i64 end, double* d2) {
      kernels.distances(rows, begin, end, lines.view, d2);
      double sum = 0;
      for (i64 i = begin; i < end; ++i) {
        const double* own = d2 + (i - begin) * kp;
        i64 nearest = 0;
        for (i64 j = 1; j < k; ++j)
          if (own[j] < own[nearest]) nearest = j;
        labels[i] = static_cast<std::int32_t>(nearest);
        squared_distances[i] = static_cast<U>(own[nearest]);
        sum += static_cast<double>(squared_distances[i]);
      }
      sums[static_cast<std::size_t>(begin / kBlockRows)] = sum;
    });
  });
  return std::accumulate(sums.begin(), sums.end(), 0.0);
}

template <class U>
void closest(const SparseSamples& s, const double* candidates, i64 n_seedings, i64 n_candidates,
             int n_threads, bool update, U* distances, double* potentials) {
  const i64 k = n_seedings * n_candidates;
  n_threads = useful_threads(n_threads, work(s, k));
  const Lines lines(s, candidates, k, 1, true, n_threads);
  std::vector<double> sums(static_cast<std::size_t>(n_blocks(s.n) * k));
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    const i64 kp = lines.view.kp;
    for_blocks(0, s.n, kBlockRows * kp, n_threads, [&](i64 begin, i64 end, double* d2) {
      kernels.distances(rows, begin, end, lines.view, d2);
      double* mine = sums.data() + begin / kBlockRows * k;
      for (i64 i = begin; i < end; ++i) {
        const double weight = rows.sample_weight ? rows.sample_weight[i] : 1;
        for (i64 j = 0; j < k; ++j) {
          U& now = distances[j / n_candidates * s.n + i];
          const double own = d2[(i - begin) * kp + j], before = static_cast<double>(now);
          const double least = own < before ? own : before;
          // 0 times what is not finite is NaN: such a row spoils the sum.
          mine[j] += weight * least + 0 * own;
          if (update) now = static_cast<U>(least);
        }
      }
    });
  });
  std::fill(potentials, potentials + k, 0.0);
  for (std::size_t i = 0; i < sums.size(); ++i) potentials[i % static_cast<std::size_t>(k)] += sums[i];
}

template <class U>
void accumulate(const SparseSamples& s, const U* weights, i64 k, int n_threads, double* sum_wx,
                double* sum_w) {
  n_threads = useful_threads(n_threads, work(s, k) / 2);
  std::vector<double> totals(static_cast<std::size_t>(2 * k + 1));
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    const i64 kp = padded(k);
    sum_rows(s, rows, kernels, k, n_threads,
             [&](i64 begin, i64 end, double* out, const Sums& sums) {
               for (i64 i = begin; i < end; ++i)
                 for (i64 j = 0; j < kp; ++j) {
                   const double w = j < k ? static_cast<double>(weights[i * k + j]) : 0;
                   out[(i - begin) * kp + j] = w;
                   if (j < k) sums.sum_w[j] += w;
                 }
             },
             sum_wx, totals.data());
  });
  std::copy(totals.begin(), totals.begin() + k, sum_w);
}

void distances(const SparseSamples& s, i64 begin, i64 end, const double* centroids, i64 k,
               int n_threads, double* squared_distances) {
  n_threads = useful_threads(n_threads, work(s, k));
  const Lines lines(s, centroids, k, 1, true, n_threads);
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    const i64 kp = lines.view.kp;
    for_blocks(begin, end, kBlockRows * kp, n_threads, [&](i64 first, i64 last, double* d2) {
      kernels.distances(rows, first, last, lines.view, d2);
      for (i64 i = first; i < last; ++i)
        std::copy_n(d2 + (i - first) * kp, k, squared_distances + (i - begin) * k);
    });
  });
}

void survey(const SparseSamples& s, double* weight, double* mean, double* dispersion, double* low,
            double* high) {
  const std::size_t d = static_cast<std::size_t>(s.d);
  const double infinity = std::numeric_limits<double>::infinity();
  *weight = total_weight(s);
  std::fill(low, low + d, infinity);
  std::fill(high, high + d, -infinity);
  std::fill(mean, mean + d, 0.0);
  // One task, so that a signal can end it: the order of the sums is that of the rows.
  std::vector<double> mass(d), squares(d);
  const auto for_numbers = [&](auto body) {
    parallel_for(1, 1, [&](i64, int) {
      with_rows(s, [&](const auto& rows, const auto&) {
        for (i64 i = 0; i < s.n; ++i) {
          if (i % kBlockRows == 0) checkpoint();
          const double own = rows.sample_weight ? rows.sample_weight[i] : 1;
          for (i64 e = rows.start[i]; e < rows.start[i + 1]; ++e)
            body(static_cast<std::size_t>(rows.columns[e]), static_cast<double>(rows.values[e]), own);
        }
      });
    });
  };
  for_numbers([&](std::size_t j, double x, double own) {
    low[j] = x < low[j] ? x : low[j];
    high[j] = x > high[j] ? x : high[j];
    mean[j] += own * x;
    mass[j] += own;
  });
  for (std::size_t j = 0; j < d; ++j) {
    mean[j] /= *weight;
    if (s.counts[j] < s.n) {  // some rows have a zero in this column
      low[j] = std::min(low[j], 0.0);
      high[j] = std::max(high[j], 0.0);
    } else {
      mass[j] = *weight;
    }
  }
  for_numbers([&](std::size_t j, double x, double own) {
    squares[j] += own * (x - mean[j]) * (x - mean[j]);
  });
  double sum = 0;
  for (std::size_t j = 0; j < d; ++j)
    sum += squares[j] + std::max(*weight - mass[j], 0.0) * mean[j] * mean[j];
  *dispersion = 0.5 * sum / *weight;
}

#define EKMFAST_INSTANTIATE(U)                                                                   \
  template double weights<U>(const SparseSamples&, const double*, double, i64, int, U*);         \
  template double assign<U>(const SparseSamples&, const double*, i64, int, std::int32_t*, U*);   \
  template void closest<U>(const SparseSamples&, const double*, i64, i64, int, bool, U*,         \
                           double*);                                                             \
  template void accumulate<U>(const SparseSamples&, const U*, i64, int, double*, double*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
