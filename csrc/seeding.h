// Random rows, drawn by their distances from those chosen so far.
#pragma once

#include <cstdint>

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

}  // namespace ekmfast
