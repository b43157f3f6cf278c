// The body that all instruction sets share, included inside an anonymous namespace after F32, F64
// (vectors), the constants of the instruction set, kTileCentroids to kProductAsksAhead, and
// exp2.inl and log2.inl.
//
// A block of rows goes through four stages, a file each, all in cache:
//   pack      centre the rows and lay them out in panels [feature][3 vectors of samples], so that
//             samples sit in the lanes and every later minimum, exponential and sum is vertical;
//   scores    t_k = bias_k + y . (q c_k): the first product, register tiles of centroids x panel;
//   weights   row maximum, exponentials, and  w_k = p_k (1 + ln2 (r_k - sum_i p_i r_i))  with
//             r_k = t_k - max t, which is Eq. 38 because alpha (d_k - E) = -ln2 (r_k - sum p r);
//   product   sum_n w_kn y_n, accumulated in registers over a part of the block or some rows of it.
// The products' sums are added to doubles once a block.

using ekmfast::Centroids;
using ekmfast::Kernels;
using ekmfast::kMinExponent;
using ekmfast::kRowProductMinD;
using ekmfast::Rows;
using ekmfast::Sums;
using ekmfast::Weighting;

typedef std::int64_t i64;

constexpr double kLn2 = 0.69314718055994530942;
constexpr int kPanelVectors = 3;
// Vectors of samples of which the parts of J are summed in T before they are added to doubles.
constexpr int kRunVectors = 8;
// How early rows are asked for: panel by panel, and once more when a panel is packed, as so many
// rows side by side are more than the processor follows by itself.
constexpr i64 kBytesAhead = 8 << 10;
constexpr int kPanelsAhead = 2;  // at least
constexpr i64 kBytesNear = 64 << 10;  // up to which they go to the L1 cache, else the L2 cache
constexpr int kVectorsAhead = 4;
// Up to so many features some panels are packed at once, which are a call's worth of work together.
constexpr int kVeryShort = 4;

template <class F>
constexpr int panel_rows() {
  return kPanelVectors * F::W;
}

// GCC keeps an array of vectors in registers if all loops over it are unrolled early, which those
// at the outermost level of a function are only where they say so.
#if defined(__clang__)
#define EKMFAST_UNROLL
#else
#define EKMFAST_UNROLL _Pragma("GCC unroll 16")
#endif

// Elements of two vectors, numbered through, in the order given.
#if defined(__clang__) || __GNUC__ >= 12
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype((a) > (b)){__VA_ARGS__})
#endif

// Halves are added until one lane is left.
template <class F, int kHalf, std::size_t... J>
static inline F add_halves(F a, std::index_sequence<J...> lanes) {
  if constexpr (kHalf == 0) {
    return a;
  } else {
    const F other = {EKMFAST_SHUFFLE(a.v, a.v, ((J + kHalf) % F::W)...)};
    return add_halves<F, kHalf / 2>(a + other, lanes);
  }
}

template <class F>
static inline typename F::T sum_across(F vector) {
  return add_halves<F, F::W / 2>(vector, std::make_index_sequence<F::W>()).v[0];
}

// The sum of N numbers, in double; N a multiple of F64::W.
template <int N, class T>
static inline double sum_lanes(const T* lanes) {
  F64 sum = F64::load(lanes);
  for (int l = F64::W; l < N; l += F64::W) sum = sum + F64::load(lanes + l);
  return sum_across(sum);
}

static inline i64 round_up(i64 n, i64 unit) { return (n + unit - 1) / unit * unit; }

// Lines to be asked for before they are read; what lies behind the last row is asked for too, but
// never read. `a_tile` of them with each tile of the scores, `a_feature` with each of its features.
struct Ahead {
  static constexpr i64 kLine = 64;  // bytes
  std::uintptr_t at = 0;
  i64 lines = 0, a_tile = 0, a_feature = 0;
  bool near = false;  // into the L1 cache, else the L2 cache

