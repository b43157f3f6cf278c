// Stage 4: sum_n w_kn y_n, the second product, over some rows that are still in the caches.
//
// Sums of T go to s.partial, which flush() adds to doubles once a slice.
#pragma once

#include "gather.inl"
#include "kernels.h"
#include "lanes.inl"
#include "portable.h"
#include "prefetch.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

// Features in the lanes: G centroids x kVectors vectors of features, rows streamed, weights
// broadcast.
// weights: [panel][k][panel_rows], or [row][k] if kByRow, pointing at the tile's first centroid.
//   kCopied    x is a copy of the strip, centred and padded;
//   else       x is where the rows lie; the last vector holds `rest` features if kRest, and memory
//              `distance` numbers behind each row is prefetched if that is not 0.
template <class F, int G, int kVectors, bool kCopied, bool kRest, bool kByRow>
static inline void product_tile(const typename F::T* x, i64 stride,
                                const typename F::T* reference, i64 n, i64 k,
                                const typename F::T* weights, int rest, i64 distance, i64 d_padded,
                                typename F::T* sums) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  F acc[G][kVectors];
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < kVectors; ++v) acc[g][v] = F::all(0);
  for (i64 p = 0; p < n; p += P) {
    const T* w = weights + p * k;
    const i64 count = n - p < P ? n - p : P;
    for (i64 i = 0; i < count; ++i) {
      const T* row = x + (p + i) * stride;
      F y[kVectors];
      if constexpr (kCopied) {
        for (int v = 0; v < kVectors; ++v) y[v] = F::load(row + v * F::W);
      } else {
        if (distance) PrefetchL2(row, distance, kVectors * F::W).request_all();
        for (int v = 0; v < kVectors; ++v)
          y[v] = kRest
                     ? F::load_part(row + v * F::W, rest) - F::load_part(reference + v * F::W, rest)
                     : F::load(row + v * F::W) - F::load(reference + v * F::W);
      }
      for (int g = 0; g < G; ++g) {
        const F own = F::all(w[kByRow ? i * k + g : g * P + i]);
        for (int v = 0; v < kVectors; ++v) acc[g][v] = F::fma(own, y[v], acc[g][v]);
      }
    }
  }
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < kVectors; ++v) {
      T* at = sums + g * d_padded + v * F::W;
      (F::load(at) + acc[g][v]).store(at);
    }
}

// Rows where they lie.
template <class F, int G, int kVectors, bool kRest, bool kByRow>
static inline void rows_in_place(int g, const Rows<typename F::T>& in, i64 begin, i64 n, i64 k,
                                 i64 j, int rest, i64 prefetch_rows, const typename F::T* weights,
                                 const Scratch<F>& s, typename F::T* sums) {
  if (g < G) {
    if constexpr (G > 1)
      rows_in_place<F, G - 1, kVectors, kRest, kByRow>(g, in, begin, n, k, j, rest, prefetch_rows,
                                                       weights, s, sums);
    return;
  }
  product_tile<F, G, kVectors, false, kRest, kByRow>(in.x + begin * in.stride + j, in.stride,
                                                     in.reference + j, n, k, weights, rest,
                                                     prefetch_rows * in.stride, s.d_padded,
                                                     sums + j);
}

template <class F, bool kByRow>
static void product_in_place(const Rows<typename F::T>& in, i64 begin, i64 n, i64 k,
                             i64 prefetch_rows, const typename F::T* all_weights,
                             const Scratch<F>& s) {
  constexpr int kVectors = Tuned::kProductVectors, G = Tuned::kProductCentroids;
  constexpr int P = panel_rows<F>();
  for (i64 j = 0; j < in.d;) {
    const i64 left = in.d - j, whole = left / F::W;
    const bool pair = whole >= 2 && uses(Path::vector_pairs);
    const i64 vectors = whole >= kVectors ? kVectors : pair ? 2 : whole >= 1;
    for (i64 i = 0; i < k; i += G) {
      const int g = static_cast<int>(k - i < G ? k - i : G);
      const i64 early = i == 0 ? prefetch_rows : 0;  // one request a row serves all centroids
      const typename F::T* weights = all_weights + i * (kByRow ? 1 : P);
      typename F::T* sums = s.partial + i * s.d_padded;
      if (vectors == kVectors)
        rows_in_place<F, G, kVectors, false, kByRow>(g, in, begin, n, k, j, 0, early, weights, s,
                                                     sums);
      else if (vectors == 2)
        rows_in_place<F, G, 2, false, kByRow>(g, in, begin, n, k, j, 0, early, weights, s, sums);
      else if (vectors == 1)
        rows_in_place<F, G, 1, false, kByRow>(g, in, begin, n, k, j, 0, early, weights, s, sums);
      else
        rows_in_place<F, G, 1, true, kByRow>(g, in, begin, n, k, j, static_cast<int>(left),
                                             early, weights, s, sums);
    }
    j += vectors > 0 ? vectors * F::W : left;
  }
}

