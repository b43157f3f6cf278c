#include "likelihood.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "chunks.h"
#include "ekm.h"
#include "kernels/kernels.h"
#include "labels.h"
#include "parallel.h"
#include "simd/dispatch.h"

namespace ekmfast {
namespace {

typedef std::vector<double> Vector;

constexpr double kLn2 = 0.69314718055994530942;
// How many rows of a cluster are read at a time, at most.
constexpr std::int64_t kBlockRows = 256;
// The largest copy of all rows in the order of their clusters, in numbers. Of more rows a copy of
// each block is made whenever it is read.
constexpr std::int64_t kKeptNumbers = 1 << 20;
// The vectors of every instruction set divide rows of a multiple of so many numbers.
template <class T>
constexpr std::int64_t kLanes = kLaneUnit * static_cast<std::int64_t>(sizeof(double) / sizeof(T));

// In float, rows are taken relative to one of them and in units of the largest number then: no digits are
// lost to an offset of all rows, and squares and their inverses stay in the range of float.
template <class T>
class Unit {
 public:
  T inverse = 1;
  const std::int64_t width;  // of a row that is copied, with zeros behind its features
  const bool keeps_all;      // whether there is a copy of all rows

  explicit Unit(const Samples<T>& samples)
      : width((samples.d + kLanes<T> - 1) / kLanes<T> * kLanes<T>),
        keeps_all(samples.n * width <= kKeptNumbers),
        samples_(samples),
        origin_(static_cast<std::size_t>(samples.d), T(0)) {
    if (sizeof(T) == sizeof(float)) find_unit();
    if (!keeps_all) return;
    rows_.resize(static_cast<std::size_t>(samples.n * width));
    for (std::int64_t i = 0; i < samples.n; ++i) convert(i, rows_.data() + i * width);
  }

  // OUT row (width,): row i of the samples. Behind its features there must be zeros already.
  void copy(std::int64_t i, T* row) const {
    if (!keeps_all) return convert(i, row);
    // Pieces whose length the compiler knows: a call for each row took longer than copying it.
    const T* from = rows_.data() + i * width;
    for (std::int64_t j = 0; j < width; j += kLanes<T>)
      std::memcpy(row + j, from + j, kLanes<T> * sizeof(T));
  }

 private:
  void find_unit() {
    find_reference(samples_, origin_.data());
    T largest = 0;
    for (std::int64_t i = 0; i < samples_.n; ++i)
      for (std::int64_t j = 0; j < samples_.d; ++j)
        largest = std::max(largest, std::fabs(samples_.x[i * samples_.stride + j] -
                                              origin_[static_cast<std::size_t>(j)]));
    if (largest >= std::numeric_limits<T>::min() && std::isfinite(largest)) inverse = 1 / largest;
  }

  void convert(std::int64_t i, T* row) const {
    const T* x = samples_.x + i * samples_.stride;
    for (std::int64_t j = 0; j < samples_.d; ++j)
      row[j] = (x[j] - origin_[static_cast<std::size_t>(j)]) * inverse;
  }

  const Samples<T>& samples_;
  std::vector<T> origin_, rows_;  // (d,), (n, width)
};

// One labelling. A step of the iteration is two readings of the rows: one sums the rows of each
// cluster, with the weights by their distances from the centres before; the other sums the squared
// distances from the new centres. Differences of squares, which one reading would need, lose digits
// where an outlier has moved a centre far.
//
// Rows are read in the order of their clusters, so that the sums of one stay in registers.
template <class T>
class Labelling {
 public:
  Labelling(const Samples<T>& samples, const std::int32_t* labels, std::int64_t k,
            const LikelihoodModel& model, const Unit<T>& unit)
      : x_(samples),
        unit_(unit),
        kernels_(likelihood_kernels_of<T>(kernel_table(isa_in_use()))),
        k_(k),
        d_(samples.d),
        width_(unit.width),
        model_(model),
        grouped_(labels, x_.n, k),
        own_weight_(at(x_.n), T(1)),
        size_(zeros(k)),
        scale_(at(k), 1.0),
        centres_(zeros(k * width_)),
        scatter_(zeros(k * width_)),
        variances_(zeros(k * width_)),
        near_(at(k * width_)),
        precisions_(at(k * width_)),
        keeps_all_(unit.keeps_all),
        rows_(at(width_ * (keeps_all_ ? x_.n : kBlockRows))) {
    for (std::int64_t i = 0; x_.sample_weight && i < x_.n; ++i)
      own_weight_[at(i)] = x_.sample_weight[grouped_.order[at(i)]];
    weight_ = own_weight_;
    distances_.resize(at(x_.n));
    for (std::int64_t c = 0; c < k; ++c) {
      const std::int64_t begin = grouped_.first[at(c)], end = grouped_.first[at(c + 1)];
      if (!x_.sample_weight) size_[at(c)] = static_cast<double>(end - begin);
      for (std::int64_t i = begin; x_.sample_weight && i < end; ++i)
        size_[at(c)] += static_cast<double>(own_weight_[at(i)]);
      total_ += size_[at(c)];
    }
    if (keeps_all_) copy(0, x_.n);
  }

