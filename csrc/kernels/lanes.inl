// Vectors as lanes: shuffles, sums across, and how loops over vectors are kept in registers.
#pragma once

#include <cstddef>
#include <utility>

#include "simd/vectors.h"

namespace ekmfast {
namespace {

// GCC keeps an array of vectors in registers if all loops over it are unrolled early, which those
// at the outermost level of a function are only where they say so.
#if defined(__clang__)
#define EKMFAST_UNROLL
#else
#define EKMFAST_UNROLL _Pragma("GCC unroll 16")
#endif

// Elements of two vectors, numbered through, in the order given.
#if defined(__clang__) || __GNUC__ >= 12
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype((a) > (b)){__VA_ARGS__})
#endif

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
