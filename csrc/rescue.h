// The rare second pass: columns whose memberships underflow beside the rows' largest.
#pragma once

#include <cstdint>

#include "ekm.h"

namespace ekmfast {

// True where the sums of a column cannot be trusted: the kernels clamp exponents at
// kMinExponent<T>, and once a column's whole mass is near that clamp it is an artefact.
template <class T>
bool underflowed(double sum_p, double total_weight);

// True where memberships are in range but their products with rows of small numbers are not: sum_wx
// (d,) of a column far from all rows. Of float64 alone, whose memberships reach further down.
template <class T>
bool products_underflowed(const double* sum_wx, std::int64_t d, double sum_p, double total_weight,
                          std::int64_t n);

// True where a column that had underflowed in T has a mass after all once it is recomputed, sum_p
// times 2^exponent: T's exponents were rounding alone, those of the other columns likewise.
template <class T>
bool contradicts(double sum_p, double exponent, double total_weight);

// Up to which sum_p / total_weight a column has underflowed.
template <class T>
double least_mass();

// Recomputes the flagged columns of one problem in double with a running scale of their own, so
// that sum_wx / sum_w is exact however small both are.
// IN weighting (equilibrium or maximum_entropy), samples, centroids (k, d), alpha, columns (n_columns,) indices, reference (d,)
// OUT sum_wx (k, d), sum_w, sum_p, exponent (k,): the rows of the named columns are overwritten.
template <class T>
void rescue_columns(Weighting weighting, const Samples<T>& samples, const double* centroids,
                    double alpha, std::int64_t k, const std::int64_t* columns, std::int64_t n_columns,
                    const T* reference, int n_threads, double* sum_wx, double* sum_w,
                    double* sum_p, double* exponent);

}  // namespace ekmfast
