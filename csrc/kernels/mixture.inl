// Expectation maximization of mixtures of Student distributions: the sums of a slice, and the
// densities of rows (struct Mixture in kernels.h).
//
// Samples sit in the lanes. A panel goes through all components before the next one, so that it stays
// in the L1 cache: z = y W + bias in register tiles, q = ||z||^2, t, and then the weights w of all
// components, which are kept for the slice. After that each component's moments are summed over the
// slice, again in register tiles, and added to doubles once a slice.
#pragma once

#include "exp2.inl"
#include "kernels.h"
#include "lanes.inl"
#include "log2.inl"
#include "pack.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "tuning.h"

namespace ekmfast {
namespace {

template <class F>
struct MixtureScratch {
  using T = typename F::T;
  T* panels;         // [panel][d][panel_rows] y
  T* half_norm;      // [row] 1/2 ||y||^2, which nobody reads
  T* sample_weight;  // [row], 0 behind the last row
  T* joint;          // [k][panel_rows] of the panel in work: t, then 2^(t - max t)
  T* squares;        // [k][panel_rows] q
  T* weights;        // [k][row] w, or its square root if full
  T* mass;           // [k][W] lanes of sum r
  T* weight;         // [k][W] lanes of sum w
  T* strips;         // [group of features][vector][feature][W] sqrt(w) c of one component, if full
  i64 n;             // rows, padded to whole panels
  i64 bytes;

  MixtureScratch(void* base, i64 slice_rows, i64 d, i64 k, bool full) {
    n = round_up(slice_rows, panel_rows<F>());
    bytes = 0;
    panels = take(base, n * d);
    half_norm = take(base, n);
    sample_weight = take(base, n);
    joint = take(base, k * panel_rows<F>());
    squares = take(base, k * panel_rows<F>());
    weights = take(base, k * n);
    mass = take(base, k * F::W);
    weight = take(base, k * F::W);
    strips = take(base, full ? n * d : 0);
  }

 private:
  T* take(void* base, i64 count) {
    const i64 at = bytes;
    bytes = round_up(bytes + count * static_cast<i64>(sizeof(T)), 64);
    return base ? reinterpret_cast<T*>(static_cast<char*>(base) + at) : nullptr;
  }
};

template <class F>
static i64 mixture_scratch(i64 slice_rows, i64 d, i64 k, bool full) {
  return MixtureScratch<F>(nullptr, slice_rows, d, k, full).bytes;
}

// log2(1 + h), h >= 0, to the last digits also of small h. Of an h that is infinite it is that of a
// very large one.
template <class F>
static inline F log2_1p(F h) {
  using T = typename F::T;
  const F limit = F::all(sizeof(T) == 4 ? T(1e37) : T(1e307));
  h = F::where_greater(h, limit, limit, h);
  constexpr int kTerms = sizeof(T) == 4 ? 5 : 11;
  constexpr double kTwoOverLn2 = 2.88539008177792681472;
  const F one = F::all(1), x = one + h;
  const F e = F::exponent(x * F::all(T(1.41421356237309504880)));
  const F fraction = F::scale(x, F::all(0) - e);
  // Where e is 0, fraction - 1 is h, of which x has lost digits.
  const F over = F::where_greater(e, F::all(0), fraction - one, h);
  const F z = over / (fraction + one);
  const F square = z * z;
  F series = F::all(T(kTwoOverLn2 / (2 * kTerms - 1)));
  for (int i = kTerms - 2; i >= 0; --i)
    series = F::fma(series, square, F::all(T(kTwoOverLn2 / (2 * i + 1))));
  return F::fma(z, series, e);
}

static inline float root(float a) { return EKMFAST_ROOT_FLOAT(a); }
static inline double root(double a) { return EKMFAST_ROOT(a); }

// ---------------------------------------------------------------------------------------------
// Squared distances q of a panel

// G columns of a triangle, from column j on.
template <class F, int G>
static inline void whiten_tile(const typename F::T* panel, i64 j, const typename F::T* w,
                               const typename F::T* bias, F* squares) {
  constexpr int P = panel_rows<F>();
  F z[G][kPanelVectors];
  EKMFAST_UNROLL for (int g = 0; g < G; ++g)
    EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) z[g][v] = F::all(bias[g]);
  for (i64 i = 0; i < j; ++i) {
    F y[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) y[v] = F::load(panel + i * P + v * F::W);
    for (int g = 0; g < G; ++g) {
      const F own = F::all(w[i * G + g]);
      for (int v = 0; v < kPanelVectors; ++v) z[g][v] = F::fma(own, y[v], z[g][v]);
    }
  }
  w += j * G;
  panel += j * P;
  EKMFAST_UNROLL for (int i = 0; i < G; ++i) {
    F y[kPanelVectors];
    EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) y[v] = F::load(panel + i * P + v * F::W);
    EKMFAST_UNROLL for (int g = i; g < G; ++g) {
      const F own = F::all(w[i * G - i * (i - 1) / 2 + g - i]);
      EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) z[g][v] = F::fma(own, y[v], z[g][v]);
    }
  }
  EKMFAST_UNROLL for (int v = 0; v < kPanelVectors; ++v) {
    F sum = squares[v];
    EKMFAST_UNROLL for (int g = 0; g < G; ++g) sum = F::fma(z[g][v], z[g][v], sum);
    squares[v] = sum;
  }
}

