// Vectors as lanes: shuffles, sums across, and how loops over vectors are kept in registers.
#pragma once

#include <cstddef>
#include <utility>

#include "portable.h"
#include "simd/vectors.h"

namespace ekmfast {
namespace {

// Halves are added until one lane is left.
template <class F, int kHalf, std::size_t... J>
static inline F add_halves(F a, std::index_sequence<J...> lanes) {
  if constexpr (kHalf == 0) {
    return a;
  } else {
    const F other = {EKMFAST_SHUFFLE(a.v, a.v, ((J + kHalf) % F::W)...)};
    return add_halves<F, kHalf / 2>(a + other, lanes);
  }
}

template <class F>
static inline typename F::T sum_across(F vector) {
  return add_halves<F, F::W / 2>(vector, std::make_index_sequence<F::W>()).v[0];
}

// Both vectors are segments of S lanes, those of a first. The halves of each segment are added.
template <class F, int S, std::size_t... J>
static inline F add_segments(F a, F b, std::index_sequence<J...>) {
  constexpr int W = F::W, kHalf = S / 2, N = W / S;
  const F low = {EKMFAST_SHUFFLE(a.v, b.v, ((J / kHalf < N ? 0 : W) + J / kHalf % N * S + J % kHalf)...)};
  const F high = {
      EKMFAST_SHUFFLE(a.v, b.v, ((J / kHalf < N ? 0 : W) + J / kHalf % N * S + kHalf + J % kHalf)...)};
  return low + high;
}

// Lane i is sum_across(vectors[i]), to the last bit, of N = F::W vectors. With fewer the lanes of each are
// F::W / N sums.
template <class F, int N = F::W>
static inline F sums_across(const F* vectors) {
  if constexpr (N == 1) {
    return vectors[0];
  } else {
    const F a = sums_across<F, N / 2>(vectors), b = sums_across<F, N / 2>(vectors + N / 2);
    return add_segments<F, 2 * F::W / N>(a, b, std::make_index_sequence<F::W>());
  }
}

// The sum of N numbers, in double; N a multiple of F64::W.
template <int N, class T>
static inline double sum_lanes(const T* lanes) {
  F64 sum = F64::load(lanes);
  for (int l = F64::W; l < N; l += F64::W) sum = sum + F64::load(lanes + l);
  return sum_across(sum);
}

}  // namespace
}  // namespace ekmfast
