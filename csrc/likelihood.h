// The likelihood of rows and labels, by which a fit chooses between its results
// (ekmfast/fit/likelihood.py has the model). Results do not depend on the number of threads.
#pragma once

#include <cstdint>

#include "ekm.h"

namespace ekmfast {

// The constants of the model, as ekmfast/fit/likelihood.py names them.
struct LikelihoodModel {
  double tail, scale_prior, variance_prior, least_variance;
  int reweightings;
};

// For each of n_labellings labellings of the samples, the mean over rows of
//   s_n (ln q_k - 1/2 sum_j ln V_kj - (tail + d)/2 ln(1 + m_n / tail)),   k the label of n,
// which is the log likelihood up to a constant. -inf for a labelling with one label only.
//
// IN  sample weights positive, with mean 1, or null for ones
//     labels (n_labellings, n), each in [0, k)
// OUT likelihood (n_labellings,)
template <class T>
void classification_likelihoods(const Samples<T>& samples, const std::int32_t* labels,
                                std::int64_t n_labellings, std::int64_t k,
                                const LikelihoodModel& model, int n_threads, double* likelihood);

}  // namespace ekmfast
