// Stage 1: rows are centred and laid out in panels.
#pragma once

#include <cstddef>
#include <cstring>

#include "ahead.inl"
#include "kernels.h"
#include "lanes.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "transpose.inl"
#include "tuning.h"

namespace ekmfast {
namespace {

// W numbers of each of W rows, feature by feature: `width` of them go into the panel. The norm is
// summed in the order of the scores, whose rounding it shares where a row is near a centroid.
template <class F>
static inline void store_features(F* r, i64 width, typename F::T* panel, F& norm) {
  Transpose<F>::run(r);
  for (i64 i = 0; i < width; ++i) {
    r[i].store(panel + i * panel_rows<F>());
    norm = F::fma(r[i], r[i], norm);
  }
}

// One panel of `count` rows from `begin` on, zeros behind them. Vector by vector of rows in turns,
// or each addition to a norm would wait for the one before.
template <class F>
static void pack_panel(const Rows<typename F::T>& in, i64 begin, i64 count, i64,
                       typename F::T* panel, typename F::T* half_norm) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 d = in.d, stride = in.stride;
  const T* reference = in.reference;
  const T* x = in.x + begin * stride;
  const bool far = d > kVectorsAhead * F::W;  // or it would be asked for in the next rows
  F norm[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) norm[v] = F::all(0);
  for (i64 j = 0; j < d; j += F::W)
    for (int v = 0; v < kPanelVectors; ++v) {
      const i64 row = v * F::W;
      F r[F::W];
      if (d - j >= F::W && count - row >= F::W) {
        const F centre = F::load(reference + j);
        for (int i = 0; i < F::W; ++i) {
          const T* at = x + (row + i) * stride + j;
          if (far) Ahead(at, kVectorsAhead * F::W, 1, true).prefetch(0);
          r[i] = F::load(at) - centre;
        }
        store_features<F>(r, F::W, panel + j * P + row, norm[v]);
      } else {
        const int width = static_cast<int>(d - j < F::W ? d - j : F::W);
        const F centre = F::load_part(reference + j, width);
        for (int i = 0; i < F::W; ++i)
          r[i] = row + i < count ? F::load_part(x + (row + i) * stride + j, width) - centre
                                 : F::all(0);
        store_features<F>(r, width, panel + j * P + row, norm[v]);
      }
    }
  for (int v = 0; v < kPanelVectors; ++v)
    (norm[v] * F::all(T(0.5))).store(half_norm + v * F::W);
}

// One panel of rows of D < W numbers. Behind the panel's `count` rows there are more to read,
// `readable` in all.
template <class F, int D>
static inline __attribute__((always_inline)) void pack_short_panel(
    const Rows<typename F::T>& in, i64 begin, i64 count, i64 readable, typename F::T* panel,
    typename F::T* half_norm) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const T* x = in.x + begin * in.stride;
  F centre[D];
  EKMFAST_UNROLL for (int j = 0; j < D; ++j) centre[j] = F::all(in.reference[j]);
  for (int row = 0; row < P; row += F::W) {
    F features[D];
    // The loads end with the last number: what lies behind it may not be there to read.
    if (in.stride == D && row * D + numbers_read<F, D>() <= readable * D) {
      transpose_rows<F, D>(x + row * D, features);
      for (int j = 0; j < D; ++j) features[j] = features[j] - centre[j];
    } else {
      const i64 there = count - row < F::W ? count - row : F::W;
      for (int j = 0; j < D; ++j) {
        T lanes[F::W] = {};
        for (i64 i = 0; i < there; ++i) lanes[i] = x[(row + i) * in.stride + j] - in.reference[j];
        features[j] = F::load(lanes);
      }
    }
    F norm = F::all(0);
    for (int j = 0; j < D; ++j) {
      features[j].store(panel + row + j * P);
      norm = F::fma(features[j], features[j], norm);
    }
    (norm * F::all(T(0.5))).store(half_norm + row);
  }
}

// All panels that `count` rows take; one at most if D > kVeryShort.
template <class F, int D>
static void pack_short_rows(const Rows<typename F::T>& in, i64 begin, i64 count, i64 readable,
                            typename F::T* panels, typename F::T* half_norm) {
  constexpr i64 P = panel_rows<F>();
  if constexpr (D > kVeryShort) {
    pack_short_panel<F, D>(in, begin, count, readable, panels, half_norm);
  } else {
    for (i64 p = 0; p < count; p += P)
      pack_short_panel<F, D>(in, begin + p, count - p, readable - p, panels + p * D,
                             half_norm + p);
  }
}

