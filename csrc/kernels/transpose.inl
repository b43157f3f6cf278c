// From rows to features in the lanes: the transpose, and for short rows the shuffles that take
// fewer steps.
#pragma once

#include <cstddef>
#include <utility>

#include "lanes.inl"
#include "portable.h"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

// W x W transpose in registers, by shuffles that need no table of indices: first the 16-byte lanes
// of as many rows as a lane has elements, each by itself, then the lanes as elements. Inlined, so
// that rows of the result that nobody reads cost nothing.
template <class F>
struct Transpose {
  using V = typename F::V;
  static constexpr int W = F::W;
  static constexpr int M = 16 / sizeof(typename F::T);  // elements of a lane
  static constexpr int L = W / M;                       // lanes
  typedef std::make_index_sequence<W> Lanes;

  // In each lane: N elements of a and N of b in turns, from the lower half, or the upper if kUpper.
  template <int N, bool kUpper, std::size_t... J>
  static inline EKMFAST_INLINED V zip(V a, V b, std::index_sequence<J...>) {
    return EKMFAST_SHUFFLE(a, b, (J / N % 2 * W + J / M * M + (kUpper ? M / 2 : 0) +
                                  J % M / (2 * N) * N + J % N)...);
  }

  // The even lanes of a, then those of b; or the odd ones.
  template <bool kOdd, std::size_t... J>
  static inline EKMFAST_INLINED V lanes(V a, V b, std::index_sequence<J...>) {
    return EKMFAST_SHUFFLE(
        a, b, ((J / M < L / 2 ? 0 : W) + (2 * (J / M % (L / 2)) + kOdd) * M + J % M)...);
  }

  static inline EKMFAST_INLINED void run(F* r) {
    V t[W];
    for (int i = 0; i < W; i += 2) {
      t[i] = zip<1, false>(r[i].v, r[i + 1].v, Lanes());
      t[i + 1] = zip<1, true>(r[i].v, r[i + 1].v, Lanes());
    }
    if constexpr (M == 4)
      for (int i = 0; i < W; i += 4) {
        const V a = t[i], b = t[i + 1], c = t[i + 2], d = t[i + 3];
        t[i] = zip<2, false>(a, c, Lanes());
        t[i + 1] = zip<2, true>(a, c, Lanes());
        t[i + 2] = zip<2, false>(b, d, Lanes());
        t[i + 3] = zip<2, true>(b, d, Lanes());
      }
    // Lane l of t[M g + c] is what lane g of row M l + c is to be.
    for (int c = 0; c < M; ++c) {
      if constexpr (L == 1) {
        r[c].v = t[c];
      } else if constexpr (L == 2) {
        r[c].v = lanes<false>(t[c], t[M + c], Lanes());
        r[M + c].v = lanes<true>(t[c], t[M + c], Lanes());
      } else {
        static_assert(L == 4, "vectors of 16, 32 or 64 bytes");
        const V a = lanes<false>(t[c], t[M + c], Lanes());
        const V b = lanes<true>(t[c], t[M + c], Lanes());
        const V d = lanes<false>(t[2 * M + c], t[3 * M + c], Lanes());
        const V e = lanes<true>(t[2 * M + c], t[3 * M + c], Lanes());
        r[c].v = lanes<false>(a, d, Lanes());
        r[M + c].v = lanes<false>(b, e, Lanes());
        r[2 * M + c].v = lanes<true>(a, d, Lanes());
        r[3 * M + c].v = lanes<true>(b, e, Lanes());
      }
    }
  }
};

// W rows of D < W numbers, one after the other in memory, are D vectors v of which feature j takes
// the elements i D + j:
//   D even:  evens and odds of neighbours, then the same for D / 2 on either;
//   D odd:   each feature gathers its elements from one vector after the other.
constexpr int shuffles(int d) {
  if (d == 1) return 0;
  return d % 2 == 0 ? d + 2 * shuffles(d / 2) : d * (d - 1);
}

template <class F, int First, int Step, std::size_t... I>
static inline EKMFAST_INLINED F every(F a, F b, std::index_sequence<I...>) {
  return {EKMFAST_SHUFFLE(a.v, b.v, (First + Step * I)...)};
}

// Feature J: lane i takes element i D + J, first out of v[0] and v[1], then out of v[At], ...
constexpr int first_lane(int element, int w) { return element < 2 * w ? element : 0; }
constexpr int next_lane(int element, int lane, int from, int w) {
  return element / w == from ? w + element % w : lane;
}

template <class F, int D, int J, int At, std::size_t... I>
static inline EKMFAST_INLINED F gather_feature(F so_far, const F* v,
                                                              std::index_sequence<I...> lanes) {
  if constexpr (At < D) {
    const F next = {EKMFAST_SHUFFLE(so_far.v, v[At].v, next_lane(I * D + J, I, At, F::W)...)};
    return gather_feature<F, D, J, At + 1>(next, v, lanes);
  } else {
    return so_far;
  }
}

template <class F, int D, int J, std::size_t... I>
static inline EKMFAST_INLINED void gather_features(
    const F* v, F* features, std::index_sequence<I...> lanes) {
  const F first = {EKMFAST_SHUFFLE(v[0].v, v[1].v, first_lane(I * D + J, F::W)...)};
  features[J] = gather_feature<F, D, J, 2>(first, v, lanes);
  if constexpr (J + 1 < D) gather_features<F, D, J + 1>(v, features, lanes);
}

template <class F, int D>
static inline EKMFAST_INLINED void deinterleave(const F* v, F* features) {
  constexpr auto lanes = std::make_index_sequence<F::W>();
  if constexpr (D == 1) {
    features[0] = v[0];
  } else if constexpr (D % 2 == 0) {
    F half[D / 2], found[D / 2];
    for (int i = 0; i < D / 2; ++i) half[i] = every<F, 0, 2>(v[2 * i], v[2 * i + 1], lanes);
    deinterleave<F, D / 2>(half, found);
    for (int i = 0; i < D / 2; ++i) features[2 * i] = found[i];
    for (int i = 0; i < D / 2; ++i) half[i] = every<F, 1, 2>(v[2 * i], v[2 * i + 1], lanes);
    deinterleave<F, D / 2>(half, found);
    for (int i = 0; i < D / 2; ++i) features[2 * i + 1] = found[i];
  } else {
    gather_features<F, D, 0>(v, features, lanes);
  }
}

template <class F, int D>
constexpr bool by_shuffles() {
  return uses(Path::shuffles) && shuffles(D) <= Tuned::kMaxShuffles;
}

// Else the first D rows of the transpose of the W numbers from where each row begins, of which the
// compiler drops what is not asked for.
template <class F, int D>
static inline void transpose_rows(const typename F::T* x, F* features) {
  if constexpr (by_shuffles<F, D>()) {
    F v[D];
    for (int i = 0; i < D; ++i) v[i] = F::load(x + i * F::W);
    deinterleave<F, D>(v, features);
  } else {
    F r[F::W];
    for (int i = 0; i < F::W; ++i) r[i] = F::load(x + i * D);
    Transpose<F>::run(r);
    for (int j = 0; j < D; ++j) features[j] = r[j];
  }
}

// How many numbers from x on transpose_rows reads.
template <class F, int D>
constexpr int numbers_read() {
  return by_shuffles<F, D>() ? F::W * D : (F::W - 1) * D + F::W;
}

}  // namespace
}  // namespace ekmfast
