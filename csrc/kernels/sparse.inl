// Sparse rows. The lanes of a vector are centroids: for each number x of a row, at column j, line j of
// the centroids is multiplied by x and added to the scores of all centroids. The scores of a panel
// of rows are then laid out as those of dense rows are, and become weights by the same code.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "lanes.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "weigh.inl"

namespace ekmfast {
namespace {

// How many vectors of centroids are worked on at a time, so that their sums stay in registers.
constexpr int kSparseVectors = 4;

// The line for the number that is read so many numbers later is requested now. Which line it is
// depends on the data, so that the processor cannot foresee it. One pass over 18,000 rows of 100,000
// columns with 1.5 M numbers takes .78 of the time of 32 at K = 20 and .88 at K = 100 (AMD EPYC, Zen 5,
// AVX-512, one thread); 64 to 192 are within a tenth of this.
constexpr i64 kLinesAhead = 96;

template <int V, bool kWrite>
static inline void request_line(const double* lines, i64 kp, i64 line) {
  const auto at = reinterpret_cast<std::uintptr_t>(lines) +
                  static_cast<std::uintptr_t>(line * kp) * sizeof(double);
  for (std::uintptr_t byte = 0; byte < V * F64::W * sizeof(double); byte += 64)
    EKMFAST_PREFETCH_FOR(reinterpret_cast<const void*>(at + byte), kWrite, 3);
}

template <int V>
struct Vectors {
  static constexpr int value = V;
};

// Calls body(first, Vectors<V>()) for vectors of centroids first to first + V W, which cover kp.
template <class Body>
static inline void for_lanes(i64 kp, Body body) {
  constexpr i64 W = F64::W;
  i64 first = 0;
  for (; first + kSparseVectors * W <= kp; first += kSparseVectors * W)
    body(first, Vectors<kSparseVectors>());
  switch ((kp - first) / W) {
    case 3: return body(first, Vectors<3>());
    case 2: return body(first, Vectors<2>());
    case 1: return body(first, Vectors<1>());
  }
}

// The scores of n numbers of a row, or its squared distances: these are the sum of (x - c)^2 over the
// numbers, plus ||c||^2 without the squares of c at the same columns.
template <bool kDistances, int V, class U, class I>
static inline void row_products(const U* values, const I* columns, i64 n, i64 last,
                                const double* lines, i64 kp, const double* bias, double* out) {
  constexpr int W = F64::W;
  F64 sum[V], other[V];  // distances: squares of c; scores: a second sum, for shorter chains
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) sum[v] = other[v] = F64::all(0);
  const auto add = [&](i64 e, F64* to) {
    const F64 x = F64::all(static_cast<double>(values[e]));
    const double* line = lines + static_cast<i64>(columns[e]) * kp;
    const i64 later = e + kLinesAhead < last ? e + kLinesAhead : last;
    request_line<V, false>(lines, kp, static_cast<i64>(columns[later]));
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
      const F64 c = F64::load(line + v * W);
      if constexpr (kDistances) {
        const F64 difference = x - c;
        sum[v] = F64::fma(difference, difference, sum[v]);
        other[v] = F64::fma(c, c, other[v]);
      } else {
        to[v] = F64::fma(x, c, to[v]);
      }
    }
  };
  i64 e = 0;
  if constexpr (!kDistances)
    for (; e + 2 <= n; e += 2) {
      add(e, sum);
      add(e + 1, other);
    }
  for (; e < n; ++e) add(e, sum);
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
    const F64 b = F64::load(bias + v * W);
    const F64 total = kDistances ? sum[v] + F64::max(b - other[v], F64::all(0))
                                 : b + (sum[v] + other[v]);
    total.store(out + v * W);
  }
}

template <bool kDistances, class U, class I>
static void sparse_products(const SparseRows<U, I>& rows, i64 begin, i64 end,
                            const SparseCentroids& c, double* out) {
  for (i64 i = begin; i < end; ++i) {
    const i64 at = rows.start[i], n = rows.start[i + 1] - at;
    for_lanes(c.kp, [&](i64 first, auto vectors) {
      row_products<kDistances, vectors.value>(rows.values + at, rows.columns + at, n,
                                              rows.last - at, c.lines + first, c.kp, c.bias + first,
                                              out + (i - begin) * c.kp + first);
    });
  }
}

// 1/2 ||x||^2
template <class U>
static inline double half_norm_of(const U* values, i64 n) {
  constexpr int W = F64::W;
  F64 sum = F64::all(0);
  i64 e = 0;
  for (; e + W <= n; e += W) {
    const F64 x = F64::load(values + e);
    sum = F64::fma(x, x, sum);
  }
  double total = sum_across(sum);
  for (; e < n; ++e) total += static_cast<double>(values[e]) * static_cast<double>(values[e]);
  return 0.5 * total;
}

static i64 sparse_scratch_bytes(i64 k) {
  return Scratch<F64>(nullptr, panel_rows<F64>(), 1, k).bytes;
}

