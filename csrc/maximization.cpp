#include "maximization.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "chunks.h"
#include "mixture.h"
#include "parallel.h"

namespace ekmfast {
namespace {

typedef std::vector<double> Vector;

constexpr double kTiny = std::numeric_limits<double>::min();
// What scikit-learn's GaussianMixture adds to the mass of a component.
constexpr double kLeastMass = 10 * std::numeric_limits<double>::epsilon();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

// OUT u (d, d), upper triangular, U with S = U^T U. Rows are combined with rows, so that the compiler
// uses vectors; a lower triangle would need sums over columns.
bool cholesky(const double* s, std::int64_t d, double* u) {
  for (std::int64_t i = 0; i < d; ++i) {
    double* row = u + i * d;
    std::fill(row, row + i, 0.0);
    for (std::int64_t j = i; j < d; ++j) row[j] = s[j * d + i];
    for (std::int64_t r = 0; r < i; ++r) {
      const double* above = u + r * d;
      const double factor = above[i];
      for (std::int64_t j = i; j < d; ++j) row[j] -= factor * above[j];
    }
    const double pivot = row[i];
    if (!(pivot > 0 && pivot <= std::numeric_limits<double>::max())) return false;
    const double root = std::sqrt(pivot);
    for (std::int64_t j = i; j < d; ++j) row[j] /= root;
  }
  return true;
}

// OUT out (d, d), upper triangular, the inverse of U. The transpose is computed row by row, by forward
// substitution; scratch (d, d)
void invert(const double* u, std::int64_t d, double* scratch, double* out) {
  for (std::int64_t r = 0; r < d; ++r) {
    double* row = scratch + r * d;
    std::fill(row, row + d, 0.0);
    for (std::int64_t i = 0; i < r; ++i) {
      const double factor = u[i * d + r];
      const double* above = scratch + i * d;
      for (std::int64_t j = 0; j <= i; ++j) row[j] -= factor * above[j];
    }
    row[r] = 1;
    for (std::int64_t j = 0; j <= r; ++j) row[j] /= u[r * d + r];
    for (std::int64_t j = 0; j < d; ++j) out[j * d + r] = row[j];
  }
}

// Memory for the matrices of one mixture.
struct Matrices {
  Vector half, scratch, common, inverse;

  explicit Matrices(std::int64_t d)
      : half(at(d * d)), scratch(at(d * d)), common(at(d * d)), inverse(at(d * d)) {}

  bool whiten(const double* s, std::int64_t d, double* whitener) {
    if (!cholesky(s, d, half.data())) return false;
    invert(half.data(), d, scratch.data(), whitener);
    return true;
  }
};

// The step of one mixture.
class Step {
 public:
  Step(const StepModel& model, std::int64_t k, std::int64_t d)
      : model_(model), k_(k), d_(d), size_(model.matrices() ? d * d : d),
        matrices_(model.matrices() ? d : 0) {}

  bool operator()(const StepSums& sums, const double* means, const double* scales,
                  const Parameters<double>& after) {
    centre(sums, means, after);
    if (!model_.shrunk) return regularize(sums, after);
    double total = 0;
    for (std::int64_t c = 0; c < k_; ++c) total += sums.mass[c];
    total = std::max(total, kTiny);
    const double beside = *sums.background;
    *after.background = std::min(beside / (total + beside), model_.most_background);
    for (std::int64_t c = 0; c < k_; ++c)
      after.weights[c] = sums.mass[c] / total * (1 - *after.background);
    return model_.matrices() ? shrink_matrices(sums, scales, total, after)
                             : shrink_variances(sums, scales, total, after);
  }

 private:
  // The new means, and in `after.scatters` the second moments about them.
  void centre(const StepSums& sums, const double* means, const Parameters<double>& after) {
    Vector& shift = shift_;
    shift.resize(at(d_));
    for (std::int64_t c = 0; c < k_; ++c) {
      const double weight = std::max(sums.weight[c], kTiny);
      const double *first = sums.first + c * d_, *second = sums.second + c * size_;
      double* out = after.scatters + c * size_;
      for (std::int64_t j = 0; j < d_; ++j) {
        shift[at(j)] = first[j] / weight;
        after.means[c * d_ + j] = means[c * d_ + j] + shift[at(j)];
      }
      if (!model_.matrices()) {
        for (std::int64_t j = 0; j < d_; ++j)
          out[j] = std::max(second[j] - weight * (shift[at(j)] * shift[at(j)]), 0.0);
        continue;
      }
      for (std::int64_t i = 0; i < d_; ++i)
        for (std::int64_t j = 0; j < d_; ++j)
          out[i * d_ + j] = second[i * d_ + j] - weight * (shift[at(i)] * shift[at(j)]);
    }
  }

