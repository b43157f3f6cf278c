// Stage 4 for nearly hard weights: most of a column is nothing beside its largest weight, and each
// centroid gathers the rows that matter to it.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "lanes.inl"
#include "portable.h"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

// A weight is idle, and left out, below this share of the largest of its column in the part: all
// idle ones together are no more than the rounding of T. The share is of the column's largest, not of
// the row's, so that the ratio A_k / B_k of a centroid far from everything stays exact.
template <class T>
constexpr T kIdleShare = sizeof(T) == 4 ? T(0x1p-32) : T(0x1p-62);

// A weight is idle too where its exponent was clamped; then |w| <= s 2^clamp (1 + ln2 |clamp|).
// Columns that consist of such weights alone are computed again (rescue.cpp); to others they add
// nothing.
template <class T>
constexpr T kIdleWeight = sizeof(T) == 4 ? T(0x1p-93) : T(0x1p-890);
static_assert(kMinExponent<float> == -100 && kMinExponent<double> == -900, "kIdleWeight");

template <class F>
static inline F magnitude(F a) {
  return F::max(a, F::all(0) - a);
}

// Largest |w| over n_padded rows of one column; weights at [panel][k][panel_rows].
template <class F>
static inline typename F::T largest(const typename F::T* weights, i64 n_padded, i64 k) {
  constexpr int P = panel_rows<F>();
  F top = F::all(0);
  for (i64 p = 0; p < n_padded; p += P)
    for (int v = 0; v < P; v += F::W) top = F::max(top, magnitude(F::load(weights + p * k + v)));
  typename F::T lanes[F::W], result = 0;
  top.store(lanes);
  for (int l = 0; l < F::W; ++l) result = lanes[l] > result ? lanes[l] : result;
  return result;
}

// Up to which |w| a weight is idle in n_padded rows of a column.
template <class F>
static inline F idle_bound(const typename F::T* column, i64 n_padded, i64 k,
                           typename F::T least_sample_weight) {
  using T = typename F::T;
  return F::max(F::all(largest<F>(column, n_padded, k) * kIdleShare<T>),
                F::all(least_sample_weight * kIdleWeight<T>));
}

// Whether so few weights matter that gathering pays, judged by some columns of the first panel.
template <class F>
static bool is_sparse(i64 k, const typename F::T* weights, typename F::T least_sample_weight) {
  constexpr int P = panel_rows<F>();
  const i64 step = (k + kSparseSample - 1) / kSparseSample;
  i64 count = 0, seen = 0;
  for (i64 i = 0; i < k; i += step, seen += P) {
    const F bound = idle_bound<F>(weights + i * P, P, k, least_sample_weight);
    for (int v = 0; v < P; v += F::W)
      count += EKMFAST_COUNT_BITS(
          F::greater_bits(magnitude(F::load(weights + i * P + v)), bound));
  }
  return static_cast<double>(count) < kSparseBelow * static_cast<double>(seen);
}

// Adds up kVectors vectors of features of the picked rows; the last vector holds `rest` features if
// kRest.
template <class F, int kVectors, bool kRest>
static inline void gather_tile(const typename F::T* x, i64 stride, const typename F::T* reference,
                               const std::int32_t* picked, const typename F::T* weights, i64 count,
                               int rest, typename F::T* sums) {
  F acc[kVectors];
  for (int v = 0; v < kVectors; ++v) acc[v] = F::load(sums + v * F::W);
  for (i64 i = 0; i < count; ++i) {
    const typename F::T* row = x + picked[i] * stride;
    const F w = F::all(weights[i]);
    for (int v = 0; v < kVectors; ++v) {
      const F y = kRest ? F::load_part(row + v * F::W, rest) -
                              F::load_part(reference + v * F::W, rest)
                        : F::load(row + v * F::W) - F::load(reference + v * F::W);
      acc[v] = F::fma(w, y, acc[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) acc[v].store(sums + v * F::W);
}

template <class F, int kVectors>
static inline void gather_narrow(int vectors, const typename F::T* x, i64 stride,
                                 const typename F::T* reference, const std::int32_t* picked,
                                 const typename F::T* weights, i64 count, typename F::T* sums) {
  if (vectors == kVectors)
    return gather_tile<F, kVectors, false>(x, stride, reference, picked, weights, count, 0, sums);
  if constexpr (kVectors > 1)
    gather_narrow<F, kVectors - 1>(vectors, x, stride, reference, picked, weights, count, sums);
}

template <class F>
static void sparse_product(const Rows<typename F::T>& in, i64 begin, i64 n, i64 k,
                           typename F::T least_sample_weight, const Scratch<F>& s) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n_padded = round_up(n, P);
  const T* x = in.x + begin * in.stride;
  for (i64 i = 0; i < k; ++i) {
    const T* column = s.weights + i * P;
    const F bound = idle_bound<F>(column, n_padded, k, least_sample_weight);
    i64 count = 0;
    // Rows behind the last weigh nothing, so that none of them is picked.
    for (i64 p = 0; p < n_padded; p += P)
      for (int v = 0; v < P; v += F::W) {
        const F weight = F::load(column + p * k + v);
        const unsigned bits = F::greater_bits(magnitude(weight), bound);
        if (!bits) continue;
        F::compress(weight, bits, static_cast<std::int32_t>(p + v), s.picked_weights + count,
                    s.picked + count);
        count += EKMFAST_COUNT_BITS(bits);
      }
    T* sums = s.partial + i * s.d_padded;
    for (i64 j = 0; j < in.d;) {
      const i64 whole = (in.d - j) / F::W;
      const int vectors = static_cast<int>(whole < kGatherVectors ? whole : kGatherVectors);
      if (vectors == 0) {
        gather_tile<F, 1, true>(x + j, in.stride, in.reference + j, s.picked, s.picked_weights,
                                count, static_cast<int>(in.d - j), sums + j);
        break;
      }
      gather_narrow<F, kGatherVectors>(vectors, x + j, in.stride, in.reference + j, s.picked,
                                       s.picked_weights, count, sums + j);
      j += vectors * F::W;
    }
  }
}

}  // namespace
}  // namespace ekmfast
