// The body that all instruction sets share, included inside an anonymous namespace after F32, F64
// (vectors), kTileCentroids, kProductCentroids and kProductVectors.
//
// A block of rows goes through four stages, all in cache:
//   pack      centre the rows and lay them out in panels [feature][3 vectors of samples], so that
//             samples sit in the lanes and every later minimum, exponential and sum is vertical;
//   scores    t_k = bias_k + y . (q c_k): the first product, register tiles of centroids x panel;
//   weights   row maximum, exponentials, and  w_k = p_k (1 + ln2 (r_k - sum_i p_i r_i))  with
//             r_k = t_k - max t, which is Eq. 38 because alpha (d_k - E) = -ln2 (r_k - sum p r);
//   product   sum_n w_kn y_n, accumulated in registers over the block, added to doubles.

using ekmfast::Centroids;
using ekmfast::Kernels;
using ekmfast::kMinExponent;
using ekmfast::kRowProductMinD;
using ekmfast::Rows;
using ekmfast::Sums;

typedef std::int64_t i64;

constexpr double kLn2 = 0.69314718055994530942;
constexpr int kPanelVectors = 3;

template <class F>
constexpr int panel_rows() {
  return kPanelVectors * F::W;
}

static inline i64 round_up(i64 n, i64 unit) { return (n + unit - 1) / unit * unit; }

// ---------------------------------------------------------------------------------------------
// Scratch: a bump allocator over the caller's buffer. The same function lays it out and sizes it.

template <class F>
struct Scratch {
  using T = typename F::T;
  T* panels;          // [panel][d][panel_rows] centred samples in the lanes
  T* rows;            // [row][d_padded] centred samples as rows; zeros behind d
  T* weights;         // [panel][k][panel_rows] scores t, then s * w
  T* exponentials;    // [k][panel_rows] of the panel in work
  T* sample_weight;   // [row], 0 behind the last row
  T* half_norm;       // [row] 1/2 ||y||^2
  T* sum_w;           // [k][W] lanes of sum s w
  T* sum_p;           // [k][W] lanes of sum s p
  i64 d_padded;
  i64 bytes;

  Scratch(void* base, i64 block_rows, i64 d, i64 k) {
    const i64 n = round_up(block_rows, panel_rows<F>());
    d_padded = round_up(d, F::W);
    bytes = 0;
    panels = take(base, n * d);
    rows = take(base, d >= F::W ? n * d_padded : 0);
    weights = take(base, n * k);
    exponentials = take(base, k * panel_rows<F>());
    sample_weight = take(base, n);
    half_norm = take(base, n);
    sum_w = take(base, k * F::W);
    sum_p = take(base, k * F::W);
  }

 private:
  T* take(void* base, i64 count) {
    const i64 at = bytes;
    bytes = round_up(bytes + count * static_cast<i64>(sizeof(T)), 64);
    return base ? reinterpret_cast<T*>(static_cast<char*>(base) + at) : nullptr;
  }
};

// ---------------------------------------------------------------------------------------------
// Stage 1: pack

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

// ---------------------------------------------------------------------------------------------
// Stage 2: scores

// G centroids x the 3 vectors of a panel, in registers over all features. `best` is the running
// maximum over the centroids seen so far.
template <class F, int G>
static inline void score_tile(const typename F::T* panel, i64 d, const typename F::T* tile,
                              const typename F::T* bias, typename F::T* t, F* best) {
  constexpr int P = panel_rows<F>();
  F acc[G][kPanelVectors];
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < kPanelVectors; ++v) acc[g][v] = F::all(bias[g]);
  for (i64 j = 0; j < d; ++j) {
    F y[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) y[v] = F::load(panel + j * P + v * F::W);
    for (int g = 0; g < G; ++g) {
      const F c = F::all(tile[j * G + g]);
      for (int v = 0; v < kPanelVectors; ++v) acc[g][v] = F::fma(c, y[v], acc[g][v]);
    }
  }
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < kPanelVectors; ++v) {
      acc[g][v].store(t + g * P + v * F::W);
      best[v] = F::max(best[v], acc[g][v]);
    }
}

// The last, narrower group of centroids: pick the tile of its width at compile time.
template <class F, int G>
static inline void score_rest(int g, const typename F::T* panel, i64 d, const typename F::T* tile,
                              const typename F::T* bias, typename F::T* t, F* best) {
  if (g == G) return score_tile<F, G>(panel, d, tile, bias, t, best);
  if constexpr (G > 1) score_rest<F, G - 1>(g, panel, d, tile, bias, t, best);
}

