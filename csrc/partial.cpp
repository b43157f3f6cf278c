#include "partial.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base2.h"
#include "chunks.h"
#include "kernels/kernels.h"
#include "ordered_sum.h"
#include "simd/dispatch.h"

namespace ekmfast {
namespace {

typedef std::int64_t i64;
typedef SparseRows<double, std::int32_t> Stored;

constexpr i64 kBlockRows = 5 * kRowUnit;

const KernelTable& table() { return kernel_table(isa_in_use()); }

// Numbers that the vectors of the kernels may read and write.
struct Numbers {
  explicit Numbers(i64 count) : size(static_cast<std::size_t>(count)),
                                memory(allocate_scratch(count * static_cast<i64>(sizeof(double)))) {
    std::fill(get(), get() + size, 0.0);
  }
  double* get() const { return static_cast<double*>(memory.get()); }

  std::size_t size;
  Scratch memory;
};

// Centroids relative to the reference, as the kernels for sparse rows read them: a line for each
// feature. The norms are 0, so that a squared distance is the sum over the numbers of a row.
struct Lines {
  Numbers lines, norms;
  SparseCentroids view;

  Lines(const double* centroids, i64 k, i64 d, const double* reference)
      : lines(d * padded(k)), norms(padded(k)) {
    const i64 kp = padded(k);
    for (i64 i = 0; i < k; ++i)
      for (i64 j = 0; j < d; ++j)
        lines.get()[j * kp + i] = centroids[i * d + j] - (reference ? reference[j] : 0);
    view = {k, kp, lines.get(), norms.get(), 0.5, 1};
  }

  static i64 padded(i64 k) { return (k + kLaneUnit - 1) / kLaneUnit * kLaneUnit; }
};

// The numbers that the rows of a block have, side by side as in a sparse matrix.
struct Present {
  std::vector<double> values, ones, scale;  // scale: a_n
  std::vector<std::int32_t> columns;
  std::vector<i64> start;

  template <class T>
  Present(const Samples<T>& s, i64 begin, i64 end, const double* reference)
      : values(static_cast<std::size_t>((end - begin) * s.d + 1)), columns(values.size()) {
    i64 count = 0;
    start.push_back(0);
    for (i64 i = begin; i < end; ++i) {
      const T* x = s.x + i * s.stride;
      const i64 before = count;
      for (i64 j = 0; j < s.d; ++j) {  // without a branch, since which numbers are missing is random
        const double v = static_cast<double>(x[j]);
        values[static_cast<std::size_t>(count)] = v - (reference ? reference[j] : 0);
        columns[static_cast<std::size_t>(count)] = static_cast<std::int32_t>(j);
        count += v == v;
      }
      start.push_back(count);
      const double own = static_cast<double>(count - before);
      scale.push_back(count > before ? static_cast<double>(s.d) / own : 0);
    }
    ones.assign(static_cast<std::size_t>(count), 1.0);
  }

  Stored rows(const std::vector<double>& numbers) const {
    return {numbers.data(), columns.data(), start.data(), start.back() - 1, nullptr};
  }
};

// Squared distances (rows, kp), scaled to all features.
void distances_of(const Present& present, const SparseCentroids& c, double* d2) {
  const i64 n = static_cast<i64>(present.scale.size());
  table().sparse64.distances(present.rows(present.values), 0, n, c, d2);
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < c.kp; ++j) d2[i * c.kp + j] *= present.scale[static_cast<std::size_t>(i)];
}

// Weights and memberships of a block, (rows, kp), from its squared distances d2 (rows, kp), which are
// overwritten. `factor` are s_n a_n, by which both are multiplied, `mass` s_n. Returns the block's J.
double weigh(Weighting weighting, double alpha, double fuzzifier, i64 n, i64 k, i64 kp,
             const double* factor, const double* mass, double* d2, double* w, double* p) {
  const bool softmax = weighting == Weighting::equilibrium || weighting == Weighting::maximum_entropy;
  std::vector<double> least(static_cast<std::size_t>(n));
  for (i64 i = 0; i < n; ++i)
    least[static_cast<std::size_t>(i)] = *std::min_element(d2 + i * kp, d2 + i * kp + k);
  if (softmax) {
    const double q = -0.5 * alpha * kLog2E;
    for (i64 i = 0; i < n; ++i)
      for (i64 j = 0; j < kp; ++j) {
        const double over = q * (d2[i * kp + j] - least[static_cast<std::size_t>(i)]);
        p[i * kp + j] = std::min(std::max(over, kMinExponent<double>), 0.0);
      }
    table().f64.exp2(p, n * kp, w);
  }
  double objective = 0;
  for (i64 i = 0; i < n; ++i) {
    double *own = d2 + i * kp, *weight = w + i * kp, *member = p + i * kp;
    const double nearest = least[static_cast<std::size_t>(i)];
    double sum = 0, cost = 0;
    if (softmax) {
      // weight holds 2^r, member r <= 0; with m the mean of r, alpha (d - E) = -ln2 (r - m).
      double moment = 0;
      for (i64 j = 0; j < k; ++j) {
        sum += weight[j];
        moment += weight[j] * member[j];
        cost += weight[j] * (own[j] - nearest);
      }
      const double mean = moment / sum;
      const bool tilted = weighting == Weighting::equilibrium;
      for (i64 j = 0; j < k; ++j) {
        const bool lost = member[j] <= kMinExponent<double>;
        const double share = lost ? 0 : weight[j] / sum;
        weight[j] = factor[i] * (tilted ? share * (1 + kLn2 * (member[j] - mean)) : share);
        member[j] = factor[i] * share;
      }
      cost = tilted ? 0.5 * (nearest + cost / sum) : 0.5 * nearest - std::log(sum) / alpha;
    } else if (weighting == Weighting::hard) {
      const i64 at = std::min_element(own, own + k) - own;
      for (i64 j = 0; j < k; ++j) weight[j] = member[j] = j == at ? factor[i] : 0;
      cost = 0.5 * nearest;
    } else {
      for (i64 j = 0; j < k; ++j) {
        member[j] = std::pow(own[j] > 0 ? nearest / own[j] : 1.0, 1 / (fuzzifier - 1));
        sum += member[j];
      }
      for (i64 j = 0; j < k; ++j) {
        const double share = member[j] / sum, power = std::pow(share, fuzzifier);
        cost += power * 0.5 * own[j];
        weight[j] = factor[i] * power;
        member[j] = factor[i] * share;
      }
    }
    std::fill(weight + k, weight + kp, 0.0);
    std::fill(member + k, member + kp, 0.0);
    objective += mass[i] * cost;
  }
  return objective;
}

template <class T>
double work(const Samples<T>& s, i64 k) {
  return 6.0 * static_cast<double>(s.n) * static_cast<double>(k) * static_cast<double>(s.d + 10);
}

}  // namespace

