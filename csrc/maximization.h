// The maximization step of mixtures of Student distributions, and whole runs of expectation
// maximization (ekmfast/fit/mixture has the formulas). Results do not depend on the number of
// threads.
#pragma once

#include <cstdint>

#include "ekm.h"

namespace ekmfast {

enum class Kind { spherical, diag, tied, full };

// How sums become scatter matrices, as ekmfast/fit/mixture/kinds.py names the constants.
struct StepModel {
  Kind kind;
  bool shrunk;             // towards the common scatter matrix; if not, only `regularization` counts
  double prior;            // as if by so many rows
  double scale_prior;      // the same for the scales, towards 1
  double least_share;      // least variance of the common matrix, as a share of the mean variance
  double least_scatter;    // and the least of all
  double most_background;  // share
  double regularization;   // added to variances

  bool matrices() const { return kind == Kind::tied || kind == Kind::full; }
};

// What `expectation` of mixture.h returns of n mixtures, without their likelihoods.
struct StepSums {
  const double *mass, *weight, *first, *second, *background;
};

// The parameters of n mixtures of k components. Scatters and whiteners are matrices (n, k, d, d) or
// (n, k, d); all matrices are symmetric or upper triangular.
template <class Number>  // double or const double
struct Parameters {
  Number* weights;     // (n, k)
  Number* means;       // (n, k, d)
  Number* scatters;    // (n, k, d, d) or (n, k, d)
  Number* scales;      // (n, k)
  Number* background;  // (n,) share
  Number* whiteners;   // as scatters
};

// IN  scatters (n, d, d), of which the lower triangles are read
// OUT whiteners (n, d, d), upper triangular: the inverses of U with S = U^T U
// False if a matrix is not positive definite; the output is then incomplete.
bool find_whiteners(const double* scatters, std::int64_t n, std::int64_t d, double* whiteners);

// One maximization step. False if a matrix is not positive definite, or if the common one has too
// small a variance in a direction: then the output is incomplete.
//
// IN  before: means and scales; sums about these means
// OUT after
bool maximization(const StepModel& model, std::int64_t n, std::int64_t k, std::int64_t d,
                  const StepSums& sums, const Parameters<const double>& before, int n_threads,
                  const Parameters<double>& after);

// When runs end.
struct Ends {
  std::int64_t first, last;  // the numbers of the first pass and of the last one of this call
  std::int64_t max_iter;     // all end with this pass
  double total;              // of the sample weights
  double tol;                // a run ends if its likelihood rises by less
  // From this pass on a run ends if its mean log likelihoods are below both limits by more than the
  // margin. The limits are at least the largest value among the runs of this pass.
  std::int64_t race;
  double margin, least_likelihood, least_classified;
  // From this pass on a run also ends if both differ by less from those of a run before it.
  double same;
};

// What became of a run.
enum class Outcome : std::int8_t { goes_on, ended, converged };

// Passes over the samples, each followed by a maximization step of the runs that go on. Returns
// whether all steps could be made: if not, the runs that go on are as the last pass found them, and
// its sums tell what to do. If `rounded`, which asks for double, sums are those of rounded_expectation().
//
// IN  centre (d,), unit > 0: rows are (x - centre) / unit
//     degrees (n,) of freedom; constants (n,), the parts of log densities that depend on these only
//     log_volume of the background, infinite if there is none
//     given: the mixtures; likelihood_before (n,) of the pass before, -inf before the first one
// OUT found: those of a run that ended are those of its last pass
//     likelihood, classified (n,), means over samples; outcomes (n,); n_iter (n,) passes of each run
//     mass (n, k), weight, first, second, background: sums of the last pass, only if a step failed
//     n_passes: the number of the last pass
template <class T>
bool expectation_maximization(const Samples<T>& samples, const double* centre, double unit,
                              const StepModel& model, std::int64_t n, std::int64_t k,
                              const double* degrees, const double* constants, double log_volume,
                              const Parameters<const double>& given,
                              const double* likelihood_before, const Ends& ends, bool rounded,
                              int n_threads, const Parameters<double>& found, double* likelihood,
                              double* classified, Outcome* outcomes, std::int64_t* n_iter,
                              double* mass, double* weight, double* first, double* second,
                              double* background, std::int64_t& n_passes);

}  // namespace ekmfast
