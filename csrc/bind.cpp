// The only file that uses Python. Each function checks its arguments, takes their pointers,
// releases the GIL, computes, and returns arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "ekm.h"
#include "mixture.h"
#include "parallel.h"
#include "plausible.h"
#include "rescue.h"
#include "simd/dispatch.h"
#include "solver.h"

namespace py = pybind11;
using ekmfast::Isa;
using ekmfast::Samples;
using ekmfast::Weighting;

namespace {

typedef py::array_t<double, py::array::c_style> DoubleArray;

// Calls compute() without the GIL.
template <class Compute>
void without_gil(Compute compute) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr failure;
  // In the child of a fork it is called again, which is safe, since it overwrites all its output.
  for (bool again = true; again;) {
    again = false;
    try {
      compute();
    } catch (const ekmfast::Forked&) {
      again = true;
    } catch (...) {
      failure = std::current_exception();
    }
  }
  // If a daemon thread asks for the GIL while the interpreter exits, Python before 3.14 ends the
  // thread and unwinds its stack, so that destructors would use Python objects without the GIL. The
  // thread waits for the end of the process instead, as in Python 3.14.
  try {
    PyEval_RestoreThread(state);
  } catch (...) {
    for (;;) pause();
  }
  if (failure) std::rethrow_exception(failure);
}

[[noreturn]] void refuse(const std::string& what) { throw py::value_error(what); }

// ekmfast/kernels.py has checked the arguments before, with better messages. The checks here only
// prevent that a direct call of this module reads or writes outside of arrays.
bool aligned(const py::array& array, std::size_t alignment) {
  return reinterpret_cast<std::uintptr_t>(array.data()) % alignment == 0;
}

void check_aligned(const DoubleArray& array, const char* name) {
  if (!aligned(array, alignof(double))) refuse(std::string(name) + " must be aligned");
}

template <class T>
Samples<T> samples_of(const py::array& X, const std::optional<py::array>& sample_weight) {
  const py::ssize_t item = sizeof(T);
  if (X.ndim() != 2 || !py::isinstance<py::array_t<T>>(X)) refuse("X must be 2-d of one dtype");
  if (X.shape(1) < 1) refuse("X must have a feature");
  const bool dense_rows = X.shape(1) == 1 || X.strides(1) == item;
  if (X.shape(0) > 1 && (!dense_rows || X.strides(0) % item || X.strides(0) < X.shape(1) * item))
    refuse("rows of X must be contiguous and in order");
  if (X.shape(0) == 1 && !dense_rows) refuse("rows of X must be contiguous");
  if (!aligned(X, alignof(T))) refuse("X must be aligned");
  Samples<T> s{static_cast<const T*>(X.data()), X.shape(0), X.shape(1),
               X.shape(0) > 1 ? X.strides(0) / item : X.shape(1), nullptr};
  if (sample_weight) {
    const py::array& w = *sample_weight;
    if (w.ndim() != 1 || w.shape(0) != X.shape(0) || !py::isinstance<py::array_t<T>>(w) ||
        (w.shape(0) > 1 && w.strides(0) != item) || !aligned(w, alignof(T)))
      refuse("sample_weight must be contiguous, aligned, one a row, of the dtype of X");
    s.sample_weight = static_cast<const T*>(w.data());
  }
  return s;
}

template <class T>
T* writable(const py::array& out, std::vector<py::ssize_t> shape, const char* name) {
  bool fits = out.ndim() == static_cast<py::ssize_t>(shape.size()) &&
              py::isinstance<py::array_t<T>>(out) && out.writeable() &&
              (out.flags() & py::array::c_style) && aligned(out, alignof(T));
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = out.shape(static_cast<py::ssize_t>(i)) == shape[i];
  if (!fits) refuse(std::string(name) + " must be C-contiguous, aligned, writable and of the right shape");
  return static_cast<T*>(const_cast<void*>(out.data()));
}

int threads(int n) {
  if (n < 1) refuse("n_threads must be >= 1");
  return n;
}

bool is_float32(const py::array& X) { return py::isinstance<py::array_t<float>>(X); }

template <class T>
std::vector<T> reference_of(const Samples<T>& s, const std::optional<DoubleArray>& given) {
  std::vector<T> reference(static_cast<std::size_t>(s.d));
  if (!given) {
    ekmfast::find_reference(s, reference.data());
    return reference;
  }
  if (given->ndim() != 1 || given->shape(0) != s.d) refuse("reference must have shape (d,)");
  check_aligned(*given, "reference");
  for (std::int64_t j = 0; j < s.d; ++j)
    reference[static_cast<std::size_t>(j)] = static_cast<T>(given->data()[j]);
  return reference;
}

