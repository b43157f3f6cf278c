// Stage 3: scores become weights (weighting.h), the one stage that depends on the weighting.
//
// weigh_panel<F, kWeighting>: t (k, panel) becomes s * w, sums of s w and s p are added to s.sum_w
// and s.sum_p. OUT cost, one a row: e, by which the row's part of J is s (1/2 ||y||^2 - e / q), but
// s e / q for the fuzzy weighting.
#pragma once

#include "exp2.inl"
#include "kernels.h"
#include "log2.inl"
#include "portable.h"
#include "scores.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

// With u_k = 2^r_k, S = sum u, m = sum u r / S, and as alpha (d_k - E) = -ln2 (r_k - m):
//   equilibrium      s w_k = u_k (a + b r_k),  b = ln2 s / S,  a = s / S - b m;   e = max t + m
//   maximum entropy  s w_k = u_k s / S;   e = max t + log2 S
template <class F, bool kTilted>
static inline void weigh_softmax(const typename F::T* sample_weight, i64 k, const F* best,
                                 typename F::T* t, const Scratch<F>& s, F* cost) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const F floor = F::all(kMinExponent<T>);
  F sum[kPanelVectors], moment[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) sum[v] = moment[v] = F::all(0);
  for (i64 i = 0; i < k; ++i) {
    // Loads, arithmetic, stores: a store between would hold back the next vector's polynomial.
    F r[kPanelVectors], u[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v)
      r[v] = F::max(F::load(t + i * P + v * F::W) - best[v], floor);
    for (int v = 0; v < kPanelVectors; ++v) u[v] = exp2_nonpositive<F>(r[v]);
    for (int v = 0; v < kPanelVectors; ++v) {
      sum[v] = sum[v] + u[v];
      if constexpr (kTilted) moment[v] = F::fma(u[v], r[v], moment[v]);
    }
    for (int v = 0; v < kPanelVectors; ++v) {
      u[v].store(s.exponentials + i * P + v * F::W);
      if constexpr (kTilted) r[v].store(t + i * P + v * F::W);
    }
  }
  F a[kPanelVectors], b[kPanelVectors], share[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    const F inverse = F::all(1) / sum[v];
    share[v] = F::load(sample_weight + v * F::W) * inverse;
    if constexpr (kTilted) {
      const F mean = moment[v] * inverse;
      b[v] = share[v] * F::all(T(kLn2));
      a[v] = share[v] - b[v] * mean;
      cost[v] = best[v] + mean;
    } else {
      cost[v] = best[v] + log2_normal<F>(sum[v]);
    }
  }
  for (i64 i = 0; i < k; ++i) {
    F w_sum = F::load(s.sum_w + i * F::W), p_sum = F::load(s.sum_p + i * F::W);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F u = F::load(s.exponentials + i * P + v * F::W);
      if constexpr (kTilted) {
        const F r = F::load(t + i * P + v * F::W);
        const F w = u * F::fma(b[v], r, a[v]);
        w.store(t + i * P + v * F::W);
        w_sum = w_sum + w;
        p_sum = F::fma(u, share[v], p_sum);
      } else {
        const F w = u * share[v];
        w.store(t + i * P + v * F::W);
        w_sum = w_sum + w;
        p_sum = p_sum + w;
      }
    }
    w_sum.store(s.sum_w + i * F::W);
    p_sum.store(s.sum_p + i * F::W);
  }
}

// e = max t. What is left of a row's weight goes to the first centroid that has it.
template <class F>
static inline void weigh_hard(const typename F::T* sample_weight, i64 k, const F* best,
                              typename F::T* t, const Scratch<F>& s, F* cost) {
  constexpr int P = panel_rows<F>();
  F left[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    left[v] = F::load(sample_weight + v * F::W);
    cost[v] = best[v];
  }
  for (i64 i = 0; i < k; ++i) {
    F sum = F::load(s.sum_w + i * F::W);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F w = F::where_greater(best[v], F::load(t + i * P + v * F::W), F::all(0), left[v]);
      left[v] = left[v] - w;
      w.store(t + i * P + v * F::W);
      sum = sum + w;
    }
    sum.store(s.sum_w + i * F::W);
    sum.store(s.sum_p + i * F::W);
  }
}

