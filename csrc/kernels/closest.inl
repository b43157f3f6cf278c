// Seeding: how far every row is from the nearest of the seeds chosen so far, and what that would
// be with a candidate added. All candidates of all seedings share one pack of the slice.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "lanes.inl"
#include "pack.inl"
#include "scores.inl"
#include "scratch.inl"
#include "simd/vectors.h"

namespace ekmfast {
namespace {

template <class F>
static inline void load_some(const typename F::T* from, i64 count, F* to) {
  constexpr int P = panel_rows<F>();
  typename F::T lanes[P] = {};
  if (count < P) {
    for (i64 i = 0; i < count; ++i) lanes[i] = from[i];
    from = lanes;
  }
  for (int v = 0; v < kPanelVectors; ++v) to[v] = F::load(from + v * F::W);
}

template <class F>
static inline void store_some(const F* from, i64 count, typename F::T* to) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  T lanes[P];
  T* at = count < P ? lanes : to;
  for (int v = 0; v < kPanelVectors; ++v) from[v].store(at + v * F::W);
  if (count < P)
    for (i64 i = 0; i < count; ++i) to[i] = lanes[i];
}

template <class F>
static void closest(const Rows<typename F::T>& rows, i64 begin, i64 end,
                    const Centroids<typename F::T>& candidates, i64 n_seedings,
                    typename F::T* distances, i64 stride, bool update, double* potentials,
                    void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = candidates.k;
  const i64 each = k / n_seedings;
  const Scratch<F> s(scratch, n, d, k);
  Panels<F> panels(rows, begin, end, s, Keep::panel, k);
  pack_weights<F>(rows, begin, n, n_padded, s);
  for (i64 i = 0; i < k * F::W; ++i) s.sum_w[i] = 0;
  for (i64 p = 0; p < n_padded; p += P) {
    const i64 count = n - p < P ? n - p : P;
    const T* panel = panels.pack(p);
    F norm[kPanelVectors], weight[kPanelVectors], unused[kPanelVectors];
    score_panel<F>(panel, d, candidates, panels.prefetch(p), s.weights, unused);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F half = F::load(panels.half_norm + p + v * F::W);
      norm[v] = half + half;
      // 0 times what is not finite is NaN: such a row spoils the sum, whichever minimum it has.
      weight[v] = F::fma(half, F::all(0), F::load(s.sample_weight + p + v * F::W));
    }
    for (i64 seeding = 0; seeding < n_seedings; ++seeding) {
      T* mine = distances + seeding * stride + begin + p;
      F now[kPanelVectors], d2[kPanelVectors];
      load_some<F>(mine, count, now);
      for (int v = 0; v < kPanelVectors; ++v) d2[v] = now[v];
      for (i64 i = seeding * each; i < (seeding + 1) * each; ++i) {
        squared_distances<F>(panel, d, candidates, i, s.weights, norm, d2);
        F sum = F::load(s.sum_w + i * F::W);
        for (int v = 0; v < kPanelVectors; ++v) {
          d2[v] = F::where_greater(d2[v], now[v], now[v], d2[v]);
          sum = F::fma(weight[v], d2[v], sum);
        }
        sum.store(s.sum_w + i * F::W);
      }
      if (update) store_some<F>(d2, count, mine);
    }
  }
  for (i64 i = 0; i < k; ++i) potentials[i] += sum_lanes<F::W>(s.sum_w + i * F::W);
}

}  // namespace
}  // namespace ekmfast
