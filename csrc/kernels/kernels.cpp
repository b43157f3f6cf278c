// All kernels, for one instruction set: compiled once for each row of simd/isas.h, with its flags
// and its name in EKMFAST_ISA. Their table is the one symbol that the object gives away.
#include "kernels.h"

#include "accumulate.inl"
#include "assign.inl"
#include "closest.inl"
#include "exp2.inl"
#include "likelihood.inl"
#include "lines.inl"
#include "mixture.inl"
#include "narrow.inl"
#include "scatter.inl"
#include "scratch.inl"
#include "simd/vectors.h"
#include "sparse.inl"
#include "sparse_mixture.inl"
#include "statistics.inl"
#include "steps.inl"
#include "survey.inl"
#include "tuning.h"
#include "weights.inl"

namespace ekmfast {
namespace {

template <class F>
static i64 scratch_bytes(i64 slice_rows, i64 d, i64 k) {
  return Scratch<F>(nullptr, slice_rows, d, k).bytes;
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
  static_assert(kRowUnit % panel_rows<F>() == 0, "slices must be whole panels");
  return {Tuned::kTileCentroids,
          scratch_bytes<F>,
          packed_rows<F>,
          pack<F>,
          {statistics<F, Weighting::equilibrium>, statistics<F, Weighting::maximum_entropy>,
           statistics<F, Weighting::hard>, statistics<F, Weighting::fuzzy>},
          weights<F>,
          nearest<F>,
          distances<F>,
          closest<F>,
          accumulate<F>,
          survey<F>,
          mixture_scratch<F>,
          expectation<F>,
          densities<F>,
          exp2_array<F>};
}

template <class F>
constexpr LikelihoodKernels<typename F::T> likelihood_kernels_for() {
  return {weighted_sums<F, false>, weighted_sums<F, true>, scaled_distances<F>, tail_weights<F>,
          sum_of_logs<F>};
}

template <class U, class I>
constexpr SparseKernels<U, I> sparse_kernels_for() {
  return {{sparse_weigh<Weighting::equilibrium, U, I>, sparse_weigh<Weighting::maximum_entropy, U, I>,
           sparse_weigh<Weighting::hard, U, I>, sparse_weigh<Weighting::fuzzy, U, I>},
          sparse_products<false, U, I>,
          sparse_products<true, U, I>,
          sparse_scatter<U, I>,
          mixture_squares<U, I>,
          mixture_scatter<U, I>};
}

}  // namespace

#define EKMFAST_TABLE_OF(isa) EKMFAST_JOINED(isa, _kernels)
#define EKMFAST_JOINED(isa, suffix) isa##suffix
const KernelTable EKMFAST_TABLE_OF(EKMFAST_ISA) = {
    kernels_for<F32>(),
    kernels_for<F64>(),
    sparse_kernels_for<float, std::int32_t>(),
    sparse_kernels_for<float, std::int64_t>(),
    sparse_kernels_for<double, std::int32_t>(),
    sparse_kernels_for<double, std::int64_t>(),
    to_lines,
    from_lines,
    sparse_norms,
    sparse_scratch_bytes,
    {mixture_lines, mixture_weights, mixture_densities},
    likelihood_kernels_for<F32>(),
    likelihood_kernels_for<F64>(),
    {free_step, turn, leap},
    scatter,
    narrow};

}  // namespace ekmfast
