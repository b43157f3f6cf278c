// Expectation maximization of mixtures of Student distributions over all rows, in parallel. Results
// do not depend on the number of threads.
//
// With y = (x - centre) / unit and the mean m_k, whitener W_k, offset a_k and degrees of freedom v of
// component k (ekmfast/fit/mixture says which), q_nk = ||(y_n - m_k) W_k||^2 and
//   log pi_k f_k(y_n) = a_k - (v + D)/2 log(1 + q_nk / v),   or a_k - q_nk / 2 if v is infinite
//   r_nk = pi_k f_k(y_n) / sum_i pi_i f_i(y_n),   w_nk = r_nk (v + D) / (v + q_nk),   r_nk if infinite
// The sums over components include a background, whose log pi_0 f_0 is the same for all rows. It has
// no moments.
#pragma once

#include <cstdint>

#include "ekm.h"

namespace ekmfast {

// Some mixtures of k components, all of one kind.
struct Mixtures {
  std::int64_t n, k;
  bool full;                // whether whiteners are matrices, upper triangular, or factors
  const double* means;      // (n, k, d)
  const double* whiteners;  // (n, k, d, d), or (n, k, d)
  const double* offsets;    // (n, k) a_k, -inf for a component without weight
  const double* degrees;    // (n,) positive
  const double* background;  // (n,) log pi_0 f_0, -inf for none
};

// Sums over all rows for several mixtures in one reading of the samples, computed in T, or in double
// if T overflows.
//
// IN  centre (d,), unit > 0
// OUT mass (n, k) = sum s r, weight (n, k) = sum s w, first (n, k, d) = sum s w (y - m_k),
//     second (n, k, d, d) = sum s w (y - m_k)(y - m_k)^T, or its diagonals (n, k, d),
//     background (n,) = sum s r of the background,
//     likelihood (n,) = sum s log sum_k pi_k f_k, classified (n,) = sum s max_k log pi_k f_k
template <class T>
void expectation(const Samples<T>& samples, const Mixtures& mixtures, const double* centre,
                 double unit, int n_threads, double* mass, double* weight, double* first,
                 double* second, double* background, double* likelihood, double* classified);

// The same sums, computed in float from rows that are centred and then rounded to it. Those that float
// cannot hold are computed in double.
void rounded_expectation(const Samples<double>& samples, const Mixtures& mixtures,
                         const double* centre, double unit, int n_threads, double* mass,
                         double* weight, double* first, double* second, double* background,
                         double* likelihood, double* classified);

// IN  one mixture, centre (d,), unit
// OUT joint (N, k) = log pi_k f_k, labels (N,) the largest of them, the first of equals, or -1 if the
//     background's is larger, largest (N,) that number, density (N,) = log sum_k pi_k f_k. What is null
//     is not computed.
template <class T>
void densities(const Samples<T>& samples, const Mixtures& mixture, const double* centre, double unit,
               int n_threads, T* joint, std::int32_t* labels, T* largest, T* density);

}  // namespace ekmfast
