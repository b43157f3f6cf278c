#include "merge.h"

#include <algorithm>

namespace ekmfast {
namespace {

// The largest range of a feature.
double width_of(const double* centroids, std::int64_t k, std::int64_t d) {
  double width = 0;
  for (std::int64_t j = 0; j < d; ++j) {
    double low = centroids[j], high = centroids[j];
    for (std::int64_t i = 1; i < k; ++i) {
      low = std::min(low, centroids[i * d + j]);
      high = std::max(high, centroids[i * d + j]);
    }
    width = std::max(width, high - low);
  }
  return width;
}

// The first centroid of the group of centroid i. Each centroid points to an earlier one of its
// group or to itself.
std::int32_t first_of(std::int32_t* earlier, std::int32_t i) {
  while (earlier[i] != i) i = earlier[i] = earlier[earlier[i]];
  return i;
}

}  // namespace

void merge_close(const double* centroids, const double* alphas, std::int64_t n_results,
                 std::int64_t k, std::int64_t d, double coincident, double rounding,
                 std::int32_t* first) {
  for (std::int64_t r = 0; r < n_results; ++r) {
    const double* c = centroids + r * k * d;
    std::int32_t* earlier = first + r * k;
    const double least = rounding * width_of(c, k, d);
    const double near = std::max(coincident / alphas[r], least * least);
    for (std::int32_t i = 0; i < k; ++i) {
      earlier[i] = i;
      for (std::int32_t other = 0; other < i; ++other) {
        double d2 = 0;
        for (std::int64_t j = 0; j < d && d2 <= near; ++j) {
          const double between = c[i * d + j] - c[other * d + j];
          d2 += between * between;
        }
        if (!(d2 <= near)) continue;
        const std::int32_t a = first_of(earlier, i), b = first_of(earlier, other);
        earlier[std::max(a, b)] = std::min(a, b);
      }
    }
    for (std::int32_t i = 0; i < k; ++i) earlier[i] = first_of(earlier, i);
  }
}

}  // namespace ekmfast