Weighting weighting_from(const std::string& name) {
  if (name == "equilibrium") return Weighting::equilibrium;
  if (name == "maximum-entropy") return Weighting::maximum_entropy;
  if (name == "hard") return Weighting::hard;
  if (name == "fuzzy") return Weighting::fuzzy;
  refuse("weighting must be equilibrium, maximum-entropy, hard or fuzzy, got '" + name + "'");
}

template <class T>
py::tuple statistics_of(const py::array& X, const DoubleArray& centroids, const DoubleArray& alpha,
                        const std::optional<py::array>& sample_weight,
                        const std::optional<DoubleArray>& reference, int n_threads,
                        const std::string& weighting, double fuzzifier, bool rescue) {
  const Samples<T> s = samples_of<T>(X, sample_weight);
  const Weighting rule = weighting_from(weighting);
  if (!(std::isfinite(fuzzifier) && fuzzifier > 1)) refuse("fuzzifier must be finite and > 1");
  if (centroids.ndim() != 3 || centroids.shape(0) < 1 || centroids.shape(1) < 1 ||
      centroids.shape(2) != s.d)
    refuse("centroids must have shape (s, k, d)");
  check_aligned(centroids, "centroids");
  const py::ssize_t problems = centroids.shape(0), k = centroids.shape(1);
  if (alpha.ndim() != 1 || alpha.shape(0) != problems) refuse("alpha must have shape (s,)");
  check_aligned(alpha, "alpha");
  // At equal distances a membership is 1/k, and its power (1/k)^m must not underflow.
  if (rule == Weighting::fuzzy && (fuzzifier - 1) * std::log2(static_cast<double>(k)) > 800)
    refuse("fuzzifier must be <= 1 + 800 / log2(k)");
  threads(n_threads);
  const std::vector<T> ref = reference_of(s, reference);
  DoubleArray sum_wx({problems, k, static_cast<py::ssize_t>(s.d)}), sum_w({problems, k}),
      sum_p({problems, k}), exponent({problems, k}), objective(problems);
  double *wx = sum_wx.mutable_data(), *w = sum_w.mutable_data(), *p = sum_p.mutable_data(),
         *e = exponent.mutable_data(), *j = objective.mutable_data();
  const double *c = centroids.data(), *a = alpha.data();
  without_gil([&] {
    ekmfast::statistics(s, c, a, problems, k, ref.data(), rule, fuzzifier, rescue, n_threads, wx, w,
                        p, e, j);
  });
  DoubleArray ref_out(s.d);
  std::copy(ref.begin(), ref.end(), ref_out.mutable_data());
  return py::make_tuple(sum_wx, sum_w, sum_p, exponent, objective, ref_out);
}

py::tuple statistics(const py::array& X, const DoubleArray& centroids, const DoubleArray& alpha,
                     const std::optional<py::array>& sample_weight,
                     const std::optional<DoubleArray>& reference, int n_threads,
                     const std::string& weighting, double fuzzifier, bool rescue) {
  return (is_float32(X) ? statistics_of<float> : statistics_of<double>)(
      X, centroids, alpha, sample_weight, reference, n_threads, weighting, fuzzifier, rescue);
}

void check_centroids(const DoubleArray& centroids, std::int64_t d) {
  if (centroids.ndim() != 2 || centroids.shape(0) < 1 || centroids.shape(1) != d)
    refuse("centroids must have shape (k, d)");
  check_aligned(centroids, "centroids");
}

template <class T>
double weights_of(const py::array& X, const DoubleArray& centroids, double alpha,
                  const py::array& out, int n_threads) {
  const Samples<T> s = samples_of<T>(X, std::nullopt);
  check_centroids(centroids, s.d);
  threads(n_threads);
  const py::ssize_t k = centroids.shape(0);
  T* w = writable<T>(out, {X.shape(0), k}, "out");
  const std::vector<T> ref = reference_of(s, std::nullopt);
  const double* c = centroids.data();
  double witness = 0;
  without_gil([&] { witness = ekmfast::weights(s, c, alpha, k, ref.data(), n_threads, w); });
  return witness;
}

double weights(const py::array& X, const DoubleArray& centroids, double alpha,
               const py::array& out, int n_threads) {
  return (is_float32(X) ? weights_of<float> : weights_of<double>)(X, centroids, alpha, out,
                                                                  n_threads);
}

