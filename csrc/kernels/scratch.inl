// Scratch: a bump allocator over the caller's buffer. The same function lays it out and sizes it.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "tuning.h"

namespace ekmfast {
namespace {

template <class F>
constexpr int panel_rows() {
  return kPanelVectors * F::W;
}

static inline i64 round_up(i64 n, i64 unit) { return (n + unit - 1) / unit * unit; }

// gather.inl writes whole vectors of at most 16 lanes to the end of the two lists.
constexpr i64 kPickedSpare = 16;

template <class T>
static i64 part_rows(i64 slice_rows, i64 d, i64 k) {
  constexpr i64 unit = kRowUnit;
  const i64 row_bytes = (d + k) * static_cast<i64>(sizeof(T));
  i64 rows = kPartBytesL1 / row_bytes / unit * unit;
  if (rows < kPartRowsL1 || !uses(Path::parts_l1)) rows = kPartBytesL2 / row_bytes / unit * unit;
  if (rows < unit) rows = unit;
  const i64 all = round_up(slice_rows, unit);
  return uses(Path::parts) && rows < all ? rows : all;
}

template <class F>
struct Scratch {
  using T = typename F::T;
  T* panels;          // [panel][d][panel_rows] centred samples in the lanes
  T* weights;         // [panel][k][panel_rows] of a part: scores t, then s * w
  T* exponentials;    // [k][panel_rows] of the panel in work
  T* sample_weight;   // [row], 0 behind the last row
  T* half_norm;       // [row] 1/2 ||y||^2
  T* sum_w;           // [k][W] lanes of sum s w
  T* sum_p;           // [k][W] lanes of sum s p
  T* partial;         // sum s w y: [k][d_padded], or [k][d][W] lanes if d < kRowProductMinD
  T* strip;           // [row of part][Tuned::kProductVectors vectors] centred features
  std::int32_t* picked;  // [row of part] rows that matter to one centroid, and their weights
  T* picked_weights;
  i64 part;           // rows
  i64 d_padded;
  i64 partial_size;
  i64 bytes;

  Scratch(void* base, i64 slice_rows, i64 d, i64 k) {
    const i64 n = round_up(slice_rows, panel_rows<F>());
    part = part_rows<T>(slice_rows, d, k);
    d_padded = round_up(d, F::W);
    partial_size = k * (d < kRowProductMinD ? d * F::W : d_padded);
    bytes = 0;
    panels = take(base, n * d);
    weights = take(base, part * k);
    exponentials = take(base, k * panel_rows<F>());
    sample_weight = take(base, n);
    half_norm = take(base, n);
    sum_w = take(base, k * F::W);
    sum_p = take(base, k * F::W);
    partial = take(base, partial_size);
    const bool copies = d >= kRowProductMinD && k > kInPlaceMaxK;
    strip = take(base, copies ? part * Tuned::kProductVectors * F::W : 0);
    picked = take<std::int32_t>(base, part + kPickedSpare);
    picked_weights = take(base, part + kPickedSpare);
  }

 private:
  template <class Number = T>
  Number* take(void* base, i64 count) {
    const i64 at = bytes;
    bytes = round_up(bytes + count * static_cast<i64>(sizeof(Number)), 64);
    return base ? reinterpret_cast<Number*>(static_cast<char*>(base) + at) : nullptr;
  }
};

}  // namespace
}  // namespace ekmfast
