#include "mixture.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "base2.h"
#include "chunks.h"
#include "kernels/kernels.h"
#include "kernels/tuning.h"
#include "narrowing.h"
#include "ordered_sum.h"
#include "simd/dispatch.h"

namespace ekmfast {
namespace {

// A mixture as the kernels read it. T rounds what it holds, so that its means are not quite the
// caller's: `shift` is their difference, by which moments are corrected.
template <class T>
struct Ready {
  std::vector<T> whiteners, bias, means, offsets;
  std::vector<double> shift;  // (k, d) mean of the kernels minus that of the caller
  double ratio;               // units of the caller in one of the kernels
  Mixture<T> view;

  // reference: what is subtracted from rows
  template <class R>
  Ready(const Mixtures& all, std::int64_t at, std::int64_t d, const double* centre, double unit,
        const R* reference, int tile) {
    const std::int64_t k = all.k, size = all.full ? d * d : d;
    const double* w = all.whiteners + at * k * size;
    const double v = all.degrees[at];
    const T scale = static_cast<T>(1 / unit);
    ratio = 1 / (unit * static_cast<double>(scale));
    for (std::int64_t i = 0; i < k; ++i) {
      offsets.push_back(static_cast<T>(all.offsets[at * k + i] * kLog2E));
      for (std::int64_t j = 0; j < d; ++j) {
        const double wanted = all.means[(at * k + i) * d + j],
                     moved = (static_cast<double>(reference[j]) - centre[j]) / unit;
        means.push_back(static_cast<T>((wanted - moved) / ratio));
        shift.push_back(ratio * static_cast<double>(means.back()) + moved - wanted);
      }
      const T* mean = means.data() + i * d;
      const double* own = w + i * size;
      // z = (ratio scale y - ratio mean) W
      const auto factor = [&](std::int64_t row, std::int64_t column) {
        const double value = all.full ? own[row * d + column] : own[column];
        return static_cast<T>(ratio * static_cast<double>(scale) * value);
      };
      for (std::int64_t j = 0; j < d; ++j) {
        double sum = 0;
        for (std::int64_t row = all.full ? 0 : j; row <= j; ++row)
          sum -= static_cast<double>(mean[row]) * static_cast<double>(factor(row, j));
        bias.push_back(static_cast<T>(sum / static_cast<double>(scale)));
        if (!all.full) whiteners.push_back(factor(j, j));
      }
      if (!all.full) continue;
      for (std::int64_t first = 0; first < d; first += tile) {
        const std::int64_t end = std::min(d, first + tile);
        for (std::int64_t row = 0; row < end; ++row)
          for (std::int64_t j = std::max(first, row); j < end; ++j)
            whiteners.push_back(factor(row, j));
      }
    }
    const bool gaussian = std::isinf(v);
    view = {k, all.full, whiteners.data(), bias.data(), means.data(), offsets.data(), scale,
            static_cast<T>(v), gaussian ? T(0) : static_cast<T>((v + static_cast<double>(d)) / 2),
            static_cast<T>(all.background[at] * kLog2E)};
  }
};

double multiply_adds(std::int64_t n, const Mixtures& m, std::int64_t d) {
  // Logarithm, exponential and the operations around them take as long as thirty multiply-adds.
  const double each = m.full ? static_cast<double>(d * (d + 4)) : static_cast<double>(4 * d);
  return static_cast<double>(n * m.k * m.n) * (each + 30);
}

// How many sums a chunk forms for a mixture:
// [mass (k) | weight (k) | first (k, d) | second | background | likelihood | classified | witness].
std::int64_t sums_size(const Mixtures& m, std::int64_t d) {
  return m.k * (2 + d + (m.full ? d * (d + 1) / 2 : d)) + 4;
}

MixtureSums sums_at(double* at, const Mixtures& m, std::int64_t d) {
  double *first = at + 2 * m.k, *second = first + m.k * d,
         *end = second + m.k * (m.full ? d * (d + 1) / 2 : d);
  return {at, at + m.k, first, second, end, end + 1, end + 2, end + 3};
}

template <class T>
std::vector<T> rounded(const double* centre, std::int64_t d) {
  std::vector<T> reference;
  for (std::int64_t j = 0; j < d; ++j) reference.push_back(static_cast<T>(centre[j]));
  return reference;
}

template <class T, class R>
std::vector<Ready<T>> make_ready(const Mixtures& m, std::int64_t d, const double* centre, double unit,
                                 const R* reference, int tile) {
  std::vector<Ready<T>> ready;
  ready.reserve(static_cast<std::size_t>(m.n));  // views point into the vectors of each
  for (std::int64_t i = 0; i < m.n; ++i) ready.emplace_back(m, i, d, centre, unit, reference, tile);
  return ready;
}

// Calls body(rows, begin, end) for a slice, with its rows in T, which holds all numbers of U.
template <class T, class U, class Body>
void with_rows(const Samples<U>& samples, const U* reference, std::int64_t begin, std::int64_t end,
               Body body) {
  if constexpr (std::is_same<T, U>::value) {
    body(rows_of(samples, reference), begin, end);
  } else {
    const Widened<T, U> slice(samples, reference, begin, end);
    body(slice.rows, 0, end - begin);
  }
}

// Adds the moments of one component, which are about its mean in the kernels, to out in the units of
// the caller and about the caller's mean.
void finish(const double* shift, double ratio, double weight, const double* first,
            const double* second, bool full, std::int64_t d, double* first_out, double* second_out) {
  for (std::int64_t i = 0; i < d; ++i) {
    const double a = ratio * first[i];
    first_out[i] = a + weight * shift[i];
    if (!full) {
      second_out[i] = ratio * ratio * second[i] + shift[i] * (a + first_out[i]);
      continue;
    }
    for (std::int64_t j = 0; j <= i; ++j) {
      const double value = ratio * ratio * *second++ + shift[i] * ratio * first[j] +
                           shift[j] * first_out[i];
      second_out[i * d + j] = second_out[j * d + i] = value;
    }
  }
}

// Sums computed in T, from rows that are centred and rounded if U holds more digits; false if T
// overflows, and then they must not be used.
template <class T, class U>
bool expectation_in(const Samples<U>& samples, const Mixtures& m, const double* centre, double unit,
                    int n_threads, double* mass, double* weight, double* first, double* second,
                    double* background, double* likelihood, double* classified) {
  const std::int64_t d = samples.d, k = m.k, size = sums_size(m, d);
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  const std::vector<U> reference = rounded<U>(centre, d);
  const std::vector<Ready<T>> ready =
      make_ready<T>(m, d, centre, unit, reference.data(), kernels.tile_k);
  std::vector<Mixture<T>> views;
  for (const Ready<T>& one : ready) views.push_back(one.view);

  const Cut cut(samples.n, Cut::rows_in_cache<T>((m.full ? 2 : 1) * d + k), m.n * size);
  OrderedSum all(cut.n_chunks, m.n * size);
  const std::int64_t bytes = kernels.mixture_scratch(cut.slice_rows, d, k, m.full);
  // with_slice(begin, end, scratch, body) calls body(rows, begin, end) for a slice.
  const auto sum_chunks = [&](std::int64_t scratch_bytes, auto with_slice) {
    for_chunks(cut, scratch_bytes, n_threads, [&](std::int64_t chunk, void* scratch) {
      OrderedSum::Part part = all.take();
      std::vector<MixtureSums> sums;
      for (std::int64_t i = 0; i < m.n; ++i) sums.push_back(sums_at(part.get() + i * size, m, d));
      cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
        with_slice(begin, end, scratch,
                   [&](const Rows<T>& rows, std::int64_t from, std::int64_t to) {
          kernels.expectation(rows, from, to, views.data(), sums.data(), m.n, scratch);
        });
      });
      all.add(chunk, std::move(part));
    });
  };
  if constexpr (sizeof(T) < sizeof(U)) {
    const Narrowing narrowing(samples, reference.data(), cut, bytes);
    sum_chunks(narrowing.bytes, [&](std::int64_t begin, std::int64_t end, void* scratch, auto body) {
      const Slice<T> slice = narrowing(begin, end, scratch);
      body(slice.rows, slice.begin, slice.end);
    });
  } else {
    sum_chunks(bytes, [&](std::int64_t begin, std::int64_t end, void*, auto body) {
      with_rows<T>(samples, reference.data(), begin, end, body);
    });
  }

