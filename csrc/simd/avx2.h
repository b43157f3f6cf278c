// AVX2 and FMA: 8 float32 or 4 float64 to a vector, 16 registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "compress.h"

namespace ekmfast {
namespace {

struct F32 {
  using T = float;
  using V = __m256;
  static constexpr int W = 8;
  static constexpr bool kLookUp = false;  // see kernels/exp2.inl
  V v;
  static F32 all(T a) { return {_mm256_set1_ps(a)}; }
  static F32 load(const T* p) { return {_mm256_loadu_ps(p)}; }
  static F32 load_part(const T* p, int n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return {_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), lane))};
  }
  void store(T* p) const { _mm256_storeu_ps(p, v); }
  static F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
  static F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
  static F32 round(F32 a) { return {_mm256_round_ps(a.v, 8)}; }
  static F32 scale(F32 a, F32 n) {
    const __m256i bits = _mm256_slli_epi32(_mm256_cvtps_epi32(n.v), 23);
    return {_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a.v), bits))};
  }
  // floor(log2 a) of a positive normal number
  static F32 exponent(F32 a) {
    return {_mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_castps_si256(a.v), 23)),
                          _mm256_set1_ps(127))};
  }
  static F32 where_greater(F32 a, F32 b, F32 x, F32 y) {
    return {_mm256_blendv_ps(y.v, x.v, _mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ))};
  }
  // bit l is a > b in lane l
  static unsigned greater_bits(F32 a, F32 b) {
    return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)));
  }
  static void compress(F32 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    compress_lanes(a, bits, first, values, numbers);
  }
  friend F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
  friend F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
  friend F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
  friend F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
  void add_to(double* p) const {
    const __m256d lo = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
    const __m256d hi = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
    _mm256_storeu_pd(p, _mm256_add_pd(_mm256_loadu_pd(p), lo));
    _mm256_storeu_pd(p + 4, _mm256_add_pd(_mm256_loadu_pd(p + 4), hi));
  }
};

struct F64 {
  using T = double;
  using V = __m256d;
  static constexpr int W = 4;
  static constexpr bool kLookUp = false;  // see kernels/exp2.inl
  V v;
  static F64 all(T a) { return {_mm256_set1_pd(a)}; }
  static F64 load(const T* p) { return {_mm256_loadu_pd(p)}; }
  static F64 load(const float* p) { return {_mm256_cvtps_pd(_mm_loadu_ps(p))}; }
  static F64 load_part(const T* p, int n) {
    const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
    return {_mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), lane))};
  }
  void store(T* p) const { _mm256_storeu_pd(p, v); }
  void store(float* p) const { _mm_storeu_ps(p, _mm256_cvtpd_ps(v)); }
  static F64 fma(F64 a, F64 b, F64 c) { return {_mm256_fmadd_pd(a.v, b.v, c.v)}; }
  static F64 max(F64 a, F64 b) { return {_mm256_max_pd(a.v, b.v)}; }
  static F64 round(F64 a) { return {_mm256_round_pd(a.v, 8)}; }
  static F64 scale(F64 a, F64 n) {
    const __m256i wide = _mm256_cvtepi32_epi64(_mm256_cvtpd_epi32(n.v));
    return {_mm256_castsi256_pd(
        _mm256_add_epi64(_mm256_castpd_si256(a.v), _mm256_slli_epi64(wide, 52)))};
  }
  static F64 exponent(F64 a) {
    // If an integer n < 2^52 is written to the low bits of 2^52, the number is 2^52 + n.
    const __m256i shift = _mm256_castpd_si256(_mm256_set1_pd(0x1p52));
    const __m256i bits = _mm256_srli_epi64(_mm256_castpd_si256(a.v), 52);
    return {_mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(bits, shift)),
                          _mm256_set1_pd(0x1p52 + 1023))};
  }
  static F64 where_greater(F64 a, F64 b, F64 x, F64 y) {
    return {_mm256_blendv_pd(y.v, x.v, _mm256_cmp_pd(a.v, b.v, _CMP_GT_OQ))};
  }
  static unsigned greater_bits(F64 a, F64 b) {
    return static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(a.v, b.v, _CMP_GT_OQ)));
  }
  static void compress(F64 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    compress_lanes(a, bits, first, values, numbers);
  }
  friend F64 operator+(F64 a, F64 b) { return {_mm256_add_pd(a.v, b.v)}; }
  friend F64 operator-(F64 a, F64 b) { return {_mm256_sub_pd(a.v, b.v)}; }
  friend F64 operator*(F64 a, F64 b) { return {_mm256_mul_pd(a.v, b.v)}; }
  friend F64 operator/(F64 a, F64 b) { return {_mm256_div_pd(a.v, b.v)}; }
  void add_to(double* p) const { _mm256_storeu_pd(p, _mm256_add_pd(_mm256_loadu_pd(p), v)); }
};

}  // namespace
}  // namespace ekmfast
