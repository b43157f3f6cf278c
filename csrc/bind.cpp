// The only file that uses Python. Each function checks its arguments, takes their pointers,
// releases the GIL, computes, and returns arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "ekm.h"
#include "halves.h"
#include "labels.h"
#include "likelihood.h"
#include "maximization.h"
#include "merge.h"
#include "mixture.h"
#include "moments.h"
#include "parallel.h"
#include "partial.h"
#include "plausible.h"
#include "portable.h"
#include "rescue.h"
#include "seeding.h"
#include "simd/dispatch.h"
#include "solver.h"
#include "sparse.h"
#include "sparse_mixture.h"

namespace py = pybind11;
using ekmfast::Isa;
using ekmfast::Samples;
using ekmfast::Weighting;

namespace {

typedef py::array_t<double, py::array::c_style> DoubleArray;
typedef std::optional<py::array> MaybeArray;

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
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
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
Samples<T> samples_of(const py::array& X, const MaybeArray& sample_weight, const MaybeArray& factor = {}) {
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
  const auto one_a_row = [&](const py::array& w, const char* name) {
    if (w.ndim() != 1 || w.shape(0) != X.shape(0) || !py::isinstance<py::array_t<T>>(w) ||
        (w.shape(0) > 1 && w.strides(0) != item) || !aligned(w, alignof(T)))
      refuse(std::string(name) + " must be contiguous, aligned, one a row, of the dtype of X");
    return static_cast<const T*>(w.data());
  };
  if (sample_weight) s.sample_weight = one_a_row(*sample_weight, "sample_weight");
  if (factor) s.factor = one_a_row(*factor, "factor");
  return s;
}

template <class T>
const T* readable(const py::array& in, std::vector<py::ssize_t> shape, const char* name) {
  bool fits = in.ndim() == static_cast<py::ssize_t>(shape.size()) &&
              py::isinstance<py::array_t<T>>(in) && (in.flags() & py::array::c_style) &&
              aligned(in, alignof(T));
  for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = in.shape(static_cast<py::ssize_t>(i)) == shape[i];
  if (!fits) refuse(std::string(name) + " must be C-contiguous, aligned and of the right dtype and shape");
  return static_cast<const T*>(in.data());
}

template <class T>
T* writable(const py::array& out, std::vector<py::ssize_t> shape, const char* name) {
  if (!out.writeable()) refuse(std::string(name) + " must be writable");
  return const_cast<T*>(readable<T>(out, std::move(shape), name));
}

// Whether two contiguous arrays share bytes.
bool overlap(const py::array& a, const py::array& b) {
  const auto at = reinterpret_cast<std::uintptr_t>(a.data()),
             there = reinterpret_cast<std::uintptr_t>(b.data());
  return at < there + static_cast<std::uintptr_t>(b.nbytes()) &&
         there < at + static_cast<std::uintptr_t>(a.nbytes());
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

void check_problems(const DoubleArray& centroids, std::int64_t d, const char* name) {
  if (centroids.ndim() != 3 || centroids.shape(0) < 1 || centroids.shape(1) < 1 ||
      centroids.shape(2) != d)
    refuse(std::string(name) + " must have shape (s, k, d)");
  check_aligned(centroids, name);
}

// The sums of one pass for each of some problems with k centroids and d features.
struct PassSums {
  DoubleArray sum_wx, sum_w, sum_p, exponent, objective;

  PassSums(py::ssize_t problems, py::ssize_t k, py::ssize_t d)
      : PassSums(DoubleArray({problems, k, d}), problems, k) {}
  PassSums(DoubleArray wx, py::ssize_t problems, py::ssize_t k)
      : sum_wx(std::move(wx)), sum_w({problems, k}), sum_p({problems, k}),
        exponent({problems, k}), objective(problems) {}
};

Weighting check_weighting(const std::string& name, double fuzzifier, std::int64_t k) {
  const Weighting rule = weighting_from(name);
  if (!(std::isfinite(fuzzifier) && fuzzifier > 1)) refuse("fuzzifier must be finite and > 1");
  // At equal distances a membership is 1/k, and its power (1/k)^m must not underflow.
  if (rule == Weighting::fuzzy && (fuzzifier - 1) * std::log2(static_cast<double>(k)) > 800)
    refuse("fuzzifier must be <= 1 + 800 / log2(k)");
  return rule;
}

// Checks what a pass takes, whatever the rows are, and returns the rule of the weights.
Weighting check_pass(const DoubleArray& centroids, const DoubleArray& alpha, std::int64_t d,
                     const std::string& weighting, double fuzzifier) {
  check_problems(centroids, d, "centroids");
  if (alpha.ndim() != 1 || alpha.shape(0) != centroids.shape(0))
    refuse("alpha must have shape (s,)");
  check_aligned(alpha, "alpha");
  return check_weighting(weighting, fuzzifier, centroids.shape(1));
}

template <class T>
py::tuple statistics_of(const py::array& X, const DoubleArray& centroids, const DoubleArray& alpha,
                        const std::optional<py::array>& sample_weight,
                        const std::optional<DoubleArray>& reference, int n_threads,
                        const std::string& weighting, double fuzzifier, bool rescue,
                        const MaybeArray& factor, bool rounded) {
  const Samples<T> s = samples_of<T>(X, sample_weight, factor);
  const Weighting rule = check_pass(centroids, alpha, s.d, weighting, fuzzifier);
  const py::ssize_t problems = centroids.shape(0), k = centroids.shape(1);
  threads(n_threads);
  const std::vector<T> ref = reference_of(s, reference);
  PassSums out(problems, k, s.d);
  double *wx = out.sum_wx.mutable_data(), *w = out.sum_w.mutable_data(),
         *p = out.sum_p.mutable_data(), *e = out.exponent.mutable_data(),
         *j = out.objective.mutable_data();
  const double *c = centroids.data(), *a = alpha.data();
  if (rounded && sizeof(T) < sizeof(double)) refuse("only rows in float64 can be rounded");
  without_gil([&] {
    if constexpr (std::is_same<T, double>::value)
      if (rounded)
        return ekmfast::rounded_statistics(s, c, a, problems, k, ref.data(), rule, fuzzifier, n_threads,
                                           wx, w, p, e, j);
    ekmfast::statistics(s, c, a, problems, k, ref.data(), rule, fuzzifier, rescue, n_threads, wx, w,
                        p, e, j);
  });
  DoubleArray ref_out(s.d);
  std::copy(ref.begin(), ref.end(), ref_out.mutable_data());
  return py::make_tuple(out.sum_wx, out.sum_w, out.sum_p, out.exponent, out.objective, ref_out);
}

py::tuple statistics(const py::array& X, const DoubleArray& centroids, const DoubleArray& alpha,
                     const std::optional<py::array>& sample_weight,
                     const std::optional<DoubleArray>& reference, int n_threads,
                     const std::string& weighting, double fuzzifier, bool rescue,
                     const MaybeArray& factor, bool rounded) {
  return (is_float32(X) ? statistics_of<float> : statistics_of<double>)(
      X, centroids, alpha, sample_weight, reference, n_threads, weighting, fuzzifier, rescue,
      factor, rounded);
}

void check_centroids(const DoubleArray& centroids, std::int64_t d) {
  if (centroids.ndim() != 2 || centroids.shape(0) < 1 || centroids.shape(1) != d)
    refuse("centroids must have shape (k, d)");
  check_aligned(centroids, "centroids");
}

template <class T>
double weights_of(const py::array& X, const DoubleArray& centroids, double alpha,
                  const py::array& out, int n_threads, const MaybeArray& factor) {
  const Samples<T> s = samples_of<T>(X, std::nullopt, factor);
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
               const py::array& out, int n_threads, const MaybeArray& factor) {
  return (is_float32(X) ? weights_of<float> : weights_of<double>)(X, centroids, alpha, out,
                                                                  n_threads, factor);
}

// The kernels store a label as a number of T while they search (assign.inl).
template <class T>
void check_label_fits(std::int64_t k) {
  if (k > std::int64_t{1} << std::min(std::numeric_limits<T>::digits, 31))
    refuse("centroids must be at most 2^24 for float32 and 2^31 for float64");
}

template <class T>
double assign_of(const py::array& X, const DoubleArray& centroids, const py::array& labels,
                 const py::array& squared_distances, int n_threads, const MaybeArray& factor) {
  const Samples<T> s = samples_of<T>(X, std::nullopt, factor);
  check_centroids(centroids, s.d);
  threads(n_threads);
  const py::ssize_t k = centroids.shape(0);
  check_label_fits<T>(k);
  std::int32_t* l = writable<std::int32_t>(labels, {X.shape(0)}, "labels");
  T* d2 = writable<T>(squared_distances, {X.shape(0)}, "squared_distances");
  // The labels are read again, as indices, while squared distances are written.
  if (overlap(labels, squared_distances)) refuse("labels and squared_distances must not overlap");
  const std::vector<T> ref = reference_of(s, std::nullopt);
  const double* c = centroids.data();
  double witness = 0;
  without_gil([&] { witness = ekmfast::assign(s, c, k, ref.data(), n_threads, l, d2); });
  return witness;
}

double assign(const py::array& X, const DoubleArray& centroids, const py::array& labels,
              const py::array& squared_distances, int n_threads, const MaybeArray& factor) {
  return (is_float32(X) ? assign_of<float> : assign_of<double>)(
      X, centroids, labels, squared_distances, n_threads, factor);
}

template <class T>
py::array_t<std::int32_t> label_each_of(const py::array& X, const DoubleArray& centroids,
                                        const std::int32_t* names, int n_threads,
                                        const MaybeArray& factor) {
  const Samples<T> s = samples_of<T>(X, std::nullopt, factor);
  check_problems(centroids, s.d, "centroids");
  const std::int64_t results = centroids.shape(0), k = centroids.shape(1);
  check_label_fits<T>(k);
  py::array_t<std::int32_t> out({centroids.shape(0), X.shape(0)});
  const std::vector<T> ref = reference_of(s, std::nullopt);
  const double* c = centroids.data();
  std::int32_t* labels = out.mutable_data();
  without_gil([&] {
    ekmfast::label_each(s, c, names, results, k, ref.data(), n_threads, labels);
  });
  return out;
}

py::array_t<std::int32_t> label_each(const py::array& X, const DoubleArray& centroids,
                                     const py::array& names, int n_threads,
                                     const MaybeArray& factor) {
  if (centroids.ndim() != 3) refuse("centroids must have shape (r, k, d)");
  const std::int32_t* own =
      readable<std::int32_t>(names, {centroids.shape(0), centroids.shape(1)}, "names");
  threads(n_threads);
  return (is_float32(X) ? label_each_of<float> : label_each_of<double>)(X, centroids, own,
                                                                        n_threads, factor);
}

template <class T>
DoubleArray closest_of(const py::array& X, const DoubleArray& candidates, const py::array& closest,
                       const std::optional<py::array>& sample_weight,
                       const std::optional<DoubleArray>& reference, int n_threads, bool update,
                       const MaybeArray& factor) {
  const Samples<T> s = samples_of<T>(X, sample_weight, factor);
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
                    const std::optional<DoubleArray>& reference, int n_threads, bool update,
                    const MaybeArray& factor) {
  return (is_float32(X) ? closest_of<float> : closest_of<double>)(
      X, candidates, distances, sample_weight, reference, n_threads, update, factor);
}

void check_uniform(const DoubleArray& uniform, const char* name) {
  check_aligned(uniform, name);
  const double* u = uniform.data();
  if (!std::all_of(u, u + uniform.size(), [](double one) { return one >= 0 && one < 1; }))
    refuse(std::string(name) + " must be >= 0 and < 1");
}

template <class T>
py::array_t<std::int64_t> draw_rows_of(const py::array& closest, const double* weight,
                                       const DoubleArray& uniform, int n_threads) {
  const T* d2 = readable<T>(closest, {uniform.shape(0), closest.shape(1)}, "closest");
  py::array_t<std::int64_t> out({uniform.shape(0), uniform.shape(1)});
  const double* u = uniform.data();
  std::int64_t* rows = out.mutable_data();
  const std::int64_t n = closest.shape(1), s = uniform.shape(0), l = uniform.shape(1);
  without_gil([&] { ekmfast::draw_rows(d2, weight, n, s, u, l, n_threads, rows); });
  return out;
}

py::array_t<std::int64_t> draw_rows(const py::array& closest,
                                    const std::optional<DoubleArray>& sample_weight,
                                    const DoubleArray& uniform, int n_threads) {
  if (uniform.ndim() != 2) refuse("uniform must have shape (s, l)");
  if (closest.ndim() != 2 || closest.shape(1) < 1) refuse("closest must have shape (s, n)");
  check_uniform(uniform, "uniform");
  threads(n_threads);
  const double* weight = nullptr;
  if (sample_weight) {
    check_aligned(*sample_weight, "sample_weight");
    if (sample_weight->ndim() != 1 || sample_weight->shape(0) != closest.shape(1))
      refuse("sample_weight must have shape (n,)");
    weight = sample_weight->data();
  }
  return (is_float32(closest) ? draw_rows_of<float> : draw_rows_of<double>)(
      closest, weight, uniform, n_threads);
}

template <class T>
py::array_t<std::int64_t> choose_rows_of(const py::array& X, const MaybeArray& sample_weight,
                                         const DoubleArray& first, const DoubleArray& uniform,
                                         const std::optional<DoubleArray>& reference, int n_threads,
                                         const MaybeArray& factor) {
  const Samples<T> s = samples_of<T>(X, sample_weight, factor);
  if (s.n < 1) refuse("X must have a row");
  if (first.ndim() != 1 || first.shape(0) < 1) refuse("first must have shape (s,)");
  if (uniform.ndim() != 3 || uniform.shape(1) != first.shape(0))
    refuse("uniform must have shape (k - 1, s, l)");
  check_uniform(first, "first");
  check_uniform(uniform, "uniform");
  threads(n_threads);
  const std::vector<T> ref = reference_of(s, reference);
  const std::int64_t n_seedings = first.shape(0), k = uniform.shape(0) + 1, l = uniform.shape(2);
  const std::vector<double> mass = s.sample_weight
                                       ? std::vector<double>(s.sample_weight, s.sample_weight + s.n)
                                       : std::vector<double>();
  py::array_t<std::int64_t> out({n_seedings, k});
  const double *f = first.data(), *u = uniform.data(), *m = s.sample_weight ? mass.data() : nullptr;
  std::int64_t* rows = out.mutable_data();
  without_gil([&] {
    ekmfast::choose_rows(s, m, n_seedings, k, l, f, u, ref.data(), n_threads, rows);
  });
  return out;
}

py::array_t<std::int64_t> choose_rows(const py::array& X, const MaybeArray& sample_weight,
                                      const DoubleArray& first, const DoubleArray& uniform,
                                      const std::optional<DoubleArray>& reference, int n_threads,
                                      const MaybeArray& factor) {
  return (is_float32(X) ? choose_rows_of<float> : choose_rows_of<double>)(
      X, sample_weight, first, uniform, reference, n_threads, factor);
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
                    const std::optional<DoubleArray>& reference, int n_threads,
                    const MaybeArray& factor) {
  const Samples<T> s = samples_of<T>(X, sample_weight, factor);
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
                 const std::optional<DoubleArray>& reference, int n_threads, const MaybeArray& factor) {
  return (is_float32(X) ? survey_of<float> : survey_of<double>)(X, sample_weight, reference,
                                                                n_threads, factor);
}

template <class T>
py::tuple partial_statistics_of(const py::array& X, const DoubleArray& centroids,
                                const DoubleArray& alpha, const MaybeArray& sample_weight,
                                const DoubleArray& reference, int n_threads,
                                const std::string& weighting, double fuzzifier) {
  const Samples<T> s = samples_of<T>(X, sample_weight);
  const Weighting rule = check_pass(centroids, alpha, s.d, weighting, fuzzifier);
  const py::ssize_t problems = centroids.shape(0), k = centroids.shape(1);
  if (reference.ndim() != 1 || reference.shape(0) != s.d) refuse("reference must have shape (d,)");
  check_aligned(reference, "reference");
  threads(n_threads);
  const py::ssize_t d = static_cast<py::ssize_t>(s.d);
  DoubleArray sum_wx({problems, k, d}), sum_w({problems, k, d}), sum_p({problems, k, d}),
      objective(problems);
  double *wx = sum_wx.mutable_data(), *w = sum_w.mutable_data(), *p = sum_p.mutable_data(),
         *j = objective.mutable_data();
  const double *c = centroids.data(), *a = alpha.data(), *about = reference.data();
  without_gil([&] {
    ekmfast::partial_statistics(s, c, a, problems, k, about, rule, fuzzifier, n_threads, wx, w, p, j);
  });
  return py::make_tuple(sum_wx, sum_w, sum_p, objective);
}

py::tuple partial_statistics(const py::array& X, const DoubleArray& centroids,
                             const DoubleArray& alpha, const MaybeArray& sample_weight,
                             const DoubleArray& reference, int n_threads,
                             const std::string& weighting, double fuzzifier) {
  return (is_float32(X) ? partial_statistics_of<float> : partial_statistics_of<double>)(
      X, centroids, alpha, sample_weight, reference, n_threads, weighting, fuzzifier);
}

template <class T>
DoubleArray partial_distances_of(const py::array& X, const DoubleArray& centroids, int n_threads) {
  const Samples<T> s = samples_of<T>(X, std::nullopt);
  check_centroids(centroids, s.d);
  threads(n_threads);
  const py::ssize_t k = centroids.shape(0);
  DoubleArray out({X.shape(0), k});
  const double* c = centroids.data();
  double* d2 = out.mutable_data();
  without_gil([&] { ekmfast::partial_distances(s, c, k, n_threads, d2); });
  return out;
}

DoubleArray partial_distances(const py::array& X, const DoubleArray& centroids, int n_threads) {
  return (is_float32(X) ? partial_distances_of<float> : partial_distances_of<double>)(X, centroids,
                                                                                      n_threads);
}

// The means decide how many mixtures of how many components there are.
ekmfast::Mixtures mixtures_of(const DoubleArray& means, const DoubleArray& whiteners,
                              const DoubleArray& offsets, const DoubleArray& degrees,
                              const DoubleArray& background, const DoubleArray& centre,
                              double unit, std::int64_t d) {
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
  if (background.ndim() != 1 || background.shape(0) != n) refuse("background must have shape (s,)");
  if (centre.ndim() != 1 || centre.shape(0) != d) refuse("centre must have shape (d,)");
  for (const DoubleArray* array : {&means, &whiteners, &offsets, &degrees, &background, &centre})
    check_aligned(*array, "the mixture");
  for (py::ssize_t i = 0; i < n; ++i)
    if (!(degrees.data()[i] > 0)) refuse("degrees must be above 0");
  for (py::ssize_t i = 0; i < n; ++i)
    if (!(background.data()[i] < HUGE_VAL)) refuse("background must be finite, or -inf");
  if (!(std::isfinite(unit) && unit > 0)) refuse("unit must be finite and above 0");
  return {n, k, full, means.data(), whiteners.data(), offsets.data(), degrees.data(),
          background.data()};
}

// What a pass over rows gives for the next mixtures.
struct MixturePass {
  DoubleArray mass, weight, first, second, beside, likelihood, classified;
  double *p, *w, *f, *q, *b, *l, *c;

  MixturePass(const ekmfast::Mixtures& m, std::int64_t features)
      : MixturePass(m.n, m.k, static_cast<py::ssize_t>(features), m.full) {}
  MixturePass(py::ssize_t n, py::ssize_t k, py::ssize_t d, bool full)
      : mass({n, k}), weight({n, k}), first({n, k, d}),
        second(full ? DoubleArray({n, k, d, d}) : DoubleArray({n, k, d})), beside(n),
        likelihood(n), classified(n), p(mass.mutable_data()), w(weight.mutable_data()),
        f(first.mutable_data()), q(second.mutable_data()), b(beside.mutable_data()),
        l(likelihood.mutable_data()), c(classified.mutable_data()) {}

  py::tuple tuple() const {
    return py::make_tuple(mass, weight, first, second, beside, likelihood, classified);
  }
};

template <class T>
py::tuple expectation_of(const py::array& X, const std::optional<py::array>& sample_weight,
                         const DoubleArray& centre, double unit, const DoubleArray& means,
                         const DoubleArray& whiteners, const DoubleArray& offsets,
                         const DoubleArray& degrees, const DoubleArray& background,
                         int n_threads) {
  const Samples<T> s = samples_of<T>(X, sample_weight);
  const ekmfast::Mixtures m =
      mixtures_of(means, whiteners, offsets, degrees, background, centre, unit, s.d);
  threads(n_threads);
  MixturePass out(m, s.d);
  const double* about = centre.data();
  without_gil([&] {
    ekmfast::expectation(s, m, about, unit, n_threads, out.p, out.w, out.f, out.q, out.b, out.l, out.c);
  });
  return out.tuple();
}

py::tuple expectation(const py::array& X, const std::optional<py::array>& sample_weight,
                      const DoubleArray& centre, double unit, const DoubleArray& means,
                      const DoubleArray& whiteners, const DoubleArray& offsets,
                      const DoubleArray& degrees, const DoubleArray& background,
                      int n_threads) {
  return (is_float32(X) ? expectation_of<float> : expectation_of<double>)(
      X, sample_weight, centre, unit, means, whiteners, offsets, degrees, background, n_threads);
}

template <class T>
DoubleArray likelihoods_of(const py::array& X, const std::optional<py::array>& sample_weight,
                           const py::array& labels, std::int64_t k,
                           const ekmfast::LikelihoodModel& model, int n_threads) {
  const Samples<T> s = samples_of<T>(X, sample_weight);
  threads(n_threads);
  // More would take more memory than the rows, and more time than anybody waits.
  if (k < 1 || k > std::max<std::int64_t>(s.n, 1)) refuse("n_clusters must be >= 1 and <= n");
  if (model.reweightings < 1 || model.reweightings > 100)
    refuse("reweightings must be >= 1 and <= 100");
  if (labels.ndim() != 2 || labels.shape(1) != s.n ||
      !py::isinstance<py::array_t<std::int32_t>>(labels) ||
      !(labels.flags() & py::array::c_style) || !aligned(labels, alignof(std::int32_t)))
    refuse("labels must be C-contiguous, aligned, int32 and of shape (l, n)");
  const std::int32_t* l = static_cast<const std::int32_t*>(labels.data());
  if (std::any_of(l, l + labels.size(), [&](std::int32_t one) { return one < 0 || one >= k; }))
    refuse("labels must be >= 0 and < n_clusters");
  const py::ssize_t n = labels.shape(0);
  DoubleArray out(n);
  double* likelihood = out.mutable_data();
  without_gil([&] {
    ekmfast::classification_likelihoods(s, l, n, k, model, n_threads, likelihood);
  });
  return out;
}

DoubleArray classification_likelihoods(const py::array& X,
                                       const std::optional<py::array>& sample_weight,
                                       const py::array& labels, std::int64_t n_clusters,
                                       double tail, double scale_prior, double variance_prior,
                                       double least_variance, int reweightings, int n_threads) {
  const ekmfast::LikelihoodModel model{tail, scale_prior, variance_prior, least_variance,
                                       reweightings};
  return (is_float32(X) ? likelihoods_of<float> : likelihoods_of<double>)(
      X, sample_weight, labels, n_clusters, model, n_threads);
}

py::array_t<std::int64_t> renumber(const py::array& labels, std::int64_t n_clusters) {
  if (labels.ndim() != 2) refuse("labels must have shape (l, n)");
  const std::int64_t l = labels.shape(0), n = labels.shape(1);
  std::int32_t* in = writable<std::int32_t>(labels, {labels.shape(0), labels.shape(1)}, "labels");
  if (n_clusters < 1 || n_clusters > std::int64_t{1} << 24)
    refuse("n_clusters must be >= 1 and <= 2^24");
  if (std::any_of(in, in + l * n, [&](std::int32_t one) { return one < 0 || one >= n_clusters; }))
    refuse("labels must be >= 0 and < n_clusters");
  py::array_t<std::int64_t> out(labels.shape(0));
  std::int64_t* distinct = out.mutable_data();
  without_gil([&] { ekmfast::renumber(in, l, n, n_clusters, distinct); });
  return out;
}

py::array_t<std::int64_t> distinct_labels(const py::array& labels) {
  if (labels.ndim() != 2) refuse("labels must have shape (l, n)");
  const py::ssize_t l = labels.shape(0), n = labels.shape(1);
  const std::int32_t* in = readable<std::int32_t>(labels, {l, n}, "labels");
  py::array_t<std::int64_t> out(l);
  std::int64_t* numbers = out.mutable_data();
  without_gil([&] { ekmfast::distinct_labels(in, l, n, numbers); });
  return out;
}

py::tuple shared_labels(const py::array& first, const py::array& second) {
  const py::ssize_t n = first.ndim() == 1 ? first.shape(0) : 0;
  const std::int32_t* a = readable<std::int32_t>(first, {n}, "first");
  const std::int32_t* b = readable<std::int32_t>(second, {n}, "second");
  const auto clusters = [n](const std::int32_t* labels, const char* name) {
    std::int64_t most = 0;
    for (py::ssize_t i = 0; i < n; ++i) {
      if (labels[i] < 0 || labels[i] >= 1 << 24)
        refuse(std::string(name) + " must be >= 0 and < 2^24");
      most = std::max<std::int64_t>(most, labels[i] + 1);
    }
    return most;
  };
  const std::int64_t height = clusters(a, "first"), width = clusters(b, "second");
  ekmfast::SharedLabels found{};
  without_gil([&] { found = ekmfast::shared_labels(a, b, n, height, width); });
  return py::make_tuple(found.in_both, found.in_first, found.in_second);
}

py::array_t<std::int32_t> merge_close(const py::array& centroids, const py::array& alphas,
                                      double coincident, double rounding) {
  if (centroids.ndim() != 3 || centroids.shape(1) < 1 || centroids.shape(2) < 1)
    refuse("centroids must have shape (r, k, d)");
  const py::ssize_t r = centroids.shape(0), k = centroids.shape(1), d = centroids.shape(2);
  if (k > py::ssize_t{1} << 24) refuse("centroids must be at most 2^24");
  const double* places = readable<double>(centroids, {r, k, d}, "centroids");
  const double* own = readable<double>(alphas, {r}, "alphas");
  py::array_t<std::int32_t> out({r, k});
  std::int32_t* first = out.mutable_data();
  without_gil([&] {
    ekmfast::merge_close(places, own, r, k, d, coincident, rounding, first);
  });
  return out;
}

py::tuple moments_of_labels(const py::array& X, const py::array& sample_weight,
                            const py::array& labels, std::int64_t n_clusters, bool full,
                            int n_threads) {
  if (X.ndim() != 2 || X.shape(1) < 1) refuse("X must have shape (n, d)");
  if (labels.ndim() != 2) refuse("labels must have shape (l, n)");
  if (n_clusters < 1 || n_clusters > std::int64_t{1} << 24)
    refuse("n_clusters must be >= 1 and <= 2^24");
  const py::ssize_t n = X.shape(0), d = X.shape(1), l = labels.shape(0), k = n_clusters;
  const ekmfast::Labellings rows{readable<double>(X, {n, d}, "X"),
                                 readable<double>(sample_weight, {n}, "sample_weight"),
                                 readable<std::int32_t>(labels, {l, n}, "labels"), n, d, l, k};
  if (std::any_of(rows.labels, rows.labels + l * n,
                  [&](std::int32_t one) { return one < -1 || one >= k; }))
    refuse("labels must be >= -1 and < n_clusters");
  threads(n_threads);
  DoubleArray means({l, k, d}), mass({l, k});
  DoubleArray second = full ? DoubleArray({l, k, d, d}) : DoubleArray({l, k, d});
  double *m = means.mutable_data(), *p = mass.mutable_data(), *q = second.mutable_data();
  without_gil([&] { ekmfast::moments_of_labels(rows, full, n_threads, m, p, q); });
  return py::make_tuple(means, mass, second);
}

py::tuple halves_of_labels(const py::array& X, const py::array& sample_weight,
                           const py::array& labels, const py::array& factors,
                           std::int64_t n_clusters, double farthest, std::int64_t least,
                           double prior, int refined, int n_threads) {
  if (X.ndim() != 2 || X.shape(1) < 1) refuse("X must have shape (n, d)");
  if (n_clusters < 1 || n_clusters > std::int64_t{1} << 24)
    refuse("n_clusters must be >= 1 and <= 2^24");
  if (!(std::isfinite(farthest) && farthest > 0)) refuse("farthest must be finite and above 0");
  if (!(std::isfinite(prior) && prior > 0)) refuse("prior must be finite and above 0");
  if (least < 1) refuse("least must be >= 1");
  const py::ssize_t n = X.shape(0), d = X.shape(1);
  const ekmfast::Halving in{readable<double>(X, {n, d}, "X"),
                            readable<double>(sample_weight, {n}, "sample_weight"),
                            readable<std::int32_t>(labels, {n}, "labels"),
                            readable<double>(factors, {d}, "factors"),
                            n, d, n_clusters, farthest, std::min<std::int64_t>(least, n + 1),
                            prior, refined};
  if (std::any_of(in.labels, in.labels + n,
                  [&](std::int32_t one) { return one < 0 || one >= n_clusters; }))
    refuse("labels must be >= 0 and < n_clusters");
  threads(n_threads);
  DoubleArray rows({n, d});
  py::array_t<bool> half(n);
  double* scaled = rows.mutable_data();
  bool* second = half.mutable_data();
  without_gil([&] { ekmfast::halves_of_labels(in, n_threads, scaled, second); });
  return py::make_tuple(rows, half);
}

std::optional<DoubleArray> whiteners(const DoubleArray& scatters) {
  const py::ssize_t axes = scatters.ndim();
  if (axes < 2 || scatters.shape(axes - 1) != scatters.shape(axes - 2) || scatters.shape(axes - 1) < 1)
    refuse("scatters must have shape (..., d, d)");
  check_aligned(scatters, "scatters");
  const py::ssize_t d = scatters.shape(axes - 1);
  DoubleArray out(std::vector<py::ssize_t>(scatters.shape(), scatters.shape() + axes));
  const double* in = scatters.data();
  double* found = out.mutable_data();
  const std::int64_t n = scatters.size() / (d * d);
  bool positive = true;
  without_gil([&] { positive = ekmfast::find_whiteners(in, n, d, found); });
  if (!positive) return std::nullopt;
  return out;
}

ekmfast::StepModel step_model(const std::string& kind, double prior, double scale_prior,
                              double least_share, double least_scatter, double most_background,
                              std::optional<double> regularization) {
  using ekmfast::Kind;
  const std::pair<const char*, Kind> kinds[] = {{"spherical", Kind::spherical},
                                                {"diag", Kind::diag},
                                                {"tied", Kind::tied},
                                                {"full", Kind::full}};
  for (const auto& [name, value] : kinds)
    if (kind == name)
      return {value, !regularization, prior, scale_prior, least_share, least_scatter,
              most_background, regularization.value_or(0)};
  refuse("kind must be spherical, diag, tied or full, got '" + kind + "'");
}

struct Axes {
  py::ssize_t n, k, d;
  bool matrices;

  std::vector<py::ssize_t> of_scatters() const {
    return matrices ? std::vector<py::ssize_t>{n, k, d, d} : std::vector<py::ssize_t>{n, k, d};
  }
};

Axes axes_of(const py::array& means, const ekmfast::StepModel& model) {
  if (means.ndim() != 3 || means.shape(0) < 1 || means.shape(1) < 1 || means.shape(2) < 1)
    refuse("means must have shape (s, k, d)");
  return {means.shape(0), means.shape(1), means.shape(2), model.matrices()};
}

// The parameters of mixtures, as arrays that Python gets.
struct NewParameters {
  DoubleArray weights, means, scatters, scales, background, whiteners;
  ekmfast::Parameters<double> view;

  explicit NewParameters(const Axes& a)
      : weights({a.n, a.k}),
        means({a.n, a.k, a.d}),
        scatters(a.of_scatters()),
        scales({a.n, a.k}),
        background(a.n),
        whiteners(a.of_scatters()),
        view{weights.mutable_data(),    means.mutable_data(),     scatters.mutable_data(),
             scales.mutable_data(),     background.mutable_data(), whiteners.mutable_data()} {}

  py::tuple tuple() const { return py::make_tuple(weights, background, means, scatters, scales); }
};

// The sums of a pass from which the next mixtures follow, as arrays that Python gets.
struct NewSums {
  DoubleArray mass, weight, first, second, background;

  explicit NewSums(const Axes& a)
      : mass({a.n, a.k}),
        weight({a.n, a.k}),
        first({a.n, a.k, a.d}),
        second(a.of_scatters()),
        background(a.n) {}

  py::tuple tuple() const { return py::make_tuple(mass, weight, first, second, background); }
};

std::optional<py::tuple> maximization(
    const py::array& mass, const py::array& weight, const py::array& first,
    const py::array& second, const py::array& background, const py::array& means,
    const py::array& scales, const std::string& kind, double prior, double scale_prior,
    double least_share, double least_scatter, double most_background,
    std::optional<double> regularization, int n_threads) {
  const ekmfast::StepModel model = step_model(kind, prior, scale_prior, least_share, least_scatter,
                                              most_background, regularization);
  const Axes a = axes_of(means, model);
  const ekmfast::StepSums sums{readable<double>(mass, {a.n, a.k}, "mass"),
                               readable<double>(weight, {a.n, a.k}, "weight"),
                               readable<double>(first, {a.n, a.k, a.d}, "first"),
                               readable<double>(second, a.of_scatters(), "second"),
                               readable<double>(background, {a.n}, "background")};
  const ekmfast::Parameters<const double> before{
      nullptr, readable<double>(means, {a.n, a.k, a.d}, "means"),
      nullptr, readable<double>(scales, {a.n, a.k}, "scales"),
      nullptr, nullptr};
  threads(n_threads);
  const NewParameters after(a);
  bool made = false;
  without_gil([&] {
    made = ekmfast::maximization(model, a.n, a.k, a.d, sums, before, n_threads, after.view);
  });
  if (!made) return std::nullopt;
  return after.tuple();
}

template <class T>
py::tuple expectation_maximization_on(
    const py::array& X, const MaybeArray& sample_weight, const py::array& centre, double unit,
    const py::array& weights, const py::array& background, const py::array& means,
    const py::array& scatters, const py::array& scales, const py::array& whiteners,
    const py::array& degrees, const py::array& constants, double log_volume,
    const py::array& likelihood, const ekmfast::StepModel& model, const ekmfast::Ends& ends,
    bool rounded, int n_threads) {
  if (rounded && sizeof(T) < sizeof(double)) refuse("only rows in float64 can be rounded");
  const Samples<T> s = samples_of<T>(X, sample_weight);
  const Axes a = axes_of(means, model);
  if (a.d != s.d) refuse("means must have shape (s, k, d)");
  const auto one_each = [&](const py::array& array, const char* name) {
    return readable<double>(array, {a.n}, name);
  };
  const ekmfast::Parameters<const double> given{
      readable<double>(weights, {a.n, a.k}, "weights"),
      readable<double>(means, {a.n, a.k, a.d}, "means"),
      readable<double>(scatters, a.of_scatters(), "scatters"),
      readable<double>(scales, {a.n, a.k}, "scales"),
      one_each(background, "background"),
      readable<double>(whiteners, a.of_scatters(), "whiteners")};
  const double *about = readable<double>(centre, {a.d}, "centre"),
               *own_degrees = one_each(degrees, "degrees"),
               *own_constants = one_each(constants, "constants"),
               *before = one_each(likelihood, "likelihood");
  for (py::ssize_t i = 0; i < a.n; ++i)
    if (!(own_degrees[i] > 0)) refuse("degrees must be above 0");
  if (!(std::isfinite(unit) && unit > 0)) refuse("unit must be finite and above 0");
  // A call ends after so many passes, even if a number in the mixture is none.
  if (!(ends.first >= 1 && ends.last >= ends.first && ends.last - ends.first < 1000))
    refuse("first and last must be >= 1, and at most 1000 passes apart");
  if (ends.last > ends.max_iter) refuse("last must be at most max_iter");
  if (std::isnan(log_volume)) refuse("log_volume must be a number");
  threads(n_threads);
  const NewParameters found(a);
  NewSums sums(a);
  DoubleArray likely(a.n), classified(a.n);
  py::array_t<std::int8_t> ended(a.n);
  py::array_t<std::int64_t> n_iter(a.n);
  double *l = likely.mutable_data(), *c = classified.mutable_data();
  ekmfast::Outcome* const outcomes = reinterpret_cast<ekmfast::Outcome*>(ended.mutable_data());
  std::int64_t *passes_each = n_iter.mutable_data(), n_passes = 0;
  double *mass = sums.mass.mutable_data(), *weight = sums.weight.mutable_data(),
         *first = sums.first.mutable_data(), *second = sums.second.mutable_data(),
         *beside = sums.background.mutable_data();
  bool made = false;
  without_gil([&] {
    made = ekmfast::expectation_maximization(
        s, about, unit, model, a.n, a.k, own_degrees, own_constants, log_volume, given, before, ends,
        rounded, n_threads, found.view, l, c, outcomes, passes_each, mass, weight, first, second, beside,
        n_passes);
  });
  const std::optional<py::tuple> left = made ? std::nullopt : std::optional(sums.tuple());
  return py::make_tuple(found.tuple(), likely, classified, ended, n_iter, n_passes, left);
}

py::tuple expectation_maximization(
    const py::array& X, const MaybeArray& sample_weight, const py::array& centre, double unit,
    const py::array& weights, const py::array& background, const py::array& means,
    const py::array& scatters, const py::array& scales, const py::array& whiteners,
    const py::array& degrees, const py::array& constants, double log_volume,
    const py::array& likelihood, std::int64_t first, std::int64_t last, std::int64_t max_iter,
    double total, double tol, std::int64_t race, double margin, double least_likelihood,
    double least_classified, double same, const std::string& kind, double prior,
    double scale_prior, double least_share, double least_scatter, double most_background,
    std::optional<double> regularization, bool rounded, int n_threads) {
  const ekmfast::StepModel model = step_model(kind, prior, scale_prior, least_share, least_scatter,
                                              most_background, regularization);
  const ekmfast::Ends ends{first,  last,             max_iter,         total, tol, race,
                           margin, least_likelihood, least_classified, same};
  const auto call =
      is_float32(X) ? expectation_maximization_on<float> : expectation_maximization_on<double>;
  return call(X, sample_weight, centre, unit, weights, background, means, scatters, scales, whiteners,
              degrees, constants, log_volume, likelihood, model, ends, rounded, n_threads);
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
                  const DoubleArray& offsets, const DoubleArray& degrees,
                  const DoubleArray& background, const MaybeArray& joint, const MaybeArray& labels,
                  const MaybeArray& largest, const MaybeArray& density, int n_threads) {
  const Samples<T> s = samples_of<T>(X, std::nullopt);
  const ekmfast::Mixtures m =
      mixtures_of(means, whiteners, offsets, degrees, background, centre, unit, s.d);
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
               const DoubleArray& degrees, const DoubleArray& background, const MaybeArray& joint,
               const MaybeArray& labels, const MaybeArray& largest, const MaybeArray& density,
               int n_threads) {
  (is_float32(X) ? densities_of<float> : densities_of<double>)(
      X, centre, unit, means, whiteners, offsets, degrees, background, joint, labels, largest,
      density, n_threads);
}

typedef std::optional<DoubleArray> Maybe;

std::vector<double> vector_of(const DoubleArray& array, std::int64_t size, const char* name) {
  if (array.size() != size) refuse(std::string(name) + " has the wrong size");
  check_aligned(array, name);
  return std::vector<double>(array.data(), array.data() + array.size());
}

// Sparse rows, checked once, with references to the arrays that hold them.
// An array whose memory the next call takes when nobody has the array any more.
DoubleArray kept_array(const std::vector<py::ssize_t>& shape,
                       const std::shared_ptr<ekmfast::KeptMemory>& home) {
  std::size_t bytes = sizeof(double);
  for (const py::ssize_t n : shape) bytes *= static_cast<std::size_t>(n);
  if (bytes < 2 * ekmfast::kLargePage) return DoubleArray(shape);
  struct Lent {
    ekmfast::Scratch memory;
    std::size_t bytes;
    std::shared_ptr<ekmfast::KeptMemory> home;
    ~Lent() { home->give_back(std::move(memory), bytes); }
  };
  std::unique_ptr<Lent> lent(new Lent{home->take(bytes), bytes, home});
  const auto* numbers = static_cast<const double*>(lent->memory.get());
  const py::capsule owner(lent.get(), [](void* p) { delete static_cast<Lent*>(p); });
  lent.release();
  return DoubleArray(shape, numbers, owner);
}

class Csr {
 public:
  Csr(const py::array& values, const py::array& columns, const py::array& start, py::ssize_t d,
      const Maybe& sample_weight)
      : values_(values), columns_(columns) {
    const auto flat = [](const py::array& array) {
      return array.ndim() == 1 && (array.flags() & py::array::c_style) &&
             aligned(array, static_cast<std::size_t>(array.itemsize()));
    };
    s_.is_float = is_float32(values);
    s_.is_long = py::isinstance<py::array_t<std::int64_t>>(columns);
    if (!flat(values) || (!s_.is_float && !py::isinstance<py::array_t<double>>(values)))
      refuse("the numbers of X must be contiguous, aligned float32 or float64");
    if (!flat(columns) || (!s_.is_long && !py::isinstance<py::array_t<std::int32_t>>(columns)))
      refuse("the column indices of X must be contiguous, aligned int32 or int64");
    const auto ends = py::array_t<std::int64_t, py::array::c_style | py::array::forcecast>::ensure(start);
    if (!ends || ends.ndim() != 1 || ends.size() < 1) refuse("indptr of X must be one-dimensional");
    s_.start.assign(ends.data(), ends.data() + ends.size());
    const std::int64_t stored = std::min(values.size(), columns.size());
    for (std::size_t i = 0; i < s_.start.size(); ++i)
      if (s_.start[i] < (i ? s_.start[i - 1] : 0) || s_.start[i] > stored || (!i && s_.start[i]))
        refuse("X is no valid sparse matrix: indptr[" + std::to_string(i) + "] is " +
               std::to_string(s_.start[i]) + ", but must ascend from 0 to at most " +
               std::to_string(stored));
    s_.n = static_cast<std::int64_t>(s_.start.size()) - 1;
    s_.d = d;
    if (d < 1) refuse("X must have a feature");
    s_.values = values.data();
    s_.columns = columns.data();
    if (sample_weight) s_.sample_weight = vector_of(*sample_weight, s_.n, "sample_weight");
    std::int64_t row = 0;
    ekmfast::SparseOrder order = ekmfast::SparseOrder::ascending;
    without_gil([&] { order = ekmfast::check_columns(s_, &row); });
    if (order == ekmfast::SparseOrder::out_of_range)
      refuse("X is no valid sparse matrix: row " + std::to_string(row) +
             " has a column index outside of [0, " + std::to_string(d) + ")");
    ascending_ = order == ekmfast::SparseOrder::ascending;
  }

  bool ascending() const { return ascending_; }

  const ekmfast::SparseSamples& samples() const {
    need_order();
    return s_;
  }

  py::tuple statistics(const DoubleArray& centroids, const DoubleArray& alpha, int n_threads,
                       const std::string& weighting, double fuzzifier) const {
    need_order();
    const Weighting rule = check_pass(centroids, alpha, s_.d, weighting, fuzzifier);
    const py::ssize_t problems = centroids.shape(0), k = centroids.shape(1);
    threads(n_threads);
    // A matrix of which one pass is asked has no memory that could be used again.
    const std::vector<py::ssize_t> shape{problems, k, static_cast<py::ssize_t>(s_.d)};
    PassSums out(passed_.exchange(true) ? kept_array(shape, s_.memory) : DoubleArray(shape),
                 problems, k);
    double *wx = out.sum_wx.mutable_data(), *w = out.sum_w.mutable_data(),
           *p = out.sum_p.mutable_data(), *e = out.exponent.mutable_data(),
           *j = out.objective.mutable_data();
    const double *c = centroids.data(), *a = alpha.data();
    without_gil([&] {
      ekmfast::statistics(s_, c, a, problems, k, rule, fuzzifier, n_threads, wx, w, p, e, j);
    });
    return py::make_tuple(out.sum_wx, out.sum_w, out.sum_p, out.exponent, out.objective);
  }

  double weights(const DoubleArray& centroids, double alpha, const py::array& out,
                 int n_threads) const {
    return s_.is_float ? weights_of<float>(centroids, alpha, out, n_threads)
                       : weights_of<double>(centroids, alpha, out, n_threads);
  }

  double assign(const DoubleArray& centroids, const py::array& labels,
                const py::array& squared_distances, int n_threads) const {
    return s_.is_float ? assign_of<float>(centroids, labels, squared_distances, n_threads)
                       : assign_of<double>(centroids, labels, squared_distances, n_threads);
  }

  DoubleArray closest(const DoubleArray& candidates, const py::array& distances, int n_threads,
                      bool update) const {
    need_order();
    check_problems(candidates, s_.d, "candidates");
    if (update && candidates.shape(1) != 1) refuse("update takes one candidate each");
    threads(n_threads);
    DoubleArray potentials({candidates.shape(0), candidates.shape(1)});
    if (s_.is_float)
      closest_of<float>(candidates, distances, n_threads, update, potentials.mutable_data());
    else
      closest_of<double>(candidates, distances, n_threads, update, potentials.mutable_data());
    return potentials;
  }

  py::tuple accumulate(const py::array& weights, int n_threads) const {
    return s_.is_float ? accumulate_of<float>(weights, n_threads)
                       : accumulate_of<double>(weights, n_threads);
  }

  DoubleArray distances(std::int64_t begin, std::int64_t end, const DoubleArray& centroids,
                        int n_threads) const {
    check_centroids(centroids, s_.d);
    if (begin < 0 || end < begin || end > s_.n) refuse("no such rows");
    threads(n_threads);
    const py::ssize_t k = centroids.shape(0);
    DoubleArray out({static_cast<py::ssize_t>(end - begin), k});
    double* d2 = out.mutable_data();
    const double* c = centroids.data();
    without_gil([&] { ekmfast::distances(s_, begin, end, c, k, n_threads, d2); });
    return out;
  }

  py::tuple expectation(const DoubleArray& centre, double unit, const DoubleArray& means,
                        const DoubleArray& whiteners, const DoubleArray& offsets,
                        const DoubleArray& degrees, const DoubleArray& background,
                        int n_threads) const {
    need_order();
    const ekmfast::Mixtures m =
        variances_of(means, whiteners, offsets, degrees, background, centre, unit);
    threads(n_threads);
    MixturePass out(m, s_.d);
    const double* about = centre.data();
    without_gil([&] {
      ekmfast::expectation(s_, m, about, unit, n_threads, out.p, out.w, out.f, out.q, out.b, out.l,
                           out.c);
    });
    return out.tuple();
  }

  void densities(const DoubleArray& centre, double unit, const DoubleArray& means,
                 const DoubleArray& whiteners, const DoubleArray& offsets,
                 const DoubleArray& degrees, const DoubleArray& background, const MaybeArray& joint,
                 const MaybeArray& labels, const MaybeArray& largest, const MaybeArray& density,
                 int n_threads) const {
    need_order();
    const ekmfast::Mixtures m =
        variances_of(means, whiteners, offsets, degrees, background, centre, unit);
    if (m.n != 1) refuse("means must be those of one mixture");
    if (m.k > std::int64_t{1} << 31) refuse("means must be at most 2^31");
    threads(n_threads);
    (s_.is_float ? &Csr::densities_of<float> : &Csr::densities_of<double>)(
        *this, m, centre.data(), unit, joint, labels, largest, density, n_threads);
  }

  py::tuple survey() const {
    need_order();
    DoubleArray mean(s_.d), low(s_.d), high(s_.d);
    double weight = 0, dispersion = 0;
    double *m = mean.mutable_data(), *l = low.mutable_data(), *h = high.mutable_data();
    without_gil([&] { ekmfast::survey(s_, &weight, m, &dispersion, l, h); });
    return py::make_tuple(weight, mean, dispersion, low, high);
  }

 private:
  void need_order() const {
    if (!ascending_) refuse("the columns of X must ascend in each row");
  }

  ekmfast::Mixtures variances_of(const DoubleArray& means, const DoubleArray& whiteners,
                                 const DoubleArray& offsets, const DoubleArray& degrees,
                                 const DoubleArray& background, const DoubleArray& centre,
                                 double unit) const {
    const ekmfast::Mixtures m =
        mixtures_of(means, whiteners, offsets, degrees, background, centre, unit, s_.d);
    if (m.full) refuse("whiteners must have shape (s, k, d) for sparse rows");
    return m;
  }

  template <class U>
  static void densities_of(const Csr& own, const ekmfast::Mixtures& m, const double* centre,
                           double unit, const MaybeArray& joint, const MaybeArray& labels,
                           const MaybeArray& largest, const MaybeArray& density, int n_threads) {
    const py::ssize_t n = own.s_.n, k = m.k;
    U* const j = writable_or_null<U>(joint, {n, k}, "joint");
    std::int32_t* const l = writable_or_null<std::int32_t>(labels, {n}, "labels");
    U* const most = writable_or_null<U>(largest, {n}, "largest");
    U* const all = writable_or_null<U>(density, {n}, "density");
    without_gil([&] {
      ekmfast::densities(own.s_, m, centre, unit, n_threads, j, l, most, all);
    });
  }

  template <class U>
  double weights_of(const DoubleArray& centroids, double alpha, const py::array& out,
                    int n_threads) const {
    need_order();
    check_centroids(centroids, s_.d);
    threads(n_threads);
    const py::ssize_t k = centroids.shape(0);
    U* w = writable<U>(out, {static_cast<py::ssize_t>(s_.n), k}, "out");
    const double* c = centroids.data();
    double witness = 0;
    without_gil([&] { witness = ekmfast::weights(s_, c, alpha, k, n_threads, w); });
    return witness;
  }

  template <class U>
  double assign_of(const DoubleArray& centroids, const py::array& labels,
                   const py::array& squared_distances, int n_threads) const {
    need_order();
    check_centroids(centroids, s_.d);
    threads(n_threads);
    const py::ssize_t n = s_.n, k = centroids.shape(0);
    std::int32_t* l = writable<std::int32_t>(labels, {n}, "labels");
    U* d2 = writable<U>(squared_distances, {n}, "squared_distances");
    const double* c = centroids.data();
    double witness = 0;
    without_gil([&] { witness = ekmfast::assign(s_, c, k, n_threads, l, d2); });
    return witness;
  }

  template <class U>
  void closest_of(const DoubleArray& candidates, const py::array& distances, int n_threads,
                  bool update, double* potentials) const {
    const py::ssize_t seedings = candidates.shape(0), each = candidates.shape(1);
    U* now = writable<U>(distances, {seedings, static_cast<py::ssize_t>(s_.n)}, "closest");
    const double* c = candidates.data();
    without_gil([&] {
      ekmfast::closest(s_, c, seedings, each, n_threads, update, now, potentials);
    });
  }

  template <class U>
  py::tuple accumulate_of(const py::array& weights, int n_threads) const {
    need_order();
    threads(n_threads);
    if (weights.ndim() != 2 || weights.shape(0) != s_.n || weights.shape(1) < 1 ||
        !py::isinstance<py::array_t<U>>(weights) || !(weights.flags() & py::array::c_style) ||
        !aligned(weights, alignof(U)))
      refuse("weights must be C-contiguous, aligned, (n, k), of the dtype of X");
    const py::ssize_t k = weights.shape(1);
    DoubleArray sum_wx({k, static_cast<py::ssize_t>(s_.d)}), sum_w(k);
    const U* w = static_cast<const U*>(weights.data());
    double *wx = sum_wx.mutable_data(), *sw = sum_w.mutable_data();
    without_gil([&] { ekmfast::accumulate(s_, w, k, n_threads, wx, sw); });
    return py::make_tuple(sum_wx, sum_w);
  }

  const py::array values_, columns_;  // keep the memory
  ekmfast::SparseSamples s_;
  mutable std::atomic<bool> passed_{false};
  bool ascending_ = false;
};

// Only one thread at a time may use a solver: runs change while advance() computes without the GIL,
// and a free-threaded Python has no GIL at all.
struct GuardedSolver : ekmfast::Solver {
  using ekmfast::Solver::Solver;
  std::atomic<bool> busy{false};
};

// Holds a solver during its lifetime. It does not wait for another holder but is refused, since the
// holder may be the same thread: a signal handler may use the solver during advance().
class Hold {
 public:
  explicit Hold(GuardedSolver& solver) : solver_(solver) {
    if (solver_.busy.exchange(true, std::memory_order_acquire))
      refuse("the solver is in use by another thread");
  }
  ~Hold() { solver_.busy.store(false, std::memory_order_release); }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

 private:
  GuardedSolver& solver_;
};

ekmfast::Space space_from(const std::string& name) {
  if (name == "free") return ekmfast::Space::free;
  if (name == "unit") return ekmfast::Space::unit;
  if (name == "features") return ekmfast::Space::features;
  refuse("space must be free, unit or features, got '" + name + "'");
}

std::unique_ptr<GuardedSolver> make_solver(const DoubleArray& starts, const DoubleArray& alpha,
                                           double threshold, double noise, double resolution,
                                           std::int64_t window, bool compete, const Maybe& low,
                                           const Maybe& high, const std::string& space) {
  if (starts.ndim() != 3 || starts.shape(0) < 1 || starts.shape(1) < 1 || starts.shape(2) < 1)
    refuse("starts must have shape (s, k, d)");
  if (alpha.ndim() != 1 || alpha.shape(0) != starts.shape(0)) refuse("alpha must have shape (s,)");
  check_aligned(starts, "starts");
  check_aligned(alpha, "alpha");
  ekmfast::Rules rules{threshold, noise, resolution, window, compete, {}, {}, space_from(space)};
  if (low.has_value() != high.has_value()) refuse("low and high belong together");
  if (window < 0) refuse("window must be >= 0");
  if (low) rules.low = vector_of(*low, starts.shape(2), "low");
  if (high) rules.high = vector_of(*high, starts.shape(2), "high");
  for (std::size_t j = 0; j < rules.low.size(); ++j)
    if (!(rules.low[j] <= rules.high[j])) refuse("low must not be above high");
  return std::make_unique<GuardedSolver>(starts.data(), alpha.data(), starts.shape(0),
                                         starts.shape(1), starts.shape(2), std::move(rules));
}

py::tuple candidates(GuardedSolver& solver) {
  const Hold hold(solver);
  const py::ssize_t n = solver.n_going(), k = solver.k(), d = solver.d();
  DoubleArray centroids = kept_array({n, k, d}, solver.memory()), alpha(n);
  solver.candidates(centroids.mutable_data(), alpha.mutable_data());
  return py::make_tuple(centroids, alpha);
}

void advance(GuardedSolver& solver, const DoubleArray& sum_wx, const DoubleArray& sum_w,
             const DoubleArray& sum_p, const DoubleArray& objective, const DoubleArray& reference,
             int n_threads) {
  const Hold hold(solver);
  const py::ssize_t n = solver.n_going(), k = solver.k(), d = solver.d();
  const py::ssize_t weights = n * solver.n_weights();
  if (sum_wx.size() != n * k * d || sum_w.size() != weights || sum_p.size() != weights ||
      objective.size() != n || reference.size() != d)
    refuse("sums must be those of the candidates");
  for (const DoubleArray* array : {&sum_wx, &sum_w, &sum_p, &objective, &reference})
    check_aligned(*array, "sums");
  const double *wx = sum_wx.data(), *w = sum_w.data(), *p = sum_p.data(), *j = objective.data(),
               *about = reference.data();
  threads(n_threads);
  without_gil([&] { solver.advance(wx, w, p, j, about, n_threads); });
}

template <class T>
DoubleArray iterate_over(GuardedSolver& solver, const py::array& X, const MaybeArray& sample_weight,
                         const Maybe& reference, std::int64_t max_passes, int n_threads,
                         const std::string& weighting, double fuzzifier, const MaybeArray& factor,
                         bool rounded) {
  const Hold hold(solver);
  const Samples<T> s = samples_of<T>(X, sample_weight, factor);
  const Weighting rule = check_weighting(weighting, fuzzifier, solver.k());
  if (s.d != solver.d()) refuse("X must have the features of the centroids");
  if (solver.space() == ekmfast::Space::features)
    refuse("the weights of these rows have one sum, not one for each feature");
  threads(n_threads);
  const std::vector<T> ref = reference_of(s, reference);
  if (rounded && sizeof(T) < sizeof(double)) refuse("only rows in float64 can be rounded");
  without_gil([&] {
    ekmfast::iterate(solver, s, ref.data(), rule, fuzzifier, rounded, n_threads, max_passes);
  });
  DoubleArray ref_out(s.d);
  std::copy(ref.begin(), ref.end(), ref_out.mutable_data());
  return ref_out;
}

DoubleArray iterate(GuardedSolver& solver, const py::array& X, const MaybeArray& sample_weight,
                    const Maybe& reference, std::int64_t max_passes, int n_threads,
                    const std::string& weighting, double fuzzifier, const MaybeArray& factor,
                    bool rounded) {
  return (is_float32(X) ? iterate_over<float> : iterate_over<double>)(
      solver, X, sample_weight, reference, max_passes, n_threads, weighting, fuzzifier, factor, rounded);
}

void iterate_sparse(GuardedSolver& solver, const Csr& X, std::int64_t max_passes, int n_threads,
                    const std::string& weighting, double fuzzifier) {
  const Hold hold(solver);
  const ekmfast::SparseSamples& s = X.samples();
  const Weighting rule = check_weighting(weighting, fuzzifier, solver.k());
  if (s.d != solver.d()) refuse("X must have the features of the centroids");
  if (solver.space() == ekmfast::Space::features)
    refuse("the weights of these rows have one sum, not one for each feature");
  threads(n_threads);
  without_gil([&] { ekmfast::iterate(solver, s, rule, fuzzifier, n_threads, max_passes); });
}

ekmfast::Run& run_at(GuardedSolver& solver, std::int64_t i) {
  if (i < 0 || i >= static_cast<std::int64_t>(solver.runs().size())) refuse("no such run");
  return solver.runs()[static_cast<std::size_t>(i)];
}

template <class T>
py::object matrix_of(const ekmfast::LongVector<T>& values, const GuardedSolver& solver) {
  if (values.empty()) return py::none();
  DoubleArray out = kept_array({static_cast<py::ssize_t>(solver.k()), static_cast<py::ssize_t>(solver.d())},
                               solver.memory());
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

py::dict result_of(const ekmfast::Run& run, const GuardedSolver& solver) {
  return py::dict(
      py::arg("centroids") = matrix_of(run.centroids, solver), py::arg("alpha") = run.alpha,
      py::arg("objective") = run.objective, py::arg("size") = run.size,
      py::arg("n_halvings") = run.n_halvings, py::arg("n_jumps") = run.n_jumps,
      py::arg("jumping") = run.jumping, py::arg("held") = run.held, py::arg("least") = run.least,
      py::arg("n_still") = run.n_still, py::arg("n_iter") = run.n_iter,
      py::arg("converged") = run.converged, py::arg("given_up") = run.given_up,
      py::arg("done") = run.done, py::arg("history") = run.history);
}

// What a run has found. That it can be continued takes several more matrices.
py::dict result(GuardedSolver& solver, std::int64_t i) {
  const Hold hold(solver);
  return result_of(run_at(solver, i), solver);
}

py::dict get_run(GuardedSolver& solver, std::int64_t i) {
  const Hold hold(solver);
  const ekmfast::Run& run = run_at(solver, i);
  py::list past;
  // The oldest pair is dropped when the newest, which are the centroids and their step, is moved.
  const std::size_t n_past = run.past_steps.size(), n_kept = static_cast<std::size_t>(solver.window());
  for (std::size_t j = n_past + run.remembers > n_kept ? 1 : 0; j < n_past; ++j)
    past.append(py::make_tuple(matrix_of(run.past_centroids[j], solver),
                               matrix_of(run.past_steps[j], solver)));
  for (std::size_t j = 0; j < run.turns.size(); ++j)
    past.append(py::make_tuple(matrix_of(run.moves[j], solver), matrix_of(run.turns[j], solver)));
  if (run.remembers)
    past.append(py::make_tuple(matrix_of(run.centroids, solver), matrix_of(run.step, solver)));
  py::dict state = result_of(run, solver);
  state["step"] = matrix_of(run.step, solver);
  state["leap"] = matrix_of(run.leap, solver);
  state["past"] = past;
  return state;
}

// pybind11 says RuntimeError where a value cannot be converted.
template <class Value>
Value as(const py::handle& value, const char* name) {
  try {
    return value.cast<Value>();
  } catch (const py::cast_error&) {
    throw py::type_error(std::string(name) + " has the wrong type");
  }
}

void set_run(GuardedSolver& solver, std::int64_t i, const py::dict& state) {
  typedef ekmfast::LongVector<double> Matrix;
  const Hold hold(solver);
  const auto matrix = [&](const py::handle& value, const char* name) {
    const DoubleArray array = as<DoubleArray>(value, name);
    if (array.ndim() != 2 || array.shape(0) != solver.k() || array.shape(1) != solver.d())
      refuse(std::string(name) + " must have shape (k, d)");
    const std::vector<double> numbers = vector_of(array, solver.k() * solver.d(), name);
    return Matrix(numbers.begin(), numbers.end());
  };
  const auto maybe_matrix = [&](const char* name) {
    const py::object value = state[name];
    return value.is_none() ? Matrix() : matrix(value, name);
  };
  const auto number = [&](const char* name) { return as<double>(state[name], name); };
  const auto flag = [&](const char* name) { return as<bool>(state[name], name); };
  // So small that steps can be counted on without an overflow.
  const auto count = [&](const char* name) {
    const std::int64_t n = as<std::int64_t>(state[name], name);
    if (n < 0 || n > std::int64_t{1} << 53) refuse(std::string(name) + " must be in [0, 2^53]");
    return n;
  };
  ekmfast::Run run = run_at(solver, i);  // a copy, so that an error leaves the run as it was
  run.centroids = matrix(state["centroids"], "centroids");
  run.step = maybe_matrix("step");
  run.leap = maybe_matrix("leap");
  run.past_centroids.clear();
  run.past_steps.clear();
  run.moves.clear();
  run.turns.clear();
  run.unused.clear();
  run.remembers = false;
  for (const py::handle& pair : as<py::list>(state["past"], "past")) {
    const py::tuple both = as<py::tuple>(pair, "past");
    if (both.size() != 2) refuse("past must consist of pairs");
    Matrix first = matrix(both[0], "past"), second = matrix(both[1], "past");
    // If it did remember, its centroids and their step are the last pair of the past.
    run.remembers = solver.window() > 0 && first == run.centroids && second == run.step;
    if (run.remembers) continue;
    if (solver.is_long()) {
      if (static_cast<std::int64_t>(run.turns.size()) == solver.window())
        refuse("past must not have more pairs than the solver keeps");
      run.moves.emplace_back(first.begin(), first.end());
      run.turns.emplace_back(second.begin(), second.end());
    } else {
      run.past_centroids.push_back(std::move(first));
      run.past_steps.push_back(std::move(second));
    }
  }
  run.alpha = number("alpha");
  run.objective = number("objective");
  run.size = number("size");
  run.least = number("least");
  run.n_halvings = count("n_halvings");
  run.n_jumps = count("n_jumps");
  run.n_still = count("n_still");
  run.n_iter = count("n_iter");
  run.jumping = flag("jumping");
  run.held = flag("held");
  run.converged = flag("converged");
  run.given_up = flag("given_up");
  run.done = flag("done");
  run.history = as<std::vector<double>>(state["history"], "history");
  run_at(solver, i) = std::move(run);
}

py::tuple position(GuardedSolver& solver, std::int64_t i) {
  const Hold hold(solver);
  const ekmfast::Run& run = run_at(solver, i);
  return py::make_tuple(matrix_of(run.centroids, solver), run.alpha);
}

DoubleArray positions(GuardedSolver& solver) {
  const Hold hold(solver);
  const std::size_t size = solver.k() * solver.d();
  const auto n_runs = static_cast<py::ssize_t>(solver.runs().size()),
             k = static_cast<py::ssize_t>(solver.k()), d = static_cast<py::ssize_t>(solver.d());
  DoubleArray out({n_runs, k, d});
  double* at = out.mutable_data();
  for (const ekmfast::Run& run : solver.runs()) at = std::copy_n(run.centroids.data(), size, at);
  return out;
}

DoubleArray objectives(GuardedSolver& solver) {
  const Hold hold(solver);
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
  for (const DoubleArray* array : {&alpha, &sum_wx, &sum_w, &sum_p, &exponent, &objective})
    check_aligned(*array, "sums");
  return (float32 ? ekmfast::plausible_sums<float> : ekmfast::plausible_sums<double>)(
      n, d, k, s, alpha.data(), sum_wx.data(), sum_w.data(), sum_p.data(), exponent.data(),
      objective.data());
}

bool plausible_update(std::int64_t n, const DoubleArray& sum_wx, const DoubleArray& sum_w,
                      bool float32) {
  if (sum_wx.ndim() != 2 || sum_w.size() != sum_wx.shape(0)) refuse("sum_wx must have shape (k, d)");
  for (const DoubleArray* array : {&sum_wx, &sum_w}) check_aligned(*array, "sums");
  return (float32 ? ekmfast::plausible_update<float> : ekmfast::plausible_update<double>)(
      n, sum_wx.shape(1), sum_wx.shape(0), sum_wx.data(), sum_w.data());
}

template <class T>
py::array exp2_of(const py::array& x) {
  const py::array_t<T, py::array::c_style> in(x);
  if (!aligned(in, alignof(T))) refuse("x must be aligned");
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
  const py::module_ os = py::module_::import("os");
  if (!py::hasattr(os, "register_at_fork")) return;  // on Windows
  os.attr("register_at_fork")(
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
EKMFAST_EXPORTED int ekmfast_get_num_threads(void) {
  return ekmfast::default_threads();
}
EKMFAST_EXPORTED void ekmfast_set_num_threads(int n) {
  ekmfast::set_default_threads(n);
}
}

// A free-threaded Python need not take the GIL for this module: what calls share is atomic or behind
// a lock (docs/architecture.md, "Threads").
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
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
        py::arg("rescue") = true, py::arg("factor") = py::none(), py::arg("rounded") = false);
  m.def("weights", &weights, py::arg("X").noconvert(), py::arg("centroids").noconvert(),
        py::arg("alpha"), py::arg("out").noconvert(), py::arg("n_threads"),
        py::arg("factor") = py::none());
  m.def("assign", &assign, py::arg("X").noconvert(), py::arg("centroids").noconvert(),
        py::arg("labels").noconvert(), py::arg("squared_distances").noconvert(),
        py::arg("n_threads"), py::arg("factor") = py::none());
  m.def("label_each", &label_each, py::arg("X").noconvert(), py::arg("centroids").noconvert(),
        py::arg("names").noconvert(), py::arg("n_threads"), py::arg("factor").none(true) = py::none());
  m.def("closest", &closest, py::arg("X").noconvert(), py::arg("candidates").noconvert(),
        py::arg("closest").noconvert(), py::arg("sample_weight").none(true),
        py::arg("reference").none(true), py::arg("n_threads"), py::arg("update") = false,
        py::arg("factor") = py::none());
  m.def("draw_rows", &draw_rows, py::arg("closest").noconvert(),
        py::arg("sample_weight").noconvert().none(true), py::arg("uniform").noconvert(),
        py::arg("n_threads"));
  m.def("choose_rows", &choose_rows, py::arg("X").noconvert(), py::arg("sample_weight").none(true),
        py::arg("first").noconvert(), py::arg("uniform").noconvert(), py::arg("reference").none(true),
        py::arg("n_threads"), py::arg("factor") = py::none());
  m.def("accumulate", &accumulate, py::arg("X").noconvert(), py::arg("weights").noconvert(),
        py::arg("n_threads"));
  m.def("survey", &survey, py::arg("X").noconvert(), py::arg("sample_weight").none(true),
        py::arg("reference").none(true), py::arg("n_threads"), py::arg("factor") = py::none());
  m.def("partial_statistics", &partial_statistics, py::arg("X").noconvert(),
        py::arg("centroids").noconvert(), py::arg("alpha").noconvert(),
        py::arg("sample_weight").none(true), py::arg("reference").noconvert(), py::arg("n_threads"),
        py::arg("weighting"), py::arg("fuzzifier"));
  m.def("partial_distances", &partial_distances, py::arg("X").noconvert(),
        py::arg("centroids").noconvert(), py::arg("n_threads"));
  m.def("expectation", &expectation, py::arg("X").noconvert(), py::arg("sample_weight").none(true),
        py::arg("centre"), py::arg("unit"), py::arg("means").noconvert(),
        py::arg("whiteners").noconvert(), py::arg("offsets").noconvert(),
        py::arg("degrees").noconvert(), py::arg("background").noconvert(), py::arg("n_threads"));
  m.def("renumber", &renumber, py::arg("labels").noconvert(), py::arg("n_clusters"));
  m.def("distinct_labels", &distinct_labels, py::arg("labels"));
  m.def("shared_labels", &shared_labels, py::arg("first").noconvert(),
        py::arg("second").noconvert());
  m.def("merge_close", &merge_close, py::arg("centroids").noconvert(),
        py::arg("alphas").noconvert(), py::arg("coincident"), py::arg("rounding"));
  m.def("classification_likelihoods", &classification_likelihoods, py::arg("X").noconvert(),
        py::arg("sample_weight").none(true), py::arg("labels").noconvert(), py::arg("n_clusters"),
        py::arg("tail"), py::arg("scale_prior"), py::arg("variance_prior"),
        py::arg("least_variance"), py::arg("reweightings"), py::arg("n_threads"));
  m.def("moments_of_labels", &moments_of_labels, py::arg("X"), py::arg("sample_weight"),
        py::arg("labels"), py::arg("n_clusters"), py::arg("full"), py::arg("n_threads"));
  m.def("halves_of_labels", &halves_of_labels, py::arg("X"), py::arg("sample_weight"),
        py::arg("labels"), py::arg("factors"), py::arg("n_clusters"), py::arg("farthest"),
        py::arg("least"), py::arg("prior"), py::arg("refined"), py::arg("n_threads"));
  m.def("whiteners", &whiteners, py::arg("scatters").noconvert());
  m.def("maximization", &maximization, py::arg("mass"), py::arg("weight"), py::arg("first"),
        py::arg("second"), py::arg("background"), py::arg("means"), py::arg("scales"),
        py::arg("kind"), py::arg("prior"), py::arg("scale_prior"), py::arg("least_share"),
        py::arg("least_scatter"), py::arg("most_background"),
        py::arg("regularization").none(true), py::arg("n_threads"));
  m.def("expectation_maximization", &expectation_maximization, py::arg("X").noconvert(),
        py::arg("sample_weight").none(true), py::arg("centre"), py::arg("unit"),
        py::arg("weights"), py::arg("background"), py::arg("means"), py::arg("scatters"),
        py::arg("scales"), py::arg("whiteners"), py::arg("degrees"), py::arg("constants"),
        py::arg("log_volume"), py::arg("likelihood"), py::arg("first"), py::arg("last"),
        py::arg("max_iter"), py::arg("total"), py::arg("tol"), py::arg("race"), py::arg("margin"),
        py::arg("least_likelihood"), py::arg("least_classified"), py::arg("same"),
        py::arg("kind"), py::arg("prior"), py::arg("scale_prior"), py::arg("least_share"),
        py::arg("least_scatter"), py::arg("most_background"),
        py::arg("regularization").none(true), py::arg("rounded"), py::arg("n_threads"));
  m.def("densities", &densities, py::arg("X").noconvert(), py::arg("centre"), py::arg("unit"),
        py::arg("means").noconvert(), py::arg("whiteners").noconvert(),
        py::arg("offsets").noconvert(), py::arg("degrees").noconvert(),
        py::arg("background").noconvert(), py::arg("joint").none(true),
        py::arg("labels").none(true), py::arg("largest").none(true),
        py::arg("density").none(true), py::arg("n_threads"));
  py::class_<Csr>(m, "Csr", py::module_local())
      .def(py::init<const py::array&, const py::array&, const py::array&, py::ssize_t,
                    const Maybe&>(),
           py::arg("values").noconvert(), py::arg("columns").noconvert(), py::arg("start"),
           py::arg("n_features"), py::arg("sample_weight").none(true))
      .def_property_readonly("ascending", &Csr::ascending)
      .def("statistics", &Csr::statistics, py::arg("centroids").noconvert(),
           py::arg("alpha").noconvert(), py::arg("n_threads"), py::arg("weighting"),
           py::arg("fuzzifier"))
      .def("weights", &Csr::weights, py::arg("centroids").noconvert(), py::arg("alpha"),
           py::arg("out").noconvert(), py::arg("n_threads"))
      .def("assign", &Csr::assign, py::arg("centroids").noconvert(), py::arg("labels").noconvert(),
           py::arg("squared_distances").noconvert(), py::arg("n_threads"))
      .def("closest", &Csr::closest, py::arg("candidates").noconvert(),
           py::arg("closest").noconvert(), py::arg("n_threads"), py::arg("update") = false)
      .def("accumulate", &Csr::accumulate, py::arg("weights").noconvert(), py::arg("n_threads"))
      .def("distances", &Csr::distances, py::arg("begin"), py::arg("end"),
           py::arg("centroids").noconvert(), py::arg("n_threads"))
      .def("expectation", &Csr::expectation, py::arg("centre"), py::arg("unit"),
           py::arg("means").noconvert(), py::arg("whiteners").noconvert(),
           py::arg("offsets").noconvert(), py::arg("degrees").noconvert(),
           py::arg("background").noconvert(), py::arg("n_threads"))
      .def("densities", &Csr::densities, py::arg("centre"), py::arg("unit"),
           py::arg("means").noconvert(), py::arg("whiteners").noconvert(),
           py::arg("offsets").noconvert(), py::arg("degrees").noconvert(),
           py::arg("background").noconvert(), py::arg("joint").none(true),
           py::arg("labels").none(true), py::arg("largest").none(true),
           py::arg("density").none(true), py::arg("n_threads"))
      .def("survey", &Csr::survey);
  py::class_<GuardedSolver>(m, "Solver", py::module_local())
      .def(py::init(&make_solver), py::arg("starts").noconvert(), py::arg("alpha").noconvert(),
           py::arg("threshold"), py::arg("noise"), py::arg("resolution"), py::arg("window"),
           py::arg("compete"), py::arg("low"), py::arg("high"), py::arg("space") = "free")
      .def("candidates", &candidates)
      .def("advance", &advance, py::arg("sum_wx"), py::arg("sum_w"), py::arg("sum_p"),
           py::arg("objective"), py::arg("reference"), py::arg("n_threads"))
      .def("iterate", &iterate, py::arg("X").noconvert(), py::arg("sample_weight").none(true),
           py::arg("reference").none(true), py::arg("max_passes"), py::arg("n_threads"),
           py::arg("weighting") = "equilibrium", py::arg("fuzzifier") = 2.0,
           py::arg("factor") = py::none(), py::arg("rounded") = false)
      .def("iterate_sparse", &iterate_sparse, py::arg("X"), py::arg("max_passes"),
           py::arg("n_threads"), py::arg("weighting"), py::arg("fuzzifier"))
      .def("result", &result, py::arg("index"))
      .def("get_run", &get_run, py::arg("index"))
      .def("set_run", &set_run, py::arg("index"), py::arg("state"))
      .def_property_readonly("objectives", &objectives)
      .def("position", &position, py::arg("index"))
      .def_property_readonly("positions", &positions)
      .def_property_readonly("n_going", [](GuardedSolver& solver) {
        const Hold hold(solver);
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