  // The `count` numbers that begin `distance` numbers behind x.
  template <class T>
  Ahead(const T* x, i64 distance, i64 count, bool close = false)
      : at(reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(distance) * sizeof(T)),
        lines((count * static_cast<i64>(sizeof(T)) + kLine - 1) / kLine), near(close) {}
  Ahead() = default;

  void prefetch(i64 line) const {
    const std::uintptr_t begin = at + static_cast<std::uintptr_t>(line * kLine);
    const void* address = reinterpret_cast<const void*>(begin);
    if (near)
      __builtin_prefetch(address, 0, 3);
    else
      __builtin_prefetch(address, 0, 2);
  }

  void prefetch() const {
    for (i64 line = 0; line < lines; ++line) prefetch(line);
  }

  void spread(i64 n_tiles, i64 d) {
    a_tile = (lines + n_tiles - 1) / n_tiles;
    a_feature = (a_tile + d - 1) / d;
  }

  // The share of tile i.
  Ahead share(i64 i) const {
    Ahead part = *this;
    part.at += static_cast<std::uintptr_t>(i * a_tile * kLine);
    part.lines = lines - i * a_tile < a_tile ? lines - i * a_tile : a_tile;
    return part;
  }
};

// ---------------------------------------------------------------------------------------------
// Scratch: a bump allocator over the caller's buffer. The same function lays it out and sizes it.

// gather.inl writes whole vectors of at most 16 lanes to the end of the two lists.
constexpr i64 kPickedSpare = 16;

// A block is worked off in parts: what the stages write for each other should stay in the L1 cache,
// or, where that would leave too few rows to share a product's sums, in the L2 cache.
constexpr i64 kPartBytesL1 = 28 << 10;
constexpr i64 kPartBytesL2 = 512 << 10;
constexpr i64 kPartRowsL1 = 2 * ekmfast::kRowUnit;

// The second product takes so many rows at a time: a strip of kProductVectors of their features
// stays in the L1 cache for all centroids.
constexpr i64 kStripRows = 2 * ekmfast::kRowUnit;

template <class T>
static i64 part_rows(i64 block_rows, i64 d, i64 k) {
  constexpr i64 unit = ekmfast::kRowUnit;
  const i64 row_bytes = (d + k) * static_cast<i64>(sizeof(T));
  i64 rows = kPartBytesL1 / row_bytes / unit * unit;
  if (rows < kPartRowsL1) rows = kPartBytesL2 / row_bytes / unit * unit;
  if (rows < unit) rows = unit;
  const i64 all = round_up(block_rows, unit);
  return rows < all ? rows : all;
}

template <class F>
struct Scratch {
  using T = typename F::T;
  T* panels;          // [panel][d][panel_rows] centred samples in the lanes
  T* weights;         // [panel][k][panel_rows] of a part: scores t, then s * w
  T* exponentials;    // [k][panel_rows] of the panel in work
  T* sample_weight;   // [row], 0 behind the last row
  T* half_norm;       // [row] 1/2 ||y||^2
  T* sum_w;           // [k][W] lanes of sum s w
  T* sum_p;           // [k][W] lanes of sum s p
  T* partial;         // sum s w y: [k][d_padded], or [k][d][W] lanes if d < kRowProductMinD
  T* strip;           // [row of kStripRows][kProductVectors vectors] centred features
  std::int32_t* picked;  // [row of part] rows that matter to one centroid, and their weights
  T* picked_weights;
  i64 part;           // rows
  i64 d_padded;
  i64 partial_size;
  i64 bytes;

  Scratch(void* base, i64 block_rows, i64 d, i64 k) {
    const i64 n = round_up(block_rows, panel_rows<F>());
    part = part_rows<T>(block_rows, d, k);
    d_padded = round_up(d, F::W);
    partial_size = k * (d < kRowProductMinD ? d * F::W : d_padded);
    bytes = 0;
    panels = take(base, n * d);
    weights = take(base, part * k);
    exponentials = take(base, k * panel_rows<F>());
    sample_weight = take(base, n);
    half_norm = take(base, n);
    sum_w = take(base, k * F::W);
    sum_p = take(base, k * F::W);
    partial = take(base, partial_size);
    strip = take(base, d < kRowProductMinD ? 0 : kStripRows * kProductVectors * F::W);
    picked = take<std::int32_t>(base, part + kPickedSpare);
    picked_weights = take(base, part + kPickedSpare);
  }

