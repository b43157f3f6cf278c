// Sums for the likelihood of rows and labels (likelihood.cpp): rows of one cluster, one after
// another, with the features in the lanes. A row has `width` numbers, a multiple of F::W; those behind
// its features are 0. Sums over the rows of a call are added to doubles.
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
template <class F, int V, bool kSquares>
static inline void sum_vectors(const typename F::T* x, i64 n, i64 width, const typename F::T* weights,
                               const typename F::T* centre, double* sums) {
  constexpr int R = kSideBySide / V;
  F sum[R][V], own[V];
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) sum[r][v] = F::all(0);
    if (kSquares) own[v] = F::load(centre + v * F::W);
  }
  const auto add = [&](i64 i, int r) {
    const F w = F::all(weights[i]);
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
      const F value = F::load(x + i * width + v * F::W);
      if (kSquares) {
        const F apart = value - own[v];
        sum[r][v] = F::fma(w * apart, apart, sum[r][v]);
      } else {
        sum[r][v] = F::fma(w, value, sum[r][v]);
      }
    }
  };
  i64 i = 0;
  for (; i + R <= n; i += R)
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) add(i + r, r);
  for (; i < n; ++i) add(i, 0);
  EKMFAST_UNROLL for (int v = 0; v < V; ++v) {
    F total = sum[0][v];
    EKMFAST_UNROLL for (int r = 1; r < R; ++r) total = total + sum[r][v];
    typename F::T lanes[F::W];
    total.store(lanes);
    for (int l = 0; l < F::W; ++l) sums[v * F::W + l] += static_cast<double>(lanes[l]);
  }
}

template <class F, bool kSquares>
static void weighted_sums(const typename F::T* x, i64 n, i64 width, const typename F::T* weights,
                          const typename F::T* centre, double* sums) {
  i64 j = 0;
  for (; j + 4 * F::W <= width; j += 4 * F::W)
    sum_vectors<F, 4, kSquares>(x + j, n, width, weights, centre + j, sums + j);
  for (; j + 2 * F::W <= width; j += 2 * F::W)
    sum_vectors<F, 2, kSquares>(x + j, n, width, weights, centre + j, sums + j);
  for (; j < width; j += F::W)
    sum_vectors<F, 1, kSquares>(x + j, n, width, weights, centre + j, sums + j);
}

// R rows at a time, which share the loads of the centre and of the precisions. OUT sum[R] vectors, of
// which the sums across are the distances.
template <class F, int R>
static inline void distances_of(const typename F::T* x, i64 width, const typename F::T* centre,
                                const typename F::T* precisions, F* sum) {
  EKMFAST_UNROLL for (int r = 0; r < R; ++r) sum[r] = F::all(0);
  for (i64 j = 0; j < width; j += F::W) {
    const F own = F::load(centre + j), precision = F::load(precisions + j);
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) {
      const F apart = F::load(x + r * width + j) - own;
      sum[r] = F::fma(apart * precision, apart, sum[r]);
    }
  }
}

template <class F>
static void scaled_distances(const typename F::T* x, i64 n, i64 width, const typename F::T* centre,
                             const typename F::T* precisions, typename F::T* squared) {
  i64 i = 0;
  F sum[F::W];
  for (; i + F::W <= n; i += F::W) {
    distances_of<F, F::W>(x + i * width, width, centre, precisions, sum);
    sums_across<F>(sum).store(squared + i);
  }
  for (; i < n; ++i) {
    distances_of<F, 1>(x + i * width, width, centre, precisions, sum);
    squared[i] = sum_across(sum[0]);
  }
}

// Weights s (tail + D) / (tail + q), of which the sum is returned.
template <class F>
static double tail_weights(const typename F::T* squared, const typename F::T* own, i64 n, double tail,
                           double numerator, typename F::T* weights) {
  using T = typename F::T;
  F sum = F::all(0);
  for (i64 i = 0; i < n; i += F::W) {
    const int count = static_cast<int>(n - i < F::W ? n - i : F::W);
    const F below = F::all(T(tail)) + F::load_part(squared + i, count);
    const F weight = F::load_part(own + i, count) * F::all(T(numerator)) / below;
    sum = sum + weight;
    if (count == F::W) {
      weight.store(weights + i);
    } else {
      for (int l = 0; l < count; ++l) weights[i + l] = weight.v[l];
    }
  }
  return static_cast<double>(sum_across(sum));
}

// The sum of w log2(1 + q / tail).
template <class F>
static double sum_of_logs(const typename F::T* squared, const typename F::T* weights, i64 n,
                          double tail) {
  using T = typename F::T;
  F sum = F::all(0);
  for (i64 i = 0; i < n; i += F::W) {
    const int count = static_cast<int>(n - i < F::W ? n - i : F::W);
    const F h = F::load_part(squared + i, count) * F::all(T(1 / tail));
    sum = F::fma(F::load_part(weights + i, count), log2_1p<F>(h), sum);
  }
  return static_cast<double>(sum_across(sum));
}

}  // namespace
}  // namespace ekmfast