template <class T>
double assign_of(const py::array& X, const DoubleArray& centroids, const py::array& labels,
                 const py::array& squared_distances, int n_threads) {
  const Samples<T> s = samples_of<T>(X, std::nullopt);
  check_centroids(centroids, s.d);
  threads(n_threads);
  const py::ssize_t k = centroids.shape(0);
  // The kernels store a label as a number of T while they search (assign.inl).
  if (k > std::int64_t{1} << std::min(std::numeric_limits<T>::digits, 31))
    refuse("centroids must be at most 2^24 for float32 and 2^31 for float64");
  std::int32_t* l = writable<std::int32_t>(labels, {X.shape(0)}, "labels");
  T* d2 = writable<T>(squared_distances, {X.shape(0)}, "squared_distances");
  const std::vector<T> ref = reference_of(s, std::nullopt);
  const double* c = centroids.data();
  double witness = 0;
  without_gil([&] { witness = ekmfast::assign(s, c, k, ref.data(), n_threads, l, d2); });
  return witness;
}

double assign(const py::array& X, const DoubleArray& centroids, const py::array& labels,
              const py::array& squared_distances, int n_threads) {
  return (is_float32(X) ? assign_of<float> : assign_of<double>)(X, centroids, labels,
                                                                squared_distances, n_threads);
}

template <class T>
DoubleArray closest_of(const py::array& X, const DoubleArray& candidates, const py::array& closest,
                       const std::optional<py::array>& sample_weight,
                       const std::optional<DoubleArray>& reference, int n_threads, bool update) {
  const Samples<T> s = samples_of<T>(X, sample_weight);
  if (candidates.ndim() != 3 || candidates.shape(0) < 1 || candidates.shape(1) < 1 ||
      candidates.shape(2) != s.d)
    refuse("candidates must have shape (s, l, d)");
  check_aligned(candidates, "candidates");
  const py::ssize_t seedings = candidates.shape(0), each = candidates.shape(1);
  if (update && each != 1) refuse("update takes one candidate each");
  threads(n_threads);
  T* distances = writable<T>(closest, {seedings, X.shape(0)}, "closest");
  const std::vector<T> ref = reference_of(s, reference);
  DoubleArray potentials({seedings, each});
  const double* c = candidates.data();
  double* out = potentials.mutable_data();
  without_gil([&] {
    ekmfast::closest(s, c, seedings, each, ref.data(), n_threads, update, distances, out);
  });
  return potentials;
}

DoubleArray closest(const py::array& X, const DoubleArray& candidates, const py::array& distances,
                    const std::optional<py::array>& sample_weight,
                    const std::optional<DoubleArray>& reference, int n_threads, bool update) {
  return (is_float32(X) ? closest_of<float> : closest_of<double>)(
      X, candidates, distances, sample_weight, reference, n_threads, update);
}

template <class T>
py::tuple accumulate_of(const py::array& X, const py::array& weights, int n_threads) {
  const Samples<T> s = samples_of<T>(X, std::nullopt);
  threads(n_threads);
  if (weights.ndim() != 2 || weights.shape(0) != X.shape(0) || weights.shape(1) < 1 ||
      !py::isinstance<py::array_t<T>>(weights) || !(weights.flags() & py::array::c_style) ||
      !aligned(weights, alignof(T)))
    refuse("weights must be C-contiguous, aligned, (n, k), of the dtype of X");
  const py::ssize_t k = weights.shape(1);
  const std::vector<T> ref = reference_of(s, std::nullopt);
  DoubleArray sum_wx({k, static_cast<py::ssize_t>(s.d)}), sum_w(k), ref_out(s.d);
  std::copy(ref.begin(), ref.end(), ref_out.mutable_data());
  const T* w = static_cast<const T*>(weights.data());
  double *wx = sum_wx.mutable_data(), *sw = sum_w.mutable_data();
  without_gil([&] { ekmfast::accumulate(s, w, k, ref.data(), n_threads, wx, sw); });
  return py::make_tuple(sum_wx, sum_w, ref_out);
}

py::tuple accumulate(const py::array& X, const py::array& weights, int n_threads) {
  return (is_float32(X) ? accumulate_of<float> : accumulate_of<double>)(X, weights, n_threads);
}

template <class T>
py::tuple survey_of(const py::array& X, const std::optional<py::array>& sample_weight,
                    const std::optional<DoubleArray>& reference, int n_threads) {
  const Samples<T> s = samples_of<T>(X, sample_weight);
  threads(n_threads);
  const std::vector<T> ref = reference_of(s, reference);
  DoubleArray sum(s.d), low(s.d), high(s.d), ref_out(s.d);
  std::copy(ref.begin(), ref.end(), ref_out.mutable_data());
  double weight = 0, squares = 0;
  double *m = sum.mutable_data(), *l = low.mutable_data(), *h = high.mutable_data();
  without_gil([&] { ekmfast::survey(s, ref.data(), n_threads, &weight, &squares, m, l, h); });
  return py::make_tuple(weight, squares, sum, ref_out, low, high);
}

