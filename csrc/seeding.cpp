#include "seeding.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "chunks.h"
#include "parallel.h"

namespace ekmfast {
namespace {

// Calls body(i, sum of the masses of the rows 0 to i) until it returns true. Rows are added one
// after another, so that the sums do not depend on the number of threads.
template <class T, class Body>
void for_sums(const T* closest, const double* weight, std::int64_t n, Body body) {
  constexpr std::int64_t kRows = 1 << 16;  // between two checks for a signal
  double sum = 0;
  for (std::int64_t begin = 0; begin < n; begin += kRows) {
    checkpoint();
    for (std::int64_t i = begin; i < std::min(n, begin + kRows); ++i) {
      const double d2 = static_cast<double>(closest[i]);
      sum += weight ? weight[i] * d2 : d2;
      if (body(i, sum)) return;
    }
  }
}

}  // namespace

template <class T>
void draw_rows(const T* closest, const double* sample_weight, std::int64_t n,
               std::int64_t n_seedings, const double* uniform, std::int64_t n_draws,
               int n_threads, std::int64_t* rows) {
  const double work = 8 * static_cast<double>(n) * static_cast<double>(n_seedings);
  n_threads = useful_threads(n_threads, work);
  parallel_for(n_seedings, n_threads, [&](std::int64_t seeding, int) {
    const T* mine = closest + seeding * n;
    const double* u = uniform + seeding * n_draws;
    std::int64_t* out = rows + seeding * n_draws;
    double total = 0;
    for_sums(mine, sample_weight, n, [&](std::int64_t, double sum) {
      total = sum;
      return false;
    });
    if (!(total > 0)) {
      for (std::int64_t i = 0; i < n_draws; ++i)
        out[i] = static_cast<std::int64_t>(u[i] * static_cast<double>(n));
      return;
    }
    // A draw is the first row at which the sum is larger than its share of the total.
    std::vector<std::int64_t> order(static_cast<std::size_t>(n_draws));
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return u[a] < u[b]; });
    std::fill(out, out + n_draws, n - 1);
    auto next = order.begin();
    for_sums(mine, sample_weight, n, [&](std::int64_t i, double sum) {
      for (; next != order.end() && sum > u[*next] * total; ++next) out[*next] = i;
      return next == order.end();
    });
  });
}

#define EKMFAST_INSTANTIATE(T)                                                                   \
  template void draw_rows<T>(const T*, const double*, std::int64_t, std::int64_t, const double*, \
                             std::int64_t, int, std::int64_t*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