template <class T>
void partial_statistics(const Samples<T>& samples, const double* centroids, const double* alpha,
                        i64 n_problems, i64 k, const double* reference, Weighting weighting,
                        double fuzzifier, int n_threads, double* sum_wx, double* sum_w,
                        double* sum_p, double* objective) {
  const i64 d = samples.d, kp = Lines::padded(k), part_size = d * kp, size = 3 * part_size + 1;
  n_threads = useful_threads(n_threads, work(samples, k) * static_cast<double>(n_problems));
  std::vector<Lines> lines;
  for (i64 i = 0; i < n_problems; ++i) lines.emplace_back(centroids + i * k * d, k, d, reference);
  const auto& kernels = table().sparse64;
  const Cut cut(samples.n, kBlockRows, n_problems * size);
  OrderedSum all(cut.n_chunks, n_problems * size);
  for_chunks(cut, 0, n_threads, [&](i64 chunk, void*) {
    OrderedSum::Part part = all.take();
    const Numbers d2(kBlockRows * kp), w(kBlockRows * kp), p(kBlockRows * kp);
    cut.for_slices(chunk, [&](i64 begin, i64 end) {
      const i64 n = end - begin;
      const Present present(samples, begin, end, reference);
      std::vector<double> mass(static_cast<std::size_t>(n), 1.0), factor(present.scale);
      for (i64 i = 0; i < n && samples.sample_weight; ++i) {
        const std::size_t row = static_cast<std::size_t>(i);
        mass[row] = static_cast<double>(samples.sample_weight[begin + i]);
        factor[row] *= mass[row];
      }
      const Stored values = present.rows(present.values), ones = present.rows(present.ones);
      for (i64 i = 0; i < n_problems; ++i) {
        double* at = part.get() + i * size;
        distances_of(present, lines[static_cast<std::size_t>(i)].view, d2.get());
        at[size - 1] += weigh(weighting, alpha[i], fuzzifier, n, k, kp, factor.data(), mass.data(),
                              d2.get(), w.get(), p.get());
        kernels.scatter(values, 0, n, 0, d, w.get(), kp, at);
        kernels.scatter(ones, 0, n, 0, d, w.get(), kp, at + part_size);
        kernels.scatter(ones, 0, n, 0, d, p.get(), kp, at + 2 * part_size);
      }
    });
    all.add(chunk, std::move(part));
  });
  const std::vector<double>& total = all.total();
  for (i64 i = 0; i < n_problems; ++i) {
    const double* at = total.data() + i * size;
    double* out[3] = {sum_wx, sum_w, sum_p};
    for (i64 sums = 0; sums < 3; ++sums)
      for (i64 c = 0; c < k; ++c)
        for (i64 j = 0; j < d; ++j)
          out[sums][(i * k + c) * d + j] = at[sums * part_size + j * kp + c];
    objective[i] = at[size - 1];
  }
}

template <class T>
void partial_distances(const Samples<T>& samples, const double* centroids, i64 k, int n_threads,
                       double* squared_distances) {
  const i64 kp = Lines::padded(k);
  n_threads = useful_threads(n_threads, work(samples, k) / 3);
  const Lines lines(centroids, k, samples.d, nullptr);
  const Cut cut(samples.n, kBlockRows, 1);
  for_chunks(cut, 0, n_threads, [&](i64 chunk, void*) {
    const Numbers d2(kBlockRows * kp);
    cut.for_slices(chunk, [&](i64 begin, i64 end) {
      distances_of(Present(samples, begin, end, nullptr), lines.view, d2.get());
      for (i64 i = begin; i < end; ++i)
        std::copy_n(d2.get() + (i - begin) * kp, k, squared_distances + i * k);
    });
  });
}

#define EKMFAST_INSTANTIATE(T)                                                                   \
  template void partial_statistics<T>(const Samples<T>&, const double*, const double*, i64, i64, \
                                      const double*, Weighting, double, int, double*, double*,   \
                                      double*, double*);                                         \
  template void partial_distances<T>(const Samples<T>&, const double*, i64, int, double*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