py::tuple survey(const py::array& X, const std::optional<py::array>& sample_weight,
                 const std::optional<DoubleArray>& reference, int n_threads) {
  return (is_float32(X) ? survey_of<float> : survey_of<double>)(X, sample_weight, reference,
                                                                n_threads);
}

// The means decide how many mixtures of how many components there are.
ekmfast::Mixtures mixtures_of(const DoubleArray& means, const DoubleArray& whiteners,
                              const DoubleArray& offsets, const DoubleArray& degrees,
                              const DoubleArray& centre, double unit, std::int64_t d) {
  if (means.ndim() != 3 || means.shape(0) < 1 || means.shape(1) < 1 || means.shape(2) != d)
    refuse("means must have shape (s, k, d)");
  const py::ssize_t n = means.shape(0), k = means.shape(1);
  const bool full = whiteners.ndim() == 4;
  if ((!full && whiteners.ndim() != 3) || whiteners.shape(0) != n || whiteners.shape(1) != k ||
      whiteners.shape(2) != d || (full && whiteners.shape(3) != d))
    refuse("whiteners must have shape (s, k, d, d) or (s, k, d)");
  if (offsets.ndim() != 2 || offsets.shape(0) != n || offsets.shape(1) != k)
    refuse("offsets must have shape (s, k)");
  if (degrees.ndim() != 1 || degrees.shape(0) != n) refuse("degrees must have shape (s,)");
  if (centre.ndim() != 1 || centre.shape(0) != d) refuse("centre must have shape (d,)");
  for (const DoubleArray* array : {&means, &whiteners, &offsets, &degrees, &centre})
    check_aligned(*array, "the mixture");
  for (py::ssize_t i = 0; i < n; ++i)
    if (!(degrees.data()[i] > 0)) refuse("degrees must be above 0");
  if (!(std::isfinite(unit) && unit > 0)) refuse("unit must be finite and above 0");
  return {n, k, full, means.data(), whiteners.data(), offsets.data(), degrees.data()};
}

template <class T>
py::tuple expectation_of(const py::array& X, const std::optional<py::array>& sample_weight,
                         const DoubleArray& centre, double unit, const DoubleArray& means,
                         const DoubleArray& whiteners, const DoubleArray& offsets,
                         const DoubleArray& degrees, int n_threads) {
  const Samples<T> s = samples_of<T>(X, sample_weight);
  const ekmfast::Mixtures m = mixtures_of(means, whiteners, offsets, degrees, centre, unit, s.d);
  threads(n_threads);
  const py::ssize_t n = means.shape(0), k = means.shape(1), d = means.shape(2);
  DoubleArray mass({n, k}), weight({n, k}), first({n, k, d}), likelihood(n), classified(n);
  DoubleArray second = m.full ? DoubleArray({n, k, d, d}) : DoubleArray({n, k, d});
  double *p = mass.mutable_data(), *w = weight.mutable_data(), *f = first.mutable_data(),
         *q = second.mutable_data(), *l = likelihood.mutable_data(), *c = classified.mutable_data();
  const double* about = centre.data();
  without_gil([&] { ekmfast::expectation(s, m, about, unit, n_threads, p, w, f, q, l, c); });
  return py::make_tuple(mass, weight, first, second, likelihood, classified);
}

py::tuple expectation(const py::array& X, const std::optional<py::array>& sample_weight,
                      const DoubleArray& centre, double unit, const DoubleArray& means,
                      const DoubleArray& whiteners, const DoubleArray& offsets,
                      const DoubleArray& degrees, int n_threads) {
  return (is_float32(X) ? expectation_of<float> : expectation_of<double>)(
      X, sample_weight, centre, unit, means, whiteners, offsets, degrees, n_threads);
}

DoubleArray invert_halves(const DoubleArray& halves) {
  const py::ssize_t axes = halves.ndim();
  if (axes < 2 || halves.shape(axes - 1) != halves.shape(axes - 2) || halves.shape(axes - 1) < 1)
    refuse("halves must have shape (..., d, d)");
  check_aligned(halves, "halves");
  const py::ssize_t d = halves.shape(axes - 1);
  DoubleArray out(std::vector<py::ssize_t>(halves.shape(), halves.shape() + axes));
  const double* in = halves.data();
  double* whiteners = out.mutable_data();
  const std::int64_t n = halves.size() / (d * d);
  without_gil([&] { ekmfast::invert_halves(in, n, d, whiteners); });
  return out;
}

