// Few centroids, many features: the samples are read where they lie.
//
// Transposing rows into a panel pays where many centroids share it. With at most four centroids the
// scores are dot products with the features in the lanes, and the lanes are summed once a row.
#pragma once

#include "prefetch.inl"
#include "kernels.h"
#include "lanes.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

template <class T>
static inline bool by_dots(i64 k, i64 d) {
  return uses(Path::dots) && d >= kRowProductMinD && k <= kDotMaxK && d >= kDotMinD<T>;
}

// Scores of R rows with G centroids, and half their squared norms; t at [centroid][row of panel].
template <class F, int G, int R>
static inline void dot_tile(const typename F::T* x, i64 stride, const typename F::T* reference,
                            i64 d, const typename F::T* c, const typename F::T* bias,
                            typename F::T* t, typename F::T* half_norm) {
  constexpr int P = panel_rows<F>();
  F acc[G][R], norm[R];
  for (int r = 0; r < R; ++r) {
    norm[r] = F::all(0);
    for (int g = 0; g < G; ++g) acc[g][r] = F::all(0);
  }
  const i64 whole = d / F::W * F::W;
  for (i64 j = 0; j < whole; j += F::W) {
    const F centre = F::load(reference + j);
    F y[R];
    for (int r = 0; r < R; ++r) {
      if (uses(Path::prefetch_dots))
        PrefetchL2(x + r * stride + j, kDotPrefetchRows * stride, F::W).request_all();
      y[r] = F::load(x + r * stride + j) - centre;
      norm[r] = F::fma(y[r], y[r], norm[r]);
    }
    for (int g = 0; g < G; ++g) {
      const F own = F::load(c + g * d + j);
      for (int r = 0; r < R; ++r) acc[g][r] = F::fma(own, y[r], acc[g][r]);
    }
  }
  if (whole < d) {
    const int rest = static_cast<int>(d - whole);
    const F centre = F::load_part(reference + whole, rest);
    for (int r = 0; r < R; ++r) {
      const F y = F::load_part(x + r * stride + whole, rest) - centre;
      norm[r] = F::fma(y, y, norm[r]);
      for (int g = 0; g < G; ++g)
        acc[g][r] = F::fma(F::load_part(c + g * d + whole, rest), y, acc[g][r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    half_norm[r] = sum_across(norm[r]) / 2;
    for (int g = 0; g < G; ++g) t[g * P + r] = bias[g] + sum_across(acc[g][r]);
  }
}

// A panel's scores, row maxima and half norms; rows past `count` are those of the reference.
template <class F, int G>
static inline void dot_panel(const Rows<typename F::T>& in, i64 begin, i64 count,
                             const Centroids<typename F::T>& c, typename F::T* t,
                             typename F::T* half_norm, F* best) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  if (c.k != G) {
    if constexpr (G > 1) dot_panel<F, G - 1>(in, begin, count, c, t, half_norm, best);
    return;
  }
  const T* x = in.x + begin * in.stride;
  i64 i = 0;
  for (; i + kDotRows <= count; i += kDotRows)
    dot_tile<F, G, kDotRows>(x + i * in.stride, in.stride, in.reference, in.d, c.rows, c.bias,
                             t + i, half_norm + i);
  for (; i < count; ++i)
    dot_tile<F, G, 1>(x + i * in.stride, in.stride, in.reference, in.d, c.rows, c.bias, t + i,
                      half_norm + i);
  for (; i < P; ++i) {
    half_norm[i] = 0;
    for (int g = 0; g < G; ++g) t[g * P + i] = c.bias[g];
  }
  for (int v = 0; v < kPanelVectors; ++v) {
    best[v] = F::load(t + v * F::W);
    for (int g = 1; g < G; ++g) best[v] = F::max(best[v], F::load(t + g * P + v * F::W));
  }
}

}  // namespace
}  // namespace ekmfast
