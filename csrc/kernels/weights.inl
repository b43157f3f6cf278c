// The weights themselves, as compute_weights gives them.
#pragma once

#include "dots.inl"
#include "kernels.h"
#include "lanes.inl"
#include "pack.inl"
#include "scores.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"
#include "unpack.inl"
#include "weigh.inl"

namespace ekmfast {
namespace {

template <class F>
static double weights(const Rows<typename F::T>& rows, i64 begin, i64 end,
                      const Centroids<typename F::T>& c, typename F::T* out, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = c.k;
  const Scratch<F> s(scratch, n, d, k);
  const bool dots = by_dots<T>(k, d);
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, Keep::panel, k);
  pack_weights<F>(rows, begin, n, n_padded, s);
  for (i64 i = 0; i < k * F::W; ++i) s.sum_w[i] = s.sum_p[i] = 0;
  double witness[F::W] = {};
  for (i64 p = 0; p < n_padded; p += P) {
    const i64 count = n - p < P ? n - p : P;
    T* t = s.weights;  // one panel's worth suffices
    F best[kPanelVectors], cost[kPanelVectors];
    if (dots)
      dot_panel<F, kDotMaxK>(rows, begin + p, count, c, t, s.half_norm + p, best);
    else
      score_panel<F>(panels.pack(p), d, c, panels.prefetch(p), t, best);
    weigh_panel<F, Weighting::equilibrium>(panels.at(p), d, c, s.sample_weight + p,
                                           s.half_norm + p, best, t, s, cost);
    for (int v = 0; v < kPanelVectors; ++v) {
      F::load(s.half_norm + p + v * F::W).add_to(witness);
      cost[v].add_to(witness);
    }
    unpack_panel<F>(t, k, count, out + (begin + p) * k);
  }
  return sum_lanes<F::W>(witness);
}

}  // namespace
}  // namespace ekmfast
