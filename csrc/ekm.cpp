#include "ekm.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <type_traits>
#include <utility>
#include <vector>

#include "driver.h"
#include "kernels/kernels.h"
#include "kernels/tuning.h"
#include "kept_rows.h"
#include "narrowing.h"
#include "ordered_sum.h"
#include "parallel.h"
#include "prepared.h"
#include "rescue.h"
#include "simd/dispatch.h"
#include "solver.h"

namespace ekmfast {
namespace {

// Runs body(chunk, slice_of, scratch) for all chunks, with the scratch memory of the running thread.
// slice_of(begin, end) is how the kernels read these rows.
template <class T, class Body>
void for_chunks(const Kernels<T>& kernels, const Samples<T>& samples, const T* reference,
                const Cut& cut, std::int64_t k, int n_threads, Body body) {
  const std::int64_t bytes = kernels.scratch_bytes(cut.slice_rows, samples.d, k);
  const Slices<T> slices(samples, reference, cut, bytes);
  for_chunks(cut, slices.bytes, n_threads, [&](std::int64_t chunk, void* scratch) {
    const auto slice_of = [&](std::int64_t begin, std::int64_t end) {
      return slices(begin, end, scratch);
    };
    body(chunk, slice_of, scratch);
  });
}

double multiply_adds(std::int64_t n, std::int64_t k, std::int64_t d) {
  // The exponential of a score and the operations around it take as long as ten multiply-adds.
  return static_cast<double>(n) * static_cast<double>(k) * static_cast<double>(2 * d + 10);
}

std::vector<std::int64_t> up_to(std::int64_t n) {
  std::vector<std::int64_t> numbers(static_cast<std::size_t>(n));
  std::iota(numbers.begin(), numbers.end(), std::int64_t{0});
  return numbers;
}

// How many sums a chunk forms for a problem: [sum_wx (k, d) | sum_w (k) | sum_p (k) | objective].
std::int64_t sums_size(std::int64_t d, std::int64_t k) { return k * d + 2 * k + 1; }

template <class T>
double total_weight(const Samples<T>& samples) {
  if (!samples.sample_weight) return static_cast<double>(samples.n);
  double sum = 0;
  for (std::int64_t i = 0; i < samples.n; ++i) sum += static_cast<double>(samples.sample_weight[i]);
  return sum;
}

// Slices of rows in double that are narrowed to float are this share of others, since the rows of the
// next slice are prefetched into the L2 cache meanwhile; 1/2 to 1/8 are alike.
constexpr std::int64_t kNarrowedShare = 4;

// All problems read a slice before the next slice is read, so it should stay in the L2 cache. With many
// sums, slices have fewer rows: still enough that adding their sums is cheap, but so few that there are
// slices for all threads. The size of a slice does not depend on the number of problems, so that batching
// problems changes only the order of summation.
template <class T, class U>
Cut cut_of_statistics(std::int64_t n, std::int64_t d, std::int64_t k, std::int64_t n_problems) {
  constexpr std::int64_t kManySums = 2048, kRowsForManySums = 8 * kRowUnit;
  const std::int64_t rows = k * d < kManySums ? Cut::kMaxSliceRows : kRowsForManySums;
  const std::int64_t in_cache = Cut::rows_in_cache<T>(d) / (sizeof(T) < sizeof(U) ? kNarrowedShare : 1);
  return Cut(n, std::min(rows, in_cache), n_problems * sums_size(d, k));
}

// Sums over all rows, (n_problems, sums_size), computed in T. The objective of a problem is NaN if
// T cannot hold its centroids. Kept rows, or null, are those of the samples.
template <class T, class U>
std::vector<double> sum_all(const Samples<U>& samples, const double* centroids,
                            const double* alpha, std::int64_t n_problems, std::int64_t k,
                            const U* reference, Weighting weighting, double fuzzifier,
                            int n_threads, const KeptRows<T>* kept = nullptr) {
  const std::int64_t d = samples.d, size = sums_size(d, k);
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  const auto slice_statistics = kernels.statistics[static_cast<int>(weighting)];
  std::vector<Prepared<T>> prepared;
  std::vector<Centroids<T>> views;
  for (std::int64_t s = 0; s < n_problems; ++s) {
    const double* c = centroids + s * k * d;
    const double q = weighting == Weighting::fuzzy  ? 2.0
                     : weighting == Weighting::hard ? 1.0
                                                    : exponent_scale<T>(c, alpha[s], k, d, reference);
    prepared.emplace_back(c, q, k, d, reference, kernels.tile_k);
    views.push_back(prepared.back().view);
    views.back().power = static_cast<T>(1 / (fuzzifier - 1));
  }

  const Cut cut = cut_of_statistics<T, U>(samples.n, d, k, n_problems);
  OrderedSum all(cut.n_chunks, n_problems * size);
  const auto sum_chunk = [&](std::int64_t chunk, auto slice_of, void* scratch) {
    OrderedSum::Part part = all.take();
    std::vector<Sums> sums;
    for (std::int64_t s = 0; s < n_problems; ++s) {
      double* at = part.get() + s * size;
      sums.push_back({at, at + k * d, at + k * d + k, at + k * d + 2 * k});
    }
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      const auto slice = slice_of(begin, end);
      slice_statistics(slice.rows, slice.begin, slice.end, views.data(), sums.data(), n_problems,
                       scratch);
    });
    all.add(chunk, std::move(part));
  };
  if (kept && *kept) {
    for_chunks(cut, kernels.scratch_bytes(cut.slice_rows, d, k), n_threads,
               [&](std::int64_t chunk, void* scratch) { sum_chunk(chunk, std::cref(*kept), scratch); });
  } else if constexpr (std::is_same<T, U>::value) {
    for_chunks(kernels, samples, reference, cut, k, n_threads, sum_chunk);
  } else if constexpr (sizeof(T) < sizeof(U)) {
    const Narrowing narrowing(samples, reference, cut, kernels.scratch_bytes(cut.slice_rows, d, k));
    for_chunks(cut, narrowing.bytes, n_threads, [&](std::int64_t chunk, void* scratch) {
      const auto narrowed = [&](std::int64_t begin, std::int64_t end) {
        return narrowing(begin, end, scratch);
      };
      sum_chunk(chunk, narrowed, scratch);
    });
  } else {
    for_chunks(cut, kernels.scratch_bytes(cut.slice_rows, d, k), n_threads,
               [&](std::int64_t chunk, void* scratch) {
      const auto widened = [&](std::int64_t begin, std::int64_t end) {
        return Widened<T, U>(samples, reference, begin, end);
      };
      sum_chunk(chunk, widened, scratch);
    });
  }

