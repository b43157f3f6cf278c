// What the driver (ekm.cpp) and the kernels of one instruction set know of each other.
//
// A chunk of rows, whose sums one thread forms, is cut into *slices*, and the kernels work on one
// slice at a time. They include no Python and no STL containers: an inline function of the library
// compiled here with AVX-512 flags would be a weak symbol, and the linker may keep that copy for
// every processor.
#pragma once

#include <cstdint>

#include "simd/isas.h"
#include "weighting.h"

namespace ekmfast {

typedef std::int64_t i64;

// Samples as the caller holds them: row n starts at x + n * stride and has d numbers.
template <class T>
struct Rows {
  const T* x;
  std::int64_t stride;
  std::int64_t d;
  const T* sample_weight;  // one a row, or null for ones
  const T* reference;      // (d,) point that is subtracted from every row
  // If the rows are copies: from what the next slice will be copied, as many rows, or null. It is
  // prefetched in place of the rows, which are in the cache.
  const double* next = nullptr;
  std::int64_t next_stride = 0;
  // What `pack` wrote for the rows of the slice in work, or null.
  T* panels = nullptr;
  T* half_norm = nullptr;
};

// K centroids made ready for the register tiles (see ekm.cpp, Prepared).
// With y = x - reference, c likewise, and a scale q, alpha * log2(e) where scores are exponents:
//   tiles hold q * c_k,   bias_k = -q/2 ||c_k||^2,   and the score is   t_k = bias_k + y . (q c_k),
// which is -q d_k + q/2 ||y||^2. The second term is the same for all centroids of a row and cancels
// in the memberships.
template <class T>
struct Centroids {
  std::int64_t k;
  const T* tiles;  // groups of tile_k centroids: [group][d][centroid in group]; the last is narrower
  const T* rows;   // (k, d) the same row by row, for dots.inl; null for sizes that never go there
  const T* bias;   // (k,)
  double inv_q;    // 1 / q
  T power;         // 1 / (fuzzifier - 1)
};

// Sums over rows, all in double, all added to (see weighting.h). Leading dimension of sum_wx is d.
struct Sums {
  double* sum_wx;     // (k, d) sum of s w_k (x - reference)
  double* sum_w;      // (k,)   sum of s w_k
  double* sum_p;      // (k,)   sum of s p_k
  double* objective;  // ()     J
};

// What `survey` finds of rows, all added to; low and high become the least and greatest values.
template <class T>
struct Moments {
  double* weight;   // ()   sum of s
  double* squares;  // ()   sum of s ||x - reference||^2
  double* sum;      // (d,) sum of s (x - reference)
  T* low;           // (d,)
  T* high;          // (d,)
};

// A mixture of k Student distributions made ready for the kernels (see mixture.cpp, Ready). With
// y = x - reference, component k has
//   z = y W_k + bias_k   (W_k upper triangular, or diagonal),   q = ||z||^2
// and the log density times its weight, in base 2,
//   t = offset_k - power log2(1 + q / degrees),   or   t = offset_k - q log2(e) / 2
// if degrees is infinite, which power = 0 says. Its second moments are about the mean: of scale y - mean_k.
template <class T>
struct Mixture {
  std::int64_t k;
  bool full;           // whether whiteners are triangles, else (k, d) factors
  const T* whiteners;  // triangles [k][d (d + 1) / 2]: groups of tile_k columns, the last narrower;
                       // of each, the rows above its first column, [row][column], then its triangle
  const T* bias;       // (k, d)
  const T* means;      // (k, d)
  const T* offsets;    // (k,)
  T scale, degrees, power;
  T background;  // t of the component of constant density, -inf if there is none
};

// What one pass gives for the next mixture, all added to. With r the responsibilities times s,
// w = r u, u = (degrees + d) / (degrees + q) (1 if degrees is infinite) and c = scale y - mean:
struct MixtureSums {
  double* mass;        // (k,) sum of r
  double* weight;      // (k,) sum of w
  double* first;       // (k, d) sum of w c
  double* second;      // (k, d (d + 1) / 2), the lower triangle of sum w c c^T row by row; or (k, d),
                       // sum of w c^2, if not full
  double* background;  // () sum of r of the background
  double* likelihood;  // () sum of s log2 sum_k 2^t, the background included, as in the next one
  double* classified;  // () sum of s max_k t
  double* witness;     // () NaN if T overflowed
};

// What the densities of rows give; what is null is not asked for.
template <class T>
struct MixtureRows {
  T* joint;              // (N, k) t
  std::int32_t* labels;  // (N,) the largest t, the first of equals; -1 if that is the background's
  T* largest;            // (N,) that t
  T* density;            // (N,) log2 sum_k 2^t, the background included
};

// Sparse rows (CSR) of n rows and d columns: the numbers of row n that are stored are at start[n] up to
// start[n + 1], in ascending order of their columns, each column at most once.
template <class U, class I>
struct SparseRows {
  const U* values;
  const I* columns;
  const std::int64_t* start;    // (n + 1,)
  std::int64_t last;            // the index of the last number of all rows
  const double* sample_weight;  // (n,), or null for ones
};

// K centroids as the kernels for sparse rows read them: for each column one line of numbers, those
// of all centroids side by side. A line has kp numbers, K rounded up to a multiple of kLaneUnit;
// the last ones are 0.
struct SparseCentroids {
  std::int64_t k, kp;
  const double* lines;  // (d, kp), q c_kj; for distances c_kj
  const double* bias;   // (kp,) -q/2 ||c_k||^2; for distances ||c_k||^2, as `sparse_norms` sums it
  double inv_q;         // 1 / q
  double power;         // 1 / (fuzzifier - 1)
};
constexpr std::int64_t kLaneUnit = 8;  // a multiple of the lanes of every F64

// A mixture of k components with variances as the kernels for sparse rows read it. For each column one
// line of 2 kp numbers: the whiteners W of all components, and then Z, the products of their means and W.
// With y = scale x,  q = sum_j (y_j W_kj - Z_kj)^2, and the rest is as for Mixture. Behind the k
// components W and Z are 0, and the offsets -inf.
struct SparseMixture {
  std::int64_t kp;
  const double* lines;    // (d, 2 kp)
  const double* norms;    // (kp,) ||Z_k||^2
  const double* offsets;  // (kp,)
  double scale, degrees, power, n_features;
  double background;
};

// Sums over rows that need no moments, all added to; as in MixtureSums.
struct SparseMixtureTotals {
  double* mass;    // (kp,)
  double* weight;  // (kp,)
  double *background, *likelihood, *classified, *witness;  // ()
};

// The functions for sparse rows of one instruction set. They compute in double for every U.
template <class U, class I>
struct SparseKernels {
  // IN rows, begin, end, centroids; OUT weights (end - begin, kp), s w of row begin + i at i kp;
  // sums (added to, sum_wx is not used). One function for each Weighting; the fuzzy one takes
  // centroids for distances, with inv_q = 1/2.
  void (*weigh[kWeightings])(const SparseRows<U, I>& rows, std::int64_t begin, std::int64_t end,
                             const SparseCentroids& centroids, double* weights, const Sums& sums,
                             void* scratch);