  double mean() {
    const std::int64_t used =
        std::count_if(size_.begin(), size_.end(), [](double size) { return size > 0; });
    if (used < 2) return -std::numeric_limits<double>::infinity();
    Vector mass = size_;
    for_blocks([&](std::int64_t c, std::int64_t begin, std::int64_t n, const T* x) {
      kernels_.sums(x, n, width_, weight_.data() + begin, nullptr, centres_.data() + c * width_);
    });
    for (int i = 0; i < model_.reweightings; ++i) {
      divide(centres_, mass);
      std::fill(scatter_.begin(), scatter_.end(), 0.0);
      for_blocks([&](std::int64_t c, std::int64_t begin, std::int64_t n, const T* x) {
        kernels_.squares(x, n, width_, weight_.data() + begin, near_.data() + c * width_,
                         scatter_.data() + c * width_);
      });
      find_variances();
      find_distances(mass, i + 1 < model_.reweightings);
    }
    const double power = 0.5 * (model_.tail + static_cast<double>(d_));
    double sum = 0;
    for (std::int64_t c = 0; c < k_; ++c) {
      if (!(size_[at(c)] > 0)) continue;
      double volume = 0;
      for (std::int64_t j = 0; j < d_; ++j) volume += std::log(variances_[at(c * width_ + j)]);
      sum += size_[at(c)] * (std::log(size_[at(c)] / total_) - 0.5 * volume);
    }
    sum -= power * kLn2 * kernels_.logs(distances_.data(), own_weight_.data(), x_.n, model_.tail);
    return sum / total_ + static_cast<double>(d_) * std::log(static_cast<double>(unit_.inverse));
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  static Vector zeros(std::int64_t n) { return Vector(at(n), 0.0); }

  // Copies some rows, of numbers in the order of their clusters, to the beginning of rows_.
  void copy(std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i)
      unit_.copy(grouped_.order[at(i)], rows_.data() + (i - begin) * width_);
  }

  template <class Body>  // body(cluster, number of the first row, how many, the rows in T)
  void for_blocks(Body body) {
    checkpoint();
    for (std::int64_t c = 0; c < k_; ++c) {
      const std::int64_t end = grouped_.first[at(c + 1)];
      for (std::int64_t begin = grouped_.first[at(c)]; begin < end; begin += kBlockRows) {
        const std::int64_t n = std::min(kBlockRows, end - begin);
        if (!keeps_all_) copy(begin, begin + n);
        body(c, begin, n, rows_.data() + (keeps_all_ ? begin * width_ : 0));
      }
    }
  }

  void divide(Vector& sums, const Vector& mass) {
    for (std::int64_t c = 0; c < k_; ++c)
      for (std::int64_t j = 0; j < d_; ++j) {
        double& sum = sums[at(c * width_ + j)];
        sum /= std::max(mass[at(c)], std::numeric_limits<double>::min());
        near_[at(c * width_ + j)] = static_cast<T>(sum);
      }
  }

