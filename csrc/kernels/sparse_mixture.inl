// Mixtures of Student distributions with variances, of sparse rows. The lanes of a vector are
// components: for each number x of a row, at column j, the line of column j holds the whiteners W of all
// components and then the products Z of mean and whitener (see sparse_mixture.h).
#pragma once

#include <cstdint>

#include "exp2.inl"
#include "kernels.h"
#include "lanes.inl"
#include "log2.inl"
#include "mixture.inl"
#include "portable.h"
#include "simd/vectors.h"
#include "sparse.inl"
#include "transpose.inl"

namespace ekmfast {
namespace {

// Columns first to last of the lines, from means and whiteners (k, d) and the shift (d,) of the means,
// and the sums of Z^2 over these columns, added to squares (kp,).
static void mixture_lines(const double* means, const double* whiteners, const double* shift, i64 d,
                          i64 k, i64 kp, i64 first, i64 last, double* lines, double* squares) {
  constexpr i64 W = F64::W;
  for (i64 group = 0; group < kp; group += W) {
    const i64 count = k - group < W ? k - group : W;
    F64 sum = F64::load(squares + group);
    const auto put = [&](i64 j, F64 mean, F64 whitener) {
      const F64 z = (mean + F64::all(shift[j])) * whitener;
      double* line = lines + j * 2 * kp + group;
      whitener.store(line);
      z.store(line + kp);
      sum = F64::fma(z, z, sum);
    };
    i64 j = first;
    for (; j + W <= last; j += W) {
      F64 m[W], w[W];
      for (i64 i = 0; i < W; ++i) {
        m[i] = i < count ? F64::load(means + (group + i) * d + j) : F64::all(0);
        w[i] = i < count ? F64::load(whiteners + (group + i) * d + j) : F64::all(0);
      }
      Transpose<F64>::run(m);
      Transpose<F64>::run(w);
      EKMFAST_UNROLL for (i64 e = 0; e < W; ++e) put(j + e, m[e], w[e]);
    }
    for (; j < last; ++j) {
      double m[W], w[W];
      for (i64 i = 0; i < W; ++i) {
        m[i] = i < count ? means[(group + i) * d + j] : 0;
        w[i] = i < count ? whiteners[(group + i) * d + j] : 0;
      }
      put(j, F64::load(m), F64::load(w));
    }
    sum.store(squares + group);
  }
}

template <int V, class U, class I>
static inline void row_squares(const U* values, const I* columns, i64 n, i64 last, double scale,
                               const double* lines, i64 kp, const double* norms, double* out) {
  constexpr int W = F64::W;
  F64 sum[V], other[V];
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) sum[v] = other[v] = F64::all(0);
  for (i64 e = 0; e < n; ++e) {
    const F64 x = F64::all(scale * static_cast<double>(values[e]));
    const double* line = lines + static_cast<i64>(columns[e]) * 2 * kp;
    const i64 later = e + kLinesAhead < last ? e + kLinesAhead : last;
    request_line<V, false>(lines, 2 * kp, static_cast<i64>(columns[later]));
    request_line<V, false>(lines + kp, 2 * kp, static_cast<i64>(columns[later]));
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
      const F64 w = F64::load(line + v * W), product = F64::load(line + kp + v * W);
      const F64 z = x * w - product;
      sum[v] = F64::fma(z, z, sum[v]);
      other[v] = F64::fma(product, product, other[v]);
    }
  }
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
    const F64 rest = F64::max(F64::load(norms + v * W) - other[v], F64::all(0));
    (sum[v] + rest).store(out + v * W);
  }
}

template <class U, class I>
static void mixture_squares(const SparseRows<U, I>& rows, i64 begin, i64 end,
                            const SparseMixture& m, double* out) {
  for (i64 i = begin; i < end; ++i) {
    const i64 at = rows.start[i], n = rows.start[i + 1] - at;
    for_lanes(m.kp, [&](i64 first, auto vectors) {
      row_squares<vectors.value>(rows.values + at, rows.columns + at, n, rows.last - at, m.scale,
                                 m.lines + first, m.kp, m.norms + first,
                                 out + (i - begin) * m.kp + first);
    });
  }
}

// t of all components of a row from its q; returns the largest t, the background's included.
static inline double joint_row(const SparseMixture& m, const double* q, double* t, F64& witness) {
  constexpr i64 W = F64::W;
  const bool gaussian = m.power == 0;
  const F64 inverse = F64::all(1 / m.degrees), power = F64::all(-m.power),
            half = F64::all(-0.72134752044448170368);
  F64 best = F64::all(m.background);
  for (i64 v = 0; v < m.kp; v += W) {
    const F64 own = F64::load(q + v), offset = F64::load(m.offsets + v);
    witness = F64::fma(own, F64::all(0), witness);
    const F64 found = gaussian ? F64::fma(own, half, offset)
                               : F64::fma(log2_1p<F64>(own * inverse), power, offset);
    found.store(t + v);
    best = F64::max(found, best);
  }
  double lanes[W], most = m.background;
  best.store(lanes);
  for (double lane : lanes) most = lane > most ? lane : most;
  return most;
}