  std::vector<double> total = all.total();
  for (std::int64_t s = 0; s < n_problems; ++s)
    if (!prepared[static_cast<std::size_t>(s)].finite)
      total[static_cast<std::size_t>((s + 1) * size - 1)] = std::nan("");
  return total;
}

// The functions of ekm.h for samples whose total weight is known.
template <class T>
void statistics_of(const Samples<T>& samples, double weight, const double* centroids,
                   const double* alpha, std::int64_t n_problems, std::int64_t k, const T* reference,
                   Weighting weighting, double fuzzifier, bool rescue, int n_threads, double* sum_wx,
                   double* sum_w, double* sum_p, double* exponent, double* objective,
                   const KeptRows<T>* kept = nullptr) {
  const std::int64_t d = samples.d, size = sums_size(d, k);
  n_threads = useful_threads(
      n_threads, multiply_adds(samples.n, k, d) * static_cast<double>(n_problems));
  const std::vector<double> total = sum_all<T>(samples, centroids, alpha, n_problems, k, reference,
                                               weighting, fuzzifier, n_threads, kept);
  const bool fuzzy = weighting == Weighting::fuzzy;
  // Where the sums are that show whether a column underflows: sum_w of the fuzzy weighting, whose
  // w = p^m underflow before the memberships p, else sum_p.
  const std::int64_t mass = fuzzy ? k * d : k * d + k;

  for (std::int64_t s = 0; s < n_problems; ++s) {
    const double* at = total.data() + s * size;
    std::copy(at, at + k * d, sum_wx + s * k * d);
    std::copy(at + k * d, at + k * d + k, sum_w + s * k);
    std::copy(at + k * d + k, at + k * d + 2 * k, sum_p + s * k);
    objective[s] = reported(at[size - 1], weighting);
    std::fill(exponent + s * k, exponent + (s + 1) * k, 0.0);
    if (!rescue || samples.n == 0 || !std::isfinite(objective[s]) || weighting == Weighting::hard)
      continue;

    std::vector<std::int64_t> columns;
    for (std::int64_t i = 0; i < k; ++i)
      if (underflowed<T>(at[mass + i], weight) ||
          products_underflowed<T>(at + i * d, d, at[mass + i], weight, samples.n))
        columns.push_back(i);
    if (columns.empty()) continue;
    if (sizeof(T) < sizeof(double)) {
      // In float64 memberships may be 2^800 times smaller, which suffices for most columns. It
      // takes twice as long as a pass in float32, and less than rescue_columns.
      const std::vector<double> deeper =
          sum_all<double>(samples, centroids + s * k * d, alpha + s, 1, k, reference, weighting,
                          fuzzifier, n_threads);
      bool all = false;
      for (std::int64_t i : columns)
        all = all || (!fuzzy && contradicts<T>(deeper[static_cast<std::size_t>(mass + i)], 0, weight));
      if (all) columns = up_to(k);
      if (all || fuzzy) objective[s] = reported(deeper.back(), weighting);
      std::vector<std::int64_t> still;
      for (std::int64_t i : columns) {
        if (!fuzzy && underflowed<double>(deeper[static_cast<std::size_t>(mass + i)], weight)) {
          still.push_back(i);
          continue;
        }
        sum_p[s * k + i] = deeper[static_cast<std::size_t>(k * d + k + i)];
        sum_w[s * k + i] = deeper[static_cast<std::size_t>(k * d + i)];
        std::copy(deeper.begin() + i * d, deeper.begin() + (i + 1) * d,
                  sum_wx + (s * k + i) * d);
      }
      columns.swap(still);
    }
    if (fuzzy || columns.empty()) continue;
    const auto rescue_some = [&] {
      rescue_columns(weighting, samples, centroids + s * k * d, alpha[s], k, columns.data(),
                     static_cast<std::int64_t>(columns.size()), reference, n_threads,
                     sum_wx + s * k * d, sum_w + s * k, sum_p + s * k, exponent + s * k);
    };
    rescue_some();
    bool all = false;
    for (std::int64_t i : columns)
      all = all || contradicts<double>(sum_p[s * k + i], exponent[s * k + i], weight);
    if (all && static_cast<std::int64_t>(columns.size()) < k) {
      columns = up_to(k);
      rescue_some();
    }
  }
}

