#include "likelihood.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "chunks.h"
#include "parallel.h"

namespace ekmfast {
namespace {

typedef std::vector<double> Vector;

// How many rows are read between two checks of whether to stop.
constexpr std::int64_t kRowsBetweenChecks = 4096;

// Four partial sums, which a compiler may compute at a time.
struct Sum {
  double part[4] = {0, 0, 0, 0};
  double total() const { return (part[0] + part[1]) + (part[2] + part[3]); }
};

// One labelling. A step of the iteration is two readings of the rows: one sums the rows of each
// cluster, with the weights by their distances from the centres before; the other sums the squared
// distances from the new centres. Differences of squares, which one reading would need, lose digits
// where an outlier has moved a centre far.
template <class T>
class Labelling {
 public:
  Labelling(const Samples<T>& samples, const std::int32_t* labels, std::int64_t k,
            const LikelihoodModel& model)
      : x_(samples),
        labels_(labels),
        k_(k),
        d_(samples.d),
        model_(model),
        size_(zeros(k)),
        mass_(zeros(k)),
        scale_(static_cast<std::size_t>(k), 1.0),
        centres_(zeros(k * d_)),
        scatter_(zeros(k * d_)),
        variances_(zeros(k * d_)),
        precisions_(zeros(k * d_)),
        distances_(at(x_.n), static_cast<double>(d_)) {  // at which all weights are the own ones
    for (std::int64_t i = 0; i < x_.n; ++i) {
      size_[at(labels_[i])] += own_weight(i);
      total_ += own_weight(i);
    }
  }

