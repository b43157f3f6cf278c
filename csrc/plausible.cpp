#include "plausible.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ekmfast {
namespace {

// The largest absolute value; NaN if one of the values is not finite.
double largest(const double* values, std::int64_t n) {
  double found = 0, witness = 0;  // 0 times what is not finite is NaN
  for (std::int64_t i = 0; i < n; ++i) {
    found = std::max(found, std::fabs(values[i]));
    witness += 0 * values[i];
  }
  return found + witness;
}

}  // namespace

template <class T>
bool plausible_sums(std::int64_t n, std::int64_t d, std::int64_t k, std::int64_t n_problems,
                    const double* alpha, const double* sum_wx, const double* sum_w,
                    const double* sum_p, const double* exponent, const double* objective) {
  constexpr double kEps = std::numeric_limits<T>::epsilon();
  for (std::int64_t s = 0; s < n_problems; ++s) {
    const double wx = largest(sum_wx + s * k * d, k * d);
    if (!std::isfinite(wx + largest(sum_w + s * k, k)) || !std::isfinite(objective[s]))
      return false;
    double weight = 0;
    for (std::int64_t i = s * k; i < (s + 1) * k; ++i)
      weight += exponent[i] == 0 ? sum_p[i] : sum_p[i] * std::exp2(exponent[i]);
    if (!std::isfinite(weight)) return false;
    if (n == 0) continue;
    const double least = kSmallestMean<T> * std::max(weight, static_cast<double>(n));
    if (!(wx > least) || !(objective[s] > least)) return false;
    if (!(alpha[s] * kEps * (objective[s] / weight) <= 0.01)) return false;
  }
  return true;
}

template <class T>
bool plausible_update(std::int64_t n, std::int64_t d, std::int64_t k, const double* sum_wx,
                      const double* sum_w) {
  for (std::int64_t i = 0; i < k; ++i) {
    const double wx = largest(sum_wx + i * d, d);
    if (!(wx > kSmallestMean<T> * static_cast<double>(n)) || !std::isfinite(wx)) return false;
    if (!std::isfinite(sum_w[i]) || sum_w[i] == 0) return false;
  }
  return true;
}

#define EKMFAST_INSTANTIATE(T)                                                                   \
  template bool plausible_sums<T>(std::int64_t, std::int64_t, std::int64_t, std::int64_t,        \
                                  const double*, const double*, const double*, const double*,    \
                                  const double*, const double*);                                 \
  template bool plausible_update<T>(std::int64_t, std::int64_t, std::int64_t, const double*,     \
                                    const double*);
EKMFAST_INSTANTIATE(float)
EKMFAST_INSTANTIATE(double)

}  // namespace ekmfast