void rounded_statistics_of(const Samples<double>& samples, double weight, const double* centroids,
                           const double* alpha, std::int64_t n_problems, std::int64_t k,
                           const double* reference, Weighting weighting, double fuzzifier,
                           int n_threads, double* sum_wx, double* sum_w, double* sum_p,
                           double* exponent, double* objective, const KeptRows<float>* kept = nullptr) {
  const std::int64_t d = samples.d, size = sums_size(d, k);
  n_threads = useful_threads(
      n_threads, multiply_adds(samples.n, k, d) * static_cast<double>(n_problems));
  const std::vector<double> total = sum_all<float>(samples, centroids, alpha, n_problems, k, reference,
                                                   weighting, fuzzifier, n_threads, kept);
  const std::int64_t mass = weighting == Weighting::fuzzy ? k * d : k * d + k;
  for (std::int64_t s = 0; s < n_problems; ++s) {
    const double* at = total.data() + s * size;
    const double *c = centroids + s * k * d, *a = alpha + s;
    double *wx = sum_wx + s * k * d, *w = sum_w + s * k, *p = sum_p + s * k, *e = exponent + s * k;
    const double j = reported(at[size - 1], weighting);
    bool lost = !std::isfinite(j);
    for (std::int64_t i = 0; i < k && weighting != Weighting::hard; ++i)
      lost = lost || underflowed<float>(at[mass + i], weight);
    if (lost) {
      statistics_of(samples, weight, c, a, 1, k, reference, weighting, fuzzifier, true, n_threads, wx,
                    w, p, e, objective + s);
      continue;
    }
    std::copy(at, at + k * d, wx);
    std::copy(at + k * d, at + k * d + k, w);
    std::copy(at + k * d + k, at + k * d + 2 * k, p);
    std::fill(e, e + k, 0.0);
    objective[s] = j;
  }
}

