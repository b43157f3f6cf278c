// Centroids that coincide, which count as one cluster.
#pragma once

#include <cstdint>

namespace ekmfast {

// For each centroid the first one that coincides with it, directly or by way of others.
//
// Two centroids of a result coincide if the square of their distance is at most `coincident` /
// alpha, or if their distance is at most `rounding` times the largest range of a feature.
// IN centroids (n_results, k, d), alphas (n_results,); OUT first (n_results, k)
void merge_close(const double* centroids, const double* alphas, std::int64_t n_results,
                 std::int64_t k, std::int64_t d, double coincident, double rounding,
                 std::int32_t* first);

}  // namespace ekmfast
