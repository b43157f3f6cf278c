// Stage 1: rows are centred and laid out in panels, and as rows where the product reads those.

// Elements of two vectors, numbered through, in the order given.
#if defined(__clang__) || __GNUC__ >= 12
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype((a) > (b)){__VA_ARGS__})
#endif

// W x W transpose in registers: log2(W) rounds, each swapping the off-diagonal halves of 2H x 2H
// tiles. Inlined, so that rows of the result that nobody reads cost nothing.
template <class F, int H>
struct Transpose {
  template <std::size_t... J>
  static inline __attribute__((always_inline)) void swap(typename F::V& a, typename F::V& b, std::index_sequence<J...>) {
    const typename F::V lo = EKMFAST_SHUFFLE(a, b, ((J & H) ? F::W + J - H : J)...);
    const typename F::V hi = EKMFAST_SHUFFLE(a, b, ((J & H) ? F::W + J : J + H)...);
    a = lo;
    b = hi;
  }
  static inline __attribute__((always_inline)) void run(F* r) {
    for (int i = 0; i < F::W; ++i)
      if (!(i & H)) swap(r[i].v, r[i + H].v, std::make_index_sequence<F::W>());
    if constexpr (H > 1) Transpose<F, H / 2>::run(r);
  }
};

// Rows as rows: centred, zeros from d to d_padded.
template <class F>
static void pack_rows(const Rows<typename F::T>& in, i64 begin, i64 n, const Scratch<F>& s) {
  using T = typename F::T;
  const i64 whole = in.d / F::W * F::W;
  const int rest = static_cast<int>(in.d - whole);
  for (i64 i = 0; i < n; ++i) {
    const T* x = in.x + (begin + i) * in.stride;
    T* y = s.rows + i * s.d_padded;
    for (i64 j = 0; j < whole; j += F::W) (F::load(x + j) - F::load(in.reference + j)).store(y + j);
    if (rest)
      (F::load_part(x + whole, rest) - F::load_part(in.reference + whole, rest)).store(y + whole);
  }
}

// W numbers of each of W rows, feature by feature: `width` of them go into the panel.
template <class F>
static inline void store_features(F* r, i64 width, typename F::T* panel, F& norm) {
  Transpose<F, F::W / 2>::run(r);
  for (i64 i = 0; i < width; ++i) {
    r[i].store(panel + i * panel_rows<F>());
    norm = F::fma(r[i], r[i], norm);
  }
}

template <class F>
static void pack_panels_from_rows(i64 d, i64 n_padded, const Scratch<F>& s) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  for (i64 row = 0; row < n_padded; row += F::W) {
    T* panel = s.panels + row / P * P * d + row % P;
    const T* rows = s.rows + row * s.d_padded;
    F norm = F::all(0);
    for (i64 j = 0; j < d; j += F::W) {
      F r[F::W];
      for (int i = 0; i < F::W; ++i) r[i] = F::load(rows + i * s.d_padded + j);
      store_features<F>(r, d - j < F::W ? d - j : F::W, panel + j * P, norm);
    }
    (norm * F::all(T(0.5))).store(s.half_norm + row);
  }
}

// Panels straight from the samples, where nothing reads rows as rows.
template <class F>
static void pack_panels_only(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                             const Scratch<F>& s) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  for (i64 row = 0; row < n_padded; row += F::W) {
    T* panel = s.panels + row / P * P * in.d + row % P;
    const T* x = in.x + (begin + row) * in.stride;
    const i64 count = n - row < F::W ? n - row : F::W;
    F norm = F::all(0);
    for (i64 j = 0; j < in.d; j += F::W) {
      const int width = static_cast<int>(in.d - j < F::W ? in.d - j : F::W);
      F r[F::W];
      if (count == F::W && width == F::W) {
        const F centre = F::load(in.reference + j);
        for (int i = 0; i < F::W; ++i) r[i] = F::load(x + i * in.stride + j) - centre;
      } else {
        const F centre = F::load_part(in.reference + j, width);
        for (int i = 0; i < F::W; ++i)
          r[i] = i < count ? F::load_part(x + i * in.stride + j, width) - centre : F::all(0);
      }
      store_features<F>(r, width, panel + j * P, norm);
    }
    (norm * F::all(T(0.5))).store(s.half_norm + row);
  }
}

// W rows of D < W numbers, one after the other in memory, are D vectors v of which feature j takes
// the elements i D + j:
//   D even:  evens and odds of neighbours, then the same for D / 2 on either;
//   D odd:   each feature gathers its elements from one vector after the other.
constexpr int shuffles(int d) {
  if (d == 1) return 0;
  return d % 2 == 0 ? d + 2 * shuffles(d / 2) : d * (d - 1);
}