// iterate() of ekm.h with sums computed in S.
template <class S, class T>
void iterate_in(Solver& solver, const Samples<T>& samples, const T* reference, Weighting weighting,
                double fuzzifier, int n_threads, std::int64_t& left) {
  const std::int64_t k = solver.k(), n_groups = solver.n_groups();
  const auto cut = [&](std::int64_t n_problems) {
    return cut_of_statistics<S, T>(samples.n, samples.d, k, n_problems);
  };
  // Apart, threads need not wait for each other after each pass. With few groups of runs, however, all
  // have work only if they share the chunks of each pass.
  const std::int64_t n_chunks = cut(1).n_chunks;
  const bool apart = n_groups > 1 && cut(solver.n_going()).n_chunks == n_chunks &&
                     n_groups >= std::min<std::int64_t>(n_threads, n_chunks);
  const double weight = total_weight(samples);
  const KeptRows<S> kept(samples, reference, cut(1), k);
  const auto pass = [&](const double* centroids, const double* alpha, std::int64_t n, int threads,
                        double* sum_wx, double* sum_w, double* sum_p, double* objective) {
    std::vector<double> exponent(static_cast<std::size_t>(n * k));
    if constexpr (std::is_same<S, T>::value)
      statistics_of(samples, weight, centroids, alpha, n, k, reference, weighting, fuzzifier, true,
                    threads, sum_wx, sum_w, sum_p, exponent.data(), objective, &kept);
    else
      rounded_statistics_of(samples, weight, centroids, alpha, n, k, reference, weighting, fuzzifier,
                            threads, sum_wx, sum_w, sum_p, exponent.data(), objective, &kept);
  };
  const std::vector<double> about(reference, reference + samples.d);
  solver.iterate(pass, about.data(), apart ? Passes::apart : Passes::shared, n_threads, left);
}

}  // namespace

template <class T>
void find_reference(const Samples<T>& samples, T* reference) {
  constexpr std::int64_t kRows = 15;
  const std::int64_t m = std::min(kRows, samples.n);
  for (std::int64_t j = 0; j < samples.d; ++j) {
    T values[kRows];
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < m; ++i) {
      const std::int64_t row = i * samples.n / m;
      const T factor = samples.factor ? samples.factor[row] : T(1);
      const T v = samples.x[row * samples.stride + j] * factor;
      if (std::isfinite(v)) values[count++] = v;
    }
    std::nth_element(values, values + count / 2, values + count);
    reference[j] = count ? values[count / 2] : T(0);
  }
}

template <class T>
void statistics(const Samples<T>& samples, const double* centroids, const double* alpha,
                std::int64_t n_problems, std::int64_t k, const T* reference,
                Weighting weighting, double fuzzifier, bool rescue, int n_threads,
                double* sum_wx, double* sum_w, double* sum_p, double* exponent,
                double* objective) {
  statistics_of(samples, total_weight(samples), centroids, alpha, n_problems, k, reference, weighting,
                fuzzifier, rescue, n_threads, sum_wx, sum_w, sum_p, exponent, objective);
}

void rounded_statistics(const Samples<double>& samples, const double* centroids, const double* alpha,
                        std::int64_t n_problems, std::int64_t k, const double* reference,
                        Weighting weighting, double fuzzifier, int n_threads, double* sum_wx,
                        double* sum_w, double* sum_p, double* exponent, double* objective) {
  rounded_statistics_of(samples, total_weight(samples), centroids, alpha, n_problems, k, reference,
                        weighting, fuzzifier, n_threads, sum_wx, sum_w, sum_p, exponent, objective);
}

template <class T>
void iterate(Solver& solver, const Samples<T>& samples, const T* reference, Weighting weighting,
             double fuzzifier, bool rounded, int n_threads, std::int64_t& left) {
  if constexpr (std::is_same<T, double>::value)
    if (rounded)
      return iterate_in<float>(solver, samples, reference, weighting, fuzzifier, n_threads, left);
  iterate_in<T>(solver, samples, reference, weighting, fuzzifier, n_threads, left);
}

template <class T>
double weights(const Samples<T>& samples, const double* centroids, double alpha, std::int64_t k,
               const T* reference, int n_threads, T* out) {
  const std::int64_t d = samples.d;
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, k, d));
  const double q = exponent_scale<T>(centroids, alpha, k, d, reference);
  const Prepared<T> prepared(centroids, q, k, d, reference, kernels.tile_k);
  const Cut cut(samples.n, Cut::rows_in_cache<T>(d + k), 1);
  std::vector<double> witness(static_cast<std::size_t>(cut.n_chunks));
  for_chunks(kernels, samples, reference, cut, k, n_threads,
             [&](std::int64_t chunk, auto slice_of, void* scratch) {
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      Slice<T> slice = slice_of(begin, end);
      slice.rows.sample_weight = nullptr;
      witness[static_cast<std::size_t>(chunk)] += kernels.weights(
          slice.rows, slice.begin, slice.end, prepared.view, out + slice.offset * k, scratch);
    });
  });
  double sum = prepared.finite ? 0 : std::nan("");
  for (double v : witness) sum += v;
  return sum;
}

