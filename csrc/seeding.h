// Rows that are chosen as first centroids, one after another, by their distances from those chosen so far.
#pragma once

#include <cstdint>

#include "ekm.h"

namespace ekmfast {

// Draws rows with probabilities proportional to their mass: squared distance times weight. If all
// masses are zero, all rows are equally likely.
// IN closest (n_seedings, n), the squared distances; IN sample_weight (n,), or null for ones; IN
// uniform (n_seedings, n_draws), random numbers in [0, 1).
// OUT rows (n_seedings, n_draws), their numbers.
template <class T>
void draw_rows(const T* closest, const double* sample_weight, std::int64_t n,
               std::int64_t n_seedings, const double* uniform, std::int64_t n_draws,
               int n_threads, std::int64_t* rows);

// Chooses k rows for each of some starts (seedings). The first is drawn with probabilities proportional
// to the weights. With n_candidates > 0 each further one is the best of so many that draw_rows() draws,
// with the least sum of squared distances to the nearest chosen row (greedy k-means++); else it is the
// row farthest from those chosen so far, the first of equals that have weight.
// IN mass (n,): the weights in double, or null for ones; first (n_seedings,) and uniform
// (k - 1, n_seedings, n_candidates), random numbers in [0, 1); reference (d,).
// OUT rows (n_seedings, k), their numbers, as from calls of draw_rows() and closest() for each step.
// Each thread works on some of the seedings.
template <class T>
void choose_rows(const Samples<T>& samples, const double* mass, std::int64_t n_seedings, std::int64_t k,
                 std::int64_t n_candidates, const double* first, const double* uniform,
                 const T* reference, int n_threads, std::int64_t* rows);

}  // namespace ekmfast