template <class F>
static inline void score_panel(const typename F::T* panel, i64 d,
                               const Centroids<typename F::T>& c, typename F::T* t, F* best) {
  constexpr int P = panel_rows<F>();
  for (int v = 0; v < kPanelVectors; ++v)
    best[v] = F::all(-__builtin_huge_valf());
  i64 k = 0;
  for (; k + kTileCentroids <= c.k; k += kTileCentroids)
    score_tile<F, kTileCentroids>(panel, d, c.tiles + k * d, c.bias + k, t + k * P, best);
  if (k < c.k)
    score_rest<F, kTileCentroids - 1>(static_cast<int>(c.k - k), panel, d, c.tiles + k * d,
                                      c.bias + k, t + k * P, best);
}

// ---------------------------------------------------------------------------------------------
// Stage 3: weights

// t (k, panel) becomes s * w. With u_k = 2^r_k, S = sum u, m = sum u r / S:
//   s w_k = u_k (a + b r_k),  b = ln2 s / S,  a = s / S - b m;    E = 1/2||y||^2 - (max t + m) / q.
template <class F>
static inline void weigh_panel(const typename F::T* sample_weight, i64 k, const F* best,
                               typename F::T* t, const Scratch<F>& s, F* expected) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const F floor = F::all(kMinExponent<T>);
  F sum[kPanelVectors], moment[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) sum[v] = moment[v] = F::all(0);
  for (i64 i = 0; i < k; ++i) {
    for (int v = 0; v < kPanelVectors; ++v) {
      const F r = F::max(F::load(t + i * P + v * F::W) - best[v], floor);
      const F u = exp2_nonpositive<F>(r);
      u.store(s.exponentials + i * P + v * F::W);
      r.store(t + i * P + v * F::W);
      sum[v] = sum[v] + u;
      moment[v] = F::fma(u, r, moment[v]);
    }
  }
  F a[kPanelVectors], b[kPanelVectors], share[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) {
    const F inverse = F::all(1) / sum[v];
    const F mean = moment[v] * inverse;
    share[v] = F::load(sample_weight + v * F::W) * inverse;
    b[v] = share[v] * F::all(T(kLn2));
    a[v] = share[v] - b[v] * mean;
    expected[v] = best[v] + mean;
  }
  for (i64 i = 0; i < k; ++i) {
    F w_sum = F::load(s.sum_w + i * F::W), p_sum = F::load(s.sum_p + i * F::W);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F u = F::load(s.exponentials + i * P + v * F::W);
      const F r = F::load(t + i * P + v * F::W);
      const F w = u * F::fma(b[v], r, a[v]);
      w.store(t + i * P + v * F::W);
      w_sum = w_sum + w;
      p_sum = F::fma(u, share[v], p_sum);
    }
    w_sum.store(s.sum_w + i * F::W);
    p_sum.store(s.sum_p + i * F::W);
  }
}

template <class F>
static double sum_lanes(const typename F::T* lanes) {
  double sum = 0;
  for (int l = 0; l < F::W; ++l) sum += static_cast<double>(lanes[l]);
  return sum;
}

// ---------------------------------------------------------------------------------------------
// Stage 4: product

// Features in the lanes: G centroids x V vectors of features, rows streamed, weights broadcast.
// weights: [panel][k][panel_rows], pointing at the tile's first centroid.
template <class F, int G, int V>
static inline void product_tile(const typename F::T* rows, i64 d_padded, i64 n_padded, i64 k,
                                const typename F::T* weights, double* const* out) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  F acc[G][V];
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < V; ++v) acc[g][v] = F::all(0);
  for (i64 p = 0; p < n_padded; p += P) {
    const T* w = weights + p * k;
    for (int i = 0; i < P; ++i) {
      const T* y = rows + (p + i) * d_padded;
      F x[V];
      for (int v = 0; v < V; ++v) x[v] = F::load(y + v * F::W);
      for (int g = 0; g < G; ++g) {
        const F c = F::all(w[g * P + i]);
        for (int v = 0; v < V; ++v) acc[g][v] = F::fma(c, x[v], acc[g][v]);
      }
    }
  }
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < V; ++v) acc[g][v].add_to(out[g] + v * F::W);
}

template <class F, int G, int V>
static inline void product_narrow(int vectors, const typename F::T* rows, i64 d_padded,
                                  i64 n_padded, i64 k, const typename F::T* weights,
                                  double* const* out) {
  if (vectors == V) return product_tile<F, G, V>(rows, d_padded, n_padded, k, weights, out);
  if constexpr (V > 1)
    product_narrow<F, G, V - 1>(vectors, rows, d_padded, n_padded, k, weights, out);
}