  // OUT out (end - begin, kp): the scores, bias_k + x . (q c_k).
  void (*scores)(const SparseRows<U, I>& rows, std::int64_t begin, std::int64_t end,
                 const SparseCentroids& centroids, double* out);

  // OUT out (end - begin, kp): squared distances. The distance of a row from a centroid that has
  // the same numbers is exactly 0.
  void (*distances)(const SparseRows<U, I>& rows, std::int64_t begin, std::int64_t end,
                    const SparseCentroids& centroids, double* out);

  // The second product, in the columns first <= j < last. IN weights as above; OUT sums
  // (last - first, kp) (added to) = sum_n w_nk x_nj.
  void (*scatter)(const SparseRows<U, I>& rows, std::int64_t begin, std::int64_t end,
                  std::int64_t first, std::int64_t last, const double* weights, std::int64_t kp,
                  double* sums);

  // OUT out (end - begin, kp): q.
  void (*mixture_squares)(const SparseRows<U, I>& rows, std::int64_t begin, std::int64_t end,
                          const SparseMixture& mixture, double* out);

  // Moments, in the columns first <= j < last, of y = scale x. OUT sums (last - first, 2 kp) (added to):
  // of each column sum_n w_nk y_nj, and then sum_n w_nk y_nj^2.
  void (*mixture_scatter)(const SparseRows<U, I>& rows, std::int64_t begin, std::int64_t end,
                          std::int64_t first, std::int64_t last, double scale,
                          const double* weights, std::int64_t kp, double* sums);
};

// The functions for mixtures of sparse rows that do not read them.
struct SparseMixtureKernels {
  // IN means, whiteners (k, d), shift (d,) of the means; OUT lines (d, 2 kp), columns first to last;
  // squares (kp,) (added to), the sums of Z^2 over these columns.
  void (*lines)(const double* means, const double* whiteners, const double* shift, std::int64_t d,
                std::int64_t k, std::int64_t kp, std::int64_t first, std::int64_t last,
                double* lines, double* squares);