// The sum of 2^(t - best) over the components, which replace t, and the background's.
static inline double exponentials_row(const SparseMixture& m, double best, double* t,
                                      double* background) {
  F64 sum = F64::all(0);
  for (i64 v = 0; v < m.kp; v += F64::W) {
    const F64 u = exponential<F64>(F64::load(t + v), F64::all(best));
    u.store(t + v);
    sum = sum + u;
  }
  *background = 0;
  if (m.background > -EKMFAST_INFINITY) {
    double lanes[F64::W];
    exponential<F64>(F64::all(m.background), F64::all(best)).store(lanes);
    *background = lanes[0];
  }
  return sum_across(sum) + *background;
}

static inline double log2_of(double x) {
  double lanes[F64::W];
  log2_normal<F64>(F64::all(x)).store(lanes);
  return lanes[0];
}

// IN squares q (n, kp), sample_weight (n,) or null; OUT squares: the weights w, and totals (added to).
static void mixture_weights(const SparseMixture& m, i64 n, const double* sample_weight,
                            double* squares, const SparseMixtureTotals& totals, double* t) {
  const bool gaussian = m.power == 0;
  const F64 degrees = F64::all(m.degrees), most = F64::all(m.degrees + m.n_features);
  F64 witness = F64::all(0);
  for (i64 i = 0; i < n; ++i) {
    double* q = squares + i * m.kp;
    const double weight = sample_weight ? sample_weight[i] : 1, best = joint_row(m, q, t, witness);
    double background;
    const double sum = exponentials_row(m, best, t, &background), share = weight / sum;
    *totals.background += share * background;
    *totals.likelihood += weight * (best + log2_of(sum));
    *totals.classified += weight * best;
    for (i64 v = 0; v < m.kp; v += F64::W) {
      const F64 r = F64::load(t + v) * F64::all(share);
      const F64 w = gaussian ? r : r * (most / (degrees + F64::load(q + v)));
      r.add_to(totals.mass + v);
      w.add_to(totals.weight + v);
      w.store(q + v);
    }
  }
  *totals.witness += sum_across(witness);
}

// IN squares q (n, kp); OUT joint (n, kp), largest and density (n,): numbers of row i. t: scratch (kp,).
static double mixture_densities(const SparseMixture& m, i64 n, const double* squares, double* joint,
                                double* largest, double* density, double* t) {
  F64 witness = F64::all(0);
  for (i64 i = 0; i < n; ++i) {
    double* own = joint + i * m.kp;
    largest[i] = joint_row(m, squares + i * m.kp, own, witness);
    for (i64 j = 0; j < m.kp; ++j) t[j] = own[j];
    double background;
    density[i] = largest[i] + log2_of(exponentials_row(m, largest[i], t, &background));
  }
  return sum_across(witness);
}

template <int V, class U, class I>
static inline void scatter_moments(const U* values, const I* columns, i64 n, i64 last,
                                   i64 first_column, double scale, const double* weights, i64 kp,
                                   double* sums) {
  constexpr int W = F64::W;
  F64 w[V];
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) w[v] = F64::load(weights + v * W);
  for (i64 e = 0; e < n; ++e) {
    const F64 x = F64::all(scale * static_cast<double>(values[e]));
    double* line = sums + (static_cast<i64>(columns[e]) - first_column) * 2 * kp;
    const i64 later = e + kLinesAhead < last ? e + kLinesAhead : last;
    request_line<V, true>(sums, 2 * kp, static_cast<i64>(columns[later]) - first_column);
    request_line<V, true>(sums + kp, 2 * kp, static_cast<i64>(columns[later]) - first_column);
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
      const F64 wx = w[v] * x;
      (F64::load(line + v * W) + wx).store(line + v * W);
      F64::fma(wx, x, F64::load(line + kp + v * W)).store(line + kp + v * W);
    }
  }
}

template <class U, class I>
static void mixture_scatter(const SparseRows<U, I>& rows, i64 begin, i64 end, i64 first, i64 last,
                            double scale, const double* weights, i64 kp, double* sums) {
  for (i64 i = begin; i < end; ++i) {
    i64 from = rows.start[i], to = rows.start[i + 1];
    from += first > 0 ? first_not_below(rows.columns + from, to - from, first) : 0;
    if (from < to && static_cast<i64>(rows.columns[to - 1]) >= last)
      to = from + first_not_below(rows.columns + from, to - from, last);
    for_lanes(kp, [&](i64 lane, auto vectors) {
      scatter_moments<vectors.value>(rows.values + from, rows.columns + from, to - from,
                                     rows.last - from, first, scale,
                                     weights + (i - begin) * kp + lane, kp, sums + lane);
    });
  }
}

}  // namespace
}  // namespace ekmfast
