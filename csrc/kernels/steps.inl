// The vectors of a run of the solver whose centroids are long. They are read from memory, so that each
// function reads and writes them once and forms all products on the way.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "lanes.inl"
#include "portable.h"
#include "simd/vectors.h"

namespace ekmfast {
namespace {

// A vector of one number, for those at the end that fill no other.
struct Single {
  static constexpr int W = 1;
  double v;
  static Single all(double a) { return {a}; }
  static Single load(const double* p) { return {*p}; }
  static Single load(const float* p) { return {static_cast<double>(*p)}; }
  void store(double* p) const { *p = v; }
  void store(float* p) const { *p = static_cast<float>(v); }
  static Single fma(Single a, Single b, Single c) { return {a.v * b.v + c.v}; }
  friend Single operator+(Single a, Single b) { return {a.v + b.v}; }
  friend Single operator-(Single a, Single b) { return {a.v - b.v}; }
  friend Single operator*(Single a, Single b) { return {a.v * b.v}; }
  friend Single operator/(Single a, Single b) { return {a.v / b.v}; }
  static unsigned greater_bits(Single a, Single b) { return a.v > b.v; }
  static Single where_greater(Single a, Single b, Single x, Single y) { return a.v > b.v ? x : y; }
};
static inline double sum_of(Single a) { return a.v; }
static inline double sum_of(F64 a) { return sum_across(a); }

// Requests a later number of a vector. Processors do not foresee reading beyond a page of memory, nor from
// so many vectors at a time.
static inline void request_ahead(const double* at) {
  constexpr std::uintptr_t kAhead = 4096;
  EKMFAST_PREFETCH(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(at) + kAhead), 3);
}

// The step to at = A / B within the bounds, as Solver::step_numbers writes it for short centroids.
template <class F, bool kBounded>
static inline bool free_numbers(const FreeStep& rule, i64 begin, i64 end, double* step) {
  const F w = F::all(rule.w), share = F::all(rule.share);
  unsigned held = 0;
  for (i64 j = begin; j < end; j += F::W, step += F::W) {
    request_ahead(rule.at + j);
    request_ahead(rule.wx + j);
    const F at = F::load(rule.at + j);
    F own = share * ((F::load(rule.reference + j) + F::load(rule.wx + j) / w) - at);
    if constexpr (kBounded) {
      const F low = F::load(rule.low + j), high = F::load(rule.high + j), there = at + own;
      held |= F::greater_bits(there, high) | F::greater_bits(low, there);
      own = F::where_greater(there, high, high - at, own);
      own = F::where_greater(low, there, low - at, own);
    }
    own.store(step);
  }
  return held != 0;
}

template <bool kBounded>
static bool free_piece(const FreeStep& rule, i64 begin, i64 end, double* step) {
  const i64 whole = (end - begin) / F64::W * F64::W;
  const bool some = free_numbers<F64, kBounded>(rule, begin, begin + whole, step);
  return free_numbers<Single, kBounded>(rule, begin + whole, end, step + whole) || some;
}

static bool free_step(const FreeStep& rule, i64 begin, i64 end, double* step) {
  return (rule.low ? free_piece<true> : free_piece<false>)(rule, begin, end, step);
}

// N turns. Sums are formed in registers.
template <class F, int N>
static inline void turn_numbers(const Turning& t, i64 first, i64 begin, i64 end, TurningSums* sums) {
  F length = F::all(0), along = length, way = length, fall = length;
  F products[N + 1][N + 1], shares[N + 1];
  EKMFAST_UNROLL for (int a = 0; a < N; ++a) {
    shares[a] = F::all(0);
    EKMFAST_UNROLL for (int b = 0; b <= a; ++b) products[a][b] = F::all(0);
  }
  for (i64 e = begin; e < end; e += F::W) {
    const i64 i = first + e;
    request_ahead(t.before + i);
    request_ahead(t.step + i);
    const F step = F::load(t.fresh + e), last = F::load(t.step + i);
    const F moved = F::load(t.at + i) - F::load(t.before + i), fell = last - step;
    step.store(t.step + i);
    length = F::fma(step, step, length);
    along = F::fma(moved, step, along);
    way = F::fma(moved, moved, way);
    fall = F::fma(moved, fell, fall);
    if constexpr (N > 0) {
      (step - last).store(t.turn + i);
      (moved - fell).store(t.move + i);
      F turns[N];
      EKMFAST_UNROLL for (int a = 0; a + 1 < N; ++a) turns[a] = F::load(t.turns[a] + i);
      turns[N - 1] = F::load(t.turn + i);  // rounded, as it will be read from now on
      EKMFAST_UNROLL for (int a = 0; a < N; ++a) {
        shares[a] = F::fma(turns[a], step, shares[a]);
        EKMFAST_UNROLL for (int b = 0; b <= a; ++b)
          products[a][b] = F::fma(turns[a], turns[b], products[a][b]);
      }
    }
  }
  sums->length += sum_of(length);
  sums->along += sum_of(along);
  sums->way += sum_of(way);
  sums->fall += sum_of(fall);
  for (int a = 0; a < N; ++a) {
    sums->shares[a] += sum_of(shares[a]);
    for (int b = 0; b <= a; ++b) sums->products[a][b] += sum_of(products[a][b]);
  }
}

template <int N>
static void turn_piece(const Turning& t, i64 first, i64 count, TurningSums* sums) {
  const i64 whole = count / F64::W * F64::W;
  turn_numbers<F64, N>(t, first, 0, whole, sums);
  turn_numbers<Single, N>(t, first, whole, count, sums);
}

static void turn(const Turning& t, i64 first, i64 count, TurningSums* sums) {
  switch (t.n) {
    case 0: return turn_piece<0>(t, first, count, sums);
    case 1: return turn_piece<1>(t, first, count, sums);
    case 2: return turn_piece<2>(t, first, count, sums);
    case 3: return turn_piece<3>(t, first, count, sums);
  }
}

template <class F, int N>
static inline void leap_numbers(const Leaping& l, i64 first, i64 begin, i64 end, double* along,
                                double* way) {
  F sum_along = F::all(0), sum_way = F::all(0);
  for (i64 e = begin; e < end; e += F::W) {
    const i64 i = first + e;
    request_ahead(l.at + i);
    request_ahead(l.step + i);
    const F step = F::load(l.step + i);
    F to = step;
    EKMFAST_UNROLL for (int a = 0; a < N; ++a)
      to = F::fma(F::all(l.shares[a]), F::load(l.moves[a] + i), to);
    F there = F::load(l.at + i) + to;
    if (l.low) {
      const F low = F::load(l.low + e), high = F::load(l.high + e);
      there = F::where_greater(there, high, high, F::where_greater(low, there, low, there));
    }
    there.store(l.there + i);
    sum_along = F::fma(to, step, sum_along);
    sum_way = F::fma(to, to, sum_way);
  }
  *along += sum_of(sum_along);
  *way += sum_of(sum_way);
}

template <int N>
static void leap_piece(const Leaping& l, i64 first, i64 count, double* along, double* way) {
  const i64 whole = count / F64::W * F64::W;
  leap_numbers<F64, N>(l, first, 0, whole, along, way);
  leap_numbers<Single, N>(l, first, whole, count, along, way);
}

static void leap(const Leaping& l, i64 first, i64 count, double* along, double* way) {
  switch (l.n) {
    case 1: return leap_piece<1>(l, first, count, along, way);
    case 2: return leap_piece<2>(l, first, count, along, way);
    case 3: return leap_piece<3>(l, first, count, along, way);
  }
}

}  // namespace
}  // namespace ekmfast