template <class T>
T* writable_or_null(const std::optional<py::array>& out, std::vector<py::ssize_t> shape,
                    const char* name) {
  return out ? writable<T>(*out, std::move(shape), name) : nullptr;
}

typedef std::optional<py::array> MaybeArray;

template <class T>
void densities_of(const py::array& X, const DoubleArray& centre, double unit,
                  const DoubleArray& means, const DoubleArray& whiteners,
                  const DoubleArray& offsets, const DoubleArray& degrees, const MaybeArray& joint,
                  const MaybeArray& labels, const MaybeArray& largest, const MaybeArray& density,
                  int n_threads) {
  const Samples<T> s = samples_of<T>(X, std::nullopt);
  const ekmfast::Mixtures m = mixtures_of(means, whiteners, offsets, degrees, centre, unit, s.d);
  if (m.n != 1) refuse("means must be those of one mixture");
  // The kernels store a label as a number of T while they search (mixture.inl).
  if (m.k > std::int64_t{1} << std::min(std::numeric_limits<T>::digits, 31))
    refuse("means must be at most 2^24 for float32 and 2^31 for float64");
  threads(n_threads);
  const py::ssize_t n = X.shape(0);
  T* const j = writable_or_null<T>(joint, {n, means.shape(1)}, "joint");
  std::int32_t* const l = writable_or_null<std::int32_t>(labels, {n}, "labels");
  T* const most = writable_or_null<T>(largest, {n}, "largest");
  T* const all = writable_or_null<T>(density, {n}, "density");
  const double* about = centre.data();
  without_gil([&] { ekmfast::densities(s, m, about, unit, n_threads, j, l, most, all); });
}

void densities(const py::array& X, const DoubleArray& centre, double unit,
               const DoubleArray& means, const DoubleArray& whiteners, const DoubleArray& offsets,
               const DoubleArray& degrees, const MaybeArray& joint, const MaybeArray& labels,
               const MaybeArray& largest, const MaybeArray& density, int n_threads) {
  (is_float32(X) ? densities_of<float> : densities_of<double>)(
      X, centre, unit, means, whiteners, offsets, degrees, joint, labels, largest, density,
      n_threads);
}

typedef std::optional<DoubleArray> Maybe;

std::vector<double> vector_of(const DoubleArray& array, std::int64_t size, const char* name) {
  if (array.size() != size) refuse(std::string(name) + " has the wrong size");
  check_aligned(array, name);
  return std::vector<double>(array.data(), array.data() + array.size());
}

// Runs change without the GIL while advance() computes: another thread is refused meanwhile.
struct GuardedSolver : ekmfast::Solver {
  using ekmfast::Solver::Solver;
  bool busy = false;

  void refuse_if_busy() const {
    if (busy) refuse("the solver is in use by another thread");
  }
};

GuardedSolver make_solver(const DoubleArray& starts, const DoubleArray& alpha, double threshold,
                            double noise, double resolution, std::int64_t window, bool compete,
                            const Maybe& low, const Maybe& high) {
  if (starts.ndim() != 3 || starts.shape(0) < 1 || starts.shape(1) < 1 || starts.shape(2) < 1)
    refuse("starts must have shape (s, k, d)");
  if (alpha.ndim() != 1 || alpha.shape(0) != starts.shape(0)) refuse("alpha must have shape (s,)");
  check_aligned(starts, "starts");
  check_aligned(alpha, "alpha");
  ekmfast::Rules rules{threshold, noise, resolution, window, compete, {}, {}};
  if (low.has_value() != high.has_value()) refuse("low and high belong together");
  if (window < 0) refuse("window must be >= 0");
  if (low) rules.low = vector_of(*low, starts.shape(2), "low");
  if (high) rules.high = vector_of(*high, starts.shape(2), "high");
  for (std::size_t j = 0; j < rules.low.size(); ++j)
    if (!(rules.low[j] <= rules.high[j])) refuse("low must not be above high");
  return GuardedSolver(starts.data(), alpha.data(), starts.shape(0), starts.shape(1),
                         starts.shape(2), std::move(rules));
}

py::tuple candidates(const GuardedSolver& solver) {
  solver.refuse_if_busy();
  const py::ssize_t n = solver.n_going();
  DoubleArray centroids({n, static_cast<py::ssize_t>(solver.k()), static_cast<py::ssize_t>(solver.d())}),
      alpha(n);
  solver.candidates(centroids.mutable_data(), alpha.mutable_data());
  return py::make_tuple(centroids, alpha);
}

