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

// The sum of N numbers, in double; N a multiple of F64::W.
template <int N, class T>
static inline double sum_lanes(const T* lanes) {
  F64 sum = F64::load(lanes);
  for (int l = F64::W; l < N; l += F64::W) sum = sum + F64::load(lanes + l);
  return sum_across(sum);
}

}  // namespace
}  // namespace ekmfast