  bool regularize(const StepSums& sums, const Parameters<double>& after) {
    double total = 0;
    for (std::int64_t c = 0; c < k_; ++c) total += sums.mass[c] + kLeastMass;
    *after.background = 0;
    for (std::int64_t c = 0; c < k_; ++c) {
      const double mass = sums.mass[c] + kLeastMass;
      after.weights[c] = mass / total;
      after.scales[c] = 1;
      double* out = after.scatters + c * size_;
      for (std::int64_t i = 0; i < size_; ++i) out[i] /= mass;
      for (std::int64_t i = 0; i < d_; ++i)
        out[model_.matrices() ? i * d_ + i : i] += model_.regularization;
    }
    return whiten(after);
  }

  bool shrink_variances(const StepSums& sums, const double* scales, double total,
                        const Parameters<double>& after) {
    const double d = static_cast<double>(d_);
    Vector& common = common_;
    common.assign(at(d_), 0.0);
    for (std::int64_t c = 0; c < k_; ++c)
      for (std::int64_t j = 0; j < d_; ++j)
        common[at(j)] += after.scatters[c * d_ + j] / scales[c];
    double mean = 0;
    for (double& value : common) {
      value /= total;
      mean += value;
    }
    const double share = model_.least_share * (mean / d);
    const double least = std::max(share, model_.least_scatter);
    double held = 0;
    for (double& value : common) {
      held += value < share ? value / share : 1;
      value = std::max(value, least);
    }
    for (std::int64_t c = 0; c < k_; ++c) {
      double* out = after.scatters + c * d_;
      double relative = 0;
      for (std::int64_t j = 0; j < d_; ++j) relative += out[j] / common[at(j)];
      after.scales[c] = scale(relative, held, sums.mass[c]);
      const double target = model_.prior * after.scales[c], mass = sums.mass[c] + model_.prior;
      for (std::int64_t j = 0; j < d_; ++j) out[j] = (out[j] + target * common[at(j)]) / mass;
      if (model_.kind != Kind::spherical) continue;
      double sum = 0;
      for (std::int64_t j = 0; j < d_; ++j) sum += out[j];
      std::fill(out, out + d_, sum / d);
    }
    return whiten(after);
  }

  bool shrink_matrices(const StepSums& sums, const double* scales, double total,
                       const Parameters<double>& after) {
    const double d = static_cast<double>(d_);
    double* common = matrices_.common.data();
    std::fill(common, common + size_, 0.0);
    for (std::int64_t c = 0; c < k_; ++c)
      for (std::int64_t i = 0; i < size_; ++i) common[i] += after.scatters[c * size_ + i] / scales[c];
    double trace = 0;
    for (std::int64_t i = 0; i < size_; ++i) common[i] /= total;
    for (std::int64_t i = 0; i < d_; ++i) trace += common[i * d_ + i];
    const double least = std::max(model_.least_share * (trace / d), model_.least_scatter);
    double* inverse = matrices_.inverse.data();
    // Whether all its variances are above the least one.
    std::copy(common, common + size_, inverse);
    for (std::int64_t i = 0; i < d_; ++i) inverse[i * d_ + i] -= least;
    if (!cholesky(inverse, d_, matrices_.half.data())) return false;
    if (model_.kind == Kind::tied) {
      if (!matrices_.whiten(common, d_, inverse)) return false;
      for (std::int64_t c = 0; c < k_; ++c) {
        after.scales[c] = 1;
        std::copy(common, common + size_, after.scatters + c * size_);
        std::copy(inverse, inverse + size_, after.whiteners + c * size_);
      }
      return true;
    }
    if (!inverse_of_common()) return false;
    for (std::int64_t c = 0; c < k_; ++c) {
      double* out = after.scatters + c * size_;
      double relative = 0;
      for (std::int64_t i = 0; i < size_; ++i) relative += out[i] * inverse[i];
      after.scales[c] = scale(relative, d, sums.mass[c]);
      const double target = model_.prior * after.scales[c], mass = sums.mass[c] + model_.prior;
      for (std::int64_t i = 0; i < size_; ++i) out[i] = (out[i] + target * common[i]) / mass;
    }
    return whiten(after);
  }