  // IN sample_weight (n,), or null for ones, scratch (kp,); squares (n, kp): IN q, OUT the weights w;
  // OUT totals (added to).
  void (*weights)(const SparseMixture& mixture, std::int64_t n, const double* sample_weight,
                  double* squares, const SparseMixtureTotals& totals, double* scratch);

  // IN squares (n, kp), scratch (kp,); OUT joint (n, kp), largest and density (n,) as in MixtureRows.
  // Returns NaN if a q is not finite.
  double (*densities)(const SparseMixture& mixture, std::int64_t n, const double* squares,
                      double* joint, double* largest, double* density, double* scratch);
};

// The functions for the likelihood of rows and labels, of one instruction set. Rows x (n, width) lie
// one after another; width is a multiple of kLaneUnit, in float of twice as much. Sums of a call are
// formed in T.
template <class T>
struct LikelihoodKernels {
  // IN x, weights (n,); OUT sums (width,) (added to) = sum of w x.
  void (*sums)(const T* x, std::int64_t n, std::int64_t width, const T* weights, const T* centre,
               double* sums);

  // IN x, weights (n,), centre (width,); OUT sums (width,) (added to) = sum of w (x - centre)^2.
  void (*squares)(const T* x, std::int64_t n, std::int64_t width, const T* weights, const T* centre,
                  double* sums);

  // IN x, centre, precisions (width,); OUT squared (n,) = sum_j (x - centre)_j^2 precision_j.
  void (*distances)(const T* x, std::int64_t n, std::int64_t width, const T* centre,
                    const T* precisions, T* squared);

  // IN squared, own (n,), tail; OUT weights (n,) = own numerator / (tail + squared). Returns their sum.
  double (*weights)(const T* squared, const T* own, std::int64_t n, double tail, double numerator,
                    T* weights);

  // IN squared, weights (n,), tail. Returns the sum of w log2(1 + squared / tail).
  double (*logs)(const T* squared, const T* weights, std::int64_t n, double tail);
};

// The vectors of a run of the solver whose centroids are long (solver.cpp). With C the centroids and g
// their step, a *turn* is the change of g since the step before, and a *move* that of C + g. The last ones
// are kept, oldest first, in float: they only give a direction.
constexpr int kMostTurns = 3;
struct Turning {
  const double *before, *at;        // C of the step before, and now
  double* step;                     // IN g of the step before, OUT g
  const double* fresh;              // g, of the numbers of this call only
  const float* turns[kMostTurns];   // those before the newest
  float *turn, *move;               // OUT the newest; null if n is 0
  int n;                            // how many turns there are with the newest, or 0 to keep none
};
struct TurningSums {
  double length, along, way, fall;  // <g, g>, <m, g>, <m, m> and <m, g' - g>, with m = C - C'
  double products[kMostTurns][kMostTurns];  // of turns i and j <= i
  double shares[kMostTurns];        // of turn i and g
};
struct Leaping {
  const double *at, *step;
  const float* moves[kMostTurns];
  double shares[kMostTurns];
  int n;
  const double *low, *high;         // bounds of the numbers of this call only, or null
  double* there;                    // OUT C + g + sum shares_i moves_i, within the bounds
};
struct FreeStep {
  const double *at, *wx, *reference;  // (d,)
  const double *low, *high;           // (d,) the bounds, or null
  double w, share;                    // not 0; as in solver.cpp
};
struct StepKernels {
  // OUT step, of the features begin to end of one centroid. Returns whether bounds shortened it.
  bool (*free)(const FreeStep& rule, std::int64_t begin, std::int64_t end, double* step);
  // Numbers first to first + count; sums are added to.
  void (*turn)(const Turning& vectors, std::int64_t first, std::int64_t count, TurningSums* sums);
  // The same; along and way are <there - C, g> and <there - C, there - C>, without bounds.
  void (*leap)(const Leaping& vectors, std::int64_t first, std::int64_t count, double* along,
               double* way);
};

// The functions of one instruction set. Slices are multiples of kRowUnit rows (tuning.h).
template <class T>
struct Kernels {
  int tile_k;  // centroids in a register tile