template <class T>
double assign(const Samples<T>& samples, const double* centroids, std::int64_t k,
              const T* reference, int n_threads, std::int32_t* labels, T* squared_distances) {
  const std::int64_t d = samples.d;
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, k, d) / 2);
  const Prepared<T> prepared(centroids, 1.0, k, d, reference, kernels.tile_k);
  const Cut cut(samples.n, Cut::rows_in_cache<T>(d + k), 1);
  std::vector<double> sums(static_cast<std::size_t>(cut.n_chunks));
  for_chunks(kernels, samples, reference, cut, k, n_threads,
             [&](std::int64_t chunk, auto slice_of, void* scratch) {
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      const Slice<T> slice = slice_of(begin, end);
      std::int32_t* own = labels + slice.offset;
      kernels.nearest(slice.rows, slice.begin, slice.end, prepared.view, own, scratch);
      kernels.distances(slice.rows, slice.begin, slice.end, centroids, own,
                        squared_distances + slice.offset);
      double sum = 0;
      for (std::int64_t i = begin; i < end; ++i) sum += static_cast<double>(squared_distances[i]);
      sums[static_cast<std::size_t>(chunk)] += sum;
    });
  });
  double sum = prepared.finite ? 0 : std::nan("");
  for (double v : sums) sum += v;
  return sum;
}

template <class T>
void label_each(const Samples<T>& samples, const double* centroids, const std::int32_t* names,
                std::int64_t n_results, std::int64_t k, const T* reference, int n_threads,
                std::int32_t* labels) {
  const std::int64_t d = samples.d;
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, n_results * k, d) / 2);
  std::vector<Prepared<T>> prepared;
  for (std::int64_t r = 0; r < n_results; ++r)
    prepared.emplace_back(centroids + r * k * d, 1.0, k, d, reference, kernels.tile_k);
  const Cut cut(samples.n, Cut::rows_in_cache<T>(d + k), 1);
  const std::int64_t packed = n_results > 1 ? kernels.packed_rows(cut.slice_rows, d, k) : 0;
  for_chunks(kernels, samples, reference, cut, k, n_threads,
             [&](std::int64_t chunk, auto slice_of, void* scratch) {
    const Scratch memory = allocate_scratch((d + 1) * packed * static_cast<std::int64_t>(sizeof(T)));
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      Slice<T> slice = slice_of(begin, end);
      if (packed > 0) {  // once for all results
        slice.rows.panels = static_cast<T*>(memory.get());
        slice.rows.half_norm = slice.rows.panels + d * packed;
        kernels.pack(slice.rows, slice.begin, slice.end);
      }
      for (std::int64_t r = 0; r < n_results; ++r) {
        std::int32_t* own = labels + r * samples.n + slice.offset;
        kernels.nearest(slice.rows, slice.begin, slice.end,
                        prepared[static_cast<std::size_t>(r)].view, own, scratch);
        for (std::int64_t i = slice.begin; i < slice.end; ++i) own[i] = names[r * k + own[i]];
      }
    });
  });
}

template <class T>
void closest(const Samples<T>& samples, const double* candidates, std::int64_t n_seedings,
             std::int64_t n_candidates, const T* reference, int n_threads, bool update,
             T* distances, double* potentials) {
  const std::int64_t d = samples.d, k = n_seedings * n_candidates;
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, k, d) / 2);
  // With q = 2 a score is 2 y . c - ||c||^2; multiplication by 2 is exact.
  const Prepared<T> prepared(candidates, 2.0, k, d, reference, kernels.tile_k);
  const Cut cut(samples.n, Cut::rows_in_cache<T>(d + k), k);
  OrderedSum all(cut.n_chunks, k);
  for_chunks(kernels, samples, reference, cut, k, n_threads,
             [&](std::int64_t chunk, auto slice_of, void* scratch) {
    OrderedSum::Part part = all.take();
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      const Slice<T> slice = slice_of(begin, end);
      kernels.closest(slice.rows, slice.begin, slice.end, prepared.view, n_seedings,
                      distances + slice.offset, samples.n, update, part.get(), scratch);
    });
    all.add(chunk, std::move(part));
  });
  std::copy(all.total().begin(), all.total().end(), potentials);
  if (!prepared.finite) std::fill(potentials, potentials + k, std::nan(""));
}