// t becomes squared distances, of which the rows' least are found.
template <class F>
static inline void distances_of_panel(const typename F::T* panel, i64 d,
                                      const Centroids<typename F::T>& c,
                                      const typename F::T* half_norm, typename F::T* t, F* least) {
  constexpr int P = panel_rows<F>();
  F norm[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    const F half = F::load(half_norm + v * F::W);
    norm[v] = half + half;
    least[v] = F::all(EKMFAST_INFINITY);
  }
  for (i64 i = 0; i < c.k; ++i) {
    F d2[kPanelVectors];
    squared_distances<F>(panel, d, c, i, t, norm, d2);
    for (int v = 0; v < kPanelVectors; ++v) {
      d2[v].store(t + i * P + v * F::W);
      least[v] = F::where_greater(d2[v], least[v], least[v], d2[v]);
    }
  }
}

// IN t, squared distances; least, those of the rows to their nearest centroids.
// Relative to a row's least distance D, nothing overflows: with r_k = D / d_k in [0, 1],
// v_k = r_k^(1/(m-1)) and S = sum v,
//   p_k = v_k / S,  w_k = p_k^m = p_k r_k S^-(m-1),  and  sum_k w_k d_k = D S^-(m-1).
// A row on a centroid has D = 0: r is 1 at all centroids that it is on and 0 elsewhere. Powers
// below 2^kMinExponent are 0.
template <class F>
static inline void weigh_fuzzy(i64 k, typename F::T exponent, const typename F::T* sample_weight,
                               const F* least, typename F::T* t, const Scratch<F>& s, F* cost) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  constexpr T kMinNormal = sizeof(T) == 4 ? T(0x1p-126) : T(0x1p-1022);
  const F zero = F::all(0), one = F::all(1), floor = F::all(kMinExponent<T>);
  const bool reciprocal = uses(Path::reciprocal) && exponent == T(1);  // m = 2: v = r
  F sum[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) sum[v] = zero;
  for (i64 i = 0; i < k; ++i)
    for (int v = 0; v < kPanelVectors; ++v) {
      const F d2 = F::load(t + i * P + v * F::W);
      const F r = F::where_greater(d2, zero, least[v] / d2, one);
      F power = r;
      if (!reciprocal) {
        const F x = log2_normal<F>(r) * F::all(exponent);
        power = F::where_greater(x, floor, exp2_nonpositive<F>(F::max(x, floor)), zero);
        power = F::where_greater(r, F::all(kMinNormal), power, zero);
      }
      r.store(t + i * P + v * F::W);
      power.store(s.exponentials + i * P + v * F::W);
      sum[v] = sum[v] + power;
    }
  F share[kPanelVectors], scale[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    const F inverse = one / sum[v];
    F shrunk = inverse;  // S^-(m-1)
    if (!reciprocal) {
      const F x = log2_normal<F>(sum[v]) * F::all(T(-1) / exponent);
      shrunk = exp2_nonpositive<F>(F::max(x, floor));
    }
    cost[v] = least[v] * shrunk;
    share[v] = F::load(sample_weight + v * F::W) * inverse;
    scale[v] = share[v] * shrunk;
  }
  for (i64 i = 0; i < k; ++i) {
    F w_sum = F::load(s.sum_w + i * F::W), p_sum = F::load(s.sum_p + i * F::W);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F r = F::load(t + i * P + v * F::W);
      const F power = F::load(s.exponentials + i * P + v * F::W);
      const F w = power * r * scale[v];
      w.store(t + i * P + v * F::W);
      w_sum = w_sum + w;
      p_sum = F::fma(power, share[v], p_sum);
    }
    w_sum.store(s.sum_w + i * F::W);
    p_sum.store(s.sum_p + i * F::W);
  }
}

template <class F, Weighting kWeighting>
static inline void weigh_panel(const typename F::T* panel, i64 d,
                               const Centroids<typename F::T>& c,
                               const typename F::T* sample_weight, const typename F::T* half_norm,
                               const F* best, typename F::T* t, const Scratch<F>& s, F* cost) {
  if constexpr (kWeighting == Weighting::fuzzy) {
    F least[kPanelVectors];
    distances_of_panel<F>(panel, d, c, half_norm, t, least);
    weigh_fuzzy<F>(c.k, c.power, sample_weight, least, t, s, cost);
  } else if constexpr (kWeighting == Weighting::hard)
    weigh_hard<F>(sample_weight, c.k, best, t, s, cost);
  else
    weigh_softmax<F, kWeighting == Weighting::equilibrium>(sample_weight, c.k, best, t, s, cost);
}

}  // namespace
}  // namespace ekmfast