void advance(GuardedSolver& solver, const DoubleArray& sum_wx, const DoubleArray& sum_w,
             const DoubleArray& sum_p, const DoubleArray& objective, const DoubleArray& reference,
             int n_threads) {
  solver.refuse_if_busy();
  const py::ssize_t n = solver.n_going(), k = solver.k(), d = solver.d();
  if (sum_wx.size() != n * k * d || sum_w.size() != n * k || sum_p.size() != n * k ||
      objective.size() != n || reference.size() != d)
    refuse("sums must be those of the candidates");
  for (const DoubleArray* array : {&sum_wx, &sum_w, &sum_p, &objective, &reference})
    check_aligned(*array, "sums");
  const double *wx = sum_wx.data(), *w = sum_w.data(), *p = sum_p.data(), *j = objective.data(),
               *about = reference.data();
  threads(n_threads);
  solver.busy = true;
  try {
    without_gil([&] { solver.advance(wx, w, p, j, about, n_threads); });
  } catch (...) {
    solver.busy = false;
    throw;
  }
  solver.busy = false;
}

ekmfast::Run& run_at(GuardedSolver& solver, std::int64_t i) {
  solver.refuse_if_busy();
  if (i < 0 || i >= static_cast<std::int64_t>(solver.runs().size())) refuse("no such run");
  return solver.runs()[static_cast<std::size_t>(i)];
}

