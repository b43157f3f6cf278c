// Few centroids of few features, K and D known at compile time, where each vector of samples is
// little work but a long chain of it: score, maximum, exponential, sum, division, weights, sums.
//
// A processor sees the instructions of about two such chains at a time, too few to keep it busy while
// each step waits for the one before. So the chain is cut into three loops, each over a stretch of
// vectors whose steps do not depend on one another; what the loops write for each other stays in the
// L1 cache.
#pragma once

#include "exp2.inl"
#include "kernels.h"
#include "lanes.inl"
#include "log2.inl"
#include "portable.h"
#include "scratch.inl"
#include "simd/vectors.h"
#include "transpose.inl"
#include "tuning.h"

namespace ekmfast {
namespace {

static_assert(kTinyMaxK <= Tuned::kTileCentroids, "centroids are one tile, [feature][centroid]");

// A vector of samples on its way, as in weigh_softmax (weigh.inl).
template <class F, int K, int D>
struct TinyVector {
  using Vector = typename F::T[F::W];
  Vector features[D], sample_weight;     // y, centred, and s
  Vector best, r[K], u[K], sum, moment;  // max t, r_k, u_k, S and S m
};

// Copies W rows that lie apart in memory, or the last `count` < W of a slice. What is missing is
// filled with the reference at weight 0.
template <class F, int D>
static EKMFAST_NOT_INLINED void copy_rows(const Rows<typename F::T>& in, i64 begin, i64 count,
                                                typename F::T* x, typename F::T* weight) {
  using T = typename F::T;
  for (i64 i = 0; i < F::W; ++i) {
    const T* from = i < count ? in.x + (begin + i) * in.stride : in.reference;
    for (int j = 0; j < D; ++j) x[i * D + j] = from[j];
    weight[i] = i >= count ? T(0) : in.sample_weight ? in.sample_weight[begin + i] : T(1);
  }
}

// The slice's vectors of features and of sample weights, kept for further problems; null if there is
// one problem.
template <class F>
struct TinySlice {
  typename F::T *features, *sample_weight;
  double half_norms;  // 1/2 sum s ||y||^2
};

// The W samples from `row` on of the n of a slice.
template <class F, int D>
static inline void tiny_samples(const Rows<typename F::T>& in, i64 begin, i64 n, i64 row,
                                const F* centre, F* y, F& weight) {
  using T = typename F::T;
  // No load may reach behind the slice's last number, which can be the end of the caller's memory.
  if (in.stride == D && row * D + numbers_read<F, D>() <= n * D) {
    transpose_rows<F, D>(in.x + (begin + row) * D, y);
    weight = in.sample_weight ? F::load(in.sample_weight + begin + row) : F::all(1);
  } else {
    T x[F::W * D + F::W] = {}, copied_weight[F::W];
    copy_rows<F, D>(in, begin + row, n - row, x, copied_weight);
    transpose_rows<F, D>(x, y);
    weight = F::load(copied_weight);
  }
  for (int j = 0; j < D; ++j) y[j] = y[j] - centre[j];
}

template <class F, int K, int D>
static inline void tiny_scores(const F* y, const Centroids<typename F::T>& c,
                               TinyVector<F, K, D>& to) {
  F t[K];
  for (int k = 0; k < K; ++k) {
    t[k] = F::all(c.bias[k]);
    for (int j = 0; j < D; ++j) t[k] = F::fma(F::all(c.tiles[j * K + k]), y[j], t[k]);
  }
  F best = t[0];
  for (int k = 1; k < K; ++k) best = F::max(best, t[k]);
  best.store(to.best);
  const F floor = F::all(kMinExponent<typename F::T>);
  for (int k = 0; k < K; ++k) F::max(t[k] - best, floor).store(to.r[k]);
}

template <class F, int K, int D>
static inline void tiny_exponentials(TinyVector<F, K, D>& at) {
  F sum = F::all(0), moment = F::all(0);
  for (int k = 0; k < K; ++k) {
    const F r = F::load(at.r[k]), u = exp2_nonpositive<F>(r);
    sum = sum + u;
    moment = F::fma(u, r, moment);
    u.store(at.u[k]);
  }
  sum.store(at.sum);
  moment.store(at.moment);
}

template <class F, int K, int D>
struct TinySums {
  F wx[K][D], w[K], p[K], cost;
};

template <class F, int K, int D>
static inline void tiny_weights(const TinyVector<F, K, D>& from, TinySums<F, K, D>& sums) {
  const F weight = F::load(from.sample_weight), inverse = F::all(1) / F::load(from.sum);
  const F share = weight * inverse, mean = F::load(from.moment) * inverse;
  const F b = share * F::all(typename F::T(kLn2)), a = share - b * mean;
  sums.cost = F::fma(weight, F::load(from.best) + mean, sums.cost);
  for (int k = 0; k < K; ++k) {
    const F u = F::load(from.u[k]);
    const F w = u * F::fma(b, F::load(from.r[k]), a);
    sums.w[k] = sums.w[k] + w;
    sums.p[k] = F::fma(u, share, sums.p[k]);
    for (int j = 0; j < D; ++j)
      sums.wx[k][j] = F::fma(w, F::load(from.features[j]), sums.wx[k][j]);
  }
}

// kAgain: an earlier problem has stored the slice's vectors in `slice`, and they are read from there.
template <class F, int K, int D, bool kAgain>
static void tiny(const Rows<typename F::T>& in, i64 begin, i64 n, const Centroids<typename F::T>& c,
                 TinySlice<F>& slice, const Sums& out) {
  using T = typename F::T;
  constexpr i64 W = F::W;
  F centre[D];
  EKMFAST_UNROLL for (int j = 0; j < D; ++j) centre[j] = F::all(in.reference[j]);
  TinySums<F, K, D> sums;
  EKMFAST_UNROLL for (int k = 0; k < K; ++k) {
    sums.w[k] = sums.p[k] = F::all(0);
    EKMFAST_UNROLL for (int j = 0; j < D; ++j) sums.wx[k][j] = F::all(0);
  }
  double norms[W] = {}, costs[W] = {};
  alignas(64) TinyVector<F, K, D> stretch[kCostVectors];
  for (i64 first = 0; first < n; first += kCostVectors * W) {
    const i64 left = (n - first + W - 1) / W, count = left < kCostVectors ? left : kCostVectors;
    F norm_sum = F::all(0);
    for (i64 v = 0; v < count; ++v) {
      const i64 row = first + v * W;
      F y[D], weight;
      if constexpr (kAgain) {
        for (int j = 0; j < D; ++j) y[j] = F::load(slice.features + row * D + j * W);
        weight = F::load(slice.sample_weight + row);
      } else {
        tiny_samples<F, D>(in, begin, n, row, centre, y, weight);
        F norm = y[0] * y[0];
        for (int j = 1; j < D; ++j) norm = F::fma(y[j], y[j], norm);
        norm_sum = F::fma(weight, norm * F::all(T(0.5)), norm_sum);
        if (slice.features) {
          for (int j = 0; j < D; ++j) y[j].store(slice.features + row * D + j * W);
          weight.store(slice.sample_weight + row);
        }
      }
      for (int j = 0; j < D; ++j) y[j].store(stretch[v].features[j]);
      weight.store(stretch[v].sample_weight);
      tiny_scores<F, K, D>(y, c, stretch[v]);
    }
    if constexpr (!kAgain) norm_sum.add_to(norms);
    for (i64 v = 0; v < count; ++v) tiny_exponentials<F, K, D>(stretch[v]);
    sums.cost = F::all(0);
    for (i64 v = 0; v < count; ++v) tiny_weights<F, K, D>(stretch[v], sums);
    sums.cost.add_to(costs);
  }
  if constexpr (!kAgain) slice.half_norms = sum_lanes<W>(norms);
  // Only one product here can be fused with the subtraction, so that rounding, and with it J, does
  // not depend on whether other problems are computed beside this one.
  *out.objective += slice.half_norms - sum_lanes<W>(costs) * c.inv_q;
  T lanes[K][D + 2][W];
  EKMFAST_UNROLL for (int k = 0; k < K; ++k) {
    EKMFAST_UNROLL for (int j = 0; j < D; ++j) sums.wx[k][j].store(lanes[k][j]);
    sums.w[k].store(lanes[k][D]);
    sums.p[k].store(lanes[k][D + 1]);
  }
  for (int k = 0; k < K; ++k) {
    for (int j = 0; j < D; ++j) out.sum_wx[k * D + j] += sum_lanes<W>(lanes[k][j]);
    out.sum_w[k] += sum_lanes<W>(lanes[k][D]);
    out.sum_p[k] += sum_lanes<W>(lanes[k][D + 1]);
  }
}

static inline bool is_tiny(i64 k, i64 d) {
  return uses(Path::tiny) && k <= kTinyMaxK && d <= kTinyMaxD && k * d <= kTinyMaxSize;
}

// True if K and D were so small that tiny() has computed the sums.
template <class F, int K = kTinyMaxK, int D = kTinyMaxD>
static inline bool try_tiny(const Rows<typename F::T>& in, i64 begin, i64 n,
                            const Centroids<typename F::T>* c, const Sums* out, i64 n_problems,
                            void* scratch) {
  if (c->k > K || in.d > D) return false;
  if constexpr (K > 1) {
    if (c->k < K) return try_tiny<F, K - 1, D>(in, begin, n, c, out, n_problems, scratch);
  }
  if constexpr (D > 1) {
    if (in.d < D) return try_tiny<F, K, D - 1>(in, begin, n, c, out, n_problems, scratch);
  }
  if constexpr (K * D <= kTinyMaxSize) {
    TinySlice<F> slice = {nullptr, nullptr, 0};
    if (n_problems > 1 && uses(Path::tiny_slice)) {
      const Scratch<F> s(scratch, n, D, K);
      slice.features = s.panels;
      slice.sample_weight = s.sample_weight;
    }
    tiny<F, K, D, false>(in, begin, n, c[0], slice, out[0]);
    for (i64 i = 1; i < n_problems; ++i)
      tiny<F, K, D, uses(Path::tiny_slice)>(in, begin, n, c[i], slice, out[i]);
    return true;
  }
  return false;
}

}  // namespace
}  // namespace ekmfast
