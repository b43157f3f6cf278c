// AVX-512 (F, DQ, VL, BW): 16 float32 or 8 float64 to a vector, 32 registers.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace ekmfast {
namespace {

struct F32 {
  using T = float;
  using V = __m512;
  static constexpr int W = 16;
  V v;
  static F32 all(T a) { return {_mm512_set1_ps(a)}; }
  static F32 load(const T* p) { return {_mm512_loadu_ps(p)}; }
  static F32 load_part(const T* p, int n) {
    return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p)};
  }
  void store(T* p) const { _mm512_storeu_ps(p, v); }
  static F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
  static F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
  static F32 round(F32 a) { return {_mm512_roundscale_ps(a.v, 8)}; }
  // a 2^floor(n)
  static F32 scale(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
  static constexpr bool kLookUp = true;  // see kernels/exp2.inl
  // Rounds to multiples of 1 / W.
  static F32 round_to_steps(F32 a) { return {_mm512_roundscale_ps(a.v, 0x48)}; }
  // 2^(n - floor(n)) for such multiples n, from a table in the lanes of a vector. The last bits of
  // n + 3 2^18 (float64: 3 2^48) are n W, and the permutation reads only those that number lanes.
  static F32 power_of_fraction(F32 n) {
    const __m512 powers = _mm512_setr_ps(
        1.0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fe0p+0f, 0x1.3dea64p+0f,
        0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f, 0x1.7a1148p+0f, 0x1.8ace54p+0f,
        0x1.9c4918p+0f, 0x1.ae89fap+0f, 0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f);
    const __m512 counted = _mm512_add_ps(n.v, _mm512_set1_ps(0x1.8p19f));
    return {_mm512_permutexvar_ps(_mm512_castps_si512(counted), powers)};
  }
  // floor(log2 a) of a positive normal number
  static F32 exponent(F32 a) { return {_mm512_getexp_ps(a.v)}; }
  // a > b ? x : y
  static F32 where_greater(F32 a, F32 b, F32 x, F32 y) {
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), y.v, x.v)};
  }
  // bit l is a > b in lane l
  static unsigned greater_bits(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
  // Writes the lanes whose bits are set, one after another, and their numbers, which begin at
  // `first`. W values and W numbers are overwritten.
  static void compress(F32 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    const __mmask16 m = static_cast<__mmask16>(bits);
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_storeu_ps(values, _mm512_maskz_compress_ps(m, a.v));
    _mm512_storeu_si512(numbers, _mm512_maskz_compress_epi32(
                                     m, _mm512_add_epi32(lane, _mm512_set1_epi32(first))));
  }
  friend F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
  friend F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
  friend F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
  friend F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
  void add_to(double* p) const {
    const __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(v));
    const __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(v, 1));
    _mm512_storeu_pd(p, _mm512_add_pd(_mm512_loadu_pd(p), lo));
    _mm512_storeu_pd(p + 8, _mm512_add_pd(_mm512_loadu_pd(p + 8), hi));
  }
};

struct F64 {
  using T = double;
  using V = __m512d;
  static constexpr int W = 8;
  V v;
  static F64 all(T a) { return {_mm512_set1_pd(a)}; }
  static F64 load(const T* p) { return {_mm512_loadu_pd(p)}; }
  static F64 load(const float* p) { return {_mm512_cvtps_pd(_mm256_loadu_ps(p))}; }
  static F64 load_part(const T* p, int n) {
    return {_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p)};
  }
  void store(T* p) const { _mm512_storeu_pd(p, v); }
  void store(float* p) const { _mm256_storeu_ps(p, _mm512_cvtpd_ps(v)); }
  static F64 fma(F64 a, F64 b, F64 c) { return {_mm512_fmadd_pd(a.v, b.v, c.v)}; }
  static F64 max(F64 a, F64 b) { return {_mm512_max_pd(a.v, b.v)}; }
  static F64 round(F64 a) { return {_mm512_roundscale_pd(a.v, 8)}; }
  static F64 scale(F64 a, F64 n) { return {_mm512_scalef_pd(a.v, n.v)}; }
  static constexpr bool kLookUp = true;
  static F64 round_to_steps(F64 a) { return {_mm512_roundscale_pd(a.v, 0x38)}; }
  static F64 power_of_fraction(F64 n) {
    const __m512d powers = _mm512_setr_pd(
        1.0, 0x1.172b83c7d517bp+0, 0x1.306fe0a31b715p+0, 0x1.4bfdad5362a27p+0,
        0x1.6a09e667f3bcdp+0, 0x1.8ace5422aa0dbp+0, 0x1.ae89f995ad3adp+0, 0x1.d5818dcfba487p+0);
    const __m512d counted = _mm512_add_pd(n.v, _mm512_set1_pd(0x1.8p49));
    return {_mm512_permutexvar_pd(_mm512_castpd_si512(counted), powers)};
  }
  static F64 exponent(F64 a) { return {_mm512_getexp_pd(a.v)}; }
  static F64 where_greater(F64 a, F64 b, F64 x, F64 y) {
    return {_mm512_mask_blend_pd(_mm512_cmp_pd_mask(a.v, b.v, _CMP_GT_OQ), y.v, x.v)};
  }
  static unsigned greater_bits(F64 a, F64 b) { return _mm512_cmp_pd_mask(a.v, b.v, _CMP_GT_OQ); }
  static void compress(F64 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    const __mmask8 m = static_cast<__mmask8>(bits);
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm512_storeu_pd(values, _mm512_maskz_compress_pd(m, a.v));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(numbers),
                        _mm256_maskz_compress_epi32(
                            m, _mm256_add_epi32(lane, _mm256_set1_epi32(first))));
  }
  friend F64 operator+(F64 a, F64 b) { return {_mm512_add_pd(a.v, b.v)}; }
  friend F64 operator-(F64 a, F64 b) { return {_mm512_sub_pd(a.v, b.v)}; }
  friend F64 operator*(F64 a, F64 b) { return {_mm512_mul_pd(a.v, b.v)}; }
  friend F64 operator/(F64 a, F64 b) { return {_mm512_div_pd(a.v, b.v)}; }
  void add_to(double* p) const { _mm512_storeu_pd(p, _mm512_add_pd(_mm512_loadu_pd(p), v)); }
};

}  // namespace
}  // namespace ekmfast