template <class F, int G>
static inline void whiten_rest(int g, const typename F::T* panel, i64 j, const typename F::T* w,
                               const typename F::T* bias, F* squares) {
  if (g == G) return whiten_tile<F, G>(panel, j, w, bias, squares);
  if constexpr (G > 1) whiten_rest<F, G - 1>(g, panel, j, w, bias, squares);
}

// of one component
template <class F>
static inline void triangle_squares(const typename F::T* panel, i64 d, const typename F::T* w,
                                    const typename F::T* bias, typename F::T* out) {
  constexpr int G = Tuned::kTileCentroids;
  F squares[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) squares[v] = F::all(0);
  i64 j = 0;
  for (; j + G <= d; j += G) {
    whiten_tile<F, G>(panel, j, w, bias + j, squares);
    w += j * G + G * (G + 1) / 2;
  }
  if (j < d)
    whiten_rest<F, G - 1>(static_cast<int>(d - j), panel, j, w, bias + j, squares);
  for (int v = 0; v < kPanelVectors; ++v) squares[v].store(out + v * F::W);
}

// of G components whose whiteners are factors
template <class F, int G>
static inline void factor_squares(const typename F::T* panel, i64 d, const typename F::T* factors,
                                  const typename F::T* bias, typename F::T* out) {
  constexpr int P = panel_rows<F>();
  F squares[G][kPanelVectors];
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < kPanelVectors; ++v) squares[g][v] = F::all(0);
  for (i64 j = 0; j < d; ++j) {
    F y[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) y[v] = F::load(panel + j * P + v * F::W);
    for (int g = 0; g < G; ++g) {
      const F factor = F::all(factors[g * d + j]), b = F::all(bias[g * d + j]);
      for (int v = 0; v < kPanelVectors; ++v) {
        const F z = F::fma(y[v], factor, b);
        squares[g][v] = F::fma(z, z, squares[g][v]);
      }
    }
  }
  for (int g = 0; g < G; ++g)
    for (int v = 0; v < kPanelVectors; ++v) squares[g][v].store(out + g * P + v * F::W);
}

// OUT s.squares, s.joint; best, the largest t of each row. Adds to witness what is not finite.
template <class F>
static inline void joint_panel(const typename F::T* panel, i64 d, const Mixture<typename F::T>& m,
                               const MixtureScratch<F>& s, F* best, F& witness) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  if (m.full) {
    const i64 size = d * (d + 1) / 2;
    for (i64 k = 0; k < m.k; ++k)
      triangle_squares<F>(panel, d, m.whiteners + k * size, m.bias + k * d, s.squares + k * P);
  } else {
    i64 k = 0;
    for (; k + 2 <= m.k; k += 2)
      factor_squares<F, 2>(panel, d, m.whiteners + k * d, m.bias + k * d, s.squares + k * P);
    if (k < m.k)
      factor_squares<F, 1>(panel, d, m.whiteners + k * d, m.bias + k * d, s.squares + k * P);
  }
  const bool gaussian = m.power == 0;
  const F zero = F::all(0), inverse = F::all(T(1) / m.degrees), power = F::all(-m.power),
          half = F::all(T(-0.72134752044448170368));
  for (int v = 0; v < kPanelVectors; ++v) best[v] = F::all(m.background);
  for (i64 k = 0; k < m.k; ++k) {
    const F offset = F::all(m.offsets[k]);
    for (int v = 0; v < kPanelVectors; ++v) {
      const F q = F::load(s.squares + k * P + v * F::W);
      witness = F::fma(q, zero, witness);
      const F t = gaussian ? F::fma(q, half, offset)
                           : F::fma(log2_1p<F>(q * inverse), power, offset);
      t.store(s.joint + k * P + v * F::W);
      best[v] = F::max(t, best[v]);
    }
  }
}