template <class F, int G>
static inline void product_group(int g, const typename F::T* rows, i64 d, i64 d_padded,
                                 i64 n_padded, i64 k, const typename F::T* weights,
                                 double* sum_wx) {
  if (g < G) {
    if constexpr (G > 1)
      product_group<F, G - 1>(g, rows, d, d_padded, n_padded, k, weights, sum_wx);
    return;
  }
  constexpr i64 kWidth = kProductVectors * F::W;
  for (i64 j = 0; j < d; j += kWidth) {
    const i64 width = d - j < kWidth ? d - j : kWidth;
    const int vectors = static_cast<int>((width + F::W - 1) / F::W);
    double* out[G];
    if (width % F::W == 0) {
      for (int i = 0; i < G; ++i) out[i] = sum_wx + i * d + j;
      product_narrow<F, G, kProductVectors>(vectors, rows + j, d_padded, n_padded, k, weights, out);
    } else {  // the last vector reaches past d: go through a padded copy
      double padded[G][kWidth] = {};
      for (int i = 0; i < G; ++i) out[i] = padded[i];
      product_narrow<F, G, kProductVectors>(vectors, rows + j, d_padded, n_padded, k, weights, out);
      for (int i = 0; i < G; ++i)
        for (i64 l = 0; l < width; ++l) sum_wx[i * d + j + l] += padded[i][l];
    }
  }
}

// Samples stay in the lanes: G centroids x H features of lane sums, reduced once a block.
template <class F, int G, int H>
static inline void lane_tile(const typename F::T* panels, i64 d, i64 n_padded, i64 k,
                             const typename F::T* weights, double* sum_wx) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  F acc[G][H];
  for (int g = 0; g < G; ++g)
    for (int h = 0; h < H; ++h) acc[g][h] = F::all(0);
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
  T lanes[F::W];
  for (int g = 0; g < G; ++g)
    for (int h = 0; h < H; ++h) {
      acc[g][h].store(lanes);
      sum_wx[g * d + h] += sum_lanes<F>(lanes);
    }
}

template <class F, int G, int H>
static inline void lane_narrow(int features, const typename F::T* panels, i64 d, i64 n_padded,
                               i64 k, const typename F::T* weights, double* sum_wx) {
  if (features == H) return lane_tile<F, G, H>(panels, d, n_padded, k, weights, sum_wx);
  if constexpr (H > 1) lane_narrow<F, G, H - 1>(features, panels, d, n_padded, k, weights, sum_wx);
}

template <class F, int G>
static inline void lane_group(int g, const typename F::T* panels, i64 d, i64 n_padded, i64 k,
                              const typename F::T* weights, double* sum_wx) {
  if (g < G) {
    if constexpr (G > 1) lane_group<F, G - 1>(g, panels, d, n_padded, k, weights, sum_wx);
    return;
  }
  constexpr int kFeatures = kProductVectors;
  for (i64 j = 0; j < d; j += kFeatures) {
    const int features = static_cast<int>(d - j < kFeatures ? d - j : kFeatures);
    lane_narrow<F, G, kFeatures>(features, panels + j * panel_rows<F>(), d, n_padded, k, weights,
                                 sum_wx + j);
  }
}

template <class F>
static void product(i64 d, i64 n_padded, i64 k, const Scratch<F>& s, double* sum_wx) {
  constexpr int P = panel_rows<F>();
  const bool by_rows = d >= kRowProductMinD;
  for (i64 i = 0; i < k; i += kProductCentroids) {
    const int g = static_cast<int>(k - i < kProductCentroids ? k - i : kProductCentroids);
    if (by_rows)
      product_group<F, kProductCentroids>(g, s.rows, d, s.d_padded, n_padded, k, s.weights + i * P,
                                          sum_wx + i * d);
    else
      lane_group<F, kProductCentroids>(g, s.panels, d, n_padded, k, s.weights + i * P,
                                       sum_wx + i * d);
  }
}

// ---------------------------------------------------------------------------------------------
// The functions of the table

template <class F>
static i64 scratch_bytes(i64 block_rows, i64 d, i64 k) {
  return Scratch<F>(nullptr, block_rows, d, k).bytes;
}

template <class F>
static void statistics(const Rows<typename F::T>& rows, i64 begin, i64 end,
                       const Centroids<typename F::T>* centroids, const Sums* sums,
                       i64 n_problems, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = centroids->k;
  const Scratch<F> s(scratch, n, d, k);
  pack<F>(rows, begin, n, n_padded, s);
  for (i64 problem = 0; problem < n_problems; ++problem) {
    const Centroids<T>& c = centroids[problem];
    const Sums& out = sums[problem];
    for (i64 i = 0; i < k * F::W; ++i) s.sum_w[i] = s.sum_p[i] = 0;
    double objective = 0;
    for (i64 p = 0; p < n_padded; p += P) {
      T* t = s.weights + p * k;
      F best[kPanelVectors], expected[kPanelVectors];
      score_panel<F>(s.panels + p * d, d, c, t, best);
      weigh_panel<F>(s.sample_weight + p, k, best, t, s, expected);
      T e[P];
      for (int v = 0; v < kPanelVectors; ++v) expected[v].store(e + v * F::W);
      for (int i = 0; i < P; ++i)
        objective += static_cast<double>(s.sample_weight[p + i]) *
                     (static_cast<double>(s.half_norm[p + i]) - static_cast<double>(e[i]) * c.inv_q);
    }
    *out.objective += objective;
    for (i64 i = 0; i < k; ++i) {
      out.sum_w[i] += sum_lanes<F>(s.sum_w + i * F::W);
      out.sum_p[i] += sum_lanes<F>(s.sum_p + i * F::W);
    }
    product<F>(d, n_padded, k, s, out.sum_wx);
  }
}

