#include "moments.h"

#include <algorithm>
#include <vector>

#include "chunks.h"
#include "kernels/kernels.h"
#include "labels.h"
#include "parallel.h"
#include "simd/dispatch.h"

namespace ekmfast {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Rows that are copied at a time: their numbers stay in the L1 cache, but the products of their features
// are added to the sums only once.
std::int64_t block_rows(std::int64_t width) {
  constexpr std::int64_t kNumbers = 1 << 12, kLeast = 16, kMost = 256;
  return std::clamp(kNumbers / width, kLeast, kMost);
}

// Of one labelling. The first reading of the rows gives the means, the second the moments about them.
void moments(const Labellings& all, const std::int32_t* labels, bool full, double* means, double* mass,
             double* second) {
  const std::int64_t d = all.d, k = all.k, size = full ? d * d : d;
  const std::int64_t width = (d + kLaneUnit - 1) / kLaneUnit * kLaneUnit, most = block_rows(width);
  const KernelTable& kernels = kernel_table(isa_in_use());
  const GroupedRows rows(labels, all.n, k);
  std::vector<double> x(at(most * width)), weight(at(most)), centre(at(width)),
      sums(at(full ? width * width : width));
  // body(n): the rows of cluster c, at most so many at a time, are the first n of x.
  const auto for_blocks = [&](std::int64_t c, auto body) {
    for (std::int64_t begin = rows.first[at(c)]; begin < rows.first[at(c + 1)]; begin += most) {
      checkpoint();
      const std::int64_t n = std::min(most, rows.first[at(c + 1)] - begin);
      for (std::int64_t i = 0; i < n; ++i) {
        const std::int64_t row = rows.order[at(begin + i)];
        std::copy_n(all.x + row * d, d, x.data() + i * width);  // behind the features are zeros
        weight[at(i)] = all.weight[row];
      }
      body(n);
    }
  };
  for (std::int64_t c = 0; c < k; ++c) {
    double *const mean = means + c * d, *const out = second + c * size;
    mass[c] = 0;
    std::fill(centre.begin(), centre.end(), 0.0);
    for_blocks(c, [&](std::int64_t n) {
      for (std::int64_t i = 0; i < n; ++i) mass[c] += weight[at(i)];
      kernels.likelihood64.sums(x.data(), n, width, weight.data(), nullptr, centre.data());
    });
    for (double& sum : centre) sum = mass[c] != 0 ? sum / mass[c] : 0;
    std::copy_n(centre.data(), d, mean);
    std::fill(sums.begin(), sums.end(), 0.0);
    if (mass[c] != 0)
      for_blocks(c, [&](std::int64_t n) {
        if (full) kernels.scatter(x.data(), n, width, weight.data(), centre.data(), sums.data());
        else kernels.likelihood64.squares(x.data(), n, width, weight.data(), centre.data(), sums.data());
      });
    if (!full) std::copy_n(sums.data(), d, out);
    for (std::int64_t i = 0; full && i < d; ++i)
      for (std::int64_t j = i; j < d; ++j)
        out[i * d + j] = out[j * d + i] = sums[at(i * width + j)];
  }
}

}  // namespace

void moments_of_labels(const Labellings& rows, bool full, int n_threads, double* means, double* mass,
                       double* second) {
  const std::int64_t k = rows.k, d = rows.d, size = full ? d * d : d;
  const double each = static_cast<double>(full ? d * (d + 8) / 2 : 6 * d);
  n_threads = useful_threads(n_threads, static_cast<double>(rows.l * rows.n) * each);
  parallel_for(rows.l, n_threads, [&](std::int64_t i, int) {
    moments(rows, rows.labels + i * rows.n, full, means + i * k * d, mass + i * k, second + i * k * size);
  });
}

}  // namespace ekmfast