 private:
  template <class U = T>
  U* take(void* base, i64 count) {
    const i64 at = bytes;
    bytes = round_up(bytes + count * static_cast<i64>(sizeof(U)), 64);
    return base ? reinterpret_cast<U*>(static_cast<char*>(base) + at) : nullptr;
  }
};

#include "pack.inl"
#include "scores.inl"
#include "unpack.inl"
#include "weigh.inl"
#include "dots.inl"
#include "gather.inl"
#include "product.inl"
#include "closest.inl"
#include "tiny.inl"

// ---------------------------------------------------------------------------------------------
// The functions of the table

template <class F>
static i64 scratch_bytes(i64 block_rows, i64 d, i64 k) {
  return Scratch<F>(nullptr, block_rows, d, k).bytes;
}

// The smallest positive one; infinity if there is none.
template <class T>
static T least_positive(const T* values, i64 n) {
  T least = T(__builtin_huge_valf());
  for (i64 i = 0; i < n; ++i) least = values[i] > 0 && values[i] < least ? values[i] : least;
  return least;
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

template <class F, Weighting W>
static void statistics(const Rows<typename F::T>& rows, i64 begin, i64 end,
                       const Centroids<typename F::T>* centroids, const Sums* sums,
                       i64 n_problems, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = centroids->k;
  if constexpr (W == Weighting::equilibrium)
    if (try_tiny<F>(rows, begin, n, centroids, sums, n_problems, scratch)) return;
  const Scratch<F> s(scratch, n, d, k);
  const bool dots = W != Weighting::fuzzy && by_dots<T>(k, d);
  const Keep keep = n_problems > 1 ? Keep::block : d < kRowProductMinD ? Keep::part : Keep::panel;
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, keep, k);
  pack_weights<F>(rows, begin, n, n_padded, s);
  const T least = rows.sample_weight ? least_positive(s.sample_weight, n) : T(1);
  for (i64 problem = 0; problem < n_problems; ++problem) {
    const Centroids<T>& c = centroids[problem];
    const Sums& out = sums[problem];
    for (i64 i = 0; i < k * F::W; ++i) s.sum_w[i] = s.sum_p[i] = 0;
    for (i64 i = 0; i < s.partial_size; ++i) s.partial[i] = 0;
    // J = sum s (1/2 ||y||^2 - e / q), its two sums apart: one rounding of 1 / q for all.
    double norms[F::W] = {}, costs[F::W] = {};
    for (i64 first = 0; first < n; first += s.part) {
      const i64 count = n - first < s.part ? n - first : s.part;
      panels.open(first, first + count);
      F norm = F::all(0), e = F::all(0);
      int run = 0;
      for (i64 p = first; p < first + count; p += P) {
        T* t = s.weights + (p - first) * k;
        F best[kPanelVectors], cost[kPanelVectors];
        if (dots) {
          dot_panel<F, ekmfast::kDotMaxK>(rows, begin + p, n - p < P ? n - p : P, c, t,
                                          s.half_norm + p, best);
        } else {
          if (problem == 0) panels.pack(p);
          score_panel<F>(panels.at(p), d, c, problem == 0 ? panels.ahead(p) : Ahead(), t, best);
        }
        weigh_panel<F, W>(panels.at(p), d, c, s.sample_weight + p, s.half_norm + p, best, t, s,
                          cost);
        for (int v = 0; v < kPanelVectors; ++v) {
          const F weight = F::load(s.sample_weight + p + v * F::W);
          norm = F::fma(weight, F::load(s.half_norm + p + v * F::W), norm);
          e = F::fma(weight, cost[v], e);
        }
        if (p + P >= first + count || ++run == kRunVectors / kPanelVectors) {
          if constexpr (W != Weighting::fuzzy) norm.add_to(norms);
          e.add_to(costs);
          norm = e = F::all(0);
          run = 0;
        }
      }
      product<F>(rows, begin + first, count, k, dots && kProductAsksAhead ? count : 0, least,
                 d < kRowProductMinD ? panels.at(first) : nullptr, s);
    }
    const double cost_sum = sum_lanes<F::W>(costs) * c.inv_q;
    *out.objective +=
        W == Weighting::fuzzy ? cost_sum : sum_lanes<F::W>(norms) - cost_sum;
    for (i64 i = 0; i < k; ++i) {
      out.sum_w[i] += sum_lanes<F::W>(s.sum_w + i * F::W);
      out.sum_p[i] += sum_lanes<F::W>(s.sum_p + i * F::W);
    }
    flush(d, k, s, out.sum_wx);
  }
}