  // The distances from the centres, and the weights, which are small for rows that lie far from the
  // centre of their cluster. If asked, their sums replace mass, and the sums of the rows centres_.
  void find_distances(Vector& mass, bool sums) {
    const double numerator = model_.tail + static_cast<double>(d_);
    Vector next = zeros(sums ? k_ * width_ : 0);
    if (sums) std::fill(mass.begin(), mass.end(), 0.0);
    for_blocks([&](std::int64_t c, std::int64_t begin, std::int64_t n, const T* x) {
      T* squared = distances_.data() + begin;
      kernels_.distances(x, n, width_, near_.data() + c * width_, precisions_.data() + c * width_,
                         squared);
      if (!sums) return;
      T* weight = weight_.data() + begin;
      mass[at(c)] +=
          kernels_.weights(squared, own_weight_.data() + begin, n, model_.tail, numerator, weight);
      kernels_.sums(x, n, width_, weight, nullptr, next.data() + c * width_);
    });
    if (sums) centres_.swap(next);
  }

  // Variances shrunk towards the common ones, times the scale of the cluster.
  void find_variances() {
    const double d = static_cast<double>(d_);
    Vector common = zeros(d_);
    double mean = 0;
    for (std::int64_t j = 0; j < d_; ++j) {
      for (std::int64_t c = 0; c < k_; ++c)
        common[at(j)] += scatter_[at(c * width_ + j)] / scale_[at(c)];
      common[at(j)] /= total_;
      mean += common[at(j)] / d;
    }
    const double least = std::max(model_.least_variance * mean, std::numeric_limits<double>::min());
    for (double& value : common) value = std::max(value, least);
    for (std::int64_t c = 0; c < k_; ++c) {
      const double size = size_[at(c)], prior = model_.scale_prior;
      double relative = prior * d;
      for (std::int64_t j = 0; j < d_; ++j) relative += scatter_[at(c * width_ + j)] / common[at(j)];
      scale_[at(c)] = relative / (d * (size + prior));
      for (std::int64_t j = 0; j < d_; ++j) {
        const std::size_t entry = at(c * width_ + j);
        const double shrunk = scatter_[entry] + model_.variance_prior * scale_[at(c)] * common[at(j)];
        variances_[entry] = std::max(shrunk / (size + model_.variance_prior), least);
        precisions_[entry] = static_cast<T>(1 / variances_[entry]);
      }
    }
  }

  const Samples<T>& x_;
  const Unit<T>& unit_;
  const LikelihoodKernels<T>& kernels_;
  const std::int64_t k_, d_, width_;
  const LikelihoodModel& model_;
  double total_ = 0;                 // of the sample weights
  const GroupedRows grouped_;
  // Of rows, in the order of their clusters: sample weights, weights by distance, and squared
  // distances in units of the variances.
  std::vector<T> own_weight_, weight_, distances_;
  Vector size_;                                   // (k,) of the sample weights
  Vector scale_, centres_, scatter_, variances_;  // (k,), (k, width)
  std::vector<T> near_, precisions_;              // (k, width), the centres in T
  const bool keeps_all_;
  std::vector<T> rows_;  // (n or kBlockRows, width)
};

}  // namespace

template <class T>
void classification_likelihoods(const Samples<T>& samples, const std::int32_t* labels,
                                std::int64_t n_labellings, std::int64_t k,
                                const LikelihoodModel& model, int n_threads, double* likelihood) {
  const double work = static_cast<double>(samples.n * samples.d) * (3 * model.reweightings);
  n_threads = useful_threads(n_threads, work * static_cast<double>(n_labellings));
  const Unit<T> unit(samples);
  parallel_for(n_labellings, n_threads, [&](std::int64_t i, int) {
    likelihood[i] = Labelling<T>(samples, labels + i * samples.n, k, model, unit).mean();
  });
}

template void classification_likelihoods<float>(const Samples<float>&, const std::int32_t*,
                                                std::int64_t, std::int64_t, const LikelihoodModel&,
                                                int, double*);
template void classification_likelihoods<double>(const Samples<double>&, const std::int32_t*,
                                                 std::int64_t, std::int64_t, const LikelihoodModel&,
                                                 int, double*);

}  // namespace ekmfast
