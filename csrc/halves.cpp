#include "halves.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "chunks.h"
#include "kernels/kernels.h"
#include "labels.h"
#include "parallel.h"
#include "simd/dispatch.h"

namespace ekmfast {
namespace {

// The power of the matrix of products that is multiplied with a vector, until the longest axis is left.
constexpr int kPower = 32;
constexpr std::int64_t kRows = 4096;  // between two looks whether the call is stopped

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// Values that are no numbers could not be sorted.
double ordered(double value) { return std::isnan(value) ? 0 : value; }

double times_log(double mass, double of) { return mass > 0 ? mass * std::log(of) : 0; }

// The rows with one label.
class Members {
 public:
  Members(const Halving& in, const std::int64_t* numbers, std::int64_t n)
      : in_(in), numbers_(numbers), n_(n), width_((in.d + kLaneUnit - 1) / kLaneUnit * kLaneUnit),
        kernels_(kernel_table(isa_in_use())), x_(at(n * width_)), weight_(at(n)), mean_(at(width_)) {
    for (std::int64_t i = 0; i < n_; ++i) {
      if (i % kRows == 0) checkpoint();
      const double* row = in_.x + numbers_[i] * in_.d;
      for (std::int64_t j = 0; j < in_.d; ++j) at_row(i)[j] = row[j] * in_.factors[j];
      weight_[at(i)] = in_.weight[numbers_[i]];
      total_ += weight_[at(i)];
    }
  }

  void write_to(double* rows) const {
    for (std::int64_t i = 0; i < n_; ++i) {
      const double* row = x_.data() + i * width_;
      for (std::int64_t j = 0; j < in_.d; ++j) rows[numbers_[i] * in_.d + j] = row[j] + mean_[at(j)];
    }
  }

  bool have_weight() const { return total_ > 0; }

  // Subtracts the mean.
  void centre() {
    std::vector<double> sums(at(width_));
    add_up(weight_, sums);
    for (std::int64_t j = 0; j < width_; ++j) sums[at(j)] /= total_;
    for (std::int64_t i = 0; i < n_; ++i)
      for (std::int64_t j = 0; j < width_; ++j) at_row(i)[j] -= sums[at(j)];
    for (std::int64_t j = 0; j < width_; ++j) mean_[at(j)] += sums[at(j)];
  }

  void draw_towards_mean() {
    std::vector<double> lengths(at(n_));
    for (std::int64_t i = 0; i < n_; ++i) lengths[at(i)] = ordered(std::sqrt(along(i, at_row(i))));
    const double most = in_.farthest * median(lengths);
    for (std::int64_t i = 0; i < n_; ++i)
      if (lengths[at(i)] > most)
        for (std::int64_t j = 0; j < width_; ++j) at_row(i)[j] *= most / lengths[at(i)];
  }

  // OUT half (n,), of all rows; only those of this label are written.
  void halve(bool* half) {
    if (n_ < 2 * in_.least) return;
    std::vector<std::uint8_t> above = above_threshold(positions(longest_axis()));
    std::vector<double> own(at(n_)), mean(at(width_));
    for (int i = 0; i < in_.refined; ++i) {
      // The mean of all rows is 0. So the means of both halves, a and b, lie on one line through it, and
      // (a + b)/2 = c a, where c depends on the weights of the halves.
      double mass = 0;
      for (std::int64_t r = 0; r < n_; ++r) {
        own[at(r)] = above[at(r)] ? weight_[at(r)] : 0;
        mass += own[at(r)];
      }
      if (!(mass > 0 && mass < total_)) return;
      std::fill(mean.begin(), mean.end(), 0.0);
      add_up(own, mean);
      double square = 0;
      for (double& sum : mean) {
        sum /= mass;
        square += sum * sum;
      }
      const double limit = (1 - mass / (total_ - mass)) / 2 * square;
      bool changed = false;
      for (std::int64_t r = 0; r < n_; ++r) {
        const std::uint8_t nearer = along(r, mean.data()) > limit;
        changed |= nearer != above[at(r)];
        above[at(r)] = nearer;
      }
      if (!changed) break;
    }
    const std::int64_t count = std::count(above.begin(), above.end(), std::uint8_t{1});
    if (std::min(count, n_ - count) < in_.least) return;
    for (std::int64_t i = 0; i < n_; ++i) half[numbers_[i]] = above[at(i)] != 0;
  }

 private:
  double* at_row(std::int64_t i) { return x_.data() + i * width_; }

  // The product of a row with a vector (width,).
  double along(std::int64_t i, const double* axis) {
    const double* row = at_row(i);
    double sums[kLaneUnit] = {};
    for (std::int64_t j = 0; j < width_; j += kLaneUnit)
      for (std::int64_t lane = 0; lane < kLaneUnit; ++lane) sums[lane] += row[j + lane] * axis[j + lane];
    double sum = 0;
    for (const double each : sums) sum += each;
    return sum;
  }

  void add_up(const std::vector<double>& weight, std::vector<double>& sums) {
    for (std::int64_t i = 0; i < n_; i += kRows) {
      checkpoint();
      const std::int64_t rows = std::min(kRows, n_ - i);
      kernels_.likelihood64.sums(at_row(i), rows, width_, weight.data() + i, nullptr, sums.data());
    }
  }