template <class F>
static double weights(const Rows<typename F::T>& rows, i64 begin, i64 end,
                      const Centroids<typename F::T>& c, typename F::T* out, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = c.k;
  const Scratch<F> s(scratch, n, d, k);
  const bool dots = by_dots<T>(k, d);
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, Keep::panel, k);
  pack_weights<F>(rows, begin, n, n_padded, s);
  for (i64 i = 0; i < k * F::W; ++i) s.sum_w[i] = s.sum_p[i] = 0;
  double witness[F::W] = {};
  for (i64 p = 0; p < n_padded; p += P) {
    const i64 count = n - p < P ? n - p : P;
    T* t = s.weights;  // one panel's worth suffices
    F best[kPanelVectors], cost[kPanelVectors];
    if (dots)
      dot_panel<F, ekmfast::kDotMaxK>(rows, begin + p, count, c, t, s.half_norm + p, best);
    else
      score_panel<F>(panels.pack(p), d, c, panels.ahead(p), t, best);
    weigh_panel<F, Weighting::equilibrium>(panels.at(p), d, c, s.sample_weight + p,
                                           s.half_norm + p, best, t, s, cost);
    for (int v = 0; v < kPanelVectors; ++v) {
      F::load(s.half_norm + p + v * F::W).add_to(witness);
      cost[v].add_to(witness);
    }
    unpack_panel<F>(t, k, count, out + (begin + p) * k);
  }
  return sum_lanes<F::W>(witness);
}

template <class F>
static void nearest(const Rows<typename F::T>& rows, i64 begin, i64 end,
                    const Centroids<typename F::T>& c, std::int32_t* labels, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, n_padded = round_up(n, P), d = rows.d, k = c.k;
  const Scratch<F> s(scratch, n, d, k);
  const bool dots = by_dots<T>(k, d);
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, Keep::panel, k);
  for (i64 p = 0; p < n_padded; p += P) {
    const i64 count = n - p < P ? n - p : P;
    F best[kPanelVectors];
    if (dots)
      dot_panel<F, ekmfast::kDotMaxK>(rows, begin + p, count, c, s.weights, s.half_norm + p, best);
    else
      score_panel<F>(panels.pack(p), d, c, panels.ahead(p), s.weights, best);
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
    for (i64 i = 0; i < count; ++i) labels[begin + p + i] = static_cast<std::int32_t>(lanes[i]);
  }
}