template <Weighting kWeighting, class U, class I>
static void sparse_weigh(const SparseRows<U, I>& rows, i64 begin, i64 end,
                         const SparseCentroids& c, double* weights, const Sums& sums,
                         void* scratch) {
  constexpr int P = panel_rows<F64>(), W = F64::W;
  constexpr bool kFuzzy = kWeighting == Weighting::fuzzy;
  const Scratch<F64> s(scratch, P, 1, c.k);
  const i64 k = c.k, kp = c.kp;
  double* t = s.weights;
  for (i64 i = 0; i < k * W; ++i) s.sum_w[i] = s.sum_p[i] = 0;
  double norms = 0, costs = 0;
  for (i64 p = begin; p < end; p += P) {
    const i64 count = end - p < P ? end - p : P;
    double* own = weights + (p - begin) * kp;
    sparse_products<kFuzzy>(rows, p, p + count, c, own);
    for (i64 r = 0; r < P; ++r) {
      const bool there = r < count;
      s.sample_weight[r] = !there ? 0 : rows.sample_weight ? rows.sample_weight[p + r] : 1;
      const i64 at = there ? rows.start[p + r] : 0;
      s.half_norm[r] = there ? half_norm_of(rows.values + at, rows.start[p + r + 1] - at) : 0;
      for (i64 i = 0; i < k; ++i) t[i * P + r] = there ? own[r * kp + i] : 0;
    }
    F64 best[kPanelVectors], cost[kPanelVectors];  // the nearest centroid's score, or distance
    for (int v = 0; v < kPanelVectors; ++v) best[v] = F64::load(t + v * W);
    for (i64 i = 1; i < k; ++i)
      for (int v = 0; v < kPanelVectors; ++v) {
        const F64 other = F64::load(t + i * P + v * W);
        best[v] = kFuzzy ? F64::where_greater(best[v], other, other, best[v])
                         : F64::max(other, best[v]);
      }
    if constexpr (kFuzzy)
      weigh_fuzzy<F64>(k, c.power, s.sample_weight, best, t, s, cost);
    else if constexpr (kWeighting == Weighting::hard)
      weigh_hard<F64>(s.sample_weight, k, best, t, s, cost);
    else
      weigh_softmax<F64, kWeighting == Weighting::equilibrium>(s.sample_weight, k, best, t, s, cost);
    F64 norm = F64::all(0), e = F64::all(0);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F64 weight = F64::load(s.sample_weight + v * W);
      norm = F64::fma(weight, F64::load(s.half_norm + v * W), norm);
      e = F64::fma(weight, cost[v], e);
    }
    norms += sum_across(norm);
    costs += sum_across(e);
    for (i64 r = 0; r < count; ++r)
      for (i64 i = 0; i < kp; ++i) own[r * kp + i] = i < k ? t[i * P + r] : 0;
  }
  // 0 times a norm that is not finite is NaN: such a row spoils J, whatever its distances are.
  *sums.objective += kFuzzy ? costs * c.inv_q + 0 * norms : norms - costs * c.inv_q;
  for (i64 i = 0; i < k; ++i) {
    sums.sum_w[i] += sum_lanes<W>(s.sum_w + i * W);
    sums.sum_p[i] += sum_lanes<W>(s.sum_p + i * W);
  }
}

// The first of n ascending columns that is not below `least`.
template <class I>
static inline i64 first_not_below(const I* columns, i64 n, i64 least) {
  i64 low = 0;
  while (n > 0) {
    const i64 half = n / 2;
    const bool below = columns[low + half] < least;
    low = below ? low + half + 1 : low;
    n = below ? n - half - 1 : half;
  }
  return low;
}

template <int V, class U, class I>
static inline void scatter_row(const U* values, const I* columns, i64 n, i64 last,
                               i64 first_column, const double* weights, i64 kp, double* sums) {
  constexpr int W = F64::W;
  F64 w[V];
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) w[v] = F64::load(weights + v * W);
  for (i64 e = 0; e < n; ++e) {
    const F64 x = F64::all(static_cast<double>(values[e]));
    double* line = sums + (static_cast<i64>(columns[e]) - first_column) * kp;
    const i64 later = e + kLinesAhead < last ? e + kLinesAhead : last;
    request_line<V, true>(sums, kp, static_cast<i64>(columns[later]) - first_column);
    EKMFAST_UNROLL for (int v = 0; v < V; ++v)
      F64::fma(x, w[v], F64::load(line + v * W)).store(line + v * W);
  }
}

template <class U, class I>
static void sparse_scatter(const SparseRows<U, I>& rows, i64 begin, i64 end, i64 first, i64 last,
                           const double* weights, i64 kp, double* sums) {
  for (i64 i = begin; i < end; ++i) {
    i64 from = rows.start[i], to = rows.start[i + 1];
    from += first > 0 ? first_not_below(rows.columns + from, to - from, first) : 0;
    if (from < to && static_cast<i64>(rows.columns[to - 1]) >= last)
      to = from + first_not_below(rows.columns + from, to - from, last);
    for_lanes(kp, [&](i64 lane, auto vectors) {
      scatter_row<vectors.value>(rows.values + from, rows.columns + from, to - from,
                                 rows.last - from, first,
                                 weights + (i - begin) * kp + lane, kp, sums + lane);
    });
  }
}

// Sums in the order of the columns, as `row_products` forms them: of a row with the same numbers as a
// centroid, both sums have the same bits.
static void sparse_norms(const double* lines, i64 d, i64 kp, double* norms) {
  for (i64 first = 0; first < kp; first += F64::W) {
    F64 sum = F64::all(0);
    for (i64 j = 0; j < d; ++j) {
      const F64 c = F64::load(lines + j * kp + first);
      sum = F64::fma(c, c, sum);
    }
    sum.store(norms + first);
  }
}

}  // namespace
}  // namespace ekmfast
