// The sums over a slice with weights that the caller gives.
#pragma once

#include "kernels.h"
#include "lanes.inl"
#include "pack.inl"
#include "product.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

// sums (k) += the columns' sums of weights (n, k), in double: a caller's may have both signs.
template <class T>
static void add_columns(const T* weights, i64 n, i64 k, double* sums) {
  constexpr int W = F64::W;
  if (k < W && !uses(Path::short_columns)) {
    for (i64 i = 0; i < n; ++i)
      for (i64 j = 0; j < k; ++j) sums[j] += static_cast<double>(weights[i * k + j]);
    return;
  }
  if (k < W) {  // W rows are k vectors, of which element e belongs to column e % k
    F64 sum[W];
    for (int v = 0; v < W; ++v) sum[v] = F64::all(0);
    i64 row = 0;
    for (; row + W <= n; row += W)
      for (int v = 0; v < k; ++v) sum[v] = sum[v] + F64::load(weights + row * k + v * W);
    double elements[W * W] = {};
    for (int v = 0; v < k; ++v) sum[v].store(elements + v * W);
    for (i64 e = 0; e < k * W; ++e) sums[e % k] += elements[e];
    for (i64 e = row * k; e < n * k; ++e) sums[e % k] += static_cast<double>(weights[e]);
    return;
  }
  for (i64 i = 0; i < k; i += W) {
    const i64 from = i + W <= k ? i : k - W;  // the last vector, some of it a second time
    F64 sum[4] = {F64::all(0), F64::all(0), F64::all(0), F64::all(0)};
    i64 row = 0;
    for (; row + 4 <= n; row += 4)
      for (int r = 0; r < 4; ++r) sum[r] = sum[r] + F64::load(weights + (row + r) * k + from);
    for (; row < n; ++row) sum[0] = sum[0] + F64::load(weights + row * k + from);
    double lanes[W];
    ((sum[0] + sum[1]) + (sum[2] + sum[3])).store(lanes);
    for (i64 j = i; j < from + W; ++j) sums[j] += lanes[j - from];
  }
}

template <class F>
static void accumulate(const Rows<typename F::T>& rows, i64 begin, i64 end,
                       const typename F::T* weights, i64 k, const Sums& sums, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, d = rows.d;
  const Scratch<F> s(scratch, n, d, k);
  for (i64 i = 0; i < s.partial_size; ++i) s.partial[i] = 0;
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, Keep::part, k);
  for (i64 first = 0; first < n; first += s.part) {
    const i64 count = n - first < s.part ? n - first : s.part, at = begin + first;
    const T* given = weights + at * k;
    add_columns(given, count, k, sums.sum_w);
    if (d >= kRowProductMinD) {
      const i64 prefetch_rows = uses(Path::prefetch_product) ? count : 0;
      if (!uses(Path::given_rows)) {
        pack_columns<F>(weights, k, at, count, s);
        row_product<F, false>(rows, at, count, k, prefetch_rows, s.weights, s);
      } else {
        row_product<F, true>(rows, at, count, k, prefetch_rows, given, s);
      }
      continue;
    }
    pack_columns<F>(weights, k, at, count, s);
    panels.open(first, first + count);
    for (i64 p = first; p < first + count; p += P) {
      panels.prefetch(p).request_all();
      panels.pack(p);
    }
    lane_product<F>(d, count, k, panels.at(first), s);
  }
  flush(d, k, s, sums.sum_wx);
}

}  // namespace
}  // namespace ekmfast
