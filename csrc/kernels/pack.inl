// Stage 1: rows are centred and laid out in panels, and as rows where the product reads those.

// W x W transpose in registers: log2(W) rounds, each swapping the off-diagonal halves of 2H x 2H
// tiles. Inlined, so that rows of the result that nobody reads cost nothing.
template <class F, int H>
struct Transpose {
  template <std::size_t... J>
  static inline __attribute__((always_inline)) void swap(typename F::V& a, typename F::V& b, std::index_sequence<J...>) {
#if defined(__clang__) || __GNUC__ >= 12
    const typename F::V lo = __builtin_shufflevector(a, b, ((J & H) ? F::W + J - H : J)...);
    const typename F::V hi = __builtin_shufflevector(a, b, ((J & H) ? F::W + J : J + H)...);
#else
    typedef decltype(a > b) M;
    const typename F::V lo = __builtin_shuffle(a, b, M{((J & H) ? F::W + J - H : J)...});
    const typename F::V hi = __builtin_shuffle(a, b, M{((J & H) ? F::W + J : J + H)...});
#endif
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

// W rows of D < W numbers, one after the other in memory: the first D rows of the transpose of the
// W numbers from where each row begins, of which the compiler drops what is not asked for.
template <class F, int D>
static inline void transpose_rows(const typename F::T* x, F* features) {
  F r[F::W];
  for (int i = 0; i < F::W; ++i) r[i] = F::load(x + i * D);
  Transpose<F, F::W / 2>::run(r);
  for (int j = 0; j < D; ++j) features[j] = r[j];
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
    if (in.stride == D && (row + F::W - 1) * D + F::W <= n * D) {
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
