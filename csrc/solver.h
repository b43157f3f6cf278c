// The safeguarded fixed-point iteration over centroids, for many runs at once; see solver.cpp.
//
// It does not read rows: the caller asks for the candidates of all runs that are not done, computes
// the sums of one pass at these (ekm.h), wherever the rows are, and hands them to advance().
#pragma once

#include <cstdint>
#include <vector>

namespace ekmfast {

// When a run is done, and where centroids may be.
struct Rules {
  double threshold;    // length of a step, in units of the data, at which a run has converged
  double noise;        // length of a step that may be rounding
  double resolution;   // relative rounding of J
  std::int64_t window; // steps that Anderson's proposal looks back on; 0 for none
  bool compete;        // whether runs that will not reach the best of their alpha are given up
  std::vector<double> low, high;  // (d,) each, the bounds of centroids; or both empty
};

// One restart: where it is, and where it would go next. Matrices are (k, d).
struct Run {
  double alpha;
  std::vector<double> centroids;  // the last accepted
  std::vector<double> step;       // from centroids to the full proposal; empty at first
  std::vector<double> leap;       // Anderson's proposal, tried before the step; or empty
  std::vector<std::vector<double>> past_centroids, past_steps;  // the last points, oldest first
  std::vector<double> history;    // the objective at every centroids that were accepted
  double objective;               // at the centroids; infinite before the first pass
  double size = 1;                // share of the step that is tried
  double least;                   // length of the shortest step so far
  std::int64_t n_iter = 0, n_halvings = 0, n_jumps = 0;
  std::int64_t n_still = 0;       // steps since the shortest one
  bool jumping = false;           // the step holds an exact ratio: a rise of J is allowed
  bool held = false;              // the step would leave the bounds and was cut
  bool converged = false, given_up = false, done = false;

  Run(const double* start, std::int64_t size, double alpha);
};

class Solver {
 public:
  // IN starts (n_runs, k, d), alpha (n_runs,).
  Solver(const double* starts, const double* alpha, std::int64_t n_runs, std::int64_t k,
         std::int64_t d, Rules rules);

  std::int64_t k() const { return k_; }
  std::int64_t d() const { return d_; }
  std::vector<Run>& runs() { return runs_; }
  std::int64_t n_going() const;

  // OUT centroids (n_going, k, d) and alpha (n_going,): where J and the sums are to be computed.
  void candidates(double* centroids, double* alpha) const;

  // The sums at the candidates, as `statistics` of ekm.h gives them: IN sum_wx (n_going, k, d),
  // sum_w, sum_p (n_going, k), objective (n_going,), reference (d,).
  void advance(const double* sum_wx, const double* sum_w, const double* sum_p,
               const double* objective, const double* reference, int n_threads);

 private:
  void advance_one(Run& run, const double* wx, const double* w, const double* p, double objective,
               const double* reference);
  void give_up_losing_runs();

  const std::int64_t k_, d_;
  const Rules rules_;
  std::vector<Run> runs_;
};

}  // namespace ekmfast