  // Bytes of 64-byte-aligned scratch that the functions below need for slices of these sizes.
  std::int64_t (*scratch_bytes)(std::int64_t slice_rows, std::int64_t d, std::int64_t k);

  // How many rows the panels of a slice of n rows have, some of them empty; 0 where `statistics` or
  // `nearest` makes no panels.
  std::int64_t (*packed_rows)(std::int64_t n, std::int64_t d, std::int64_t k);

  // IN rows, begin, end; OUT rows.panels (d packed_rows numbers, at a multiple of 64 bytes) and
  // rows.half_norm (packed_rows numbers), which later calls of `statistics`, `nearest` and `closest` for
  // the rows read.
  void (*pack)(const Rows<T>& rows, std::int64_t begin, std::int64_t end);

  // IN rows, begin, end (end - begin <= slice_rows), centroids[n_problems]; OUT sums[n_problems]
  // (added to). One read of the slice serves every problem. One function for each Weighting; q is
  // 2 for the fuzzy one.
  void (*statistics[kWeightings])(const Rows<T>& rows, std::int64_t begin,
                                  std::int64_t end, const Centroids<T>* centroids, const Sums* sums,
                                  std::int64_t n_problems, void* scratch);

  // IN rows, begin, end, centroids; OUT weights (N, K) of Eq. 38, rows begin..end written.
  // Returns a sum that is not finite if any number read was not, or if a score overflowed.
  double (*weights)(const Rows<T>& rows, std::int64_t begin, std::int64_t end,
                    const Centroids<T>& centroids, T* weights, void* scratch);

  // IN rows, begin, end, centroids; OUT labels (N,), rows begin..end written: the nearest
  // centroid, the first of equals.
  void (*nearest)(const Rows<T>& rows, std::int64_t begin, std::int64_t end,
                  const Centroids<T>& centroids, std::int32_t* labels, void* scratch);

  // IN rows, begin, end, centroids (K, d) as the caller has them, labels (N,); OUT squared (N,):
  // row n's squared distance to centroid labels[n], rows begin..end written.
  void (*distances)(const Rows<T>& rows, std::int64_t begin, std::int64_t end,
                    const double* centroids, const std::int32_t* labels, T* squared);

  // IN rows, begin, end, candidates (made with q = 2), n_seedings, which share the candidates
  // equally, in order; OUT potentials (candidates.k,) (added to) = sum of s min(distance so far,
  // squared distance to the candidate). IN/OUT distances: row n of seeding i at [i * stride + n],
  // the minima replace them if update, which asks for one candidate a seeding.
  void (*closest)(const Rows<T>& rows, std::int64_t begin, std::int64_t end,
                  const Centroids<T>& candidates, std::int64_t n_seedings, T* distances,
                  std::int64_t stride, bool update, double* potentials, void* scratch);

  // IN rows, begin, end, weights (N, k) C-contiguous; OUT sums.sum_wx and sums.sum_w (added to).
  void (*accumulate)(const Rows<T>& rows, std::int64_t begin, std::int64_t end, const T* weights,
                     std::int64_t k, const Sums& sums, void* scratch);

  // IN rows, begin, end; OUT moments (added to).
  void (*survey)(const Rows<T>& rows, std::int64_t begin, std::int64_t end,
                 const Moments<T>& moments);

  // Bytes of scratch that the next two need.
  std::int64_t (*mixture_scratch)(std::int64_t slice_rows, std::int64_t d, std::int64_t k,
                                  bool full);

