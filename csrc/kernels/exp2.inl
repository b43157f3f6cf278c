// 2^x on vectors, x in [kMinExponent, 0]: x = n + f, a polynomial for 2^f, and 2^n put into the
// exponent bits. It is exactly 1 at x = 0, so that the largest membership of a row is exact.
//
// Without a table n is an integer and |f| <= 1/2. The polynomials are minimax fits of 2^f in
// relative error: degree 5 errs by 9.1e-8 (float32), degree 11 by 3.4e-18 (float64).
//
// F::kLookUp (AVX-512): one vector holds a table of W numbers. n is a multiple of 1 / W,
// |f| <= 1 / 2 W, and 2^x = 2^floor(n) t (1 + f q(f)) with t = 2^(n - floor(n)) from the table. Of
// degree 2, q errs by 2.4e-9 of 2^f (float32, W = 16), of degree 6 by 6.0e-18 (float64, W = 8). In
// float32 this takes as long as the polynomial, but errs by half as many units in the last place.
#pragma once

#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

static inline F32 exp2_by_polynomial(F32 x) {
  const F32 n = F32::round(x);
  const F32 f = x - n;
  F32 y = F32::all(0.00132647084071f);
  y = F32::fma(y, f, F32::all(0.00967151392601f));
  y = F32::fma(y, f, F32::all(0.0555073380573f));
  y = F32::fma(y, f, F32::all(0.240222420573f));
  y = F32::fma(y, f, F32::all(0.693146977556f));
  y = F32::fma(y, f, F32::all(1.0f));
  return F32::scale(y, n);
}

static inline F64 exp2_by_polynomial(F64 x) {
  const F64 n = F64::round(x);
  const F64 f = x - n;
  F64 y = F64::all(0x1.e79b99b386bc1p-32);
  y = F64::fma(y, f, F64::all(0x1.e61b5140132c4p-28));
  y = F64::fma(y, f, F64::all(0x1.b5267cf544107p-24));
  y = F64::fma(y, f, F64::all(0x1.62bfc79c39b38p-20));
  y = F64::fma(y, f, F64::all(0x1.ffcbfba9756abp-17));
  y = F64::fma(y, f, F64::all(0x1.4309130ed94a4p-13));
  y = F64::fma(y, f, F64::all(0x1.5d87fe78cd6fcp-10));
  y = F64::fma(y, f, F64::all(0x1.3b2ab6fba0117p-7));
  y = F64::fma(y, f, F64::all(0x1.c6b08d7049fe8p-5));
  y = F64::fma(y, f, F64::all(0x1.ebfbdff82c5a4p-3));
  y = F64::fma(y, f, F64::all(0x1.62e42fefa39efp-1));
  y = F64::fma(y, f, F64::all(1.0));
  return F64::scale(y, n);
}

template <class F>
static inline F exp2_by_table(F x) {
  using T = typename F::T;
  const F n = F::round_to_steps(x), f = x - n, t = F::power_of_fraction(n);
  F q;
  if constexpr (sizeof(T) == 4) {
    q = F::all(0x1.c6b29ap-5f);
    q = F::fma(q, f, F::all(0x1.ebff92p-3f));
    q = F::fma(q, f, F::all(0x1.62e43p-1f));
  } else {
    q = F::all(T(0x1.ffd1f6633bd3ap-17));
    q = F::fma(q, f, F::all(T(0x1.430deca12d584p-13)));
    q = F::fma(q, f, F::all(T(0x1.5d87fe72ac65ep-10)));
    q = F::fma(q, f, F::all(T(0x1.3b2ab6f1f1910p-7)));
    q = F::fma(q, f, F::all(T(0x1.c6b08d704a11fp-5)));
    q = F::fma(q, f, F::all(T(0x1.ebfbdff82c6c5p-3)));
    q = F::fma(q, f, F::all(T(0x1.62e42fefa39efp-1)));
  }
  return F::scale(F::fma(t, q * f, t), n);
}

template <class F>
static inline F exp2_nonpositive(F x) {
  if constexpr (F::kLookUp && uses(Path::lookup))
    return exp2_by_table(x);
  else
    return exp2_by_polynomial(x);
}

}  // namespace
}  // namespace ekmfast
