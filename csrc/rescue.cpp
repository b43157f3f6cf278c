#include "rescue.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base2.h"
#include "kernels/kernels.h"
#include "parallel.h"
#include "plausible.h"

namespace ekmfast {
namespace {

constexpr std::int64_t kChunkRows = 4096;
// Terms smaller than 2^-kNegligible times the largest of a column do not change its sums: a double
// has 53 bits, and the rest is a margin for the factor 1 - alpha (d - E), which grows only
// linearly.
constexpr double kNegligible = 100;
// A column is far from all rows if sum_p is less than this share of the rows' weight.
constexpr double kFarColumn = 0x1p-20;
// Ordinary rounding changes a membership by a factor of less than 2^kOffByRounding.
constexpr double kOffByRounding = 20;

// Sums of one column over some rows, all multiplied by 2^-exponent.
struct Column {
  double exponent = -std::numeric_limits<double>::infinity();
  double sum_w = 0, sum_p = 0;
  std::vector<double> sum_wx;

  void rescale(double larger) {
    const double f = std::exp2(exponent - larger);  // 0 on first use
    sum_w *= f;
    sum_p *= f;
    for (double& v : sum_wx) v *= f;
    exponent = larger;
  }

  // Also rescales `part` to the scale of the sum.
  void add(Column& part) {
    if (!std::isfinite(part.exponent)) return;
    if (part.exponent > exponent) rescale(part.exponent);
    part.rescale(exponent);
    sum_w += part.sum_w;
    sum_p += part.sum_p;
    for (std::size_t f = 0; f < sum_wx.size(); ++f) sum_wx[f] += part.sum_wx[f];
  }
};

}  // namespace

template <class T>
double least_mass() {
  // A clamped membership adds at most 2^clamp (1 + |clamp|) to a sum of weights. If the mass is
  // required to be 2^30 (float64: 2^60) times 2^clamp, that is less than 1e-7 (1e-15) of it.
  const double margin = sizeof(T) == 4 ? 30 : 60;
  return std::exp2(static_cast<double>(kMinExponent<T>) + margin);
}

template <class T>
bool underflowed(double sum_p, double total_weight) {
  return !(sum_p > total_weight * least_mass<T>());
}

template <class T>
bool products_underflowed(const double* sum_wx, std::int64_t d, double sum_p, double total_weight,
                          std::int64_t n) {
  if (sizeof(T) < sizeof(double) || !(sum_p < kFarColumn * total_weight)) return false;
  const double least = kSmallestMean<T> * static_cast<double>(n);
  return std::all_of(sum_wx, sum_wx + d, [&](double v) { return std::fabs(v) <= least; });
}

template <class T>
bool contradicts(double sum_p, double exponent, double total_weight) {
  return std::log2(sum_p) + exponent > std::log2(total_weight * least_mass<T>()) + kOffByRounding;
}

template <class T>
void rescue_columns(Weighting weighting, const Samples<T>& samples, const double* centroids,
                    double alpha, std::int64_t k, const std::int64_t* columns, std::int64_t n_columns,
                    const T* reference, int n_threads, double* sum_wx, double* sum_w,
                    double* sum_p, double* exponent) {
  const std::int64_t d = samples.d;
  const std::int64_t n_chunks = (samples.n + kChunkRows - 1) / kChunkRows;

  // Distances are summed over features for all centroids at once, since compilers can vectorise
  // this loop without changing the order of any sum.
  std::vector<double> transposed(static_cast<std::size_t>(d * k));
  for (std::int64_t j = 0; j < k; ++j)
    for (std::int64_t f = 0; f < d; ++f)
      transposed[static_cast<std::size_t>(f * k + j)] = centroids[j * d + f];

  const auto sum_chunk = [&](std::int64_t chunk, std::vector<Column>& mine) {
    mine.assign(static_cast<std::size_t>(n_columns), Column());
    for (Column& c : mine) c.sum_wx.assign(static_cast<std::size_t>(d), 0.0);
    std::vector<double> r(static_cast<std::size_t>(k));
    std::vector<T> copy(samples.factor ? static_cast<std::size_t>(d) : 0);
    const std::int64_t end = std::min(samples.n, (chunk + 1) * kChunkRows);
    for (std::int64_t i = chunk * kChunkRows; i < end; ++i) {
      if (i % 64 == 0) checkpoint();
      const T* x = samples.x + i * samples.stride;
      if (samples.factor) {
        copy_row(samples, i, copy.data());
        x = copy.data();
      }
      const double s = samples.sample_weight ? static_cast<double>(samples.sample_weight[i]) : 1.0;
      if (!(s > 0)) continue;
      std::fill(r.begin(), r.end(), 0.0);
      for (std::int64_t f = 0; f < d; ++f) {
        const double v = static_cast<double>(x[f]);
        const double* c = transposed.data() + f * k;
        double* sum = r.data();
        for (std::int64_t j = 0; j < k; ++j) sum[j] += (v - c[j]) * (v - c[j]);
      }
      double best = -std::numeric_limits<double>::infinity();
      for (double& v : r) {
        v *= -0.5 * alpha * kLog2E;
        best = std::max(best, v);
      }
      // log2 p <= r - best, which shows for most rows that they do not change any column.
      bool adds = false;
      for (std::int64_t c = 0; c < n_columns; ++c)
        adds = adds || r[static_cast<std::size_t>(columns[c])] - best >
                           mine[static_cast<std::size_t>(c)].exponent - kNegligible;
      if (!adds) continue;
      double total = 0, moment = 0;
      for (double& v : r) {
        v -= best;
        const double u = std::exp2(v);
        total += u;
        if (u > 0) moment += u * v;
      }
      const double log_total = std::log2(total), mean = moment / total;
      for (std::int64_t c = 0; c < n_columns; ++c) {
        const double own = r[static_cast<std::size_t>(columns[c])];
        const double log_p = own - log_total;  // base 2, never clamped
        if (!std::isfinite(log_p)) continue;
        Column& column = mine[static_cast<std::size_t>(c)];
        if (log_p > column.exponent) column.rescale(log_p);
        const double p = s * std::exp2(log_p - column.exponent);
        const double w =
            weighting == Weighting::equilibrium ? p * (1 + kLn2 * (own - mean)) : p;
        column.sum_p += p;
        column.sum_w += w;
        for (std::int64_t f = 0; f < d; ++f)
          column.sum_wx[static_cast<std::size_t>(f)] +=
              w * (static_cast<double>(x[f]) - static_cast<double>(reference[f]));
      }
    }
  };

  // A few chunks at a time are computed, so that memory does not grow with the number of rows. They
  // are added in order, so that rounding does not depend on how many are computed at a time.
  std::vector<Column> total(static_cast<std::size_t>(n_columns));
  for (Column& c : total) c.sum_wx.assign(static_cast<std::size_t>(d), 0.0);
  const std::int64_t at_once =
      std::min(n_chunks, std::clamp<std::int64_t>(4 * std::int64_t{n_threads}, 4, 128));
  std::vector<std::vector<Column>> partial(static_cast<std::size_t>(at_once));
  for (std::int64_t first = 0; first < n_chunks; first += at_once) {
    const std::int64_t count = std::min(at_once, n_chunks - first);
    parallel_for(count, n_threads, [&](std::int64_t i, int) {
      sum_chunk(first + i, partial[static_cast<std::size_t>(i)]);
    });
    for (std::int64_t i = 0; i < count; ++i)
      for (std::int64_t c = 0; c < n_columns; ++c)
        total[static_cast<std::size_t>(c)].add(
            partial[static_cast<std::size_t>(i)][static_cast<std::size_t>(c)]);
  }

  for (std::int64_t c = 0; c < n_columns; ++c) {
    const Column& column = total[static_cast<std::size_t>(c)];
    const std::int64_t j = columns[c];
    exponent[j] = std::isfinite(column.exponent) ? column.exponent : 0.0;
    sum_w[j] = column.sum_w;
    sum_p[j] = column.sum_p;
    std::copy(column.sum_wx.begin(), column.sum_wx.end(), sum_wx + j * d);
  }
}

#define EKMFAST_INSTANTIATE(T)                                                                  \
  template double least_mass<T>();                                                              \
  template bool underflowed<T>(double, double);                                                 \
  template bool products_underflowed<T>(const double*, std::int64_t, double, double,            \
                                        std::int64_t);                                          \
  template bool contradicts<T>(double, double, double);                                         \
  template void rescue_columns<T>(Weighting, const Samples<T>&, const double*, double,          \
                                  std::int64_t, const std::int64_t*, std::int64_t, const T*,    \
                                  int, double*, double*, double*, double*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
