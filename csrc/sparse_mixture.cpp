#include "sparse_mixture.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base2.h"
#include "kernels/kernels.h"
#include "parallel.h"
#include "simd/dispatch.h"
#include "sparse_driver.h"

namespace ekmfast {
namespace {

// One of several mixtures as the kernels read it.
struct ReadyMixture {
  KeptNumbers lines;
  std::vector<double> norms, offsets;
  SparseMixture view;

  ReadyMixture(const SparseSamples& s, const Mixtures& all, i64 at, const std::vector<double>& shift,
               double unit, int n_threads)
      : lines(s.memory, s.d * 2 * padded(all.k)),
        norms(static_cast<std::size_t>(padded(all.k))),
        offsets(static_cast<std::size_t>(padded(all.k)), -HUGE_VAL) {
    const i64 d = s.d, k = all.k, kp = padded(k), n_tasks = (d + kTileColumns - 1) / kTileColumns;
    const double *means = all.means + at * k * d, *whiteners = all.whiteners + at * k * d;
    std::vector<double> squares(static_cast<std::size_t>(n_tasks * kp));
    parallel_for(n_tasks, n_threads, [&](i64 task, int) {
      if (task % 64 == 0) checkpoint();
      const i64 first = task * kTileColumns, last = std::min(d, first + kTileColumns);
      table().sparse_mixture.lines(means, whiteners, shift.data(), d, k, kp, first, last,
                                   lines.get(), squares.data() + task * kp);
    });
    for (std::size_t i = 0; i < squares.size(); ++i)
      norms[i % static_cast<std::size_t>(kp)] += squares[i];
    for (i64 i = 0; i < k; ++i) offsets[static_cast<std::size_t>(i)] = all.offsets[at * k + i] * kLog2E;
    const double v = all.degrees[at], features = static_cast<double>(d);
    view = {kp, lines.get(), norms.data(), offsets.data(), 1 / unit, v,
            std::isinf(v) ? 0 : (v + features) / 2, features, all.background[at] * kLog2E};
  }
};

// The centre, in units: what is added to the means, so that they are relative to the origin.
std::vector<double> shift_of(const SparseSamples& s, const double* centre, double unit) {
  std::vector<double> shift(centre, centre + s.d);
  for (double& value : shift) value /= unit;
  return shift;
}

double work(const SparseSamples& s, i64 k) {
  // A number of a row costs four lines; logarithm and exponential as much as thirty multiply-adds.
  return static_cast<double>(k) *
         (8 * static_cast<double>(s.n_stored()) + 30 * static_cast<double>(s.n));
}

// Moments about the origin become those about the means m; M = m + shift.
void finish(const double* means, const double* shift, const double* weight, i64 k, i64 d, double* first,
            double* second) {
  for (i64 i = 0; i < k; ++i)
    for (i64 j = 0; j < d; ++j) {
      const i64 at = i * d + j;
      const double mean = means[at] + shift[j], moved = first[at] - mean * weight[i];
      // sum w (y - M)^2 = sum w y^2 - M sum w y - M sum w (y - M)
      second[at] = second[at] - mean * first[at] - mean * moved;
      first[at] = moved;
    }
}

}  // namespace

void expectation(const SparseSamples& s, const Mixtures& m, const double* centre, double unit,
                 int n_threads, double* mass, double* weight, double* first, double* second,
                 double* background, double* likelihood, double* classified) {
  const i64 k = m.k, kp = padded(k), d = s.d, size = 2 * kp + 4;
  n_threads = useful_threads(n_threads, work(s, k));
  const std::vector<double> shift = shift_of(s, centre, unit);
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    for (i64 problem = 0; problem < m.n; ++problem) {
      poll_between_calls();
      const ReadyMixture ready(s, m, problem, shift, unit, n_threads);
      double *const one = first + problem * k * d, *const two = second + problem * k * d;
      if (s.n == 0) {
        std::fill(one, one + k * d, 0.0);
        std::fill(two, two + k * d, 0.0);
      }
      std::vector<double> totals(static_cast<std::size_t>(size));
      sum_lines(
          s, kp, 2 * kp, size, n_threads,
          [&](i64 begin, i64 end, double* weights, double* at) {
            std::vector<double> scratch(static_cast<std::size_t>(kp));
            double* const rest = at + 2 * kp;
            kernels.mixture_squares(rows, begin, end, ready.view, weights);
            table().sparse_mixture.weights(
                ready.view, end - begin, rows.sample_weight ? rows.sample_weight + begin : nullptr,
                weights, {at, at + kp, rest, rest + 1, rest + 2, rest + 3}, scratch.data());
          },
          [&](i64 begin, i64 end, i64 left, i64 right, const double* weights, double* lines) {
            kernels.mixture_scatter(rows, begin, end, left, right, ready.view.scale, weights, kp, lines);
          },
          [&](const double* lines, i64 left, i64 right, bool add) {
            take_lines(lines, left, right, 2 * kp, k, d, add, one);
            take_lines(lines + kp, left, right, 2 * kp, k, d, add, two);
          },
          totals.data());
      double *const own = mass + problem * k, *const w = weight + problem * k;
      std::copy_n(totals.data(), k, own);
      std::copy_n(totals.data() + kp, k, w);
      const double* const rest = totals.data() + 2 * kp;
      background[problem] = rest[0];
      likelihood[problem] = rest[1] * kLn2;
      classified[problem] = rest[2] * kLn2;
      finish(m.means + problem * k * d, shift.data(), w, k, d, one, two);
    }
  });
}

template <class U>
void densities(const SparseSamples& s, const Mixtures& m, const double* centre, double unit,
               int n_threads, U* joint, std::int32_t* labels, U* largest, U* density) {
  const i64 k = m.k, kp = padded(k);
  n_threads = useful_threads(n_threads, work(s, k) / 2);
  const ReadyMixture ready(s, m, 0, shift_of(s, centre, unit), unit, n_threads);
  const SparseMixture& view = ready.view;
  with_rows(s, [&](const auto& rows, const auto& kernels) {
    // Scratch: q and t (rows, kp), the largest t and the density (rows,), and a line.
    const i64 each = kBlockRows * kp;
    for_blocks(0, s.n, 2 * each + 2 * kBlockRows + kp, n_threads, [&](i64 begin, i64 end, double* q) {
      double *const t = q + each, *const most = t + each, *const all = most + kBlockRows;
      kernels.mixture_squares(rows, begin, end, view, q);
      table().sparse_mixture.densities(view, end - begin, q, t, most, all, all + kBlockRows);
      for (i64 i = begin; i < end; ++i) {
        const double* const own = t + (i - begin) * kp;
        const double best = most[i - begin];
        if (labels) {
          const i64 label = std::find(own, own + k, best) - own;
          labels[i] = label < k ? static_cast<std::int32_t>(label) : -1;
        }
        if (largest) largest[i] = static_cast<U>(best * kLn2);
        if (density) density[i] = static_cast<U>(all[i - begin] * kLn2);
        for (i64 j = 0; joint && j < k; ++j) joint[i * k + j] = static_cast<U>(own[j] * kLn2);
      }
    });
  });
}

#define EKMFAST_INSTANTIATE(U)                                                                       \
  template void densities<U>(const SparseSamples&, const Mixtures&, const double*, double, int, U*, \
                             std::int32_t*, U*, U*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