  double mean() {
    const std::int64_t used =
        std::count_if(size_.begin(), size_.end(), [](double size) { return size > 0; });
    if (used < 2) return -std::numeric_limits<double>::infinity();
    for (int i = 0; i < model_.reweightings; ++i) {
      find_centres();
      find_scatter();
      find_variances();
      find_distances();
    }
    Vector of_cluster = zeros(k_);
    for (std::int64_t c = 0; c < k_; ++c) {
      if (!(size_[at(c)] > 0)) continue;
      double logs = 0;
      for (std::int64_t j = 0; j < d_; ++j) logs += std::log(variances_[at(c * d_ + j)]);
      of_cluster[at(c)] = std::log(size_[at(c)] / total_) - 0.5 * logs;
    }
    const double power = 0.5 * (model_.tail + static_cast<double>(d_));
    double sum = 0;
    each_row([&](std::int64_t i, std::int64_t c) {
      const double log1p = std::log1p(distances_[at(i)] / model_.tail);
      sum += own_weight(i) * (of_cluster[at(c)] - power * log1p);
    });
    return sum / total_;
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
  static Vector zeros(std::int64_t n) { return Vector(at(n), 0.0); }

  double own_weight(std::int64_t i) const {
    return x_.sample_weight ? static_cast<double>(x_.sample_weight[i]) : 1.0;
  }

  // The weight of a row, which is small if the row lies far from the centre of its cluster.
  double weight(std::int64_t i) const {
    return own_weight(i) * (model_.tail + static_cast<double>(d_)) / (model_.tail + distances_[at(i)]);
  }

  template <class Body>  // body(row, cluster)
  void each_row(Body body) const {
    for (std::int64_t begin = 0; begin < x_.n; begin += kRowsBetweenChecks) {
      checkpoint();
      const std::int64_t end = std::min(x_.n, begin + kRowsBetweenChecks);
      for (std::int64_t i = begin; i < end; ++i) body(i, labels_[i]);
    }
  }

  void find_centres() {
    std::fill(mass_.begin(), mass_.end(), 0.0);
    std::fill(centres_.begin(), centres_.end(), 0.0);
    each_row([&](std::int64_t i, std::int64_t c) {
      const double w = weight(i);
      const T* x = x_.x + i * x_.stride;
      double* sum = centres_.data() + c * d_;
      mass_[at(c)] += w;
      for (std::int64_t j = 0; j < d_; ++j) sum[j] += w * static_cast<double>(x[j]);
    });
    for (std::int64_t c = 0; c < k_; ++c) {
      const double mass = std::max(mass_[at(c)], std::numeric_limits<double>::min());
      for (std::int64_t j = 0; j < d_; ++j) centres_[at(c * d_ + j)] /= mass;
    }
  }

  void find_scatter() {
    std::fill(scatter_.begin(), scatter_.end(), 0.0);
    each_row([&](std::int64_t i, std::int64_t c) {
      const double w = weight(i);
      const T* x = x_.x + i * x_.stride;
      const double* centre = centres_.data() + c * d_;
      double* sum = scatter_.data() + c * d_;
      for (std::int64_t j = 0; j < d_; ++j) {
        const double apart = static_cast<double>(x[j]) - centre[j];
        sum[j] += w * (apart * apart);
      }
    });
  }

  // Variances shrunk towards the common ones, times the scale of the cluster.
  void find_variances() {
    const double d = static_cast<double>(d_);
    Vector common = zeros(d_);
    double mean = 0;
    for (std::int64_t j = 0; j < d_; ++j) {
      for (std::int64_t c = 0; c < k_; ++c) common[at(j)] += scatter_[at(c * d_ + j)] / scale_[at(c)];
      common[at(j)] /= total_;
      mean += common[at(j)] / d;
    }
    const double least = std::max(model_.least_variance * mean, std::numeric_limits<double>::min());
    for (double& value : common) value = std::max(value, least);
    for (std::int64_t c = 0; c < k_; ++c) {
      const double size = size_[at(c)], prior = model_.scale_prior;
      double relative = prior * d;
      for (std::int64_t j = 0; j < d_; ++j) relative += scatter_[at(c * d_ + j)] / common[at(j)];
      scale_[at(c)] = relative / (d * (size + prior));
      for (std::int64_t j = 0; j < d_; ++j) {
        const std::size_t entry = at(c * d_ + j);
        const double shrunk = scatter_[entry] + model_.variance_prior * scale_[at(c)] * common[at(j)];
        variances_[entry] = std::max(shrunk / (size + model_.variance_prior), least);
        precisions_[entry] = 1 / variances_[entry];
      }
    }
  }

  void find_distances() {
    each_row([&](std::int64_t i, std::int64_t c) {
      const T* x = x_.x + i * x_.stride;
      const double *centre = centres_.data() + c * d_, *precision = precisions_.data() + c * d_;
      Sum distance;
      std::int64_t j = 0;
      for (; j + 4 <= d_; j += 4)
        for (int part = 0; part < 4; ++part) {
          const double apart = static_cast<double>(x[j + part]) - centre[j + part];
          distance.part[part] += apart * apart * precision[j + part];
        }
      for (; j < d_; ++j) {
        const double apart = static_cast<double>(x[j]) - centre[j];
        distance.part[0] += apart * apart * precision[j];
      }
      distances_[at(i)] = distance.total();
    });
  }

  const Samples<T>& x_;
  const std::int32_t* labels_;
  const std::int64_t k_, d_;
  const LikelihoodModel& model_;
  double total_ = 0;  // of the sample weights
  Vector size_;       // (k,) of the sample weights of each cluster
  Vector mass_;       // (k,) of the weights by distance
  Vector scale_, centres_, scatter_, variances_, precisions_;
  Vector distances_;  // (n,) squared, in units of the variances
};

}  // namespace

template <class T>
void classification_likelihoods(const Samples<T>& samples, const std::int32_t* labels,
                                std::int64_t n_labellings, std::int64_t k,
                                const LikelihoodModel& model, int n_threads, double* likelihood) {
  const double work = static_cast<double>(samples.n * samples.d) * (3 * model.reweightings);
  n_threads = useful_threads(n_threads, work * static_cast<double>(n_labellings));
  parallel_for(n_labellings, n_threads, [&](std::int64_t i, int) {
    likelihood[i] = Labelling<T>(samples, labels + i * samples.n, k, model).mean();
  });
}

template void classification_likelihoods<float>(const Samples<float>&, const std::int32_t*,
                                                std::int64_t, std::int64_t, const LikelihoodModel&,
                                                int, double*);
template void classification_likelihoods<double>(const Samples<double>&, const std::int32_t*,
                                                 std::int64_t, std::int64_t, const LikelihoodModel&,
                                                 int, double*);

}  // namespace ekmfast
