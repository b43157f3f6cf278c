// Sums for the likelihood of rows and labels (likelihood.cpp): rows of one cluster, one after
// another, in double, with the features in the lanes. A row has `width` numbers, a multiple of
// kLaneUnit; those behind its features are 0.
#pragma once

#include "kernels.h"
#include "lanes.inl"
#include "mixture.inl"
#include "simd/vectors.h"

namespace ekmfast {
namespace {

// How many sums are formed side by side, in registers: of vectors of features and, if these are few,
// of every second or fourth row.
constexpr int kSideBySide = 4;

// V vectors of features, from the one at x on. With a centre, squares about it are summed.
template <int V, bool kSquares>
static inline void sum_vectors(const double* x, i64 n, i64 width, const double* weights,
                               const double* centre, double* sums) {
  constexpr int R = kSideBySide / V;
  F64 sum[R][V], own[V];
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) sum[r][v] = F64::all(0);
    if (kSquares) own[v] = F64::load(centre + v * F64::W);
  }
  const auto add = [&](i64 i, int r) {
    const F64 w = F64::all(weights[i]);
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
      const F64 value = F64::load(x + i * width + v * F64::W);
      if (kSquares) {
        const F64 apart = value - own[v];
        sum[r][v] = F64::fma(w * apart, apart, sum[r][v]);
      } else {
        sum[r][v] = F64::fma(w, value, sum[r][v]);
      }
    }
  };
  i64 i = 0;
  for (; i + R <= n; i += R)
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) add(i + r, r);
  for (; i < n; ++i) add(i, 0);
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
    F64 total = F64::load(sums + v * F64::W);
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) total = total + sum[r][v];
    total.store(sums + v * F64::W);
  }
}

template <bool kSquares>
static void weighted_sums(const double* x, i64 n, i64 width, const double* weights,
                          const double* centre, double* sums) {
  i64 j = 0;
  for (; j + 4 * F64::W <= width; j += 4 * F64::W)
    sum_vectors<4, kSquares>(x + j, n, width, weights, centre + j, sums + j);
  for (; j + 2 * F64::W <= width; j += 2 * F64::W)
    sum_vectors<2, kSquares>(x + j, n, width, weights, centre + j, sums + j);
  for (; j < width; j += F64::W)
    sum_vectors<1, kSquares>(x + j, n, width, weights, centre + j, sums + j);
}

// R rows at a time, which share the loads of the centre and of the precisions.
template <int R>
static inline void distances_of(const double* x, i64 width, const double* centre,
                                const double* precisions, double* squared) {
  F64 sum[R];
  for (int r = 0; r < R; ++r) sum[r] = F64::all(0);
  for (i64 j = 0; j < width; j += F64::W) {
    const F64 own = F64::load(centre + j), precision = F64::load(precisions + j);
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) {
      const F64 apart = F64::load(x + r * width + j) - own;
      sum[r] = F64::fma(apart * precision, apart, sum[r]);
    }
  }
  for (int r = 0; r < R; ++r) squared[r] = sum_across(sum[r]);
}

static void scaled_distances(const double* x, i64 n, i64 width, const double* centre,
                             const double* precisions, double* squared) {
  i64 i = 0;
  for (; i + 4 <= n; i += 4)
    distances_of<4>(x + i * width, width, centre, precisions, squared + i);
  for (; i < n; ++i) distances_of<1>(x + i * width, width, centre, precisions, squared + i);
}

// Weights s (tail + D) / (tail + q), of which the sum is returned.
static double tail_weights(const double* squared, const double* own, i64 n, double tail,
                           double numerator, double* weights) {
  F64 sum = F64::all(0);
  for (i64 i = 0; i < n; i += F64::W) {
    const int count = static_cast<int>(n - i < F64::W ? n - i : F64::W);
    const F64 below = F64::all(tail) + F64::load_part(squared + i, count);
    const F64 weight = F64::load_part(own + i, count) * F64::all(numerator) / below;
    sum = sum + weight;
    if (count == F64::W) {
      weight.store(weights + i);
    } else {
      for (int l = 0; l < count; ++l) weights[i + l] = weight.v[l];
    }
  }
  return sum_across(sum);
}

// The sum of w log2(1 + q / tail).
static double sum_of_logs(const double* squared, const double* weights, i64 n, double tail) {
  F64 sum = F64::all(0);
  for (i64 i = 0; i < n; i += F64::W) {
    const int count = static_cast<int>(n - i < F64::W ? n - i : F64::W);
    const F64 h = F64::load_part(squared + i, count) * F64::all(1 / tail);
    sum = F64::fma(F64::load_part(weights + i, count), log2_1p<F64>(h), sum);
  }
  return sum_across(sum);
}

}  // namespace
}  // namespace ekmfast