template <class F, int G, int kVectors, bool kByRow>
static inline void strip_tile(int g, int vectors, i64 n, i64 k, const typename F::T* weights,
                              const Scratch<F>& s, typename F::T* sums) {
  if (g < G) {
    if constexpr (G > 1) strip_tile<F, G - 1, kVectors, kByRow>(g, vectors, n, k, weights, s, sums);
  } else if (vectors < kVectors) {
    if constexpr (kVectors > 1)
      strip_tile<F, G, kVectors - 1, kByRow>(g, vectors, n, k, weights, s, sums);
  } else {
    product_tile<F, G, kVectors, true, false, kByRow>(s.strip, kVectors * F::W, nullptr, n, k,
                                                      weights, 0, 0, s.d_padded, sums);
  }
}

// kProductVectors vectors of features of all rows, a strip, are copied before the tiles of all
// centroids read them: where rows lie a power of two apart, their lines drive each other out of the
// L1 cache.
template <class F, bool kByRow>
static void product_of_copies(const Rows<typename F::T>& in, i64 begin, i64 n, i64 k,
                              const typename F::T* weights, const Scratch<F>& s) {
  using T = typename F::T;
  constexpr int kVectors = Tuned::kProductVectors, G = Tuned::kProductCentroids;
  constexpr int P = panel_rows<F>();
  const T* x = in.x + begin * in.stride;
  for (i64 j = 0; j < in.d; j += kVectors * F::W) {
    const i64 left = round_up(in.d - j, F::W) / F::W;
    const int vectors = static_cast<int>(left < kVectors ? left : kVectors);
    for (i64 i = 0; i < n; ++i)
      for (int v = 0; v < vectors; ++v) {
        const i64 at = j + v * F::W, there = in.d - at;
        const F y = there >= F::W ? F::load(x + i * in.stride + at) - F::load(in.reference + at)
                                  : F::load_part(x + i * in.stride + at, static_cast<int>(there)) -
                                        F::load_part(in.reference + at, static_cast<int>(there));
        y.store(s.strip + (i * vectors + v) * F::W);
      }
    for (i64 i = 0; i < k; i += G) {
      const int g = static_cast<int>(k - i < G ? k - i : G);
      strip_tile<F, G, kVectors, kByRow>(g, vectors, n, k, weights + i * (kByRow ? 1 : P), s,
                                         s.partial + i * s.d_padded + j);
    }
  }
}

// Samples stay in the lanes: G centroids x H features of lane sums.
template <class F, int G, int H>
static inline void lane_tile(const typename F::T* panels, i64 d, i64 n_padded, i64 k,
                             const typename F::T* weights, typename F::T* sums) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  F acc[G][H];
  EKMFAST_UNROLL for (int g = 0; g < G; ++g)
    EKMFAST_UNROLL for (int h = 0; h < H; ++h) acc[g][h] = F::load(sums + (g * d + h) * F::W);
  for (i64 p = 0; p < n_padded; p += P) {
    const T* y = panels + p * d;
    const T* w = weights + p * k;
    for (int v = 0; v < P; v += F::W) {
      F x[H];
      for (int h = 0; h < H; ++h) x[h] = F::load(y + h * P + v);
      for (int g = 0; g < G; ++g) {
        const F c = F::load(w + g * P + v);
        for (int h = 0; h < H; ++h) acc[g][h] = F::fma(c, x[h], acc[g][h]);
      }
    }
  }
  EKMFAST_UNROLL for (int g = 0; g < G; ++g)
    EKMFAST_UNROLL for (int h = 0; h < H; ++h) acc[g][h].store(sums + (g * d + h) * F::W);
}