  // As NumPy's median: the mean of the two in the middle.
  static double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    if (values.size() % 2) return *middle;
    return (*std::max_element(values.begin(), middle) + *middle) / 2;
  }

  // The eigenvector (width,) of the largest variance, nearly.
  std::vector<double> longest_axis() {
    std::vector<double> products(at(width_ * width_)), zero(at(width_)), axis(at(width_)), next(at(width_));
    const std::int64_t most = std::clamp((std::int64_t{1} << 12) / width_, std::int64_t{16}, kRows);
    std::vector<double> block(at(most * width_));  // the kernel writes to it, and it stays in the cache
    for (std::int64_t i = 0; i < n_; i += most) {
      checkpoint();
      const std::int64_t rows = std::min(most, n_ - i);
      std::copy_n(at_row(i), rows * width_, block.data());
      kernels_.scatter(block.data(), rows, width_, weight_.data() + i, zero.data(), products.data());
    }
    std::int64_t widest = 0;
    for (std::int64_t i = 0; i < width_; ++i) {
      for (std::int64_t j = 0; j < i; ++j) products[at(i * width_ + j)] = products[at(j * width_ + i)];
      if (products[at(i * width_ + i)] > products[at(widest * width_ + widest)]) widest = i;
    }
    axis[at(widest)] = 1;
    for (int i = 0; i < kPower; ++i) {
      double longest = 0;
      std::fill(next.begin(), next.end(), 0.0);
      for (std::int64_t r = 0; r < width_; ++r)  // the matrix is symmetric
        for (std::int64_t j = 0; j < width_; ++j)
          next[at(j)] += axis[at(r)] * products[at(r * width_ + j)];
      for (const double each : next) longest = std::max(longest, std::abs(each));
      if (!(longest > 0)) break;
      for (std::int64_t j = 0; j < width_; ++j) axis[at(j)] = next[at(j)] / longest;
    }
    return axis;
  }

  // The position of each row along an axis, and its number, in their order.
  std::vector<std::pair<double, std::int64_t>> positions(const std::vector<double>& axis) {
    std::vector<std::pair<double, std::int64_t>> found(at(n_));
    for (std::int64_t i = 0; i < n_; ++i) found[at(i)] = {ordered(along(i, axis.data())), i};
    std::sort(found.begin(), found.end());
    return found;
  }

  // Which rows are above the threshold where two Gaussians describe the positions best.
  std::vector<std::uint8_t> above_threshold(const std::vector<std::pair<double, std::int64_t>>& positions) {
    double first = 0, second = 0;  // of all rows
    for (const auto& [z, i] : positions) {
      first += weight_[at(i)] * z;
      second += weight_[at(i)] * z * z;
    }
    struct Side {
      double mass, first, second;
      double within() const { return mass > 0 ? std::max(second - first * first / mass, 0.0) : 0; }
    };
    Side below{0, 0, 0};
    double best = -HUGE_VAL;
    std::int64_t least = in_.least;
    for (std::int64_t i = 0; i + in_.least < n_; ++i) {
      if (i % kRows == 0) checkpoint();
      const auto& [z, row] = positions[at(i)];
      const double w = weight_[at(row)];
      below = {below.mass + w, below.first + w * z, below.second + w * z * z};
      if (i + 1 < in_.least) continue;
      const Side above{total_ - below.mass, first - below.first, second - below.second};
      const double prior = in_.prior * (below.within() + above.within()) / total_;
      double fit = 0;
      for (const Side& side : {below, above})
        fit += times_log(side.mass, side.mass) -
               times_log(side.mass, (side.within() + prior) / (side.mass + in_.prior)) / 2;
      if (fit > best) {
        best = fit;
        least = i + 1;
      }
    }
    std::vector<std::uint8_t> found(at(n_));
    for (std::int64_t i = least; i < n_; ++i) found[at(positions[at(i)].second)] = 1;
    return found;
  }

  const Halving& in_;
  const std::int64_t* numbers_;
  const std::int64_t n_, width_;
  const KernelTable& kernels_;
  std::vector<double> x_, weight_, mean_;
  double total_ = 0;
};

}  // namespace

void halves_of_labels(const Halving& in, int n_threads, double* rows, bool* half) {
  const GroupedRows grouped(in.labels, in.n, in.k);
  std::fill_n(half, in.n, false);
  const double each = static_cast<double>(in.d * (in.d + 16)) + 200;
  n_threads = useful_threads(n_threads, static_cast<double>(in.n) * each);
  parallel_for(in.k, n_threads, [&](std::int64_t c, int) {
    const std::int64_t begin = grouped.first[at(c)], n = grouped.first[at(c + 1)] - begin;
    Members own(in, grouped.order.data() + begin, n);
    if (own.have_weight()) {
      own.centre();
      own.draw_towards_mean();
    }
    own.write_to(rows);
    if (!own.have_weight()) return;
    own.centre();
    own.halve(half);
  });
}

}  // namespace ekmfast