// sums (k) += the columns' sums of weights (n, k), in double: a caller's may have both signs.
template <class T>
static void add_columns(const T* weights, i64 n, i64 k, double* sums) {
  constexpr int W = F64::W;
  if (k < W) {  // W rows are k vectors, of which element e belongs to column e % k
    F64 sum[W];
    for (int v = 0; v < W; ++v) sum[v] = F64::all(0);
    i64 row = 0;
    for (; row + W <= n; row += W)
      for (int v = 0; v < k; ++v) sum[v] = sum[v] + F64::load(weights + row * k + v * W);
    double elements[W * W];
    for (int v = 0; v < k; ++v) sum[v].store(elements + v * W);
    for (i64 e = 0; e < k * W; ++e) sums[e % k] += elements[e];
    for (i64 e = row * k; e < n * k; ++e) sums[e % k] += static_cast<double>(weights[e]);
    return;
  }
  for (i64 i = 0; i < k; i += W) {
    const i64 from = i + W <= k ? i : k - W;  // the last vector, some of it a second time
    F64 sum[4] = {F64::all(0), F64::all(0), F64::all(0), F64::all(0)};
    i64 row = 0;
    for (; row + 4 <= n; row += 4)
      for (int r = 0; r < 4; ++r) sum[r] = sum[r] + F64::load(weights + (row + r) * k + from);
    for (; row < n; ++row) sum[0] = sum[0] + F64::load(weights + row * k + from);
    double lanes[W];
    ((sum[0] + sum[1]) + (sum[2] + sum[3])).store(lanes);
    for (i64 j = i; j < from + W; ++j) sums[j] += lanes[j - from];
  }
}

template <class F>
static void accumulate(const Rows<typename F::T>& rows, i64 begin, i64 end,
                       const typename F::T* weights, i64 k, const Sums& sums, void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, d = rows.d;
  const Scratch<F> s(scratch, n, d, k);
  for (i64 i = 0; i < s.partial_size; ++i) s.partial[i] = 0;
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, Keep::part, k);
  for (i64 first = 0; first < n; first += s.part) {
    const i64 count = n - first < s.part ? n - first : s.part, at = begin + first;
    const T* given = weights + at * k;
    add_columns(given, count, k, sums.sum_w);
    if (d >= kRowProductMinD) {
      // Rows are gathered by columns, of which the first panel's tell whether they are sparse.
      if (may_gather(d, k)) pack_columns<F>(weights, k, at, count < P ? count : P, s);
      if (gathers<F>(d, k, T(0), s)) {
        pack_columns<F>(weights, k, at, count, s);
        sparse_product<F>(rows, at, count, k, T(0), s);
        sums.sum_w[0] += zero_if_finite<F>(rows, at, at + count);
      } else {
        row_product<F, true>(rows, at, count, k, kProductAsksAhead ? count : 0, given, s);
      }
      continue;
    }
    pack_columns<F>(weights, k, at, count, s);
    panels.open(first, first + count);
    for (i64 p = first; p < first + count; p += P) {
      panels.ahead(p).prefetch();
      panels.pack(p);
    }
    lane_product<F>(d, count, k, panels.at(first), s);
  }
  flush(d, k, s, sums.sum_wx);
}

// From differences in double, which keep their digits where x is near its centroid.
template <class F>
static void distances(const Rows<typename F::T>& rows, i64 begin, i64 end, const double* centroids,
                      const std::int32_t* labels, typename F::T* squared) {
  using T = typename F::T;
  constexpr int W = F64::W;
  for (i64 i = begin; i < end; ++i) {
    const T* x = rows.x + i * rows.stride;
    const double* c = centroids + labels[i] * rows.d;
    F64 sum[4] = {F64::all(0), F64::all(0), F64::all(0), F64::all(0)};
    const auto add = [&](i64 j, F64& to) {
      const F64 difference = F64::load(x + j) - F64::load(c + j);
      to = F64::fma(difference, difference, to);
    };
    i64 j = 0;
    for (; j + 4 * W <= rows.d; j += 4 * W)
      for (int v = 0; v < 4; ++v) add(j + v * W, sum[v]);
    for (; j + W <= rows.d; j += W) add(j, sum[0]);
    double total = 0;
    if (j > 0) total = sum_across((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; j < rows.d; ++j) {
      const double difference = static_cast<double>(x[j]) - c[j];
      total += difference * difference;
    }
    squared[i] = static_cast<T>(total);
  }
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
  return {kTileCentroids,
          scratch_bytes<F>,
          {statistics<F, Weighting::equilibrium>, statistics<F, Weighting::maximum_entropy>,
           statistics<F, Weighting::hard>, statistics<F, Weighting::fuzzy>},
          weights<F>,
          nearest<F>,
          distances<F>,
          closest<F>,
          accumulate<F>,
          exp2_array<F>};
}
