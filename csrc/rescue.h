// The second pass, rarely needed, for columns whose memberships underflow: centroids far from all
// rows.
#pragma once

#include <cstdint>

#include "ekm.h"

namespace ekmfast {

// True if the sums of a column cannot be trusted: the kernels clamp exponents at kMinExponent<T>,
// so that a sum_p that is not much larger than the clamped memberships is meaningless.
template <class T>
bool underflowed(double sum_p, double total_weight);

// True if memberships do not underflow but their products with small rows do, in sum_wx (d,) of a
// column far from all rows. Only in float64, whose memberships may be smaller.
template <class T>
bool products_underflowed(const double* sum_wx, std::int64_t d, double sum_p, double total_weight,
                          std::int64_t n);

// True if a column underflowed in T, but its recomputed mass, sum_p times 2^exponent, is not small:
// then the exponents in T were rounding error, and those of the other columns are too.
template <class T>
bool contradicts(double sum_p, double exponent, double total_weight);

// A column has underflowed if sum_p / total_weight is not above this.
template <class T>
double least_mass();

// Recomputes some columns of one problem in double, each with its own scale, so that sum_wx / sum_w
// is exact however small both are.
// IN weighting (equilibrium or maximum_entropy), samples, centroids (k, d), alpha, columns
//    (n_columns,), the indices of the columns, reference (d,)
// OUT sum_wx (k, d), sum_w, sum_p, exponent (k,): overwritten for these columns.
template <class T>
void rescue_columns(Weighting weighting, const Samples<T>& samples, const double* centroids,
                    double alpha, std::int64_t k, const std::int64_t* columns, std::int64_t n_columns,
                    const T* reference, int n_threads, double* sum_wx, double* sum_w,
                    double* sum_p, double* exponent);

}  // namespace ekmfast
