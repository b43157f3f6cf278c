// The plain C++ API: Eq. 38 and Eq. 39 of "Imbalanced Data Clustering using Equilibrium K-Means"
// (arXiv 2402.14490) over all rows, in parallel. Results do not depend on the number of threads.
//
// With d_kn = 1/2 ||x_n - c_k||^2 and p_kn = softmax_k(-alpha d_kn), E_n = sum_k p_kn d_kn:
//   w_kn = p_kn (1 - alpha (d_kn - E_n))           Eq. 38
//   c_k  = sum_n s_n w_kn x_n / sum_n s_n w_kn     Eq. 39
//   J    = sum_n s_n E_n                           the objective
#pragma once

#include <cstdint>

#include "weighting.h"

namespace ekmfast {

class Solver;

template <class T>
struct Samples {
  const T* x;               // (n, d), row i at x + i * stride
  std::int64_t n, d, stride;
  const T* sample_weight;   // (n,) or null for ones
  // (n,) or null for ones: every function below takes row i times factor[i] for row i, rounded to T.
  // The rows are multiplied slice by slice in the scratch memory of a thread, so that rows of length
  // 1 need no copy of all rows.
  const T* factor = nullptr;
};

// OUT row (d,): row i as the functions below take it.
template <class T>
inline void copy_row(const Samples<T>& samples, std::int64_t i, T* row) {
  const T* x = samples.x + i * samples.stride;
  const T factor = samples.factor ? samples.factor[i] : T(1);
  for (std::int64_t j = 0; j < samples.d; ++j) row[j] = x[j] * factor;
}

// OUT reference (d,): a point among the data, the median of a few rows in each feature. The kernels
// subtract it from the rows, since ||x||^2 + ||c||^2 - 2 x c loses all digits far from the origin.
// It is a median, since one row far from the others would move a mean far away from them.
template <class T>
void find_reference(const Samples<T>& samples, T* reference);

// Sums over all rows for several problems (sets of centroids) in one reading of the samples.
//
// IN  centroids (n_problems, k, d), alpha (n_problems,), reference (d,), weighting (weighting.h),
//     fuzzifier > 1 of the fuzzy weighting. The fuzzy and the hard weighting ignore alpha. Without
//     rescue the sums of columns that underflow are left as they are, and exponents are 0.
// OUT sum_wx (n_problems, k, d) = 2^-e_k sum_n s_n w_kn (x_n - reference)
//     sum_w, sum_p (n_problems, k) = 2^-e_k sum_n s_n w_kn, 2^-e_k sum_n s_n p_kn
//     exponent (n_problems, k) = e_k, which is 0 except for a column whose memberships underflow:
//     its sums are relative to its largest membership, so that their ratio is exact. The sums of a
//     column of the hard or the fuzzy weighting may be 0.
//     objective (n_problems,) = J; not finite if a sample is not finite or if T overflows
template <class T>
void statistics(const Samples<T>& samples, const double* centroids, const double* alpha,
                std::int64_t n_problems, std::int64_t k, const T* reference,
                Weighting weighting, double fuzzifier, bool rescue, int n_threads,
                double* sum_wx, double* sum_w, double* sum_p, double* exponent,
                double* objective);

// The same sums, computed in float from rows that are centred and then rounded to it, in .6 to .8 of the time.
// Sums of which float loses too much are those of statistics(). Squared distances and weights must be in
// the range of float.
void rounded_statistics(const Samples<double>& samples, const double* centroids, const double* alpha,
                        std::int64_t n_problems, std::int64_t k, const double* reference,
                        Weighting weighting, double fuzzifier, int n_threads, double* sum_wx,
                        double* sum_w, double* sum_p, double* exponent, double* objective);

// Lets the runs of a solver make passes over the samples, at most `left`, from which those made are
// subtracted. IN reference (d,), weighting, fuzzifier, as for statistics(). The runs end as if the caller
// passed the sums of statistics() to Solver::advance() after each pass, or those of rounded_statistics()
// if `rounded`, which asks for double.
template <class T>
void iterate(Solver& solver, const Samples<T>& samples, const T* reference, Weighting weighting,
             double fuzzifier, bool rounded, int n_threads, std::int64_t& left);

// IN centroids (k, d), alpha, reference (d,); OUT weights (n, k) of Eq. 38.
// Returns a number that is not finite if a sample is not finite or if T overflows.
template <class T>
double weights(const Samples<T>& samples, const double* centroids, double alpha, std::int64_t k,
               const T* reference, int n_threads, T* weights);

// IN centroids (k, d), reference (d,); OUT labels (n,), the index of the nearest centroid, and
// squared_distances (n,) to it, summed from differences, so that nothing cancels. Returns the sum
// of squared_distances, which is not finite if T overflows.
template <class T>
double assign(const Samples<T>& samples, const double* centroids, std::int64_t k,
              const T* reference, int n_threads, std::int32_t* labels, T* squared_distances);

// The same labels for several results, from one reading of the rows, without distances.
// IN centroids (n_results, k, d), names (n_results, k), reference (d,); OUT labels (n_results, n), the
// names of the nearest centroids.
template <class T>
void label_each(const Samples<T>& samples, const double* centroids, const std::int32_t* names,
                std::int64_t n_results, std::int64_t k, const T* reference, int n_threads,
                std::int32_t* labels);

// For k-means++ and similar rules, which choose one row after another as a first centroid, for
// several starts (seedings) at once: the sum of squared distances to the nearest chosen row, if a
// candidate were chosen too.
// IN candidates (n_seedings, n_candidates, d), reference (d,); distances (n_seedings, n), squared,
// to the nearest row chosen so far, +inf at first
// OUT potentials (n_seedings, n_candidates) = sum_n s_n min(distance, ||x_n - candidate||^2), not
// finite if a sample is not finite or if T overflows. With update, for which n_candidates is 1, the
// minima replace the distances.
template <class T>
void closest(const Samples<T>& samples, const double* candidates, std::int64_t n_seedings,
             std::int64_t n_candidates, const T* reference, int n_threads, bool update,
             T* distances, double* potentials);

// IN weights (n, k), reference (d,); OUT sum_wx (k, d) = sum_n w_nk (x_n - reference), sum_w (k,).
template <class T>
void accumulate(const Samples<T>& samples, const T* weights, std::int64_t k, const T* reference,
                int n_threads, double* sum_wx, double* sum_w);

// What a fit must know before it begins, from one reading of the rows.
// IN reference (d,); OUT weight () = sum_n s_n, squares () = sum_n s_n ||x_n - reference||^2, sum
// (d,) = sum_n s_n (x_n - reference), all in double for every T, and not finite if a sample is not
// finite; low, high (d,): smallest and largest value of each feature, including rows of weight 0.
template <class T>
void survey(const Samples<T>& samples, const T* reference, int n_threads, double* weight,
            double* squares, double* sum, double* low, double* high);

// The kernels' own 2^x, for tests. IN x (n,) in [-100, 0] (float32), [-900, 0]; OUT y (n,).
template <class T>
void exp2_kernel(const T* x, std::int64_t n, T* y);

}  // namespace ekmfast