template <class F>
static double weights(const Rows<typename F::T>& rows, i64 begin, i64 end,
                      const Centroids<typename F::T>& c, typename F::T* out, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = c.k;
  const Scratch<F> s(scratch, n, d, k);
  pack<F>(rows, begin, n, n_padded, s);
  for (i64 i = 0; i < k * F::W; ++i) s.sum_w[i] = s.sum_p[i] = 0;
  double finite_witness = 0;
  for (i64 p = 0; p < n_padded; p += P) {
    T* t = s.weights;  // one panel's worth suffices
    F best[kPanelVectors], expected[kPanelVectors];
    score_panel<F>(s.panels + p * d, d, c, t, best);
    weigh_panel<F>(s.sample_weight + p, k, best, t, s, expected);
    const i64 count = n - p < P ? n - p : P;
    T e[P];
    for (int v = 0; v < kPanelVectors; ++v) expected[v].store(e + v * F::W);
    for (i64 i = 0; i < count; ++i) {
      T* w = out + (begin + p + i) * k;
      for (i64 j = 0; j < k; ++j) w[j] = t[j * P + i];
      finite_witness += static_cast<double>(s.half_norm[p + i]) + static_cast<double>(e[i]);
    }
  }
  return finite_witness;
}

template <class F>
static void nearest(const Rows<typename F::T>& rows, i64 begin, i64 end,
                    const Centroids<typename F::T>& c, std::int32_t* labels, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = c.k;
  const Scratch<F> s(scratch, n, d, k);
  pack<F>(rows, begin, n, n_padded, s);
  for (i64 p = 0; p < n_padded; p += P) {
    F best[kPanelVectors];
    score_panel<F>(s.panels + p * d, d, c, s.weights, best);
    // Two float vectors carry the search; a label is exact in a float up to 2^24 centroids.
    F top[kPanelVectors], label[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) {
      top[v] = F::load(s.weights + v * F::W);
      label[v] = F::all(0);
    }
    for (i64 i = 1; i < k; ++i)
      for (int v = 0; v < kPanelVectors; ++v) {
        const F t = F::load(s.weights + i * P + v * F::W);
        label[v] = F::where_greater(t, top[v], F::all(static_cast<T>(i)), label[v]);
        top[v] = F::max(t, top[v]);
      }
    T lanes[P];
    for (int v = 0; v < kPanelVectors; ++v) label[v].store(lanes + v * F::W);
    const i64 count = n - p < P ? n - p : P;
    for (i64 i = 0; i < count; ++i) labels[begin + p + i] = static_cast<std::int32_t>(lanes[i]);
  }
}

template <class F>
static void accumulate(const Rows<typename F::T>& rows, i64 begin, i64 end,
                       const typename F::T* weights, i64 k, const Sums& sums, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d;
  const Scratch<F> s(scratch, n, d, k);
  pack<F>(rows, begin, n, n_padded, s);
  for (i64 i = 0; i < n_padded * k; ++i) s.weights[i] = 0;
  for (i64 i = 0; i < n; ++i) {
    const T* w = weights + (begin + i) * k;
    T* lane = s.weights + i / P * P * k + i % P;
    for (i64 j = 0; j < k; ++j) {
      lane[j * P] = w[j];
      sums.sum_w[j] += static_cast<double>(w[j]);
    }
  }
  product<F>(d, n_padded, k, s, sums.sum_wx);
}

template <class F>
static void exp2_array(const typename F::T* x, i64 n, typename F::T* y) {
  for (i64 i = 0; i < n; i += F::W) {
    const int count = static_cast<int>(n - i < F::W ? n - i : F::W);
    typename F::T part[F::W];
    exp2_nonpositive<F>(F::load_part(x + i, count)).store(part);
    for (int l = 0; l < count; ++l) y[i + l] = part[l];
  }
}

template <class F>
constexpr Kernels<typename F::T> kernels_for() {
  static_assert(ekmfast::kRowUnit % panel_rows<F>() == 0, "blocks must be whole panels");
  return {panel_rows<F>(), kTileCentroids, scratch_bytes<F>, statistics<F>, weights<F>,
          nearest<F>,      accumulate<F>,  exp2_array<F>};
}
