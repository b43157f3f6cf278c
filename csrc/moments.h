// Means and second moments of rows with the same label. Results do not depend on the number of
// threads.
#pragma once

#include <cstdint>

namespace ekmfast {

// Some labellings of the same rows.
struct Labellings {
  const double* x;             // (n, d)
  const double* weight;        // (n,)
  const std::int32_t* labels;  // (l, n), in [-1, k); rows with the label -1 do not count
  std::int64_t n, d, l, k;
};

// OUT means (l, k, d), 0 for a label without weight; mass (l, k), the sums of the weights;
//     second (l, k, d, d) = sum weight (x - mean)(x - mean)^T, or its diagonals (l, k, d)
void moments_of_labels(const Labellings& rows, bool full, int n_threads, double* means, double* mass,
                       double* second);

}  // namespace ekmfast
