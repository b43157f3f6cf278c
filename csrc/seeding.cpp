#include "seeding.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "chunks.h"
#include "kept_rows.h"
#include "parallel.h"
#include "prepared.h"
#include "simd/dispatch.h"

namespace ekmfast {
namespace {

// Rows whose masses are summed at a time.
constexpr std::int64_t kBlock = 64;

// The masses of the rows begin to end. Four sums are independent of each other, so that additions overlap.
template <class Mass>
double sum_of(Mass mass, std::int64_t begin, std::int64_t end) {
  double sum[4] = {0, 0, 0, 0};
  std::int64_t i = begin;
  for (; i + 4 <= end; i += 4)
    for (std::int64_t j = 0; j < 4; ++j) sum[j] += mass(i + j);
  for (; i < end; ++i) sum[0] += mass(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// The rows (n_draws,) of one seeding: see draw_rows. A draw is the first row at which the sum of the masses
// up to it is larger than its share of the total, blocks being summed before rows within the block.
template <class Mass>
void draw_by(Mass mass, std::int64_t n, const double* uniform, std::int64_t n_draws, std::int64_t* rows) {
  constexpr std::int64_t kBlocksBetweenChecks = 1024;  // for a signal
  const std::int64_t n_blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> blocks(static_cast<std::size_t>(n_blocks));
  double total = 0;
  for (std::int64_t b = 0; b < n_blocks; ++b) {
    if (b % kBlocksBetweenChecks == 0) checkpoint();
    total += sum_of(mass, b * kBlock, std::min(n, (b + 1) * kBlock));
    blocks[static_cast<std::size_t>(b)] = total;
  }
  for (std::int64_t draw = 0; draw < n_draws; ++draw) {
    if (!(total > 0)) {
      // The product may be rounded up to n.
      rows[draw] = std::min(n - 1, static_cast<std::int64_t>(uniform[draw] * static_cast<double>(n)));
      continue;
    }
    const double share = uniform[draw] * total;
    const auto at = [&](std::int64_t block) { return blocks[static_cast<std::size_t>(block)]; };
    std::int64_t b = std::upper_bound(blocks.begin(), blocks.end(), share) - blocks.begin();
    // Rounding may leave the sum below the share: then it is the last row that has mass.
    if (b == n_blocks)
      for (--b; b > 0 && at(b) == at(b - 1);) --b;
    double sum = b > 0 ? at(b - 1) : 0;
    rows[draw] = n - 1;
    for (std::int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock); ++i) {
      const double own = mass(i);
      if (own > 0) rows[draw] = i;
      sum += own;
      if (sum > share) break;
    }
  }
}

template <class T>
void draw_some(const T* closest, const double* weight, std::int64_t n, const double* uniform,
               std::int64_t n_draws, std::int64_t* rows) {
  const auto squared = [=](std::int64_t i) { return static_cast<double>(closest[i]); };
  if (!weight) return draw_by(squared, n, uniform, n_draws, rows);
  draw_by([=](std::int64_t i) { return weight[i] * squared(i); }, n, uniform, n_draws, rows);
}

// The first of the rows with weight that are farthest away; row 0 if there is none.
template <class T>
std::int64_t farthest_of(const T* closest, const T* weight, std::int64_t n) {
  const auto distance = [&](std::int64_t i) { return weight && !(weight[i] > 0) ? T(-1) : closest[i]; };
  std::int64_t best = 0;
  for (std::int64_t i = 1; i < n; ++i)
    if (distance(i) > distance(best)) best = i;
  return best;
}

// How a pass for `each` rows of each of so many seedings reads the rows.
template <class T>
Cut cut_of(std::int64_t n, std::int64_t d, std::int64_t n_seedings, std::int64_t each) {
  const std::int64_t all = n_seedings * each;
  return Cut(n, Cut::rows_in_cache<T>(d + all), all);
}

// The passes of some of all seedings. Sums are formed as closest() of ekm.h does for all of them.
template <class T>
class Passes {
 public:
  Passes(const Samples<T>& samples, const T* reference, std::int64_t n_seedings, std::int64_t of_all,
         const KeptRows<T>& kept)
      : samples_(samples), reference_(reference), n_seedings_(n_seedings), of_all_(of_all), kept_(kept),
        closest(static_cast<std::size_t>(n_seedings * samples.n), std::numeric_limits<T>::infinity()) {}

  // Potentials (n_seedings, n_candidates) of rows with these numbers; with `update` the distances to
  // them are kept.
  std::vector<double> operator()(const std::vector<std::int64_t>& numbers, bool update) {
    const std::int64_t d = samples_.d, k = static_cast<std::int64_t>(numbers.size());
    std::vector<T> row(static_cast<std::size_t>(d));
    std::vector<double> centroids;
    for (std::int64_t number : numbers) {
      copy_row(samples_, number, row.data());
      centroids.insert(centroids.end(), row.begin(), row.end());
    }
    const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
    const Prepared<T> prepared(centroids.data(), 2.0, k, d, reference_, kernels.tile_k);
    const Cut cut = cut_of<T>(samples_.n, d, of_all_, k / n_seedings_);
    const Slices<T> slices(samples_, reference_, cut, kernels.scratch_bytes(cut.slice_rows, d, k));
    if (slices.bytes > bytes_) {
      scratch_ = allocate_scratch(slices.bytes);
      bytes_ = slices.bytes;
    }
    const bool kept = kept_.holds(cut);
    std::vector<double> total(static_cast<std::size_t>(k)), part(total.size());
    for (std::int64_t chunk = 0; chunk < cut.n_chunks; ++chunk) {
      std::fill(part.begin(), part.end(), 0.0);
      cut.for_slices(chunk, [&](std::int64_t begin, std::int64_t end) {
        const Slice<T> slice = kept ? kept_(begin, end) : slices(begin, end, scratch_.get());
        kernels.closest(slice.rows, slice.begin, slice.end, prepared.view, n_seedings_,
                        closest.data() + slice.offset, samples_.n, update, part.data(), scratch_.get());
      });
      for (std::size_t i = 0; i < total.size(); ++i) total[i] += part[i];
    }
    return total;
  }

 private:
  const Samples<T>& samples_;
  const T* reference_;
  const std::int64_t n_seedings_, of_all_;
  const KeptRows<T>& kept_;
  Scratch scratch_;
  std::int64_t bytes_ = 0;

 public:
  std::vector<T> closest;  // (n_seedings, n), squared distances to the nearest chosen row
};

}  // namespace

template <class T>
void draw_rows(const T* closest, const double* sample_weight, std::int64_t n,
               std::int64_t n_seedings, const double* uniform, std::int64_t n_draws,
               int n_threads, std::int64_t* rows) {
  const double work = 8 * static_cast<double>(n) * static_cast<double>(n_seedings);
  n_threads = useful_threads(n_threads, work);
  parallel_for(n_seedings, n_threads, [&](std::int64_t seeding, int) {
    draw_some(closest + seeding * n, sample_weight, n, uniform + seeding * n_draws, n_draws,
              rows + seeding * n_draws);
  });
}

template <class T>
void choose_rows(const Samples<T>& samples, const double* mass, std::int64_t n_seedings, std::int64_t k,
                 std::int64_t n_candidates, const double* first, const double* uniform,
                 const T* reference, int n_threads, std::int64_t* rows) {
  const std::int64_t n = samples.n, tries = std::max<std::int64_t>(n_candidates, 1);
  const double each = static_cast<double>(n) * static_cast<double>(k * (tries + 1) * (samples.d + 8));
  n_threads = useful_threads(n_threads, each * static_cast<double>(n_seedings));
  const std::vector<T> ones(static_cast<std::size_t>(n), T(1));
  std::vector<std::int64_t> firsts(static_cast<std::size_t>(n_seedings));
  draw_some(ones.data(), mass, n, first, n_seedings, firsts.data());
  const KeptRows<T> kept(samples, reference, cut_of<T>(n, samples.d, n_seedings, tries), n_seedings * tries);
  const std::int64_t n_groups = std::min<std::int64_t>(n_seedings, n_threads);
  parallel_for(n_groups, n_threads, [&](std::int64_t group, int) {
    const std::int64_t begin = group * n_seedings / n_groups, end = (group + 1) * n_seedings / n_groups;
    const std::int64_t own = end - begin;
    Passes<T> pass(samples, reference, own, n_seedings, kept);
    std::vector<std::int64_t> last(firsts.begin() + begin, firsts.begin() + end);
    std::vector<std::int64_t> candidates(static_cast<std::size_t>(own * n_candidates));
    for (std::int64_t step = 1;; ++step) {
      for (std::int64_t i = 0; i < own; ++i)
        rows[(begin + i) * k + step - 1] = last[static_cast<std::size_t>(i)];
      if (step == k) break;
      pass(last, true);
      const T* closest = pass.closest.data();
      if (n_candidates == 0) {
        for (std::int64_t i = 0; i < own; ++i)
          last[static_cast<std::size_t>(i)] = farthest_of(closest + i * n, samples.sample_weight, n);
        continue;
      }
      const double* u = uniform + ((step - 1) * n_seedings + begin) * n_candidates;
      for (std::int64_t i = 0; i < own; ++i)
        draw_some(closest + i * n, mass, n, u + i * n_candidates, n_candidates,
                  candidates.data() + i * n_candidates);
      const std::vector<double> potentials = pass(candidates, false);
      for (std::int64_t i = 0; i < own; ++i) {
        const auto at = potentials.begin() + i * n_candidates;
        const std::int64_t best = std::min_element(at, at + n_candidates) - at;
        last[static_cast<std::size_t>(i)] = candidates[static_cast<std::size_t>(i * n_candidates + best)];
      }
    }
  });
}

#define EKMFAST_INSTANTIATE(T)                                                                   \
  template void draw_rows<T>(const T*, const double*, std::int64_t, std::int64_t, const double*, \
                             std::int64_t, int, std::int64_t*);                                  \
  template void choose_rows<T>(const Samples<T>&, const double*, std::int64_t, std::int64_t,     \
                               std::int64_t, const double*, const double*, const T*, int,        \
                               std::int64_t*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
