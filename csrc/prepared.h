#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/tuning.h"

namespace ekmfast {

// The centroids as the register tiles want them; the layout is described in kernels.h.
template <class T>
struct Prepared {
  std::vector<T> tiles, rows, bias;
  Centroids<T> view;
  bool finite = true;  // if false, T cannot hold a centroid, and the results must not be used

  template <class R>
  Prepared(const double* centroids, double q, std::int64_t k, std::int64_t d, const R* reference,
           int tile_k)
      : tiles(static_cast<std::size_t>(k * d)), bias(static_cast<std::size_t>(k)) {
    double witness = 0;  // 0 times what is not finite is NaN
    for (std::int64_t first = 0; first < k; first += tile_k) {
      const std::int64_t width = std::min<std::int64_t>(tile_k, k - first);
      const double* c = centroids + first * d;
      T *tile = tiles.data() + first * d, *b = bias.data() + first;
      for (std::int64_t g = 0; g < width; ++g) {
        double norm = 0;
        for (std::int64_t j = 0; j < d; ++j) {
          const double y = c[g * d + j] - static_cast<double>(reference[j]);
          norm += y * y;
          const T scaled = static_cast<T>(q * y);
          witness += 0 * static_cast<double>(scaled);
          tile[j * width + g] = scaled;
        }
        b[g] = static_cast<T>(-0.5 * q * norm);
      }
    }
    finite = std::isfinite(witness);
    if (k <= kDotMaxK && d >= kDotMinD<T>)
      for (std::int64_t i = 0; i < k * d; ++i)
        rows.push_back(static_cast<T>(q * (centroids[i] - static_cast<double>(reference[i % d]))));
    view = {k, tiles.data(), rows.empty() ? nullptr : rows.data(), bias.data(), 1 / q, T(1)};
  }
};

}  // namespace ekmfast
