// Halves of the rows with each label: where a component of a mixture would be split. Results do not depend
// on the number of threads.
#pragma once

#include <cstdint>

namespace ekmfast {

struct Halving {
  const double* x;             // (n, d)
  const double* weight;        // (n,), of which some may be 0
  const std::int32_t* labels;  // (n,), in [0, k)
  const double* factors;       // (d,), by which features are multiplied first
  std::int64_t n, d, k;
  double farthest;     // rows are drawn to so many times the median distance from their mean, at most
  std::int64_t least;  // rows of a half, at least 1
  double prior;        // rows as if by which the variances of halves are shrunk to that within both
  int refined;         // iterations of hard k-means, at most
};

// OUT rows (n, d): x times the factors, and drawn towards the mean of their label;
//     half (n,): whether a row is in the second half of its label; none is if the label cannot be split.
void halves_of_labels(const Halving& in, int n_threads, double* rows, bool* half);

}  // namespace ekmfast