  bool held = true;
  std::vector<double> total = all.total();
  for (std::int64_t i = 0; i < m.n; ++i) {
    const MixtureSums sums = sums_at(total.data() + i * size, m, d);
    const Ready<T>& own = ready[static_cast<std::size_t>(i)];
    held = held && std::isfinite(*sums.witness);
    background[i] = *sums.background;
    likelihood[i] = *sums.likelihood * kLn2;
    classified[i] = *sums.classified * kLn2;
    std::copy(sums.mass, sums.mass + k, mass + i * k);
    std::copy(sums.weight, sums.weight + k, weight + i * k);
    const std::int64_t packed = m.full ? d * (d + 1) / 2 : d, whole = m.full ? d * d : d;
    for (std::int64_t c = 0; c < k; ++c)
      finish(own.shift.data() + c * d, own.ratio, sums.weight[c], sums.first + c * d,
             sums.second + c * packed, m.full, d, first + (i * k + c) * d,
             second + (i * k + c) * whole);
  }
  return held;
}

template <class T, class U>
bool densities_in(const Samples<U>& samples, const Mixtures& m, const double* centre, double unit,
                  int n_threads, U* joint, std::int32_t* labels, U* largest, U* density) {
  const std::int64_t d = samples.d, k = m.k;
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  const std::vector<U> reference = rounded<U>(centre, d);
  const std::vector<Ready<T>> ready =
      make_ready<T>(m, d, centre, unit, reference.data(), kernels.tile_k);
  const Cut cut(samples.n, Cut::rows_in_cache<T>(d + k), 1);
  std::vector<double> witness(static_cast<std::size_t>(cut.n_chunks));
  const std::int64_t bytes = kernels.mixture_scratch(cut.slice_rows, d, k, m.full);
  for_chunks(cut, bytes, n_threads, [&](std::int64_t chunk, void* scratch) {
    double& mine = witness[static_cast<std::size_t>(chunk)];
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      with_rows<T>(samples, reference.data(), begin, end,
                   [&](const Rows<T>& rows, std::int64_t from, std::int64_t to) {
        if constexpr (std::is_same<T, U>::value) {
          mine += kernels.densities(rows, from, to, ready[0].view,
                                    {joint, labels, largest, density}, scratch);
        } else {
          const std::int64_t n = end - begin;
          std::vector<T> values[3];
          U* const out[3] = {joint, largest, density};
          const std::int64_t width[3] = {k, 1, 1};
          for (int a = 0; a < 3; ++a)
            if (out[a]) values[a].resize(static_cast<std::size_t>(n * width[a]));
          const auto data = [&](int a) { return out[a] ? values[a].data() : nullptr; };
          mine += kernels.densities(rows, from, to, ready[0].view,
                                    {data(0), labels ? labels + begin : nullptr, data(1), data(2)},
                                    scratch);
          for (int a = 0; a < 3; ++a)
            for (std::size_t i = 0; i < values[a].size(); ++i)
              out[a][begin * width[a] + static_cast<std::int64_t>(i)] = static_cast<U>(values[a][i]);
        }
      });
      const auto in_natural = [&](U* values, std::int64_t width) {
        for (std::int64_t i = begin * width; values && i < end * width; ++i)
          values[i] = static_cast<U>(static_cast<double>(values[i]) * kLn2);
      };
      in_natural(joint, k);
      in_natural(largest, 1);
      in_natural(density, 1);
    });
  });
  double sum = 0;
  for (double value : witness) sum += value;
  return std::isfinite(sum);
}

}  // namespace