template <class F, int G, int H>
static inline void lane_narrow(int features, const typename F::T* panels, i64 d, i64 n_padded,
                               i64 k, const typename F::T* weights, typename F::T* sums) {
  if (features == H) return lane_tile<F, G, H>(panels, d, n_padded, k, weights, sums);
  if constexpr (H > 1) lane_narrow<F, G, H - 1>(features, panels, d, n_padded, k, weights, sums);
}

template <class F, int G>
static inline void lane_group(int g, const typename F::T* panels, i64 d, i64 n_padded, i64 k,
                              const typename F::T* weights, typename F::T* sums) {
  if (g < G) {
    if constexpr (G > 1) lane_group<F, G - 1>(g, panels, d, n_padded, k, weights, sums);
    return;
  }
  constexpr int kFeatures = Tuned::kProductVectors;
  for (i64 j = 0; j < d; j += kFeatures) {
    const int features = static_cast<int>(d - j < kFeatures ? d - j : kFeatures);
    lane_narrow<F, G, kFeatures>(features, panels + j * panel_rows<F>(), d, n_padded, k, weights,
                                 sums + j * F::W);
  }
}

// For d >= kRowProductMinD; weights as in product_tile. Where panels are packed, packing has
// prefetched the rows; elsewhere prefetch_rows is the prefetch distance in rows, else 0.
template <class F, bool kByRow>
static void row_product(const Rows<typename F::T>& in, i64 begin, i64 n, i64 k, i64 prefetch_rows,
                        const typename F::T* weights, const Scratch<F>& s) {
  if (k <= kInPlaceMaxK)
    product_in_place<F, kByRow>(in, begin, n, k, prefetch_rows, weights, s);
  else
    product_of_copies<F, kByRow>(in, begin, n, k, weights, s);
}

// d < kRowProductMinD; weights [panel][k][panel_rows].
template <class F>
static void lane_product(i64 d, i64 n, i64 k, const typename F::T* panels, const Scratch<F>& s) {
  constexpr int P = panel_rows<F>(), G = Tuned::kProductCentroids;
  for (i64 i = 0; i < k; i += G) {
    const int g = static_cast<int>(k - i < G ? k - i : G);
    lane_group<F, G>(g, panels, d, round_up(n, P), k, s.weights + i * P, s.partial + i * d * F::W);
  }
}

// Gathered sums lie as row_product's do.
static inline bool may_gather(i64 d, i64 k) {
  return uses(Path::gather) && d >= kRowProductMinD && d >= Tuned::kGatherMinD &&
         k >= kGatherMinK && k * d >= Tuned::kGatherMinSize;
}

// Sums over rows begin .. begin + n, whose weights are in s.weights and, if d < kRowProductMinD,
// whose panels are at `panels`; prefetch_rows as in row_product.
template <class F>
static void product(const Rows<typename F::T>& in, i64 begin, i64 n, i64 k, i64 prefetch_rows,
                    typename F::T least_sample_weight, const typename F::T* panels,
                    const Scratch<F>& s) {
  if (may_gather(in.d, k) && is_sparse<F>(k, s.weights, least_sample_weight))
    sparse_product<F>(in, begin, n, k, least_sample_weight, s);
  else if (in.d >= kRowProductMinD)
    row_product<F, false>(in, begin, n, k, prefetch_rows, s.weights, s);
  else
    lane_product<F>(in.d, n, k, panels, s);
}

// Adds the products' sums to doubles.
template <class F>
static void flush(i64 d, i64 k, const Scratch<F>& s, double* sum_wx) {
  for (i64 i = 0; i < k; ++i)
    if (d < kRowProductMinD) {
      for (i64 j = 0; j < d; ++j)
        sum_wx[i * d + j] += sum_lanes<F::W>(s.partial + (i * d + j) * F::W);
    } else {
      const i64 whole = d / F::W * F::W;
      for (i64 j = 0; j < whole; j += F::W)
        F::load(s.partial + i * s.d_padded + j).add_to(sum_wx + i * d + j);
      for (i64 j = whole; j < d; ++j)
        sum_wx[i * d + j] += static_cast<double>(s.partial[i * s.d_padded + j]);
    }
}

}  // namespace
}  // namespace ekmfast
