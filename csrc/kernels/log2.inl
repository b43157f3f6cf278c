// log2 on vectors of positive normal numbers. With x = 2^e f, f in [2^-1/2, 2^1/2], and
// z = (f - 1) / (f + 1), |z| <= 0.172: log2 f = 2 / ln 2 (z + z^3/3 + z^5/5 + ...), cut where the
// next term is below half a unit in the last place of the sum.

template <class V>
static inline V log2_normal(V x) {
  using T = typename V::T;
  constexpr int kTerms = sizeof(T) == 4 ? 5 : 11;
  constexpr double kTwoOverLn2 = 2.88539008177792681472;
  const V e = V::exponent(x * V::all(T(1.41421356237309504880)));
  const V f = V::scale(x, V::all(0) - e);
  const V z = (f - V::all(1)) / (f + V::all(1));
  const V square = z * z;
  V series = V::all(T(kTwoOverLn2 / (2 * kTerms - 1)));
  for (int i = kTerms - 2; i >= 0; --i)
    series = V::fma(series, square, V::all(T(kTwoOverLn2 / (2 * i + 1))));
  return V::fma(z, series, e);
}
