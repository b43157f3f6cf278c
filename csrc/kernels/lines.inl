// From centroids (k, d) to lines (d, kp), in which the numbers of all centroids at one column lie side by
// side (see SparseCentroids), and back: squares of W columns and W centroids are transposed in registers.
#pragma once

#include "kernels.h"
#include "portable.h"
#include "simd/vectors.h"
#include "transpose.inl"

namespace ekmfast {
namespace {

// Columns first to last of the lines, q c_kj, and the sums of the squares c_kj^2 of these columns, added
// to squares (kp,).
static void to_lines(const double* centroids, i64 d, i64 k, i64 kp, double q, i64 first, i64 last,
                     double* lines, double* squares) {
  constexpr i64 W = F64::W;
  const F64 scale = F64::all(q);
  for (i64 group = 0; group < kp; group += W) {
    const i64 count = k - group < W ? k - group : W;
    F64 sum = F64::load(squares + group), other = F64::all(0);
    i64 j = first;
    for (; j + W <= last; j += W) {
      F64 r[W];
      for (i64 i = 0; i < W; ++i)
        r[i] = i < count ? F64::load(centroids + (group + i) * d + j) : F64::all(0);
      Transpose<F64>::run(r);
      EKMFAST_UNROLL for (i64 e = 0; e < W; ++e) {
        (scale * r[e]).store(lines + (j + e) * kp + group);
        F64& to = e % 2 ? other : sum;
        to = F64::fma(r[e], r[e], to);
      }
    }
    for (; j < last; ++j) {
      double one[W];
      for (i64 i = 0; i < W; ++i) one[i] = i < count ? centroids[(group + i) * d + j] : 0;
      const F64 c = F64::load(one);
      (scale * c).store(lines + j * kp + group);
      sum = F64::fma(c, c, sum);
    }
    (sum + other).store(squares + group);
  }
}

// sum_wx (k, d) = lines (last - first, kp) of columns first to last, or these are added to it.
static void from_lines(const double* lines, i64 first, i64 last, i64 kp, i64 k, i64 d, bool add,
                       double* sum_wx) {
  constexpr i64 W = F64::W;
  for (i64 group = 0; group < k; group += W) {
    const i64 count = k - group < W ? k - group : W;
    i64 j = first;
    for (; j + W <= last; j += W) {
      F64 r[W];
      EKMFAST_UNROLL for (i64 e = 0; e < W; ++e) r[e] = F64::load(lines + (j - first + e) * kp + group);
      Transpose<F64>::run(r);
      EKMFAST_UNROLL for (i64 i = 0; i < W; ++i) {
        if (i >= count) break;
        double* out = sum_wx + (group + i) * d + j;
        (add ? F64::load(out) + r[i] : r[i]).store(out);
      }
    }
    for (; j < last; ++j)
      for (i64 i = 0; i < count; ++i) {
        double& out = sum_wx[(group + i) * d + j];
        out = (add ? out : 0) + lines[(j - first) * kp + group + i];
      }
  }
}

}  // namespace
}  // namespace ekmfast
