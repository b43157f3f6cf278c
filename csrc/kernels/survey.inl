// The survey of the rows before a fit: their total weight, moments and bounding box, in one pass.
#pragma once

#include "kernels.h"
#include "portable.h"

namespace ekmfast {
namespace {

// How many columns are summed side by side. They fill several vectors, whatever the number of
// features.
constexpr i64 kSurveyed = 64;

// The moments of some columns. Each column has sums of its own, so that the compiler can vectorise
// the loops.
template <class T>
struct ColumnMoments {
  double reference[kSurveyed], weight[kSurveyed], sum[kSurveyed], squares[kSurveyed];
  T low[kSurveyed], high[kSurveyed];

  ColumnMoments(const T* about, i64 width, i64 period) {
    for (i64 e = 0; e < width; ++e) {
      reference[e] = static_cast<double>(about[e % period]);
      weight[e] = 1;
      sum[e] = squares[e] = 0;
      low[e] = static_cast<T>(EKMFAST_INFINITY);
      high[e] = -low[e];
    }
  }

  void add(const T* x, i64 width) {
    for (i64 e = 0; e < width; ++e) {
      const double y = static_cast<double>(x[e]) - reference[e];
      const double weighted = weight[e] * y;
      sum[e] += weighted;
      squares[e] += weighted * y;
      low[e] = x[e] < low[e] ? x[e] : low[e];
      high[e] = x[e] > high[e] ? x[e] : high[e];
    }
  }

  // Column e holds feature first + e % period.
  void add_to(const Moments<T>& total, i64 first, i64 width, i64 period) const {
    for (i64 e = 0; e < width; ++e) {
      const i64 j = first + e % period;
      total.sum[j] += sum[e];
      *total.squares += squares[e];
      total.low[j] = low[e] < total.low[j] ? low[e] : total.low[j];
      total.high[j] = high[e] > total.high[j] ? high[e] : total.high[j];
    }
  }
};

template <class F>
static void survey(const Rows<typename F::T>& rows, i64 begin, i64 end,
                   const Moments<typename F::T>& moments) {
  using T = typename F::T;
  const i64 d = rows.d;
  const T* s = rows.sample_weight;
  for (i64 i = begin; i < end; ++i) *moments.weight += s ? static_cast<double>(s[i]) : 1.0;
  // Several short rows at a time are read as one long row, if there are no gaps between rows.
  const i64 together = rows.stride == d && 2 * d <= kSurveyed ? kSurveyed / d : 1;
  const i64 grouped = together > 1 ? begin + (end - begin) / together * together : begin;
  if (grouped > begin) {
    const i64 width = together * d;
    ColumnMoments<T> columns(rows.reference, width, d);
    for (i64 i = begin; i < grouped; i += together) {
      if (s)
        for (i64 r = 0; r < together; ++r)
          for (i64 j = 0; j < d; ++j) columns.weight[r * d + j] = static_cast<double>(s[i + r]);
      columns.add(rows.x + i * d, width);
    }
    columns.add_to(moments, 0, width, d);
  }
  for (i64 first = 0; first < d; first += kSurveyed) {
    const i64 width = d - first < kSurveyed ? d - first : kSurveyed;
    ColumnMoments<T> columns(rows.reference + first, width, width);
    for (i64 i = grouped; i < end; ++i) {
      if (s)
        for (i64 e = 0; e < width; ++e) columns.weight[e] = static_cast<double>(s[i]);
      columns.add(rows.x + i * rows.stride + first, width);
    }
    columns.add_to(moments, first, width, width);
  }
}

}  // namespace
}  // namespace ekmfast
