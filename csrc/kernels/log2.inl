// log2 on vectors of positive normal numbers. With x = 2^e f, f in [2^-1/2, 2^1/2], and
// z = (f - 1) / (f + 1), |z| <= 0.172: log2 f = 2 / ln 2 (z + z^3/3 + z^5/5 + ...), cut where the
// next term is below half a unit in the last place of the sum.
#pragma once

#include "simd/vectors.h"

namespace ekmfast {
namespace {

constexpr double kLn2 = 0.69314718055994530942;

template <class F>
static inline F log2_normal(F x) {
  using T = typename F::T;
  constexpr int kTerms = sizeof(T) == 4 ? 5 : 11;
  constexpr double kTwoOverLn2 = 2.88539008177792681472;
  const F e = F::exponent(x * F::all(T(1.41421356237309504880)));
  const F fraction = F::scale(x, F::all(0) - e);
  const F z = (fraction - F::all(1)) / (fraction + F::all(1));
  const F square = z * z;
  F series = F::all(T(kTwoOverLn2 / (2 * kTerms - 1)));
  for (int i = kTerms - 2; i >= 0; --i)
    series = F::fma(series, square, F::all(T(kTwoOverLn2 / (2 * i + 1))));
  return F::fma(z, series, e);
}

}  // namespace
}  // namespace ekmfast