// 2^(t - best), 0 if it underflows
template <class F>
static inline F exponential(F t, F best) {
  const F floor = F::all(kMinExponent<typename F::T>), x = t - best;
  return F::where_greater(x, floor, exp2_nonpositive<F>(F::max(x, floor)), F::all(0));
}

// t becomes 2^(t - best); OUT background, that of the background, and the sum over all.
template <class F>
static inline void exponentials(const Mixture<typename F::T>& m, const F* best, typename F::T* t,
                                F* background, F* sum) {
  constexpr int P = panel_rows<F>();
  for (int v = 0; v < kPanelVectors; ++v) {
    background[v] = F::all(0);
    if (m.background > -EKMFAST_INFINITY)
      background[v] = exponential<F>(F::all(m.background), best[v]);
    sum[v] = background[v];
  }
  for (i64 i = 0; i < m.k; ++i) {
    F u[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v)
      u[v] = exponential<F>(F::load(t + i * P + v * F::W), best[v]);
    for (int v = 0; v < kPanelVectors; ++v) {
      sum[v] = sum[v] + u[v];
      u[v].store(t + i * P + v * F::W);
    }
  }
}

// ---------------------------------------------------------------------------------------------
// Moments of one component over a slice

// Sums of w c and w c^2 of feature j.
template <class F>
static inline void factor_moments(const MixtureScratch<F>& s, i64 d, i64 j, typename F::T scale,
                                  typename F::T mean, const typename F::T* weights, double& first,
                                  double& second) {
  constexpr int P = panel_rows<F>();
  const F unit = F::all(scale), shift = F::all(-mean);
  F one[kPanelVectors], two[kPanelVectors];
  for (int v = 0; v < kPanelVectors; ++v) one[v] = two[v] = F::all(0);
  for (i64 p = 0; p < s.n; p += P)
    for (int v = 0; v < kPanelVectors; ++v) {
      const F c = F::fma(F::load(s.panels + p * d + j * P + v * F::W), unit, shift);
      const F wc = F::load(weights + p + v * F::W) * c;
      one[v] = one[v] + wc;
      two[v] = F::fma(wc, c, two[v]);
    }
  first += static_cast<double>(sum_across(one[0] + one[1] + one[2]));
  second += static_cast<double>(sum_across(two[0] + two[1] + two[2]));
}

// OUT s.strips of one component; first (d,) (added to).
template <class F>
static inline void fill_strips(const MixtureScratch<F>& s, i64 d, typename F::T scale,
                               const typename F::T* means, const typename F::T* roots,
                               double* first) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>(), B = Tuned::kMomentFeatures;
  const F unit = F::all(scale);
  for (i64 j = 0; j < d; ++j) {
    const i64 group = j / B * B, width = d - group < B ? d - group : B;
    T* to = s.strips + group * s.n + (j - group) * F::W;
    const F shift = F::all(-means[j]);
    F one[kPanelVectors];
    for (int v = 0; v < kPanelVectors; ++v) one[v] = F::all(0);
    for (i64 p = 0; p < s.n; p += P)
      for (int v = 0; v < kPanelVectors; ++v) {
        const F c = F::fma(F::load(s.panels + p * d + j * P + v * F::W), unit, shift);
        const F own = F::load(roots + p + v * F::W), scaled = own * c;
        scaled.store(to + (p / F::W + v) * width * F::W);
        one[v] = F::fma(own, scaled, one[v]);
      }
    first[j] += static_cast<double>(sum_across(one[0] + one[1] + one[2]));
  }
}