template <class T>
void expectation(const Samples<T>& samples, const Mixtures& m, const double* centre, double unit,
                 int n_threads, double* mass, double* weight, double* first, double* second,
                 double* background, double* likelihood, double* classified) {
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, m, samples.d));
  if (!expectation_in<T>(samples, m, centre, unit, n_threads, mass, weight, first, second,
                         background, likelihood, classified) &&
      sizeof(T) < sizeof(double))
    expectation_in<double>(samples, m, centre, unit, n_threads, mass, weight, first, second,
                           background, likelihood, classified);
}

void rounded_expectation(const Samples<double>& samples, const Mixtures& m, const double* centre,
                         double unit, int n_threads, double* mass, double* weight, double* first,
                         double* second, double* background, double* likelihood,
                         double* classified) {
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, m, samples.d));
  if (!expectation_in<float>(samples, m, centre, unit, n_threads, mass, weight, first, second,
                             background, likelihood, classified))
    expectation_in<double>(samples, m, centre, unit, n_threads, mass, weight, first, second,
                           background, likelihood, classified);
}

template <class T>
void densities(const Samples<T>& samples, const Mixtures& m, const double* centre, double unit,
               int n_threads, T* joint, std::int32_t* labels, T* largest, T* density) {
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, m, samples.d) / 2);
  if (!densities_in<T>(samples, m, centre, unit, n_threads, joint, labels, largest, density) &&
      sizeof(T) < sizeof(double))
    densities_in<double>(samples, m, centre, unit, n_threads, joint, labels, largest, density);
}

#define EKMFAST_INSTANTIATE(T)                                                                    \
  template void expectation<T>(const Samples<T>&, const Mixtures&, const double*, double, int,    \
                               double*, double*, double*, double*, double*, double*, double*);    \
  template void densities<T>(const Samples<T>&, const Mixtures&, const double*, double, int, T*,  \
                             std::int32_t*, T*, T*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