template <class T>
void accumulate(const Samples<T>& samples, const T* weights, std::int64_t k, const T* reference,
                int n_threads, double* sum_wx, double* sum_w) {
  const std::int64_t d = samples.d;
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, k, d) / 2);
  const std::int64_t size = k * d + k;
  const Cut cut(samples.n, Cut::rows_in_cache<T>(d + k), size);
  OrderedSum all(cut.n_chunks, size);
  for_chunks(kernels, samples, reference, cut, k, n_threads,
             [&](std::int64_t chunk, auto slice_of, void* scratch) {
    OrderedSum::Part part = all.take();
    double* at = part.get();
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      const Slice<T> slice = slice_of(begin, end);
      kernels.accumulate(slice.rows, slice.begin, slice.end, weights + slice.offset * k, k,
                         {at, at + k * d, nullptr, nullptr}, scratch);
    });
    all.add(chunk, std::move(part));
  });
  const std::vector<double>& total = all.total();
  std::copy(total.begin(), total.begin() + k * d, sum_wx);
  std::copy(total.begin() + k * d, total.end(), sum_w);
}

template <class T>
void survey(const Samples<T>& samples, const T* reference, int n_threads, double* weight,
            double* squares, double* sum, double* low, double* high) {
  const std::int64_t d = samples.d, size = 2 + d;
  const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
  n_threads = useful_threads(n_threads, multiply_adds(samples.n, 1, d));
  const Cut cut(samples.n, Cut::rows_in_cache<T>(d), size);
  OrderedSum all(cut.n_chunks, size);
  const std::size_t width = static_cast<std::size_t>(d);
  const T infinity = std::numeric_limits<T>::infinity();
  std::vector<T> lows(static_cast<std::size_t>(cut.n_chunks) * width, infinity),
      highs(static_cast<std::size_t>(cut.n_chunks) * width, -infinity);
  for_chunks(kernels, samples, reference, cut, 1, n_threads,
             [&](std::int64_t chunk, auto slice_of, void*) {
    OrderedSum::Part part = all.take();
    double* at = part.get();
    cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
      const Slice<T> slice = slice_of(begin, end);
      kernels.survey(slice.rows, slice.begin, slice.end,
                     {at, at + 1, at + 2, lows.data() + chunk * d, highs.data() + chunk * d});
    });
    all.add(chunk, std::move(part));
  });
  const std::vector<double>& total = all.total();
  *weight = total[0];
  *squares = total[1];
  std::copy(total.begin() + 2, total.end(), sum);
  for (std::size_t j = 0; j < width; ++j) {
    T least = infinity, greatest = -infinity;
    for (std::size_t at = j; at < lows.size(); at += width) {
      least = std::min(least, lows[at]);
      greatest = std::max(greatest, highs[at]);
    }
    low[j] = static_cast<double>(least);
    high[j] = static_cast<double>(greatest);
  }
}

template <class T>
void exp2_kernel(const T* x, std::int64_t n, T* y) {
  kernels_of<T>(kernel_table(isa_in_use())).exp2(x, n, y);
}

#define EKMFAST_INSTANTIATE(T)                                                                   \
  template void find_reference<T>(const Samples<T>&, T*);                                        \
  template void statistics<T>(const Samples<T>&, const double*, const double*, std::int64_t,     \
                              std::int64_t, const T*, Weighting, double, bool, int, double*,     \
                              double*, double*, double*, double*);                               \
  template void iterate<T>(Solver&, const Samples<T>&, const T*, Weighting, double, bool, int,   \
                           std::int64_t&);                                                       \
  template double weights<T>(const Samples<T>&, const double*, double, std::int64_t, const T*,   \
                             int, T*);                                                           \
  template double assign<T>(const Samples<T>&, const double*, std::int64_t, const T*, int,       \
                            std::int32_t*, T*);                                                  \
  template void label_each<T>(const Samples<T>&, const double*, const std::int32_t*,             \
                              std::int64_t, std::int64_t, const T*, int, std::int32_t*);         \
  template void closest<T>(const Samples<T>&, const double*, std::int64_t, std::int64_t,         \
                           const T*, int, bool, T*, double*);                                    \
  template void accumulate<T>(const Samples<T>&, const T*, std::int64_t, const T*, int, double*, \
                              double*);                                                          \
  template void survey<T>(const Samples<T>&, const T*, int, double*, double*, double*, double*,   \
                          double*);                                                              \
  template void exp2_kernel<T>(const T*, std::int64_t, T*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