// The products of R features of one strip with C of another; of the lower triangle if both are one.
template <class F, int R, int C, bool kDiagonal>
static inline void moment_tile(const typename F::T* a, const typename F::T* b, i64 vectors, i64 i,
                               i64 j, double* second) {
  F acc[R][C];
  EKMFAST_UNROLL for (int r = 0; r < R; ++r)
    EKMFAST_UNROLL for (int c = 0; c < C; ++c) acc[r][c] = F::all(0);
  for (i64 p = 0; p < vectors; ++p) {
    F y[C];
    EKMFAST_UNROLL for (int c = 0; c < C; ++c) y[c] = F::load(b + (p * C + c) * F::W);
    EKMFAST_UNROLL for (int r = 0; r < R; ++r) {
      const F x = kDiagonal ? y[r < C ? r : 0] : F::load(a + (p * R + r) * F::W);
      EKMFAST_UNROLL for (int c = 0; c < (kDiagonal ? r + 1 : C); ++c)
        acc[r][c] = F::fma(x, y[c], acc[r][c]);
    }
  }
  EKMFAST_UNROLL for (int r = 0; r < R; ++r) {
    double* row = second + (i + r) * (i + r + 1) / 2 + j;
    EKMFAST_UNROLL for (int c = 0; c < (kDiagonal ? r + 1 : C); ++c)
      row[c] += static_cast<double>(sum_across(acc[r][c]));
  }
}

// The last rows: their width picks the tile at compile time.
template <class F, int R>
static inline void moment_rows(int rows, const typename F::T* strips, i64 n, i64 i,
                               double* second) {
  constexpr int B = Tuned::kMomentFeatures;
  if (rows < R) {
    if constexpr (R > 1) moment_rows<F, R - 1>(rows, strips, n, i, second);
    return;
  }
  const typename F::T* a = strips + i * n;
  for (i64 j = 0; j < i; j += B)
    moment_tile<F, R, B, false>(a, strips + j * n, n / F::W, i, j, second);
  moment_tile<F, R, R, true>(a, a, n / F::W, i, i, second);
}

template <class F>
static inline void component_moments(const MixtureScratch<F>& s, i64 d,
                                     const Mixture<typename F::T>& m, i64 k,
                                     const MixtureSums& out) {
  using T = typename F::T;
  constexpr int B = Tuned::kMomentFeatures;
  const T *means = m.means + k * d, *weights = s.weights + k * s.n;
  if (!m.full) {
    for (i64 j = 0; j < d; ++j)
      factor_moments<F>(s, d, j, m.scale, means[j], weights, out.first[k * d + j],
                        out.second[k * d + j]);
    return;
  }
  fill_strips<F>(s, d, m.scale, means, weights, out.first + k * d);
  double* second = out.second + k * (d * (d + 1) / 2);
  for (i64 i = 0; i < d; i += B)
    moment_rows<F, B>(static_cast<int>(d - i < B ? d - i : B), s.strips, s.n, i, second);
}

// ---------------------------------------------------------------------------------------------

// The weights of a panel, and its part of the sums that need no moments.
template <class F>
static inline void weigh_mixture(const Mixture<typename F::T>& m, i64 d, i64 p,
                                 const MixtureScratch<F>& s, const F* best, double* background,
                                 double* likelihood, double* classified) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const bool gaussian = m.power == 0;
  F constant[kPanelVectors], sum[kPanelVectors], share[kPanelVectors];
  exponentials<F>(m, best, s.joint, constant, sum);
  F likely = F::all(0), own = F::all(0), beside = F::all(0);
  for (int v = 0; v < kPanelVectors; ++v) {
    const F weight = F::load(s.sample_weight + p + v * F::W);
    share[v] = weight / sum[v];
    likely = F::fma(weight, best[v] + log2_normal<F>(sum[v]), likely);
    own = F::fma(weight, best[v], own);
    beside = F::fma(share[v], constant[v], beside);
  }
  beside.add_to(background);
  likely.add_to(likelihood);
  own.add_to(classified);
  const F degrees = F::all(m.degrees), most = F::all(m.degrees + static_cast<T>(d));
  for (i64 k = 0; k < m.k; ++k) {
    F mass = F::load(s.mass + k * F::W), total = F::load(s.weight + k * F::W);
    T* to = s.weights + k * s.n + p;
    for (int v = 0; v < kPanelVectors; ++v) {
      const F r = F::load(s.joint + k * P + v * F::W) * share[v];
      F w = r;
      if (!gaussian) w = r * (most / (degrees + F::load(s.squares + k * P + v * F::W)));
      mass = mass + r;
      total = total + w;
      w.store(to + v * F::W);
    }
    if (m.full)
      for (int l = 0; l < P; ++l) to[l] = root(to[l]);
    mass.store(s.mass + k * F::W);
    total.store(s.weight + k * F::W);
  }
}

