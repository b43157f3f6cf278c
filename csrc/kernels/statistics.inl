// The sums of all problems over a slice.
//
// A slice of rows goes through four stages, a file each; what they write for each other stays in the
// caches:
//   pack      centre the rows and lay them out in panels [feature][3 vectors of samples], so that
//             samples sit in the lanes and every later minimum, exponential and sum is vertical;
//   scores    t_k = bias_k + y . (q c_k): the first product, register tiles of centroids x panel;
//   weights   row maximum, exponentials, and  w_k = p_k (1 + ln2 (r_k - sum_i p_i r_i))  with
//             r_k = t_k - max t, which is Eq. 38 because alpha (d_k - E) = -ln2 (r_k - sum p r);
//   product   sum_n w_kn y_n, accumulated in registers over a part of the slice.
// The products' sums are added to doubles once a slice.
#pragma once

#include "prefetch.inl"
#include "dots.inl"
#include "kernels.h"
#include "lanes.inl"
#include "pack.inl"
#include "portable.h"
#include "product.inl"
#include "scores.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tiny.inl"
#include "tuning.h"
#include "weigh.inl"

namespace ekmfast {
namespace {

// The smallest positive one; infinity if there is none.
template <class T>
static T least_positive(const T* values, i64 n) {
  T least = T(EKMFAST_INFINITY);
  for (i64 i = 0; i < n; ++i) least = values[i] > 0 && values[i] < least ? values[i] : least;
  return least;
}

template <class F>
static i64 packed_rows(i64 n, i64 d, i64 k) {
  return is_tiny(k, d) || by_dots<typename F::T>(k, d) ? 0 : round_up(n, panel_rows<F>());
}

template <class F>
static void pack(const Rows<typename F::T>& rows, i64 begin, i64 end) {
  Panels<F> panels(rows, begin, end, rows.panels, rows.half_norm, Keep::slice, 1);
  panels.open(0, end - begin);
  for (i64 p = 0; p < end - begin; p += panel_rows<F>()) panels.pack(p);
}

template <class F, Weighting kWeighting>
static void statistics(const Rows<typename F::T>& rows, i64 begin, i64 end,
                       const Centroids<typename F::T>* centroids, const Sums* sums,
                       i64 n_problems, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = centroids->k;
  if constexpr (kWeighting == Weighting::equilibrium && uses(Path::tiny))
    if (try_tiny<F>(rows, begin, n, centroids, sums, n_problems, scratch)) return;
  const Scratch<F> s(scratch, n, d, k);
  const bool dots = kWeighting != Weighting::fuzzy && by_dots<T>(k, d);
  const bool shared = rows.panels || (n_problems > 1 && uses(Path::shared_panels));
  const Keep keep = shared ? Keep::slice : d < kRowProductMinD ? Keep::part : Keep::panel;
  Panels<F> panels(rows, begin, end, s, keep, k);
  pack_weights<F>(rows, begin, n, n_padded, s);
  const T least = rows.sample_weight ? least_positive(s.sample_weight, n) : T(1);
  for (i64 problem = 0; problem < n_problems; ++problem) {
    const Centroids<T>& c = centroids[problem];
    const Sums& out = sums[problem];
    const bool packs = problem == 0 || !shared;
    for (i64 i = 0; i < k * F::W; ++i) s.sum_w[i] = s.sum_p[i] = 0;
    for (i64 i = 0; i < s.partial_size; ++i) s.partial[i] = 0;
    // J = sum s (1/2 ||y||^2 - e / q), its two sums apart: one rounding of 1 / q for all.
    double norms[F::W] = {}, costs[F::W] = {};
    for (i64 first = 0; first < n; first += s.part) {
      const i64 count = n - first < s.part ? n - first : s.part;
      panels.open(first, first + count);
      F norm = F::all(0), e = F::all(0);
      int vectors = 0;  // summed in norm and e
      for (i64 p = first; p < first + count; p += P) {
        T* t = s.weights + (p - first) * k;
        F best[kPanelVectors], cost[kPanelVectors];
        if (dots) {
          dot_panel<F, kDotMaxK>(rows, begin + p, n - p < P ? n - p : P, c, t,
                                          panels.half_norm + p, best);
        } else {
          if (packs) panels.pack(p);
          score_panel<F>(panels.at(p), d, c, packs ? panels.prefetch(p) : Prefetch(), t, best);
        }
        weigh_panel<F, kWeighting>(panels.at(p), d, c, s.sample_weight + p, panels.half_norm + p,
                                   best, t, s, cost);
        for (int v = 0; v < kPanelVectors; ++v) {
          const F weight = F::load(s.sample_weight + p + v * F::W);
          norm = F::fma(weight, F::load(panels.half_norm + p + v * F::W), norm);
          e = F::fma(weight, cost[v], e);
        }
        if (p + P >= first + count || (vectors += kPanelVectors) + kPanelVectors > kCostVectors) {
          if constexpr (kWeighting != Weighting::fuzzy) norm.add_to(norms);
          e.add_to(costs);
          norm = e = F::all(0);
          vectors = 0;
        }
      }
      product<F>(rows, begin + first, count, k, dots && Tuned::kPrefetchAfterDots ? count : 0, least,
                 d < kRowProductMinD ? panels.at(first) : nullptr, s);
    }
    const double cost_sum = sum_lanes<F::W>(costs) * c.inv_q;
    *out.objective +=
        kWeighting == Weighting::fuzzy ? cost_sum : sum_lanes<F::W>(norms) - cost_sum;
    for (i64 i = 0; i < k; ++i) {
      out.sum_w[i] += sum_lanes<F::W>(s.sum_w + i * F::W);
      out.sum_p[i] += sum_lanes<F::W>(s.sum_p + i * F::W);
    }
    flush(d, k, s, out.sum_wx);
  }
}

}  // namespace
}  // namespace ekmfast