  // IN rows, begin, end, mixtures[n]; OUT sums[n] (added to). One read of the slice serves all.
  void (*expectation)(const Rows<T>& rows, std::int64_t begin, std::int64_t end,
                      const Mixture<T>* mixtures, const MixtureSums* sums, std::int64_t n,
                      void* scratch);

  // IN rows, begin, end, mixture; OUT out, rows begin..end written. Returns NaN if T overflowed.
  double (*densities)(const Rows<T>& rows, std::int64_t begin, std::int64_t end,
                      const Mixture<T>& mixture, const MixtureRows<T>& out, void* scratch);

  // IN x (n,) in [exp2 clamp, 0]; OUT y (n,) = 2^x as the kernels compute it, for tests.
  void (*exp2)(const T* x, std::int64_t n, T* y);
};

// Exponents are clamped here: what is smaller adds nothing beside a row's largest term, and
// denormal numbers are slow. Columns that consist of such terms alone are computed again exactly
// (rescue.cpp).
template <class T>
constexpr T kMinExponent = sizeof(T) == 4 ? T(-100) : T(-900);

struct KernelTable {
  Kernels<float> f32;
  Kernels<double> f64;
  SparseKernels<float, std::int32_t> sparse32;
  SparseKernels<float, std::int64_t> sparse32_long;
  SparseKernels<double, std::int32_t> sparse64;
  SparseKernels<double, std::int64_t> sparse64_long;
  // OUT lines (d, kp), columns first to last: q c_kj of centroids (k, d); squares (kp,) (added to), the
  // sums of c_kj^2 over these columns.
  void (*to_lines)(const double* centroids, std::int64_t d, std::int64_t k, std::int64_t kp, double q,
                   std::int64_t first, std::int64_t last, double* lines, double* squares);
  // OUT sum_wx (k, d), columns first to last: lines (last - first, kp), or these are added to it.
  void (*from_lines)(const double* lines, std::int64_t first, std::int64_t last, std::int64_t kp,
                     std::int64_t k, std::int64_t d, bool add, double* sum_wx);
  // OUT norms (kp,): the sums of squares of the columns of lines (d, kp).
  void (*sparse_norms)(const double* lines, std::int64_t d, std::int64_t kp, double* norms);
  std::int64_t (*sparse_scratch_bytes)(std::int64_t k);  // of 64-byte-aligned scratch, for `weigh`
  SparseMixtureKernels sparse_mixture;
  LikelihoodKernels<float> likelihood32;
  LikelihoodKernels<double> likelihood64;
  StepKernels steps;
  // IN rows x (n, width), one after another, width a multiple of kLaneUnit, weights (n,) >= 0, centre
  // (width,); OUT x: the square roots of the weights times (x - centre); sums (width, width) (added to),
  // from the diagonal on, of the products of two features of these.
  void (*scatter)(double* x, std::int64_t n, std::int64_t width, const double* weights,
                  const double* centre, double* sums);
  // IN rows x (n, d), the next one after `stride` numbers, factor (n,) or null for ones, reference (d,);
  // OUT rows (n, d), one after another: x factor - reference, rounded to float.
  void (*narrow)(const double* x, std::int64_t n, std::int64_t d, std::int64_t stride,
                 const double* factor, const double* reference, float* rows);
};

#define EKMFAST_DECLARE(name, flags, condition) extern const KernelTable name##_kernels;
EKMFAST_ISAS(EKMFAST_DECLARE, EKMFAST_DECLARE, EKMFAST_DECLARE)
#undef EKMFAST_DECLARE

template <class T>
const Kernels<T>& kernels_of(const KernelTable& table);
template <>
inline const Kernels<float>& kernels_of<float>(const KernelTable& table) { return table.f32; }
template <>
inline const Kernels<double>& kernels_of<double>(const KernelTable& table) { return table.f64; }

template <class T>
const LikelihoodKernels<T>& likelihood_kernels_of(const KernelTable& table);
template <>
inline const LikelihoodKernels<float>& likelihood_kernels_of<float>(const KernelTable& table) {
  return table.likelihood32;
}
template <>
inline const LikelihoodKernels<double>& likelihood_kernels_of<double>(const KernelTable& table) {
  return table.likelihood64;
}

}  // namespace ekmfast