template <class F>
static void expectation(const Rows<typename F::T>& rows, i64 begin, i64 end,
                        const Mixture<typename F::T>* mixtures, const MixtureSums* sums, i64 n_mixtures,
                        void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, d = rows.d, k = mixtures->k;
  const MixtureScratch<F> s(scratch, n, d, k, mixtures->full);
  for (i64 i = 0; i < s.n; ++i)
    s.sample_weight[i] = i >= n ? T(0) : rows.sample_weight ? rows.sample_weight[begin + i] : T(1);
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, Keep::slice, k);
  panels.open(0, n);
  for (i64 problem = 0; problem < n_mixtures; ++problem) {
    const Mixture<T>& m = mixtures[problem];
    const MixtureSums& out = sums[problem];
    for (i64 i = 0; i < k * F::W; ++i) s.mass[i] = s.weight[i] = 0;
    double background[F::W] = {}, likelihood[F::W] = {}, classified[F::W] = {};
    F witness = F::all(0);
    for (i64 p = 0; p < n; p += P) {
      if (problem == 0) {
        panels.prefetch(p).request_all();
        panels.pack(p);
      }
      F best[kPanelVectors];
      joint_panel<F>(s.panels + p * d, d, m, s, best, witness);
      weigh_mixture<F>(m, d, p, s, best, background, likelihood, classified);
    }
    *out.background += sum_lanes<F::W>(background);
    *out.likelihood += sum_lanes<F::W>(likelihood);
    *out.classified += sum_lanes<F::W>(classified);
    *out.witness += static_cast<double>(sum_across(witness));
    for (i64 i = 0; i < k; ++i) {
      out.mass[i] += sum_lanes<F::W>(s.mass + i * F::W);
      out.weight[i] += sum_lanes<F::W>(s.weight + i * F::W);
      component_moments<F>(s, d, m, i, out);
    }
  }
}

template <class F>
static double densities(const Rows<typename F::T>& rows, i64 begin, i64 end,
                        const Mixture<typename F::T>& m, const MixtureRows<typename F::T>& out,
                        void* scratch) {
  using T = typename F::T;
  constexpr int P = panel_rows<F>();
  const i64 n = end - begin, d = rows.d;
  const MixtureScratch<F> s(scratch, n, d, m.k, m.full);
  Panels<F> panels(rows, begin, end, s.panels, s.half_norm, Keep::panel, m.k);
  panels.open(0, n);
  F witness = F::all(0);
  for (i64 p = 0; p < n; p += P) {
    panels.prefetch(p).request_all();
    F best[kPanelVectors], sum[kPanelVectors], background[kPanelVectors];
    joint_panel<F>(panels.pack(p), d, m, s, best, witness);
    const i64 count = n - p < P ? n - p : P, at = begin + p;
    T lanes[P];
    if (out.joint)
      for (i64 l = 0; l < count; ++l)
        for (i64 k = 0; k < m.k; ++k) out.joint[(at + l) * m.k + k] = s.joint[k * P + l];
    if (out.largest) {
      for (int v = 0; v < kPanelVectors; ++v) best[v].store(lanes + v * F::W);
      for (i64 l = 0; l < count; ++l) out.largest[at + l] = lanes[l];
    }
    if (out.labels) {
      // As in assign.inl, a label is a number of T meanwhile; the last one written is the first.
      // It stays -1 if the background is likelier than all components.
      for (int v = 0; v < kPanelVectors; ++v) {
        F label = F::all(-1);
        for (i64 k = m.k - 1; k >= 0; --k)
          label = F::where_greater(best[v], F::load(s.joint + k * P + v * F::W), label,
                                   F::all(static_cast<T>(k)));
        label.store(lanes + v * F::W);
      }
      for (i64 l = 0; l < count; ++l) out.labels[at + l] = static_cast<std::int32_t>(lanes[l]);
    }
    if (!out.density) continue;
    exponentials<F>(m, best, s.joint, background, sum);
    for (int v = 0; v < kPanelVectors; ++v)
      (best[v] + log2_normal<F>(sum[v])).store(lanes + v * F::W);
    for (i64 l = 0; l < count; ++l) out.density[at + l] = lanes[l];
  }
  return static_cast<double>(sum_across(witness));
}

}  // namespace
}  // namespace ekmfast