template <class F>
using Pack = void (*)(const Rows<typename F::T>& in, i64 begin, i64 count, i64 readable,
                      typename F::T* panels, typename F::T* half_norm);

template <class F, int D = F::W>
static Pack<F> packer(i64 d) {
  if constexpr (D == F::W) {
    if (d >= D) return pack_panel<F>;
  } else if (d == D) {
    return pack_short_rows<F, D>;
  }
  if constexpr (D > 1) return packer<F, D - 1>(d);
  return nullptr;
}

template <class F>
static void pack_weights(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                         const Scratch<F>& s) {
  using T = typename F::T;
  T* to = s.sample_weight;
  if (in.sample_weight)
    std::memcpy(to, in.sample_weight + begin, static_cast<std::size_t>(n) * sizeof(T));
  else
    for (i64 i = 0; i < n_padded; i += F::W) F::all(1).store(to + i);
  for (i64 i = n; i < n_padded; ++i) to[i] = 0;
}

// How long a panel stays: until the next is packed, those of a part, or all of the block.
enum class Keep { panel, part, block };

// The panels of a block, packed one by one, or some small ones at once, just before their scores,
// which then find them in the L1 cache. Rows p are counted from the block's first.
template <class F>
struct Panels {
  using T = typename F::T;
  const Rows<T>& in;
  const i64 begin, n;
  T *panels, *half_norm;
  const Keep keep;

  Panels(const Rows<T>& rows, i64 from, i64 to, T* panels_to, T* half_norm_to, Keep kept, i64 k)
      : in(rows), begin(from), n(to - from), panels(panels_to), half_norm(half_norm_to),
        keep(kept), pack_rows(packer<F>(rows.d)), part_end(n) {
    const i64 bytes = P * in.d * static_cast<i64>(sizeof(T));
    if (in.d < F::W && in.d <= kVeryShort) rows_at_once = kBytesAhead / 4 / bytes * P;
    rows_ahead = (kBytesAhead > kPanelsAhead * bytes ? kBytesAhead / bytes : kPanelsAhead) * P;
    // Where rows lie far apart, most of what is between them is not theirs.
    plan = Ahead(in.x, 0, in.stride <= 2 * in.d ? P * in.stride : 0);
    plan.spread((k + Tuned::kTileCentroids - 1) / Tuned::kTileCentroids, in.d);
    plan.near = kPanelsAhead * bytes <= kBytesNear;
  }

  // The next panels belong to the part of these rows.
  void open(i64 from, i64 to) {
    part = packed = from;
    part_end = to;
  }

  T* at(i64 p) const {
    return panels + (keep == Keep::block ? p : keep == Keep::part ? p - part : p - first) * in.d;
  }

  // In order.
  T* pack(i64 p) {
    if (p >= packed) {
      const i64 left = part_end - p, count = left < rows_at_once ? left : rows_at_once;
      first = p;
      packed = p + count;
      pack_rows(in, begin + p, count, n - p, at(p), half_norm + p);
    }
    return at(p);
  }

  // What will be packed some panels later: as many as hold kBytesAhead.
  Ahead ahead(i64 p) const {
    Ahead next = plan;
    next.at = Ahead(in.x + (begin + p) * in.stride, rows_ahead * in.stride, 0).at;
    return next;
  }

 private:
  static constexpr i64 P = panel_rows<F>();
  const Pack<F> pack_rows;
  i64 part = 0, part_end;                       // rows of the part
  i64 first = 0, packed = 0, rows_at_once = P;  // those packed last
  i64 rows_ahead;
  Ahead plan;
};

// A caller's weights (n, k), from row `begin` on, as the product reads them,
// [panel][k][panel_rows].
template <class F>
static void pack_columns(const typename F::T* weights, i64 k, i64 begin, i64 n,
                         const Scratch<F>& s) {
  constexpr int P = panel_rows<F>();
  for (i64 j = 0; j < k; ++j) s.exponentials[j] = 0;
  const Rows<typename F::T> in = {weights, k, k, nullptr, s.exponentials};
  Panels<F> panels(in, begin, begin + n, s.weights, s.half_norm, Keep::block, 1);
  for (i64 p = 0; p < n; p += P) {
    panels.ahead(p).prefetch();
    panels.pack(p);
  }
}

}  // namespace
}  // namespace ekmfast
