// The nearest centroid of each row, and the distance to it.
#pragma once

#include <cstdint>

#include "dots.inl"
#include "kernels.h"
#include "lanes.inl"
#include "pack.inl"
#include "scores.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

template <class F>
static void nearest(const Rows<typename F::T>& rows, i64 begin, i64 end,
                    const Centroids<typename F::T>& c, std::int32_t* labels, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = c.k;
  const Scratch<F> s(scratch, n, d, k);
  const bool dots = by_dots<T>(k, d);
  Panels<F> panels(rows, begin, end, s, Keep::panel, k);
  for (i64 p = 0; p < n_padded; p += P) {
    const i64 count = n - p < P ? n - p : P;
    F best[kPanelVectors];
    if (dots)
      dot_panel<F, kDotMaxK>(rows, begin + p, count, c, s.weights, panels.half_norm + p, best);
    else
      score_panel<F>(panels.pack(p), d, c, panels.prefetch(p), s.weights, best);
    // Two float vectors carry the search; a label is exact in a float up to 2^24 centroids.
    F top[kPanelVectors], label[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) {
      top[v] = F::load(s.weights + v * F::W);
      label[v] = F::all(0);
    }
    for (i64 i = 1; i < k; ++i)
      for (int v = 0; v < kPanelVectors; ++v) {
        const F t = F::load(s.weights + i * P + v * F::W);
        label[v] = F::where_greater(t, top[v], F::all(static_cast<T>(i)), label[v]);
        top[v] = F::max(t, top[v]);
      }
    T lanes[P];
    for (int v = 0; v < kPanelVectors; ++v) label[v].store(lanes + v * F::W);
    for (i64 i = 0; i < count; ++i) labels[begin + p + i] = static_cast<std::int32_t>(lanes[i]);
  }
}

// From differences in double, which keep their digits where x is near its centroid.
template <class F>
static void distances(const Rows<typename F::T>& rows, i64 begin, i64 end, const double* centroids,
                      const std::int32_t* labels, typename F::T* squared) {
  using T = typename F::T;
  constexpr int W = F64::W;
  for (i64 i = begin; i < end; ++i) {
    const T* x = rows.x + i * rows.stride;
    const double* c = centroids + labels[i] * rows.d;
    F64 sum[4] = {F64::all(0), F64::all(0), F64::all(0), F64::all(0)};
    const auto add = [&](i64 j, F64& to) {
      const F64 difference = F64::load(x + j) - F64::load(c + j);
      to = F64::fma(difference, difference, to);
    };
    i64 j = 0;
    for (; uses(Path::distance_sums) && j + 4 * W <= rows.d; j += 4 * W)
      for (int v = 0; v < 4; ++v) add(j + v * W, sum[v]);
    for (; j + W <= rows.d; j += W) add(j, sum[0]);
    double total = 0;
    if (j > 0) total = sum_across((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; j < rows.d; ++j) {
      const double difference = static_cast<double>(x[j]) - c[j];
      total += difference * difference;
    }
    squared[i] = static_cast<T>(total);
  }
}

}  // namespace
}  // namespace ekmfast
