// Advanced SIMD (NEON) of AArch64: 4 float32 or 2 float64 to a vector, 32 registers.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "compress.h"

namespace ekmfast {
namespace {

struct F32 {
  using T = float;
  using V = float32x4_t;
  static constexpr int W = 4;
  static constexpr bool kLookUp = false;  // see kernels/exp2.inl
  V v;
  static F32 all(T a) { return {vdupq_n_f32(a)}; }
  static F32 load(const T* p) { return {vld1q_f32(p)}; }
  static F32 load_part(const T* p, int n) {
    T part[W] = {0, 0, 0, 0};
    for (int i = 0; i < n; ++i) part[i] = p[i];
    return load(part);
  }
  void store(T* p) const { vst1q_f32(p, v); }
  static F32 fma(F32 a, F32 b, F32 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
  static F32 max(F32 a, F32 b) { return {vmaxq_f32(a.v, b.v)}; }
  static F32 round(F32 a) { return {vrndnq_f32(a.v)}; }
  static F32 scale(F32 a, F32 n) {
    const int32x4_t bits = vshlq_n_s32(vcvtq_s32_f32(n.v), 23);
    return {vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a.v), bits))};
  }
  // floor(log2 a) of a positive normal number
  static F32 exponent(F32 a) {
    const uint32x4_t bits = vshrq_n_u32(vreinterpretq_u32_f32(a.v), 23);
    return {vsubq_f32(vcvtq_f32_u32(bits), vdupq_n_f32(127))};
  }
  static F32 where_greater(F32 a, F32 b, F32 x, F32 y) {
    return {vbslq_f32(vcgtq_f32(a.v, b.v), x.v, y.v)};
  }
  // bit l is a > b in lane l
  static unsigned greater_bits(F32 a, F32 b) {
    const std::uint32_t bit[W] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcgtq_f32(a.v, b.v), vld1q_u32(bit)));
  }
  static void compress(F32 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    compress_lanes(a, bits, first, values, numbers);
  }
  friend F32 operator+(F32 a, F32 b) { return {vaddq_f32(a.v, b.v)}; }
  friend F32 operator-(F32 a, F32 b) { return {vsubq_f32(a.v, b.v)}; }
  friend F32 operator*(F32 a, F32 b) { return {vmulq_f32(a.v, b.v)}; }
  friend F32 operator/(F32 a, F32 b) { return {vdivq_f32(a.v, b.v)}; }
  void add_to(double* p) const {
    vst1q_f64(p, vaddq_f64(vld1q_f64(p), vcvt_f64_f32(vget_low_f32(v))));
    vst1q_f64(p + 2, vaddq_f64(vld1q_f64(p + 2), vcvt_high_f64_f32(v)));
  }
};

struct F64 {
  using T = double;
  using V = float64x2_t;
  static constexpr int W = 2;
  static constexpr bool kLookUp = false;  // see kernels/exp2.inl
  V v;
  static F64 all(T a) { return {vdupq_n_f64(a)}; }
  static F64 load(const T* p) { return {vld1q_f64(p)}; }
  static F64 load(const float* p) { return {vcvt_f64_f32(vld1_f32(p))}; }
  static F64 load_part(const T* p, int n) {
    const T part[W] = {n > 0 ? p[0] : 0, n > 1 ? p[1] : 0};
    return load(part);
  }
  void store(T* p) const { vst1q_f64(p, v); }
  void store(float* p) const { vst1_f32(p, vcvt_f32_f64(v)); }
  static F64 fma(F64 a, F64 b, F64 c) { return {vfmaq_f64(c.v, a.v, b.v)}; }
  static F64 max(F64 a, F64 b) { return {vmaxq_f64(a.v, b.v)}; }
  static F64 round(F64 a) { return {vrndnq_f64(a.v)}; }
  static F64 scale(F64 a, F64 n) {
    const int64x2_t bits = vshlq_n_s64(vcvtq_s64_f64(n.v), 52);
    return {vreinterpretq_f64_s64(vaddq_s64(vreinterpretq_s64_f64(a.v), bits))};
  }
  static F64 exponent(F64 a) {
    const uint64x2_t bits = vshrq_n_u64(vreinterpretq_u64_f64(a.v), 52);
    return {vsubq_f64(vcvtq_f64_u64(bits), vdupq_n_f64(1023))};
  }
  static F64 where_greater(F64 a, F64 b, F64 x, F64 y) {
    return {vbslq_f64(vcgtq_f64(a.v, b.v), x.v, y.v)};
  }
  static unsigned greater_bits(F64 a, F64 b) {
    const uint64x2_t m = vcgtq_f64(a.v, b.v);
    return static_cast<unsigned>((vgetq_lane_u64(m, 0) & 1) | (vgetq_lane_u64(m, 1) & 2));
  }
  static void compress(F64 a, unsigned bits, std::int32_t first, T* values, std::int32_t* numbers) {
    compress_lanes(a, bits, first, values, numbers);
  }
  friend F64 operator+(F64 a, F64 b) { return {vaddq_f64(a.v, b.v)}; }
  friend F64 operator-(F64 a, F64 b) { return {vsubq_f64(a.v, b.v)}; }
  friend F64 operator*(F64 a, F64 b) { return {vmulq_f64(a.v, b.v)}; }
  friend F64 operator/(F64 a, F64 b) { return {vdivq_f64(a.v, b.v)}; }
  void add_to(double* p) const { vst1q_f64(p, vaddq_f64(vld1q_f64(p), v)); }
};

}  // namespace
}  // namespace ekmfast