  // (U^T U)^-1 = V V^T, where V is the inverse of U.
  bool inverse_of_common() {
    Vector& v = whitener_;
    v.resize(at(size_));
    if (!matrices_.whiten(matrices_.common.data(), d_, v.data())) return false;
    // As sums over rows of V^T, which the compiler adds in vectors.
    double *turned = matrices_.scratch.data(), *out = matrices_.inverse.data();
    for (std::int64_t i = 0; i < d_; ++i)
      for (std::int64_t j = 0; j < d_; ++j) turned[j * d_ + i] = v[at(i * d_ + j)];
    std::fill(out, out + size_, 0.0);
    for (std::int64_t r = 0; r < d_; ++r) {
      const double* row = turned + r * d_;
      for (std::int64_t i = 0; i <= r; ++i)
        for (std::int64_t j = 0; j <= r; ++j) out[i * d_ + j] += row[i] * row[j];
    }
    return true;
  }

  // The scale of a component, from its scatter relative to the common one, summed over directions. The
  // common one, where it was not raised to its least variance, holds D of these sums itself, and less where
  // it was. If D took the place of `held`, all scales would become smaller with each step, until their
  // prior decides, by which small components then are too wide.
  double scale(double relative, double held, double mass) const {
    return (relative + model_.scale_prior * held) / (held * (mass + model_.scale_prior));
  }

  bool whiten(const Parameters<double>& after) {
    for (std::int64_t c = 0; c < k_; ++c) {
      const double* s = after.scatters + c * size_;
      double* out = after.whiteners + c * size_;
      if (model_.matrices()) {
        if (!matrices_.whiten(s, d_, out)) return false;
        continue;
      }
      for (std::int64_t j = 0; j < d_; ++j) out[j] = 1 / std::sqrt(s[j]);
    }
    return true;
  }

  const StepModel& model_;
  const std::int64_t k_, d_, size_;
  Matrices matrices_;
  Vector shift_, common_, whitener_;
};

// The parameters, or sums, of mixture i.
template <class Number>
Parameters<Number> one_of(const Parameters<Number>& all, std::int64_t i, std::int64_t k,
                          std::int64_t d, std::int64_t size) {
  return {all.weights + i * k,     all.means + i * k * d,   all.scatters + i * k * size,
          all.scales + i * k,      all.background + i,      all.whiteners + i * k * size};
}

StepSums one_of(const StepSums& all, std::int64_t i, std::int64_t k, std::int64_t d,
                std::int64_t size) {
  return {all.mass + i * k, all.weight + i * k, all.first + i * k * d, all.second + i * k * size,
          all.background + i};
}

// The parameters of some mixtures.
struct Several {
  Vector weights, means, scatters, scales, background, whiteners;

  Several(std::int64_t n, std::int64_t k, std::int64_t d, std::int64_t size)
      : weights(at(n * k)),
        means(at(n * k * d)),
        scatters(at(n * k * size)),
        scales(at(n * k)),
        background(at(n)),
        whiteners(at(n * k * size)) {}

