// The baseline of the architecture: 128-bit vectors in the compilers' own notation, which every
// 64-bit processor has (SSE2 on x86-64, Advanced SIMD on AArch64).
#pragma once

#include <cstdint>
#include <cstring>

#include "compress.h"
#include "portable.h"

namespace ekmfast {
namespace {

typedef float f32x4 EKMFAST_VECTOR;
typedef std::int32_t i32x4 EKMFAST_VECTOR;
typedef std::uint32_t u32x4 EKMFAST_VECTOR;
typedef double f64x2 EKMFAST_VECTOR;
typedef std::int64_t i64x2 EKMFAST_VECTOR;
typedef std::uint64_t u64x2 EKMFAST_VECTOR;

template <class Mask, class Vector>
static inline Vector select(Mask mask, Vector x, Vector y) {
  return reinterpret_cast<Vector>((mask & reinterpret_cast<Mask>(x)) |
                                  (~mask & reinterpret_cast<Mask>(y)));
}

struct F32 {
  using T = float;
  using V = f32x4;
  static constexpr int W = 4;
  static constexpr bool kLookUp = false;  // see kernels/exp2.inl
  V v;
  static F32 all(T a) { return {V{a, a, a, a}}; }
  static F32 load(const T* p) {
    F32 r;
    std::memcpy(&r.v, p, sizeof(V));
    return r;
  }
  static F32 load_part(const T* p, int n) {
    T part[W] = {0, 0, 0, 0};
    for (int i = 0; i < n; ++i) part[i] = p[i];
    return load(part);
  }
  void store(T* p) const { std::memcpy(p, &v, sizeof(V)); }
  static F32 fma(F32 a, F32 b, F32 c) { return {a.v * b.v + c.v}; }
  static F32 max(F32 a, F32 b) { return {select(a.v > b.v, a.v, b.v)}; }
  // Adding and subtracting 1.5 * 2^23 rounds a to the nearest integer, for |a| < 2^22.
  static F32 round(F32 a) { return (a + all(12582912.0f)) - all(12582912.0f); }
  static F32 scale(F32 a, F32 n) {
    // The low bits of n + 1.5 * 2^23 are the integer n. Unsigned, since the high bits are shifted out,
    // which is undefined for signed integers.
    const u32x4 bits = reinterpret_cast<u32x4>((n + all(12582912.0f)).v) << 23;
    return {reinterpret_cast<V>(reinterpret_cast<u32x4>(a.v) + bits)};
  }
  // floor(log2 a) of a positive normal number
  static F32 exponent(F32 a) {
    return {EKMFAST_CONVERT(reinterpret_cast<i32x4>(a.v) >> 23, V) - all(127).v};
  }
  static F32 where_greater(F32 a, F32 b, F32 x, F32 y) { return {select(a.v > b.v, x.v, y.v)}; }
  // bit l is a > b in lane l
  static unsigned greater_bits(F32 a, F32 b) {
    const i32x4 m = (a.v > b.v) & i32x4{1, 2, 4, 8};
    return static_cast<unsigned>(m[0] | m[1] | m[2] | m[3]);
  }
  static void compress(F32 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    compress_lanes(a, bits, first, values, numbers);
  }
  friend F32 operator+(F32 a, F32 b) { return {a.v + b.v}; }
  friend F32 operator-(F32 a, F32 b) { return {a.v - b.v}; }
  friend F32 operator*(F32 a, F32 b) { return {a.v * b.v}; }
  friend F32 operator/(F32 a, F32 b) { return {a.v / b.v}; }
  void add_to(double* p) const {
    for (int i = 0; i < W; ++i) p[i] += static_cast<double>(v[i]);
  }
};

struct F64 {
  using T = double;
  using V = f64x2;
  static constexpr int W = 2;
  static constexpr bool kLookUp = false;  // see kernels/exp2.inl
  V v;
  static F64 all(T a) { return {V{a, a}}; }
  static F64 load(const T* p) {
    F64 r;
    std::memcpy(&r.v, p, sizeof(V));
    return r;
  }
  static F64 load(const float* p) { return {V{p[0], p[1]}}; }
  static F64 load_part(const T* p, int n) {
    return {V{n > 0 ? p[0] : 0.0, n > 1 ? p[1] : 0.0}};
  }
  void store(T* p) const { std::memcpy(p, &v, sizeof(V)); }
  void store(float* p) const {
    for (int i = 0; i < W; ++i) p[i] = static_cast<float>(v[i]);
  }
  static F64 fma(F64 a, F64 b, F64 c) { return {a.v * b.v + c.v}; }
  static F64 max(F64 a, F64 b) { return {select(a.v > b.v, a.v, b.v)}; }
  static F64 round(F64 a) { return (a + all(6755399441055744.0)) - all(6755399441055744.0); }
  static F64 scale(F64 a, F64 n) {
    const u64x2 bits = reinterpret_cast<u64x2>((n + all(6755399441055744.0)).v) << 52;
    return {reinterpret_cast<V>(reinterpret_cast<u64x2>(a.v) + bits)};
  }
  static F64 exponent(F64 a) {
    return {EKMFAST_CONVERT(reinterpret_cast<i64x2>(a.v) >> 52, V) - all(1023).v};
  }
  static F64 where_greater(F64 a, F64 b, F64 x, F64 y) { return {select(a.v > b.v, x.v, y.v)}; }
  static unsigned greater_bits(F64 a, F64 b) {
    const i64x2 m = (a.v > b.v) & i64x2{1, 2};
    return static_cast<unsigned>(m[0] | m[1]);
  }
  static void compress(F64 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    compress_lanes(a, bits, first, values, numbers);
  }
  friend F64 operator+(F64 a, F64 b) { return {a.v + b.v}; }
  friend F64 operator-(F64 a, F64 b) { return {a.v - b.v}; }
  friend F64 operator*(F64 a, F64 b) { return {a.v * b.v}; }
  friend F64 operator/(F64 a, F64 b) { return {a.v / b.v}; }
  void add_to(double* p) const {
    for (int i = 0; i < W; ++i) p[i] += v[i];
  }
};

}  // namespace
}  // namespace ekmfast
