// The safeguarded fixed-point iteration over centroids, for many runs at once; see solver.cpp.
//
// It does not read rows. The caller asks for the candidates of all runs that are not done, computes
// the sums of one pass for these centroids, wherever the rows are, and passes them to advance().
// Or it passes a function that computes such sums to iterate(), which makes all passes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kept.h"
#include "kernels/kernels.h"
#include "large_pages.h"

namespace ekmfast {

// Share of the memberships below which the weights of a column count as weak.
constexpr double kTheta = 0.1;
// A run whose step has been halved more often has stalled.
constexpr std::int64_t kMaxHalvings = 12;

// What centroids may be, and over what the sums of their weights are.
enum class Space {
  free,      // any points; the weights of a centroid have one sum
  unit,      // points at distance 1 from the origin
  features,  // any points; the weights of a centroid have one sum for each feature
};

// The rules by which a run ends, and the bounds of centroids.
struct Rules {
  double threshold;    // a run has converged if its step is at most this long, in units of the data
  double noise;        // a step of at most this length may be rounding error
  double resolution;   // relative rounding error of J
  std::int64_t window; // how many earlier steps a proposal uses; 0 for no proposals
  bool compete;        // whether to give up runs that will not reach the best one of their alpha
  std::vector<double> low, high;  // (d,) each, the bounds of centroids; both empty for no bounds
  Space space = Space::free;
};

// The state of one restart. Matrices are (k, d).
struct Run {
  double alpha;
  LongVector<double> centroids;  // the last accepted ones
  LongVector<double> step;       // the step from these centroids; empty before the first pass
  LongVector<double> leap;       // the proposal, tried before the step; empty for none
  std::vector<LongVector<double>> past_centroids, past_steps;  // for proposals, oldest first
  std::vector<LongVector<float>> moves, turns;  // the same of long centroids (kernels/kernels.h)
  std::vector<double> history;    // the objective after every accepted step
  double objective;               // at the centroids; infinite before the first pass
  double size = 1;                // the share of the step that is tried
  double least;                   // the length of the shortest step so far
  std::int64_t n_iter = 0, n_halvings = 0, n_jumps = 0;
  std::int64_t n_still = 0;       // number of steps since the shortest one
  // Whether these centroids and their step are one of the pairs for proposals; they are moved to the
  // past ones, or give a move and a turn, when the centroids change.
  bool remembers = false;
  LongVector<double> spare[2];   // memory of vectors that are no longer needed
  std::vector<LongVector<float>> unused;
  bool jumping = false;           // a weak column takes its exact ratio, so that J may rise
  bool held = false;              // the step was shortened at the bounds
  bool converged = false, given_up = false, done = false;

  Run(const double* start, std::int64_t size, double alpha);
};

// Which runs a pass over the rows serves, where Solver::iterate makes the passes.
enum class Passes {
  shared,  // all that are not done
  apart,   // threads make passes for some of the runs each
  single,  // one, which takes memory for the candidates and sums of one run
};

// Computes the sums of one pass for n sets of centroids: IN centroids (n, k, d), alpha (n,); OUT what
// advance() takes of them. Several threads may call it at a time.
typedef std::function<void(const double* centroids, const double* alpha, std::int64_t n, int n_threads,
                           double* sum_wx, double* sum_w, double* sum_p, double* objective)>
    SumsOfPass;

class Solver {
 public:
  // IN starts (n_runs, k, d) and alpha (n_runs,).
  Solver(const double* starts, const double* alpha, std::int64_t n_runs, std::int64_t k,
         std::int64_t d, Rules rules);

  std::int64_t k() const { return k_; }
  std::int64_t d() const { return d_; }
  std::int64_t n_weights() const { return rules_.space == Space::features ? k_ * d_ : k_; }
  std::vector<Run>& runs() { return runs_; }
  std::int64_t window() const { return rules_.window; }
  Space space() const { return rules_.space; }
  bool is_long() const;  // whether proposals are computed from moves and turns
  std::int64_t n_going() const;
  // Of candidates, sums and results that nobody needs any more.
  const std::shared_ptr<KeptMemory>& memory() const { return memory_; }