py::object matrix_of(const std::vector<double>& values, const GuardedSolver& solver) {
  if (values.empty()) return py::none();
  DoubleArray out({static_cast<py::ssize_t>(solver.k()), static_cast<py::ssize_t>(solver.d())});
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

py::dict get_run(GuardedSolver& solver, std::int64_t i) {
  const ekmfast::Run& run = run_at(solver, i);
  py::list past;
  for (std::size_t j = 0; j < run.past_steps.size(); ++j)
    past.append(py::make_tuple(matrix_of(run.past_centroids[j], solver),
                               matrix_of(run.past_steps[j], solver)));
  return py::dict(
      py::arg("centroids") = matrix_of(run.centroids, solver), py::arg("alpha") = run.alpha,
      py::arg("objective") = run.objective, py::arg("step") = matrix_of(run.step, solver),
      py::arg("size") = run.size, py::arg("leap") = matrix_of(run.leap, solver),
      py::arg("past") = past, py::arg("n_halvings") = run.n_halvings,
      py::arg("n_jumps") = run.n_jumps, py::arg("jumping") = run.jumping,
      py::arg("held") = run.held, py::arg("least") = run.least, py::arg("n_still") = run.n_still,
      py::arg("n_iter") = run.n_iter, py::arg("converged") = run.converged,
      py::arg("given_up") = run.given_up, py::arg("done") = run.done,
      py::arg("history") = run.history);
}

void set_run(GuardedSolver& solver, std::int64_t i, const py::dict& state) {
  const auto matrix = [&](const py::handle& value, const char* name) {
    if (value.is_none()) return std::vector<double>();
    const DoubleArray array = value.cast<DoubleArray>();
    if (array.ndim() != 2 || array.shape(0) != solver.k() || array.shape(1) != solver.d())
      refuse(std::string(name) + " must have shape (k, d)");
    return vector_of(array, solver.k() * solver.d(), name);
  };
  ekmfast::Run run = run_at(solver, i);  // a copy, so that an error leaves the run as it was
  run.centroids = matrix(state["centroids"], "centroids");
  if (run.centroids.empty()) refuse("centroids must have shape (k, d)");
  run.step = matrix(state["step"], "step");
  run.leap = matrix(state["leap"], "leap");
  run.past_centroids.clear();
  run.past_steps.clear();
  for (const py::handle& pair : state["past"]) {
    const py::tuple both = pair.cast<py::tuple>();
    run.past_centroids.push_back(matrix(both[0], "past"));
    run.past_steps.push_back(matrix(both[1], "past"));
  }
  run.alpha = state["alpha"].cast<double>();
  run.objective = state["objective"].cast<double>();
  run.size = state["size"].cast<double>();
  run.least = state["least"].cast<double>();
  run.n_halvings = state["n_halvings"].cast<std::int64_t>();
  run.n_jumps = state["n_jumps"].cast<std::int64_t>();
  run.n_still = state["n_still"].cast<std::int64_t>();
  run.n_iter = state["n_iter"].cast<std::int64_t>();
  run.jumping = state["jumping"].cast<bool>();
  run.held = state["held"].cast<bool>();
  run.converged = state["converged"].cast<bool>();
  run.given_up = state["given_up"].cast<bool>();
  run.done = state["done"].cast<bool>();
  run.history = state["history"].cast<std::vector<double>>();
  run_at(solver, i) = std::move(run);
}

py::tuple position(GuardedSolver& solver, std::int64_t i) {
  const ekmfast::Run& run = run_at(solver, i);
  return py::make_tuple(matrix_of(run.centroids, solver), run.alpha);
}

DoubleArray objectives(GuardedSolver& solver) {
  solver.refuse_if_busy();
  DoubleArray out(static_cast<py::ssize_t>(solver.runs().size()));
  double* at = out.mutable_data();
  for (const ekmfast::Run& run : solver.runs()) *at++ = run.objective;
  return out;
}

bool plausible_sums(std::int64_t n, const DoubleArray& alpha, const DoubleArray& sum_wx,
                    const DoubleArray& sum_w, const DoubleArray& sum_p,
                    const DoubleArray& exponent, const DoubleArray& objective, bool float32) {
  if (sum_wx.ndim() != 3) refuse("sum_wx must have shape (s, k, d)");
  const py::ssize_t s = sum_wx.shape(0), k = sum_wx.shape(1), d = sum_wx.shape(2);
  for (const DoubleArray* array : {&sum_w, &sum_p, &exponent})
    if (array->size() != s * k) refuse("sums must have shape (s, k)");
  if (alpha.size() != s || objective.size() != s) refuse("alpha must have shape (s,)");
  return (float32 ? ekmfast::plausible_sums<float> : ekmfast::plausible_sums<double>)(
      n, d, k, s, alpha.data(), sum_wx.data(), sum_w.data(), sum_p.data(), exponent.data(),
      objective.data());
}

bool plausible_update(std::int64_t n, const DoubleArray& sum_wx, const DoubleArray& sum_w,
                      bool float32) {
  if (sum_wx.ndim() != 2 || sum_w.size() != sum_wx.shape(0)) refuse("sum_wx must have shape (k, d)");
  return (float32 ? ekmfast::plausible_update<float> : ekmfast::plausible_update<double>)(
      n, sum_wx.shape(1), sum_wx.shape(0), sum_wx.data(), sum_w.data());
}

template <class T>
py::array exp2_of(const py::array& x) {
  const py::array_t<T, py::array::c_style> in(x);
  py::array_t<T> out(in.size());
  ekmfast::exp2_kernel(in.data(), static_cast<std::int64_t>(in.size()), out.mutable_data());
  return out;
}

py::array exp2_kernel(const py::array& x) { return is_float32(x) ? exp2_of<float>(x) : exp2_of<double>(x); }

// Python runs signal handlers only in its main thread, so that only this thread asks for them.
std::atomic<unsigned long> g_main_thread{0};

void watch_main_thread() {
  const py::object threading = py::module_::import("threading");
  g_main_thread = threading.attr("main_thread")().attr("ident").cast<unsigned long>();
  // In the child of a fork the main thread is the one that called fork.
  py::module_::import("os").attr("register_at_fork")(
      py::arg("after_in_child") = py::cpp_function([] { g_main_thread = PyThread_get_thread_ident(); }));
}

// Runs the handlers of pending signals; true if one of them raised an exception, as for Ctrl-C.
bool signal_raised() {
  if (PyThread_get_thread_ident() != g_main_thread) return false;
  const py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

Isa isa_from(const std::string& name) {
  std::string known;
  for (Isa isa : ekmfast::kAllIsas) {
    if (!ekmfast::isa_available(isa)) continue;
    if (name == ekmfast::isa_name(isa)) return isa;
    known += std::string(known.empty() ? "" : ", ") + ekmfast::isa_name(isa);
  }
  refuse("isa must be one of " + known + " on this machine, got '" + name + "'");
}

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (Isa isa : ekmfast::kAllIsas)
    if (ekmfast::isa_available(isa)) names.push_back(ekmfast::isa_name(isa));
  return names;
}

}  // namespace

