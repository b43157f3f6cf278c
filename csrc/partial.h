// The functions of ekm.h for rows of which some numbers are missing: they are NaN. The distance of a
// row is that over the features it has, scaled to all d features:
//   d_kn = a_n / 2 sum_{j in O_n} (x_nj - c_kj)^2,   a_n = d / |O_n|,   O_n the features of row n,
// so that the sums of Eq. 39 are over the rows that have a feature, and differ from feature to feature.
// A row without numbers has a_n = 0. Everything is computed in double from differences, whatever the
// dtype of the rows is. Results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "ekm.h"
#include "weighting.h"

namespace ekmfast {

// IN centroids (n_problems, k, d), alpha (n_problems,), reference (d,), weighting, fuzzifier
// OUT sum_wx (n_problems, k, d) = sum_n s_n a_n w_kn (x_nj - reference_j) over the rows that have j
//     sum_w, sum_p (n_problems, k, d) = the same sums of s_n a_n w_kn and of s_n a_n p_kn
//     objective (n_problems,) = J
// Memberships below 2^-900 of the largest of their row are not told apart: a centroid that has no
// others gets sums of 0.
template <class T>
void partial_statistics(const Samples<T>& samples, const double* centroids, const double* alpha,
                        std::int64_t n_problems, std::int64_t k, const double* reference,
                        Weighting weighting, double fuzzifier, int n_threads, double* sum_wx,
                        double* sum_w, double* sum_p, double* objective);

// IN centroids (k, d); OUT squared_distances (n, k) = 2 d_kn.
template <class T>
void partial_distances(const Samples<T>& samples, const double* centroids, std::int64_t k,
                       int n_threads, double* squared_distances);

}  // namespace ekmfast
