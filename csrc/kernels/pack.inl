// Stage 1: rows are centred and laid out in panels.
#pragma once

#include <cstddef>
#include <cstring>

#include "prefetch.inl"
#include "kernels.h"
#include "lanes.inl"
#include "portable.h"
#include "scratch.inl"
#include "simd/vectors.h"
#include "transpose.inl"
#include "tuning.h"

namespace ekmfast {
namespace {

// Transposes W numbers of each of W rows and stores the first `width` features into the panel. The
// norm is summed feature by feature like the scores: where a row is near a centroid, the difference
// of both must be small, and then their roundings agree.
template <class F>
static inline void store_features(F* r, i64 width, typename F::T* panel, F& norm) {
  Transpose<F>::run(r);
  for (i64 i = 0; i < width; ++i) {
    r[i].store(panel + i * panel_rows<F>());
    norm = F::fma(r[i], r[i], norm);
  }
}

// One panel of `count` rows from `begin` on, zeros behind them. The panel's vectors of rows take
// turns, so that no addition to a norm waits for the one before.
template <class F>
static void pack_panel(const Rows<typename F::T>& in, i64 begin, i64 count, i64,
                       typename F::T* panel, typename F::T* half_norm) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 d = in.d, stride = in.stride;
  const T* reference = in.reference;
  const T* x = in.x + begin * stride;
  // In shorter rows the request would reach into the next row.
  const bool prefetch = uses(Path::prefetch_pack) && d > kPrefetchVectors * F::W;
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
          if (prefetch) EKMFAST_PREFETCH(at + kPrefetchVectors * F::W, 3);  // to the L1
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
static inline EKMFAST_INLINED void pack_short_panel(
    const Rows<typename F::T>& in, i64 begin, i64 count, i64 readable, typename F::T* panel,
    typename F::T* half_norm) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const T* x = in.x + begin * in.stride;
  F centre[D];
  EKMFAST_UNROLL for (int j = 0; j < D; ++j) centre[j] = F::all(in.reference[j]);
  for (int row = 0; row < P; row += F::W) {
    F features[D];
    // No load may reach behind the last number, which can be the end of the caller's memory.
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
  if constexpr (D > kVeryShort || !uses(Path::very_short)) {
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
    if (d >= D || !uses(Path::short_rows)) return pack_panel<F>;
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

// How long a panel stays: until the next is packed, those of a part, or all of the slice.
enum class Keep { panel, part, slice };

// The panels of a slice. Each is packed just before its scores, which then find it in the L1 cache;
// very small ones are packed several at a time. Rows p are counted from the slice's first.
template <class F>
struct Panels {
  using T = typename F::T;
  const Rows<T>& in;
  const i64 begin, n;
  T *panels, *half_norm;
  const Keep keep;

  Panels(const Rows<T>& rows, i64 from, i64 to, T* panels_to, T* half_norm_to, Keep keeps, i64 k)
      : in(rows), begin(from), n(to - from), panels(panels_to), half_norm(half_norm_to),
        keep(keeps), pack_rows(packer<F>(rows.d)), part_end(n) {
    const i64 bytes = P * in.d * static_cast<i64>(sizeof(T));
    if (uses(Path::short_rows) && uses(Path::very_short) && in.d < F::W && in.d <= kVeryShort)
      rows_at_once = kPrefetchBytes / 4 / bytes * P;
    const bool few = kPrefetchBytes <= kPrefetchPanels * bytes;
    prefetch_rows = (few ? kPrefetchPanels : kPrefetchBytes / bytes) * P;
    // Rows that lie far apart are not prefetched: most of the lines between them hold other data.
    const bool dense = in.stride <= 2 * in.d;
    const bool prefetches = uses(Path::prefetch_panels) && dense;
    plan = in.next ? Prefetch(in.next, 0, prefetches ? P * in.next_stride : 0)
                   : Prefetch(in.x, 0, prefetches ? P * in.stride : 0);
    plan.spread((k + Tuned::kTileCentroids - 1) / Tuned::kTileCentroids, in.d);
  }

  // Those that the caller has kept, if there are any; they are not packed again.
  Panels(const Rows<T>& rows, i64 from, i64 to, const Scratch<F>& s, Keep keeps, i64 k)
      : Panels(rows, from, to, rows.panels ? rows.panels : s.panels,
               rows.panels ? rows.half_norm : s.half_norm, rows.panels ? Keep::slice : keeps, k) {
    kept = rows.panels;
  }

  // The next panels belong to the part of these rows.
  void open(i64 from, i64 to) {
    part = packed = from;
    part_end = to;
  }

  T* at(i64 p) const {
    return panels + (keep == Keep::slice ? p : keep == Keep::part ? p - part : p - first) * in.d;
  }

  // In order.
  T* pack(i64 p) {
    if (!kept && p >= packed) {
      const i64 left = part_end - p, count = left < rows_at_once ? left : rows_at_once;
      first = p;
      packed = p + count;
      pack_rows(in, begin + p, count, n - p, at(p), half_norm + p);
    }
    return at(p);
  }

  // The memory of the panel to be packed prefetch_rows after row p, or that of row p of the next slice.
  Prefetch prefetch(i64 p) const {
    if (kept) return Prefetch();
    Prefetch later = plan;
    later.at = in.next ? Prefetch(in.next + p * in.next_stride, 0, 0).at
                       : Prefetch(in.x + (begin + p) * in.stride, prefetch_rows * in.stride, 0).at;
    return later;
  }

 private:
  static constexpr i64 P = panel_rows<F>();
  const Pack<F> pack_rows;
  bool kept = false;
  i64 part = 0, part_end;                       // rows of the part
  i64 first = 0, packed = 0, rows_at_once = P;  // those packed last
  i64 prefetch_rows;
  Prefetch plan;
};

// A caller's weights (n, k), from row `begin` on, as the product reads them,
// [panel][k][panel_rows].
template <class F>
static void pack_columns(const typename F::T* weights, i64 k, i64 begin, i64 n,
                         const Scratch<F>& s) {
  constexpr int P = panel_rows<F>();
  for (i64 j = 0; j < k; ++j) s.exponentials[j] = 0;
  const Rows<typename F::T> in = {weights, k, k, nullptr, s.exponentials};
  Panels<F> panels(in, begin, begin + n, s.weights, s.half_norm, Keep::slice, 1);
  for (i64 p = 0; p < n; p += P) {
    panels.prefetch(p).request_all();
    panels.pack(p);
  }
}

}  // namespace
}  // namespace ekmfast