// threadpoolctl calls these functions (see ekmfast/rows/threads.py).
extern "C" {
__attribute__((visibility("default"))) int ekmfast_get_num_threads(void) {
  return ekmfast::default_threads();
}
__attribute__((visibility("default"))) void ekmfast_set_num_threads(int n) {
  ekmfast::set_default_threads(n);
}
}

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled kernels of ekmfast; ekmfast.kernels is the public face.";
  watch_main_thread();
  ekmfast::set_poll(&signal_raised);
  py::register_local_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const ekmfast::Interrupted&) {
      // The signal handler has already set a Python exception, which the caller gets.
    }
  });
  m.def("statistics", &statistics, py::arg("X").noconvert(), py::arg("centroids").noconvert(),
        py::arg("alpha").noconvert(), py::arg("sample_weight").none(true),
        py::arg("reference").none(true), py::arg("n_threads"),
        py::arg("weighting") = "equilibrium", py::arg("fuzzifier") = 2.0,
        py::arg("rescue") = true);
  m.def("weights", &weights, py::arg("X").noconvert(), py::arg("centroids").noconvert(),
        py::arg("alpha"), py::arg("out").noconvert(), py::arg("n_threads"));
  m.def("assign", &assign, py::arg("X").noconvert(), py::arg("centroids").noconvert(),
        py::arg("labels").noconvert(), py::arg("squared_distances").noconvert(),
        py::arg("n_threads"));
  m.def("closest", &closest, py::arg("X").noconvert(), py::arg("candidates").noconvert(),
        py::arg("closest").noconvert(), py::arg("sample_weight").none(true),
        py::arg("reference").none(true), py::arg("n_threads"), py::arg("update") = false);
  m.def("accumulate", &accumulate, py::arg("X").noconvert(), py::arg("weights").noconvert(),
        py::arg("n_threads"));
  m.def("survey", &survey, py::arg("X").noconvert(), py::arg("sample_weight").none(true),
        py::arg("reference").none(true), py::arg("n_threads"));
  m.def("expectation", &expectation, py::arg("X").noconvert(), py::arg("sample_weight").none(true),
        py::arg("centre"), py::arg("unit"), py::arg("means").noconvert(),
        py::arg("whiteners").noconvert(), py::arg("offsets").noconvert(),
        py::arg("degrees").noconvert(), py::arg("n_threads"));
  m.def("invert_halves", &invert_halves, py::arg("halves").noconvert());
  m.def("densities", &densities, py::arg("X").noconvert(), py::arg("centre"), py::arg("unit"),
        py::arg("means").noconvert(), py::arg("whiteners").noconvert(),
        py::arg("offsets").noconvert(), py::arg("degrees").noconvert(),
        py::arg("joint").none(true), py::arg("labels").none(true), py::arg("largest").none(true),
        py::arg("density").none(true), py::arg("n_threads"));
  py::class_<GuardedSolver>(m, "Solver", py::module_local())
      .def(py::init(&make_solver), py::arg("starts").noconvert(), py::arg("alpha").noconvert(),
           py::arg("threshold"), py::arg("noise"), py::arg("resolution"), py::arg("window"),
           py::arg("compete"), py::arg("low"), py::arg("high"))
      .def("candidates", &candidates)
      .def("advance", &advance, py::arg("sum_wx"), py::arg("sum_w"), py::arg("sum_p"),
           py::arg("objective"), py::arg("reference"), py::arg("n_threads"))
      .def("get_run", &get_run, py::arg("index"))
      .def("set_run", &set_run, py::arg("index"), py::arg("state"))
      .def_property_readonly("objectives", &objectives)
      .def("position", &position, py::arg("index"))
      .def_property_readonly("n_going", [](GuardedSolver& solver) {
        solver.refuse_if_busy();
        return solver.n_going();
      })
      .def("__len__", [](GuardedSolver& solver) { return solver.runs().size(); });
  m.attr("theta") = ekmfast::kTheta;
  m.attr("max_halvings") = ekmfast::kMaxHalvings;
  m.def("plausible_sums", &plausible_sums, py::arg("n"), py::arg("alpha"),
        py::arg("sum_wx"), py::arg("sum_w"), py::arg("sum_p"), py::arg("exponent"),
        py::arg("objective"), py::arg("float32"));
  m.def("plausible_update", &plausible_update, py::arg("n"), py::arg("sum_wx"), py::arg("sum_w"),
        py::arg("float32"));
  m.def("exp2_kernel", &exp2_kernel, py::arg("x").noconvert());
  m.def("least_mass", [](bool float32) {
    return float32 ? ekmfast::least_mass<float>() : ekmfast::least_mass<double>();
  }, py::arg("float32"));
  m.def("isa", [] { return std::string(ekmfast::isa_name(ekmfast::isa_in_use())); });
  m.def("set_isa", [](const std::string& name) { ekmfast::set_isa(isa_from(name)); });
  m.def("available_isas", &available_isas);
  m.def("num_threads", &ekmfast::default_threads);
  m.def("set_num_threads", &ekmfast::set_default_threads, py::arg("n"));
  m.attr("compiler") = std::string(
#if defined(__clang__)
      "Clang " __clang_version__
#elif defined(__GNUC__)
      "GCC " __VERSION__
#else
      "unknown"
#endif
  );
}
