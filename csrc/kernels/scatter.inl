// Products of the features of rows, for the second moments of rows with the same label (moments.cpp):
// rows one after another, with the features in the lanes, as in likelihood.inl.
#pragma once

#include "kernels.h"
#include "mixture.inl"
#include "simd/vectors.h"

namespace ekmfast {
namespace {

constexpr int kScatterRows = 4;  // features of which a tile has the products with V vectors of others

template <int V>
static inline void scatter_tile(const double* y, i64 n, i64 width, i64 i, i64 j, double* sums) {
  constexpr int R = kScatterRows;
  F64 acc[R][V];
  EKMFAST_UNROLL for (int r = 0; r < R; ++r)
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) acc[r][v] = F64::all(0);
  for (const double* row = y; row != y + n * width; row += width) {
    F64 other[V];
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) other[v] = F64::load(row + j + v * F64::W);
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) {
      const F64 own = F64::all(row[i + r]);
      EKMFAST_UNROLL for (int v = 0; v < V; ++v) acc[r][v] = F64::fma(own, other[v], acc[r][v]);
    }
  }
  EKMFAST_UNROLL for (int r = 0; r < R; ++r)
    EKMFAST_UNROLL for (int v = 0; v < V; ++v) acc[r][v].add_to(sums + (i + r) * width + j + v * F64::W);
}

static void scatter(double* x, i64 n, i64 width, const double* weights, const double* centre,
                    double* sums) {
  static_assert(kLaneUnit % kScatterRows == 0, "rows are whole tiles");
  for (i64 r = 0; r < n; ++r) {
    const F64 scale = F64::all(root(weights[r]));
    for (i64 j = 0; j < width; j += F64::W) {
      double* at = x + r * width + j;
      ((F64::load(at) - F64::load(centre + j)) * scale).store(at);
    }
  }
  for (i64 i = 0; i < width; i += kScatterRows) {
    i64 j = i / F64::W * F64::W;  // the vector of the diagonal
    for (; j + 4 * F64::W <= width; j += 4 * F64::W) scatter_tile<4>(x, n, width, i, j, sums);
    for (; j + 2 * F64::W <= width; j += 2 * F64::W) scatter_tile<2>(x, n, width, i, j, sums);
    for (; j < width; j += F64::W) scatter_tile<1>(x, n, width, i, j, sums);
  }
}

}  // namespace
}  // namespace ekmfast