  // OUT centroids (n_going, k, d) and alpha (n_going,) for which the caller computes sums and J.
  void candidates(double* centroids, double* alpha) const;

  // IN the sums for the candidates, as statistics() of ekm.h gives them: sum_wx (n_going, k, d),
  // sum_w, sum_p (n_going, k), objective (n_going,), reference (d,). In Space::features sum_w and
  // sum_p are (n_going, k, d).
  void advance(const double* sum_wx, const double* sum_w, const double* sum_p,
               const double* objective, const double* reference, int n_threads);

  // Makes passes until all runs are done, but not more than `left`, from which it subtracts those made.
  // A pass for each of several runs counts as one. If passes are not shared, the sums of a run must not
  // depend on the others, and the runs end as they do together.
  void iterate(const SumsOfPass& pass, const double* reference, Passes passes, int n_threads,
               std::int64_t& left);
  // How many groups of runs that are not done can be iterated apart from each other: those of one alpha
  // belong together if they compete.
  std::int64_t n_groups() const;

 private:
  typedef std::vector<Run*> Several;
  static Several going(const Several& runs);
  Several all_runs();
  std::vector<std::vector<std::size_t>> shares(int n_threads) const;
  void advance_all(const Several& runs, const double* sum_wx, const double* sum_w, const double* sum_p,
                   const double* objective, const double* reference, int n_threads) const;
  void iterate_all(const Several& runs, const SumsOfPass& pass, const double* reference, int n_threads,
                   std::int64_t& left) const;
  void iterate_singly(const Several& runs, const SumsOfPass& pass, const double* reference,
                      int n_threads, std::int64_t& left) const;
  const double* candidate(Run& run, LongVector<double>& memory) const;
  void advance_one(Run& run, const double* wx, const double* w, const double* p, double objective,
               const double* reference) const;
  // The sums of a pass for one run, as `advance` takes them.
  struct Pass {
    const double *wx, *w, *p, *reference;
  };
  // How the step of one centroid follows from its sums: whether it is weak and jumps, and what the
  // functions for its numbers need.
  struct Rule {
    bool weak = false;
    double share = 0, along = 0, to_ratio = 0;
  };
  TurningSums turn_short(Run& run, LongVector<double> before, const Pass& pass, bool shorten) const;
  TurningSums turn_long(Run& run, LongVector<double> before, const Pass& pass, bool shorten) const;
  void step_numbers(Run& run, const Pass& pass, std::int64_t i, std::int64_t begin, std::int64_t end,
                    Rule& rule, double* step) const;
  Rule free_rule(bool may_jump, const double* at, const double* wx, double w, double p,
                 const double* reference) const;
  Rule unit_rule(bool may_jump, const double* at, const double* wx, double w, double p,
                 const double* reference) const;
  // Write the features begin to end of the step of one centroid.
  void free_step(const Rule& rule, const double* at, const double* wx, double w,
                 const double* reference, std::int64_t begin, std::int64_t end, double* step) const;
  void unit_step(const Rule& rule, const double* at, const double* wx, double w,
                 const double* reference, std::int64_t begin, std::int64_t end, double* step) const;
  bool features_step(bool may_jump, const double* at, const double* wx, const double* w,
                     const double* p, const double* reference, std::int64_t begin, std::int64_t end,
                     double* step) const;
  bool hold(const double* at, std::int64_t begin, std::int64_t end, double* step) const;
  // A column that sums to exactly zero keeps its centroid.
  static double ratio(double at, double wx, double w, double reference) {
    return w == 0 ? at : reference + wx / w;
  }
  bool inside(std::int64_t j, double value) const {
    const std::size_t c = static_cast<std::size_t>(j);
    return rules_.low.empty() || (value >= rules_.low[c] && value <= rules_.high[c]);
  }
  void make_allowed(double* centroids) const;
  void propose(const Run& run, double* there) const;
  void give_up_losing_runs(const Several& runs) const;

  const std::int64_t k_, d_;
  Rules rules_;
  std::vector<Run> runs_;
  std::shared_ptr<KeptMemory> memory_ = std::make_shared<KeptMemory>();
};

}  // namespace ekmfast
