// What the drivers of dense rows (ekm.cpp) and of sparse rows (sparse.cpp) share.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "base2.h"
#include "chunks.h"

namespace ekmfast {

// The q by which scores are exponents in base 2, computed in T.
template <class T, class R>
double exponent_scale(const double* centroids, double alpha, std::int64_t k, std::int64_t d,
                      const R* reference) {
  // For very small alpha, q c would be a denormal number of T, which would make J inaccurate. A
  // larger q avoids this and does not change the memberships, which are equal to the last bit long
  // before. Rows are smaller than `far`, since T holds their squares; for a centroid beyond `far`
  // it is q ||c||^2 that must be in the range of T.
  const double smallest = sizeof(T) == 4 ? 1e-30 : 1e-290, far = sizeof(T) == 4 ? 1e19 : 1e154;
  double largest = 0;
  for (std::int64_t i = 0; i < k * d; ++i) {
    largest = std::max(largest, std::fabs(centroids[i] - static_cast<double>(reference[i % d])));
    if (alpha * kLog2E * largest >= smallest) return alpha * kLog2E;
  }
  if (!(largest > 0)) return alpha * kLog2E;
  return std::max(alpha * kLog2E, smallest / largest * std::min(1.0, far / largest));
}

}  // namespace ekmfast
