// The functions of mixture.h for sparse rows (CSR), for components with variances. Work is proportional
// to the numbers that are stored, times K, plus O(K D); no dense copy is made. Everything is computed in
// double. Results do not depend on the number of threads.
//
// With M = m + centre / unit, the mean relative to the origin, z = (x / unit - M) W and Z = M W,
//   q = sum of z^2 over the numbers of a row + ||Z||^2 - sum of Z^2 at the same columns,
// so that only the last difference can lose digits, up to the rounding of ||Z||^2. The second moments
// about m are sum w (x / unit)^2 - 2 M sum w x / unit + M^2 sum w: they lose digits where a component's
// standard deviation along a feature is small beside its mean there, up to the rounding of M^2.
#pragma once

#include <cstdint>

#include "mixture.h"
#include "sparse.h"

namespace ekmfast {

// As in mixture.h, for several mixtures one after another; `full` must be false.
void expectation(const SparseSamples& samples, const Mixtures& mixtures, const double* centre,
                 double unit, int n_threads, double* mass, double* weight, double* first,
                 double* second, double* background, double* likelihood, double* classified);

// As in mixture.h.
template <class U>
void densities(const SparseSamples& samples, const Mixtures& mixture, const double* centre, double unit,
               int n_threads, U* joint, std::int32_t* labels, U* largest, U* density);

}  // namespace ekmfast
