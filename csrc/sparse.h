// The functions of ekm.h for sparse rows (CSR). Work is proportional to the numbers that are stored,
// times K, plus O(K D); no dense copy is made. Everything is computed in double, whatever the dtype
// of the rows is, and relative to the origin: subtracting a point from the rows would fill them.
// Results do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kept.h"
#include "solver.h"
#include "weighting.h"

namespace ekmfast {

// Rows in the memory of the caller. In float or double, with 32-bit or 64-bit columns.
struct SparseSamples {
  std::int64_t n, d;
  const void* values;
  bool is_float;
  const void* columns;
  bool is_long;
  std::vector<std::int64_t> start;  // (n + 1,)
  std::vector<double> sample_weight;  // (n,), or empty for ones
  std::vector<std::int64_t> counts;   // (d,) how many numbers each column has
  // Of calls that are over, for those that follow.
  std::shared_ptr<KeptMemory> memory = std::make_shared<KeptMemory>();

  std::int64_t n_stored() const { return start.back(); }
};

// What is wrong with rows that a caller gives, or how far they are in order.
enum class SparseOrder {
  ascending,  // as the functions below need them: columns ascend in each row, each at most once
  unordered,
  out_of_range,  // a column is not in [0, d), in row `row`
};

// Checks the columns of all rows and counts them. `start` must be checked before.
SparseOrder check_columns(SparseSamples& samples, std::int64_t* row);

// As in ekm.h; the reference is 0.
void statistics(const SparseSamples& samples, const double* centroids, const double* alpha,
                std::int64_t n_problems, std::int64_t k, Weighting weighting, double fuzzifier,
                int n_threads, double* sum_wx, double* sum_w, double* sum_p, double* exponent,
                double* objective);

// Makes passes for the runs of a solver until all are done, but at most `left`.
void iterate(Solver& solver, const SparseSamples& samples, Weighting weighting, double fuzzifier,
             int n_threads, std::int64_t& left);

template <class U>
double weights(const SparseSamples& samples, const double* centroids, double alpha, std::int64_t k,
               int n_threads, U* weights);

// Squared distances are sum_j (x_j - c_j)^2 over the numbers of a row, plus ||c||^2 without the
// squares of c at the same columns; only the second part can lose digits, up to the rounding of
// ||c||^2.
template <class U>
double assign(const SparseSamples& samples, const double* centroids, std::int64_t k, int n_threads,
              std::int32_t* labels, U* squared_distances);

template <class U>
void closest(const SparseSamples& samples, const double* candidates, std::int64_t n_seedings,
             std::int64_t n_candidates, int n_threads, bool update, U* distances,
             double* potentials);

template <class U>
void accumulate(const SparseSamples& samples, const U* weights, std::int64_t k, int n_threads,
                double* sum_wx, double* sum_w);

// IN rows begin to end; OUT squared_distances (end - begin, k).
void distances(const SparseSamples& samples, std::int64_t begin, std::int64_t end,
               const double* centroids, std::int64_t k, int n_threads, double* squared_distances);

// OUT weight (), mean (d,), and dispersion (), the weighted mean of 1/2 ||x - mean||^2; low, high
// (d,). The dispersion is a sum of squares of differences, from which nothing cancels. `mean` and
// the dispersion are not finite if a sample is not finite.
void survey(const SparseSamples& samples, double* weight, double* mean, double* dispersion,
            double* low, double* high);

}  // namespace ekmfast
