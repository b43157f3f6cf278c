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

// W numbers of each of W rows, feature by feature: `width` of them go into the panel.
template <class F>
static inline void store_features(F* r, i64 width, typename F::T* panel, F& norm) {
  Transpose<F, F::W / 2>::run(r);
  for (i64 i = 0; i < width; ++i) {
    r[i].store(panel + i * panel_rows<F>());
    norm = F::fma(r[i], r[i], norm);
  }
}

// One panel of `count` rows from `begin` on, zeros behind them, and the same numbers as rows, with
// zeros from d to d_padded, if anything reads rows.
template <class F, bool kRows>
static void pack_panel(const Rows<typename F::T>& in, i64 begin, i64 count,
                       typename F::T* panel, typename F::T* rows, i64 d_padded,
                       typename F::T* half_norm) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  for (i64 row = 0; row < P; row += F::W) {
    const T* x = in.x + (begin + row) * in.stride;
    F norm = F::all(0);
    for (i64 j = 0; j < in.d; j += F::W) {
      const int width = static_cast<int>(in.d - j < F::W ? in.d - j : F::W);
      F r[F::W];
      if (count - row >= F::W && width == F::W) {
        const F centre = F::load(in.reference + j);
        for (int i = 0; i < F::W; ++i) {
          Ahead<T>(x + i * in.stride + j, kVectorsAhead * F::W, 1).prefetch();
          r[i] = F::load(x + i * in.stride + j) - centre;
        }
      } else {
        const F centre = F::load_part(in.reference + j, width);
        for (int i = 0; i < F::W; ++i)
          r[i] = row + i < count ? F::load_part(x + i * in.stride + j, width) - centre : F::all(0);
      }
      if constexpr (kRows)
        for (int i = 0; i < F::W; ++i) r[i].store(rows + (row + i) * d_padded + j);
      store_features<F>(r, width, panel + j * P + row, norm);
    }
    (norm * F::all(T(0.5))).store(half_norm + row);
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
static inline void pack_short_rows(i64 d, const Rows<typename F::T>& in, i64 begin, i64 n,
                              i64 n_padded, const Scratch<F>& s) {
  if (d == D) return pack_panels<F, D>(in, begin, n, n_padded, s);
  if constexpr (D > 1) pack_short_rows<F, D - 1>(d, in, begin, n, n_padded, s);
}

template <class F>
static void pack_weights(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                         const Scratch<F>& s) {
  using T = typename F::T;
  for (i64 i = 0; i < n; ++i) s.sample_weight[i] = in.sample_weight ? in.sample_weight[begin + i] : T(1);
  for (i64 i = n; i < n_padded; ++i) s.sample_weight[i] = 0;
}

// The panels of a block. Rows shorter than a vector are packed all at once. Longer ones are packed
// panel by panel, each just before its scores, which then find it in the L1 cache; unless someone
// reads it again (`keep`), the next takes its place.
template <class F>
struct Panels {
  using T = typename F::T;
  const Rows<T>& in;
  i64 begin, n;
  const Scratch<F>& s;
  bool at_once, as_rows, keep;

  Panels(const Rows<T>& rows, i64 first, i64 count, const Scratch<F>& scratch, bool rows_too,
         bool kept)
      : in(rows), begin(first), n(count), s(scratch), at_once(rows.d < F::W), as_rows(rows_too),
        keep(kept || at_once) {
    if (at_once)
      pack_short_rows<F, F::W - 1>(in.d, in, begin, n, round_up(n, panel_rows<F>()), s);
  }

  T* at(i64 p) const { return s.panels + (keep ? p * in.d : 0); }

  T* pack(i64 p) const {
    if (at_once) return at(p);
    if (as_rows)
      pack_panel<F, true>(in, begin + p, n - p, at(p), s.rows + p * s.d_padded, s.d_padded,
                          s.half_norm + p);
    else
      pack_panel<F, false>(in, begin + p, n - p, at(p), nullptr, 0, s.half_norm + p);
    return at(p);
  }

  // What will be packed when the scores of panel p are done: the next block, panel by panel, where
  // blocks are packed at once, or else the panel after the next.
  Ahead<T> ahead(i64 p) const {
    constexpr int P = panel_rows<F>();
    return {in.x + (begin + p) * in.stride, (at_once ? n : kPanelsAhead * P) * in.stride,
            P * in.stride};
  }
};

// Rows alone, centred, zeros from d to d_padded and behind the last row.
template <class F>
static void pack_rows(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                      const Scratch<F>& s) {
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
  for (i64 i = n * s.d_padded; i < n_padded * s.d_padded; ++i) s.rows[i] = 0;
}

// A caller's weights (n, k) as the product reads them, [panel][k][panel_rows].
template <class F>
static void pack_columns(const typename F::T* weights, i64 k, i64 n, const Scratch<F>& s) {
  constexpr int P = panel_rows<F>();
  for (i64 j = 0; j < k; ++j) s.exponentials[j] = 0;
  Scratch<F> columns = s;
  columns.panels = s.weights;
  const Rows<typename F::T> in = {weights, k, k, nullptr, s.exponentials};
  const Panels<F> panels(in, 0, n, columns, false, true);
  for (i64 p = 0; p < n; p += P) panels.pack(p);
}