template <class F, int First, int Step, std::size_t... I>
static inline __attribute__((always_inline)) F every(F a, F b, std::index_sequence<I...>) {
  return {EKMFAST_SHUFFLE(a.v, b.v, (First + Step * I)...)};
}

// Feature J: lane i takes element i D + J, first out of v[0] and v[1], then out of v[At], ...
constexpr int first_lane(int element, int w) { return element < 2 * w ? element : 0; }
constexpr int next_lane(int element, int lane, int from, int w) {
  return element / w == from ? w + element % w : lane;
}

template <class F, int D, int J, int At, std::size_t... I>
static inline __attribute__((always_inline)) F gather_feature(F so_far, const F* v,
                                                              std::index_sequence<I...> lanes) {
  if constexpr (At < D) {
    const F next = {EKMFAST_SHUFFLE(so_far.v, v[At].v, next_lane(I * D + J, I, At, F::W)...)};
    return gather_feature<F, D, J, At + 1>(next, v, lanes);
  } else {
    return so_far;
  }
}

template <class F, int D, int J, std::size_t... I>
static inline __attribute__((always_inline)) void gather_features(
    const F* v, F* features, std::index_sequence<I...> lanes) {
  const F first = {EKMFAST_SHUFFLE(v[0].v, v[1].v, first_lane(I * D + J, F::W)...)};
  features[J] = gather_feature<F, D, J, 2>(first, v, lanes);
  if constexpr (J + 1 < D) gather_features<F, D, J + 1>(v, features, lanes);
}

template <class F, int D>
static inline __attribute__((always_inline)) void deinterleave(const F* v, F* features) {
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
  return shuffles(D) <= kMaxShuffles;
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
    Transpose<F, F::W / 2>::run(r);
    for (int j = 0; j < D; ++j) features[j] = r[j];
  }
}

// How many numbers from x on transpose_rows reads.
template <class F, int D>
constexpr int numbers_read() {
  return by_shuffles<F, D>() ? F::W * D : (F::W - 1) * D + F::W;
}

// Rows shorter than a vector, which go into panels at once.
template <class F, int D>
static void pack_panels(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                        const Scratch<F>& s) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const T* x = in.x + begin * in.stride;
  F centre[D];
  for (int j = 0; j < D; ++j) centre[j] = F::all(in.reference[j]);
  for (i64 row = 0; row < n_padded; row += F::W) {
    T* panel = s.panels + row / P * P * D + row % P;
    F features[D];
    // The loads end with the block's last number: what lies behind it may not be there to read.
    if (in.stride == D && row * D + numbers_read<F, D>() <= n * D) {
      transpose_rows<F, D>(x + row * D, features);
      for (int j = 0; j < D; ++j) features[j] = features[j] - centre[j];
    } else {
      const i64 count = n - row < F::W ? n - row : F::W;
      for (int j = 0; j < D; ++j) {
        T lanes[F::W] = {};
        for (i64 i = 0; i < count; ++i) lanes[i] = x[(row + i) * in.stride + j] - in.reference[j];
        features[j] = F::load(lanes);
      }
    }
    F norm = F::all(0);
    for (int j = 0; j < D; ++j) {
      features[j].store(panel + j * P);
      norm = F::fma(features[j], features[j], norm);
    }
    (norm * F::all(T(0.5))).store(s.half_norm + row);
  }
}

template <class F, int D>
static inline void pack_short(i64 d, const Rows<typename F::T>& in, i64 begin, i64 n,
                              i64 n_padded, const Scratch<F>& s) {
  if (d == D) return pack_panels<F, D>(in, begin, n, n_padded, s);
  if constexpr (D > 1) pack_short<F, D - 1>(d, in, begin, n, n_padded, s);
}

template <class F>
static void pack_weights(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                         const Scratch<F>& s) {
  using T = typename F::T;
  for (i64 i = 0; i < n; ++i) s.sample_weight[i] = in.sample_weight ? in.sample_weight[begin + i] : T(1);
  for (i64 i = n; i < n_padded; ++i) s.sample_weight[i] = 0;
}

template <class F>
static void pack(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                 const Scratch<F>& s) {
  if (in.d >= kRowProductMinD) {
    pack_rows<F>(in, begin, n, s);
    for (i64 i = n * s.d_padded; i < n_padded * s.d_padded; ++i) s.rows[i] = 0;
    pack_panels_from_rows<F>(in.d, n_padded, s);
  } else if (in.d >= F::W) {
    pack_panels_only<F>(in, begin, n, n_padded, s);
  } else {
    pack_short<F, F::W - 1>(in.d, in, begin, n, n_padded, s);
  }
  pack_weights<F>(in, begin, n, n_padded, s);
}
