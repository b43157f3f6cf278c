// The way back from samples in the lanes to rows: weights as compute_weights gives them.
#pragma once

#include <cstddef>
#include <utility>

#include "kernels.h"
#include "lanes.inl"
#include "portable.h"
#include "scratch.inl"
#include "simd/vectors.h"
#include "transpose.inl"

namespace ekmfast {
namespace {

// The inverse of deinterleave (transpose.inl): D vectors, a feature each, become W rows of D
// numbers.
template <class F, int D, int At, int J, std::size_t... I>
static inline EKMFAST_INLINED F scatter_features(F so_far, const F* features,
                                                                std::index_sequence<I...> lanes) {
  // Lane I holds element At W + I, feature (At W + I) % D of row (At W + I) / D.
  if constexpr (J < D) {
    const F next = {EKMFAST_SHUFFLE(so_far.v, features[J].v,
                                    ((At * F::W + I) % D == J ? F::W + (At * F::W + I) / D : I)...)};
    return scatter_features<F, D, At, J + 1>(next, features, lanes);
  } else {
    return so_far;
  }
}

template <class F, int D, int At, std::size_t... I>
static inline EKMFAST_INLINED void scatter_rows(const F* features, F* v,
                                                               std::index_sequence<I...> lanes) {
  const F first = {EKMFAST_SHUFFLE(
      features[0].v, features[1].v,
      ((At * F::W + I) % D == 1 ? F::W + (At * F::W + I) / D : (At * F::W + I) / D)...)};
  v[At] = scatter_features<F, D, At, 2>(first, features, lanes);
  if constexpr (At + 1 < D) scatter_rows<F, D, At + 1>(features, v, lanes);
}

template <class F, int From, std::size_t... I>
static inline EKMFAST_INLINED F alternate(F a, F b, std::index_sequence<I...>) {
  return {EKMFAST_SHUFFLE(a.v, b.v, (From + I / 2 + (I % 2) * F::W)...)};
}

template <class F, int D>
static inline EKMFAST_INLINED void interleave(const F* features, F* v) {
  constexpr auto lanes = std::make_index_sequence<F::W>();
  if constexpr (D == 1) {
    v[0] = features[0];
  } else if constexpr (D % 2 == 0) {
    F half[D / 2], evens[D / 2], odds[D / 2];
    for (int i = 0; i < D / 2; ++i) half[i] = features[2 * i];
    interleave<F, D / 2>(half, evens);
    for (int i = 0; i < D / 2; ++i) half[i] = features[2 * i + 1];
    interleave<F, D / 2>(half, odds);
    for (int i = 0; i < D / 2; ++i) {
      v[2 * i] = alternate<F, 0>(evens[i], odds[i], lanes);
      v[2 * i + 1] = alternate<F, F::W / 2>(evens[i], odds[i], lanes);
    }
  } else {
    scatter_rows<F, D, 0>(features, v, lanes);
  }
}

// W rows of K < W columns.
template <class F, int K>
static inline void unpack_short(i64 k, const typename F::T* t, i64 count, typename F::T* out) {
  constexpr int P = panel_rows<F>();
  if (k != K) {
    if constexpr (K > 1) unpack_short<F, K - 1>(k, t, count, out);
    return;
  }
  for (i64 row = 0; row < count; row += F::W, out += F::W * K) {
    F r[F::W];
    for (int j = 0; j < F::W; ++j) r[j] = j < K ? F::load(t + j * P + row) : F::all(0);
    i64 i = 0;
    if constexpr (by_shuffles<F, K>()) {
      if (count - row >= F::W) {
        F v[K];
        interleave<F, K>(r, v);
        for (int j = 0; j < K; ++j) v[j].store(out + j * F::W);
        continue;
      }
    }
    if (!by_shuffles<F, K>()) {
      Transpose<F>::run(r);
      // Each vector reaches into the next rows, which come later.
      for (; i < F::W && (i * K + F::W) <= (count - row) * K; ++i) r[i].store(out + i * K);
    }
    for (; i < F::W && row + i < count; ++i)
      for (int j = 0; j < K; ++j) out[i * K + j] = t[j * P + row + i];
  }
}

// IN t (k, panel_rows); OUT out (count, k), C-contiguous.
template <class F>
static inline void unpack_panel(const typename F::T* t, i64 k, i64 count, typename F::T* out) {
  constexpr int P = panel_rows<F>();
  if (!uses(Path::unpack)) {
    for (i64 i = 0; i < count; ++i)
      for (i64 j = 0; j < k; ++j) out[i * k + j] = t[j * P + i];
    return;
  }
  if (k < F::W) return unpack_short<F, F::W - 1>(k, t, count, out);
  for (i64 row = 0; row < count; row += F::W)
    for (i64 j = 0; j < k; j += F::W) {
      if (j > k - F::W) j = k - F::W;  // the last columns, some of them a second time
      F r[F::W];
      for (int i = 0; i < F::W; ++i) r[i] = F::load(t + (j + i) * P + row);
      Transpose<F>::run(r);
      for (int i = 0; i < F::W; ++i)
        if (row + i < count) r[i].store(out + (row + i) * k + j);
    }
}

}  // namespace
}  // namespace ekmfast
