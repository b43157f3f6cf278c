// Stage 1: rows are centred and laid out in panels, and as rows where the product reads those.

// W x W transpose in registers: log2(W) rounds, each swapping the off-diagonal halves of 2H x 2H
// tiles.
template <class F, int H>
struct Transpose {
  template <std::size_t... J>
  static inline void swap(typename F::V& a, typename F::V& b, std::index_sequence<J...>) {
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
  static inline void run(F* r) {
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
    F norm = F::all(0);
    for (i64 j = 0; j < whole; j += F::W) {
      const F c = F::load(x + j) - F::load(in.reference + j);
      c.store(y + j);
      norm = F::fma(c, c, norm);
    }
    if (rest) {
      const F c = F::load_part(x + whole, rest) - F::load_part(in.reference + whole, rest);
      c.store(y + whole);
      norm = F::fma(c, c, norm);
    }
    T lanes[F::W];
    norm.store(lanes);
    T sum = 0;
    for (int l = 0; l < F::W; ++l) sum += lanes[l];
    s.half_norm[i] = sum / 2;
  }
}

template <class F>
static void pack_panels_from_rows(i64 d, i64 n_padded, const Scratch<F>& s) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  for (i64 p = 0; p < n_padded; p += P) {
    T* panel = s.panels + p * d;
    for (int v = 0; v < kPanelVectors; ++v) {
      const T* rows = s.rows + (p + v * F::W) * s.d_padded;
      for (i64 j = 0; j < d; j += F::W) {
        F r[F::W];
        for (int i = 0; i < F::W; ++i) r[i] = F::load(rows + i * s.d_padded + j);
        Transpose<F, F::W / 2>::run(r);
        const i64 width = d - j < F::W ? d - j : F::W;
        for (i64 i = 0; i < width; ++i) r[i].store(panel + (j + i) * P + v * F::W);
      }
    }
  }
}

template <class F>
static void pack_panels(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                        const Scratch<F>& s) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  for (i64 p = 0; p < n_padded; p += P) {
    T* panel = s.panels + p * in.d;
    const i64 count = n - p < P ? n - p : P;
    F norm[kPanelVectors];
    for (F& v : norm) v = F::all(0);
    for (i64 j = 0; j < in.d; ++j) {
      const T* x = in.x + (begin + p) * in.stride + j;
      const T centre = in.reference[j];
      T* y = panel + j * P;
      if (count == P) {
        for (int i = 0; i < P; ++i) y[i] = x[i * in.stride] - centre;
      } else {
        for (i64 i = 0; i < count; ++i) y[i] = x[i * in.stride] - centre;
        for (i64 i = count; i < P; ++i) y[i] = 0;
      }
      for (int v = 0; v < kPanelVectors; ++v) {
        const F c = F::load(y + v * F::W);
        norm[v] = F::fma(c, c, norm[v]);
      }
    }
    for (int v = 0; v < kPanelVectors; ++v)
      (norm[v] * F::all(T(0.5))).store(s.half_norm + p + v * F::W);
  }
}

template <class F>
static void pack(const Rows<typename F::T>& in, i64 begin, i64 n, i64 n_padded,
                 const Scratch<F>& s) {
  using T = typename F::T;
  if (in.d >= F::W) {
    pack_rows<F>(in, begin, n, s);
    for (i64 i = n * s.d_padded; i < n_padded * s.d_padded; ++i) s.rows[i] = 0;
    for (i64 i = n; i < n_padded; ++i) s.half_norm[i] = 0;
    pack_panels_from_rows<F>(in.d, n_padded, s);
  } else {
    pack_panels<F>(in, begin, n, n_padded, s);
  }
  for (i64 i = 0; i < n; ++i) s.sample_weight[i] = in.sample_weight ? in.sample_weight[begin + i] : T(1);
  for (i64 i = n; i < n_padded; ++i) s.sample_weight[i] = 0;
}