  Parameters<double> view() {
    return {weights.data(), means.data(), scatters.data(), scales.data(), background.data(),
            whiteners.data()};
  }
};

Parameters<const double> constant(const Parameters<double>& all) {
  return {all.weights, all.means, all.scatters, all.scales, all.background, all.whiteners};
}

// Copies one mixture.
void copy(const Parameters<const double>& from, const Parameters<double>& to, std::int64_t k,
          std::int64_t d, std::int64_t size) {
  std::copy(from.weights, from.weights + k, to.weights);
  std::copy(from.means, from.means + k * d, to.means);
  std::copy(from.scatters, from.scatters + k * size, to.scatters);
  std::copy(from.scales, from.scales + k, to.scales);
  *to.background = *from.background;
  std::copy(from.whiteners, from.whiteners + k * size, to.whiteners);
}

}  // namespace

bool find_whiteners(const double* scatters, std::int64_t n, std::int64_t d, double* whiteners) {
  Matrices matrices(d);
  for (std::int64_t i = 0; i < n; ++i)
    if (!matrices.whiten(scatters + i * d * d, d, whiteners + i * d * d)) return false;
  return true;
}

bool maximization(const StepModel& model, std::int64_t n, std::int64_t k, std::int64_t d,
                  const StepSums& sums, const Parameters<const double>& before, int n_threads,
                  const Parameters<double>& after) {
  const std::int64_t size = model.matrices() ? d * d : d;
  const double each = static_cast<double>(model.matrices() ? d * d * (d + 8) : 8 * d);
  n_threads = useful_threads(n_threads, static_cast<double>(n * k) * each);
  std::vector<char> made(at(n), 0);
  parallel_for(n, n_threads, [&](std::int64_t i, int) {
    checkpoint();
    Step step(model, k, d);
    made[at(i)] = step(one_of(sums, i, k, d, size), before.means + i * k * d, before.scales + i * k,
                       one_of(after, i, k, d, size));
  });
  return std::all_of(made.begin(), made.end(), [](char one) { return one != 0; });
}

template <class T>
bool expectation_maximization(const Samples<T>& samples, const double* centre, double unit,
                              const StepModel& model, std::int64_t n, std::int64_t k,
                              const double* degrees, const double* constants, double log_volume,
                              const Parameters<const double>& given,
                              const double* likelihood_before, const Ends& ends, bool rounded,
                              int n_threads, const Parameters<double>& found, double* likelihood,
                              double* classified, Outcome* outcomes, std::int64_t* n_iter,
                              double* mass, double* weight, double* first, double* second,
                              double* background, std::int64_t& n_passes) {
  const std::int64_t d = samples.d, size = model.matrices() ? d * d : d;
  const double infinity = std::numeric_limits<double>::infinity();
  for (std::int64_t i = 0; i < n; ++i)
    copy(one_of(given, i, k, d, size), one_of(found, i, k, d, size), k, d, size);
  std::copy(likelihood_before, likelihood_before + n, likelihood);
  std::fill(classified, classified + n, -infinity);
  std::fill(outcomes, outcomes + n, Outcome::goes_on);
  std::fill(n_iter, n_iter + n, ends.first - 1);

  // Those that go on, side by side.
  Several now(n, k, d, size), next(n, k, d, size);
  const Parameters<double> before = now.view(), after = next.view();
  Vector offsets(at(n * k)), own_degrees(at(n)), log_background(at(n)), likely(at(n)), own(at(n));
  Vector packed(at(n * (k * (2 + d + size) + 1)));
  double *masses = packed.data(), *weights = masses + n * k, *firsts = weights + n * k,
         *seconds = firsts + n * k * d, *backgrounds = seconds + n * k * size;
  std::vector<std::int64_t> going(at(n));
  for (std::int64_t i = 0; i < n; ++i) going[at(i)] = i;

  for (n_passes = ends.first;; ++n_passes) {
    poll_between_calls();
    const std::int64_t m = static_cast<std::int64_t>(going.size());
    for (std::int64_t p = 0; p < m; ++p) {
      const std::int64_t i = going[at(p)];
      const Parameters<double> one = one_of(before, p, k, d, size);
      copy(constant(one_of(found, i, k, d, size)), one, k, d, size);
      own_degrees[at(p)] = degrees[i];
      log_background[at(p)] =
          log_volume < infinity ? std::log(*one.background) - log_volume : -infinity;
      for (std::int64_t c = 0; c < k; ++c) {
        double log_size = 0;  // minus half the logarithm of the determinant
        for (std::int64_t j = 0; j < d; ++j)
          log_size += std::log(one.whiteners[c * size + (model.matrices() ? j * d + j : j)]);
        offsets[at(p * k + c)] = constants[i] + std::log(one.weights[c]) + log_size;
      }
    }
    const Mixtures mixtures{m, k, model.matrices(), now.means.data(), now.whiteners.data(),
                            offsets.data(), own_degrees.data(), log_background.data()};
    const auto sum = [&](auto function) {
      function(samples, mixtures, centre, unit, n_threads, masses, weights, firsts, seconds,
               backgrounds, likely.data(), own.data());
    };
    if constexpr (std::is_same<T, double>::value) sum(rounded ? rounded_expectation : expectation<T>);
    else sum(expectation<T>);

    double least_likelihood = ends.least_likelihood, least_classified = ends.least_classified;
    for (std::int64_t p = 0; p < m; ++p) {
      likely[at(p)] /= ends.total;
      own[at(p)] /= ends.total;
      least_likelihood = std::max(least_likelihood, likely[at(p)]);
      least_classified = std::max(least_classified, own[at(p)]);
    }
    // The runs of this pass without those that do the same as one before them.
    std::vector<std::int64_t> distinct;
    const auto same = [&](std::int64_t p) {
      return std::any_of(distinct.begin(), distinct.end(), [&](std::int64_t q) {
        return std::abs(likely[at(p)] - likely[at(q)]) < ends.same &&
               std::abs(own[at(p)] - own[at(q)]) < ends.same;
      });
    };
    std::int64_t n_left = 0;
    for (std::int64_t p = 0; p < m; ++p) {
      const std::int64_t i = going[at(p)];
      const bool converged = std::abs(likely[at(p)] - likelihood[i]) < ends.tol,
                 race = n_passes >= ends.race, follows = race && same(p),
                 far = race && likely[at(p)] < least_likelihood - ends.margin &&
                       own[at(p)] < least_classified - ends.margin;
      if (!follows) distinct.push_back(p);
      likelihood[i] = likely[at(p)];
      classified[i] = own[at(p)];
      n_iter[i] = n_passes;
      if (converged) outcomes[i] = Outcome::converged;
      else if (far || follows || n_passes == ends.max_iter) outcomes[i] = Outcome::ended;
      else going[at(n_left++)] = i;
      if (outcomes[i] != Outcome::goes_on || n_left - 1 == p) continue;
      // Its sums and parameters move to the place of one that ended.
      const std::int64_t to = n_left - 1;
      std::copy(masses + p * k, masses + (p + 1) * k, masses + to * k);
      std::copy(weights + p * k, weights + (p + 1) * k, weights + to * k);
      std::copy(firsts + p * k * d, firsts + (p + 1) * k * d, firsts + to * k * d);
      std::copy(seconds + p * k * size, seconds + (p + 1) * k * size, seconds + to * k * size);
      backgrounds[to] = backgrounds[p];
      copy(constant(one_of(before, p, k, d, size)), one_of(before, to, k, d, size), k, d, size);
    }
    going.resize(at(n_left));
    if (n_left == 0) return true;
    const StepSums sums{masses, weights, firsts, seconds, backgrounds};
    if (!maximization(model, n_left, k, d, sums, constant(before), n_threads, after)) {
      for (std::int64_t p = 0; p < n_left; ++p) {
        const std::int64_t i = going[at(p)];
        std::copy(masses + p * k, masses + (p + 1) * k, mass + i * k);
        std::copy(weights + p * k, weights + (p + 1) * k, weight + i * k);
        std::copy(firsts + p * k * d, firsts + (p + 1) * k * d, first + i * k * d);
        std::copy(seconds + p * k * size, seconds + (p + 1) * k * size, second + i * k * size);
        background[i] = backgrounds[p];
      }
      return false;
    }
    for (std::int64_t p = 0; p < n_left; ++p)
      copy(constant(one_of(after, p, k, d, size)), one_of(found, going[at(p)], k, d, size), k, d,
           size);
    if (n_passes == ends.last) return true;
  }
}

#define EKMFAST_INSTANTIATE(T)                                                                     \
  template bool expectation_maximization<T>(                                                                        \
      const Samples<T>&, const double*, double, const StepModel&, std::int64_t, std::int64_t,      \
      const double*, const double*, double, const Parameters<const double>&, const double*,        \
      const Ends&, bool, int, const Parameters<double>&, double*, double*, Outcome*, std::int64_t*, double*, \
      double*, double*, double*, double*, std::int64_t&);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
