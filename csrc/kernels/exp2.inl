// 2^x on vectors, x in [kMinExponent, 0]: x = n + f with n an integer and |f| <= 1/2, a polynomial
// for 2^f, and n put into the exponent bits. The polynomials are minimax fits of 2^f on that
// interval in relative error, held to exactly 1 at f = 0 so that the largest membership of a row is
// exact: degree 5 errs by 9.1e-8 (float32), degree 11 by 3.4e-18 (float64).

template <class V>
static inline V exp2_nonpositive(V x);

template <>
inline F32 exp2_nonpositive<F32>(F32 x) {
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

template <>
inline F64 exp2_nonpositive<F64>(F64 x) {
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
