// Stage 4: sum_n w_kn y_n, the second product.

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

// least_sample_weight is the block's, or 0 where the weights are a caller's, who may mean small ones.
// True where rows were gathered, so that some may not have been read.
template <class F>
static bool product(i64 d, i64 n_padded, i64 k, typename F::T least_sample_weight,
                    const Scratch<F>& s, double* sum_wx) {
  constexpr int P = panel_rows<F>();
  const bool by_rows = d >= kRowProductMinD;
  if (by_rows && d >= kGatherMinD && k >= kSparseMinK &&
      is_sparse<F>(k, s.weights, least_sample_weight)) {
    sparse_product<F>(d, n_padded, k, least_sample_weight, s, sum_wx);
    return true;
  }
  for (i64 i = 0; i < k; i += kProductCentroids) {
    const int g = static_cast<int>(k - i < kProductCentroids ? k - i : kProductCentroids);
    if (by_rows)
      product_group<F, kProductCentroids>(g, s.rows, d, s.d_padded, n_padded, k, s.weights + i * P,
                                          sum_wx + i * d);
    else
      lane_group<F, kProductCentroids>(g, s.panels, d, n_padded, k, s.weights + i * P,
                                       sum_wx + i * d);
  }
  return false;
}
