// The definitions of the weights w_kn in the sums. With d_kn = 1/2 ||x_n - c_k||^2:
//
//   equilibrium      w = p (1 - alpha (d - E)),  p = softmax_k(-alpha d),  E = sum_k p d
//                    J = sum_n s_n E_n
//   maximum_entropy  w = p;   J = -1/alpha sum_n s_n ln sum_k exp(-alpha d_kn)
//   hard             w = p = 1 for the nearest centroid (the first of equally near ones), else 0
//                    J = sum_n s_n min_k d_kn
//   fuzzy            p_kn = d_kn^(-1/(m-1)) / sum_i d_in^(-1/(m-1)),  w = p^m, m the fuzzifier
//                    J = sum_n s_n sum_k w_kn d_kn
#pragma once

#include <cmath>

namespace ekmfast {

enum class Weighting { equilibrium, maximum_entropy, hard, fuzzy };
constexpr int kWeightings = 4;

// J as it is reported. That of maximum entropy may be negative; the others are sums of numbers that
// are not, but kernels compute them as differences, whose rounding may be negative where every row
// lies on a centroid. NaN and -infinity, which show that rows are not finite, remain.
inline double reported(double objective, Weighting weighting) {
  const bool rounded = std::isfinite(objective) && objective < 0;
  return rounded && weighting != Weighting::maximum_entropy ? 0 : objective;
}

}  // namespace ekmfast
