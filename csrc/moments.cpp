#include "moments.h"

#include <algorithm>
#include <vector>

#include "chunks.h"
#include "parallel.h"

namespace ekmfast {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

constexpr std::int64_t kTogether = 4;  // rows whose products are added at a time
constexpr std::int64_t kBetweenChecks = 1024;

// Adds weight y y^T of kTogether rows (kTogether, d) to the upper triangle of out (d, d).
void add_products(const double* y, const double* weight, std::int64_t d, double* out) {
  const double *a = y, *b = y + d, *c = b + d, *e = c + d;
  for (std::int64_t i = 0; i < d; ++i) {
    const double wa = weight[0] * a[i], wb = weight[1] * b[i], wc = weight[2] * c[i],
                 we = weight[3] * e[i];
    double* row = out + i * d;
    for (std::int64_t j = i; j < d; ++j) row[j] += (wa * a[j] + wb * b[j]) + (wc * c[j] + we * e[j]);
  }
}

// Of one labelling.
void moments(const Labellings& all, const std::int32_t* labels, bool full, double* means, double* mass,
             double* second) {
  const std::int64_t n = all.n, d = all.d, k = all.k, size = full ? d * d : d;
  std::fill(means, means + k * d, 0.0);
  std::fill(mass, mass + k, 0.0);
  std::fill(second, second + k * size, 0.0);
  std::vector<std::int64_t> first(at(k + 1), 0), order(at(n));
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t c = labels[i];
    if (c < 0) continue;
    ++first[at(c + 1)];
    mass[c] += all.weight[i];
    double* sum = means + c * d;
    for (std::int64_t j = 0; j < d; ++j) sum[j] += all.weight[i] * all.x[i * d + j];
  }
  checkpoint();
  for (std::int64_t c = 0; c < k; ++c) {
    first[at(c + 1)] += first[at(c)];
    for (std::int64_t j = 0; j < d; ++j) means[c * d + j] = mass[c] != 0 ? means[c * d + j] / mass[c] : 0;
  }
  std::vector<std::int64_t> next(first.begin(), first.end() - 1);
  for (std::int64_t i = 0; i < n; ++i)
    if (labels[i] >= 0) order[at(next[at(labels[i])]++)] = i;

  std::vector<double> y(at(kTogether * d)), weight(at(kTogether));
  for (std::int64_t c = 0; c < k; ++c) {
    if (mass[c] == 0) continue;
    const double* mean = means + c * d;
    double* out = second + c * size;
    for (std::int64_t i = first[at(c)]; i < first[at(c + 1)]; i += kTogether) {
      if (i % kBetweenChecks < kTogether) checkpoint();
      for (std::int64_t r = 0; r < kTogether; ++r) {
        const bool there = i + r < first[at(c + 1)];
        const std::int64_t row = there ? order[at(i + r)] : 0;
        weight[at(r)] = there ? all.weight[row] : 0;
        for (std::int64_t j = 0; j < d; ++j) y[at(r * d + j)] = there ? all.x[row * d + j] - mean[j] : 0;
      }
      if (full) {
        add_products(y.data(), weight.data(), d, out);
        continue;
      }
      for (std::int64_t r = 0; r < kTogether; ++r)
        for (std::int64_t j = 0; j < d; ++j) out[j] += weight[at(r)] * (y[at(r * d + j)] * y[at(r * d + j)]);
    }
    if (!full) continue;
    for (std::int64_t i = 0; i < d; ++i)
      for (std::int64_t j = 0; j < i; ++j) out[i * d + j] = out[j * d + i];
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
