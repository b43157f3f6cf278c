// Few centroids of few features: all stages at once, vector by vector, in registers.
//
// What the stages write for each other, about 4 K + D + 2 vectors for W rows, costs more here than
// the arithmetic. Everything is unrolled for its K and D.

// Above, the sums no longer fit the registers.
constexpr int kTinyMaxK = 4;
constexpr int kTinyMaxD = 4;
constexpr int kTinyMaxSize = 8;  // K D
static_assert(kTinyMaxK <= kTileCentroids, "the centroids are one tile, [feature][centroid]");
// Vectors of which the parts of J are summed in T before they are added to doubles.
constexpr i64 kTinyRun = 8;

// W rows of which `count` are there, apart in memory or the last of a block; the others are at the
// reference and weigh nothing.
template <class F, int D>
static __attribute__((noinline)) void copy_rows(const Rows<typename F::T>& in, i64 begin, i64 count,
                                                typename F::T* x, typename F::T* weight) {
  using T = typename F::T;
  for (i64 i = 0; i < F::W; ++i) {
    const T* from = i < count ? in.x + (begin + i) * in.stride : in.reference;
    for (int j = 0; j < D; ++j) x[i * D + j] = from[j];
    weight[i] = i >= count ? T(0) : in.sample_weight ? in.sample_weight[begin + i] : T(1);
  }
}

template <class F>
static inline void add_lanes(const F& sum, double& to) {
  typename F::T lanes[F::W];
  sum.store(lanes);
  to += sum_lanes<F>(lanes);
}

// The block's vectors of centred features and of sample weights, for further problems; or null.
template <class F>
struct TinyBlock {
  typename F::T *features, *sample_weight;
  double norms;  // sum s ||y||^2
};

// The formulas are those of weigh_softmax (weigh.inl). kAgain: another problem has gone before, and
// the block is read as it was left.
template <class F, int K, int D, bool kAgain>
static void tiny(const Rows<typename F::T>& in, i64 begin, i64 n, const Centroids<typename F::T>& c,
                 TinyBlock<F>& block, const Sums& out) {
  using T = typename F::T;
  const T* x = in.x + begin * in.stride;
  T copy[F::W * D + F::W], copied_weight[F::W], ones[F::W];
  for (int i = 0; i < F::W; ++i) ones[i] = 1;
  for (int i = 0; i < F::W; ++i) copy[F::W * D + i] = 0;
  const F floor = F::all(kMinExponent<T>);
  F centre[D];
  for (int j = 0; j < D; ++j) centre[j] = F::all(in.reference[j]);
  F sum_wx[K][D], sum_w[K], sum_p[K];
  for (int k = 0; k < K; ++k) {
    sum_w[k] = sum_p[k] = F::all(0);
    for (int j = 0; j < D; ++j) sum_wx[k][j] = F::all(0);
  }
  double norms[F::W] = {}, costs[F::W] = {};
  for (i64 first = 0; first < n; first += kTinyRun * F::W) {
    const i64 end = n - first < kTinyRun * F::W ? n : first + kTinyRun * F::W;
    F norm_sum = F::all(0), cost_sum = F::all(0);
    for (i64 row = first; row < end; row += F::W) {
      F y[D], weight;
      if constexpr (kAgain) {
        for (int j = 0; j < D; ++j) y[j] = F::load(block.features + row * D + j * F::W);
        weight = F::load(block.sample_weight + row);
      } else {
        const T *at = x + row * D, *s = in.sample_weight ? in.sample_weight + begin + row : ones;
        if (in.stride != D || row * D + numbers_read<F, D>() > n * D) {
          copy_rows<F, D>(in, begin + row, n - row < F::W ? n - row : F::W, copy, copied_weight);
          at = copy;
          s = copied_weight;
        }
        transpose_rows<F, D>(at, y);
        for (int j = 0; j < D; ++j) y[j] = y[j] - centre[j];
        weight = F::load(s);
        F norm = y[0] * y[0];
        for (int j = 1; j < D; ++j) norm = F::fma(y[j], y[j], norm);
        norm_sum = F::fma(weight, norm, norm_sum);
        if (block.features) {
          for (int j = 0; j < D; ++j) y[j].store(block.features + row * D + j * F::W);
          weight.store(block.sample_weight + row);
        }
      }
      F r[K], u[K];
      for (int k = 0; k < K; ++k) {
        r[k] = F::all(c.bias[k]);
        for (int j = 0; j < D; ++j) r[k] = F::fma(F::all(c.tiles[j * K + k]), y[j], r[k]);
      }
      F best = r[0];
      for (int k = 1; k < K; ++k) best = F::max(best, r[k]);
      F sum = F::all(0), moment = F::all(0);
      for (int k = 0; k < K; ++k) {
        r[k] = F::max(r[k] - best, floor);
        u[k] = exp2_nonpositive<F>(r[k]);
        sum = sum + u[k];
        moment = F::fma(u[k], r[k], moment);
      }
      const F inverse = F::all(1) / sum;
      const F share = weight * inverse, mean = moment * inverse;
      const F b = share * F::all(T(kLn2)), a = share - b * mean;
      cost_sum = F::fma(weight, best + mean, cost_sum);
      for (int k = 0; k < K; ++k) {
        const F w = u[k] * F::fma(b, r[k], a);
        sum_w[k] = sum_w[k] + w;
        sum_p[k] = F::fma(u[k], share, sum_p[k]);
        for (int j = 0; j < D; ++j) sum_wx[k][j] = F::fma(w, y[j], sum_wx[k][j]);
      }
    }
    if constexpr (!kAgain) norm_sum.add_to(norms);
    cost_sum.add_to(costs);
  }
  if constexpr (!kAgain) block.norms = sum_doubles<F::W>(norms);
  *out.objective += block.norms / 2 - sum_doubles<F::W>(costs) * c.inv_q;
  for (int k = 0; k < K; ++k) {
    add_lanes(sum_w[k], out.sum_w[k]);
    add_lanes(sum_p[k], out.sum_p[k]);
    for (int j = 0; j < D; ++j) add_lanes(sum_wx[k][j], out.sum_wx[k * D + j]);
  }
}

// True if the block was of a size that tiny() is for.
template <class F, int K = kTinyMaxK, int D = kTinyMaxD>
static inline bool try_tiny(const Rows<typename F::T>& in, i64 begin, i64 n,
                            const Centroids<typename F::T>* c, const Sums* out, i64 n_problems,
                            void* scratch) {
  if (c->k > K || in.d > D) return false;
  if constexpr (K > 1) {
    if (c->k < K) return try_tiny<F, K - 1, D>(in, begin, n, c, out, n_problems, scratch);
  }
  if constexpr (D > 1) {
    if (in.d < D) return try_tiny<F, K, D - 1>(in, begin, n, c, out, n_problems, scratch);
  }
  if constexpr (K * D <= kTinyMaxSize) {
    TinyBlock<F> block = {nullptr, nullptr, 0};
    if (n_problems > 1) {
      const Scratch<F> s(scratch, n, D, K);
      block.features = s.panels;
      block.sample_weight = s.sample_weight;
    }
    tiny<F, K, D, false>(in, begin, n, c[0], block, out[0]);
    for (i64 i = 1; i < n_problems; ++i) tiny<F, K, D, true>(in, begin, n, c[i], block, out[i]);
    return true;
  }
  return false;
}
