// Stage 2: scores, the first product.
#pragma once

#include "prefetch.inl"
#include "kernels.h"
#include "lanes.inl"
#include "portable.h"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

// G centroids x the 3 vectors of a panel, in registers over all features. `best` is the running
// maximum over the centroids seen so far. Some lines are prefetched with each feature.
template <class F, int G>
static inline void score_tile(const typename F::T* panel, i64 d, const typename F::T* tile,
                              const typename F::T* bias, const Prefetch& prefetch,
                              typename F::T* t, F* best) {
  constexpr int P = panel_rows<F>();
  F acc[G][kPanelVectors];
  EKMFAST_UNROLL for (int g = 0; g < G; ++g)
    EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) acc[g][v] = F::all(bias[g]);
  const auto add = [&](i64 j) EKMFAST_INLINED {
    F y[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) y[v] = F::load(panel + j * P + v * F::W);
    for (int g = 0; g < G; ++g) {
      const F c = F::all(tile[j * G + g]);
      for (int v = 0; v < kPanelVectors; ++v) acc[g][v] = F::fma(c, y[v], acc[g][v]);
    }
  };
  i64 j = 0;
  for (i64 line = 0; line < prefetch.lines; ++j) {
    const i64 next = line + prefetch.feature_lines;
    for (; line < next; ++line) prefetch.request(line);
    add(j);
  }
  for (; j < d; ++j) add(j);
  F top[kPanelVectors];
  EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) top[v] = best[v];
  EKMFAST_UNROLL for (int g = 0; g < G; ++g)
    EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
      acc[g][v].store(t + g * P + v * F::W);
      top[v] = F::max(top[v], acc[g][v]);
    }
  EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) best[v] = top[v];
}

// The last, narrower group of centroids: pick the tile of its width at compile time.
template <class F, int G>
static inline void score_rest(int g, const typename F::T* panel, i64 d, const typename F::T* tile,
                              const typename F::T* bias, const Prefetch& prefetch,
                              typename F::T* t, F* best) {
  if (g == G) return score_tile<F, G>(panel, d, tile, bias, prefetch, t, best);
  if constexpr (G > 1) score_rest<F, G - 1>(g, panel, d, tile, bias, prefetch, t, best);
}

// Meanwhile the memory named by `prefetch` is requested, a share with each tile.
template <class F>
static inline void score_panel(const typename F::T* panel, i64 d,
                               const Centroids<typename F::T>& c, const Prefetch& prefetch,
                               typename F::T* t, F* row_best) {
  constexpr int P = panel_rows<F>();
  F best[kPanelVectors];  // not the caller's, which is in memory: each tile would wait for it
  EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) best[v] = F::all(-EKMFAST_INFINITY);
  for (i64 k = 0; k < c.k; k += Tuned::kTileCentroids) {
    const Prefetch share = prefetch.share_of_tile(k / Tuned::kTileCentroids);
    if (k + Tuned::kTileCentroids <= c.k)
      score_tile<F, Tuned::kTileCentroids>(panel, d, c.tiles + k * d, c.bias + k, share, t + k * P,
                                           best);
    else
      score_rest<F, Tuned::kTileCentroids - 1>(static_cast<int>(c.k - k), panel, d, c.tiles + k * d,
                                        c.bias + k, share, t + k * P, best);
  }
  EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) row_best[v] = best[v];
}

// ---------------------------------------------------------------------------------------------
// Squared distances of a panel, from scores made with q = 2, by which t = 2 y . c - ||c||^2.

// Below this share of ||y||^2 + ||c||^2 more than half of a difference's digits cancel.
template <class T>
constexpr T kCancelled = sizeof(T) == 4 ? T(0x1p-12) : T(0x1p-26);

// d2 = ||y - c||^2 of the panel's rows to centroid i; norm holds their ||y||^2. Where digits are
// lost, the centroid's distances to the panel are summed again from differences, so that a row
// that equals the centroid is at 0 exactly, and one nearby is not.
template <class F>
static inline void squared_distances(const typename F::T* panel, i64 d,
                                     const Centroids<typename F::T>& c, i64 i,
                                     const typename F::T* t, const F* norm, F* d2) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const F own = F::all(-c.bias[i]), share = F::all(kCancelled<T>);
  F lost = F::all(0);
  for (int v = 0; v < kPanelVectors; ++v) {
    d2[v] = norm[v] - F::load(t + i * P + v * F::W);
    lost = F::max(lost, F::fma(norm[v] + own, share, F::all(0) - d2[v]));
  }
  if (!F::greater_bits(lost, F::all(0))) return;
  const i64 first = i / Tuned::kTileCentroids * Tuned::kTileCentroids;
  const i64 width = c.k - first < Tuned::kTileCentroids ? c.k - first : Tuned::kTileCentroids;
  const T* scaled = c.tiles + first * d + (i - first);
  for (int v = 0; v < kPanelVectors; ++v) d2[v] = F::all(0);
  for (i64 j = 0; j < d; ++j) {
    const F y = F::all(scaled[j * width] / 2);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F difference = F::load(panel + j * P + v * F::W) - y;
      d2[v] = F::fma(difference, difference, d2[v]);
    }
  }
}

}  // namespace
}  // namespace ekmfast
