// Uses the thread pool (csrc/parallel.cpp) and the kernels in every way that a program with threads
// can, so that ThreadSanitizer sees the races between them. It prints the name of each check, and
// exits with 1 if a result is wrong. tests/sanitized/test_races.py builds and runs it.
//
//   check_threads        all checks
//   check_threads exit   main returns while other threads compute
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "ekm.h"
#include "parallel.h"
#include "simd/dispatch.h"
#include "solver.h"

namespace {

using i64 = std::int64_t;

std::atomic<int> wrong{0};

void expect(bool right, const char* what) {
  if (right) return;
  ++wrong;
  std::printf("WRONG: %s\n", what);
}

// Runs body(thread) in several threads at once and waits for them.
void in_threads(int count, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

std::size_t index(i64 i) { return static_cast<std::size_t>(i); }

// ------------------------------------------------------------------------------------------------
// The pool

// How many tasks helpers have run: without any, the checks would show nothing.
std::atomic<i64> by_helpers{0};

// Long enough that helpers, which must wake first, get some of the tasks of a call.
void work_a_little() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(20);
  while (std::chrono::steady_clock::now() < end) ekmfast::checkpoint();
}

// Every task runs once, in a slot below n_threads that no other thread uses at the same time. The
// numbers are not atomic: where two threads shared one, ThreadSanitizer would report it.
void check_call(i64 n_tasks, int n_threads) {
  std::vector<int> runs(index(n_tasks)), of_slot(index(n_threads));
  ekmfast::parallel_for(n_tasks, n_threads, [&](i64 task, int slot) {
    work_a_little();
    ++runs[index(task)];
    ++of_slot[index(slot)];
  });
  int total = 0;
  for (int n : runs) expect(n == 1, "a task did not run once");
  for (int n : of_slot) total += n;
  expect(total == n_tasks, "a slot lost a task");
  by_helpers += total - of_slot[0];
}

void calls_side_by_side() {
  in_threads(8, [](int thread) {
    std::mt19937 random(static_cast<unsigned>(thread));
    for (int i = 0; i < 150; ++i)
      check_call(static_cast<i64>(random() % 40), 1 + static_cast<int>(random() % 6));
  });
}

void calls_within_tasks() {
  std::vector<int> runs(64);
  ekmfast::parallel_for(8, 4, [&](i64 outer, int) {
    ekmfast::parallel_for(8, 4, [&](i64 inner, int) { ++runs[index(8 * outer + inner)]; });
  });
  for (int n : runs) expect(n == 1, "a task within a task did not run once");
}

void exceptions() {
  in_threads(4, [](int thread) {
    std::mt19937 random(static_cast<unsigned>(100 + thread));
    for (int i = 0; i < 100; ++i) {
      const i64 n_tasks = 1 + static_cast<i64>(random() % 30);
      const i64 bad = static_cast<i64>(random()) % n_tasks;
      bool caught = false;
      try {
        ekmfast::parallel_for(n_tasks, 4, [&](i64 task, int) {
          work_a_little();
          if (task == bad || task == bad / 2) throw std::runtime_error("task");
        });
      } catch (const std::runtime_error& error) {
        caught = std::strcmp(error.what(), "task") == 0;
      }
      expect(caught, "an exception of a task was lost");
      check_call(10, 3);
    }
  });
}

void thread_counts_that_change() {
  std::atomic<bool> stop{false};
  std::thread changes([&] {
    for (int n = 1; !stop; n = n % 7 + 1) {
      ekmfast::set_default_threads(n);
      std::this_thread::yield();
    }
  });
  in_threads(4, [](int) {
    for (int i = 0; i < 150; ++i) check_call(20, ekmfast::default_threads());
  });
  stop = true;
  changes.join();
}

// A call that would never end is stopped by the function that asks for signals.
void interrupts() {
  ekmfast::set_poll([] { return true; });
  for (int n_threads : {1, 4}) {
    bool stopped = false;
    try {
      ekmfast::parallel_for(4, n_threads, [](i64, int) {
        for (;;) {
          ekmfast::checkpoint();
          std::this_thread::yield();
        }
      });
    } catch (const ekmfast::Interrupted&) {
      stopped = true;
    }
    expect(stopped, "a call was not stopped");
  }
  ekmfast::set_poll(nullptr);
  check_call(20, 4);
}

// ------------------------------------------------------------------------------------------------
// The kernels

struct Sums {
  std::vector<double> numbers;
  bool operator==(const Sums& other) const { return numbers == other.numbers; }
};

template <class T>
struct Problem {
  // So large that kernels use all threads (see useful_threads in ekm.cpp); the last centroid is so
  // far away that its column is computed again (rescue.cpp).
  static constexpr i64 n = 9000, k = 6, d = 16;
  std::vector<T> x, reference, sample_weight;
  std::vector<double> centroids;

  Problem() : reference(index(d)), sample_weight(index(n), T(1.5)) {
    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    for (i64 i = 0; i < n * d; ++i) x.push_back(static_cast<T>(normal(random)));
    for (i64 i = 0; i < k * d; ++i) centroids.push_back(normal(random));
    for (i64 i = (k - 1) * d; i < k * d; ++i) centroids[index(i)] += 50;
    ekmfast::find_reference(samples(), reference.data());
  }

  ekmfast::Samples<T> samples() const { return {x.data(), n, d, d, sample_weight.data()}; }

  // All results of one pass of every kernel, in one vector.
  Sums compute(int n_threads) const {
    const auto s = samples();
    const double alpha = 1.0;
    Sums all;
    const auto room = [&](i64 size) {
      all.numbers.resize(all.numbers.size() + index(size));
      return all.numbers.size() - index(size);
    };
    const std::size_t wx = room(k * d), w = room(k), p = room(k), e = room(k), j = room(1),
                      potential = room(1), weight = room(1), squares = room(1), sum = room(d),
                      low = room(d), high = room(d), again_wx = room(k * d), again_w = room(k),
                      rest = room(2);
    double* at = all.numbers.data();
    ekmfast::statistics(s, centroids.data(), &alpha, 1, k, reference.data(),
                        ekmfast::Weighting::equilibrium, 2.0, true, n_threads, at + wx, at + w,
                        at + p, at + e, at + j);
    std::vector<T> weights(index(n * k)), distances(index(n)),
        closest(index(n), std::numeric_limits<T>::infinity());
    std::vector<std::int32_t> labels(index(n));
    at[rest] = ekmfast::weights(s, centroids.data(), alpha, k, reference.data(), n_threads,
                                weights.data());
    at[rest + 1] = ekmfast::assign(s, centroids.data(), k, reference.data(), n_threads,
                                   labels.data(), distances.data());
    ekmfast::closest(s, centroids.data(), 1, 1, reference.data(), n_threads, true, closest.data(),
                     at + potential);
    ekmfast::survey(s, reference.data(), n_threads, at + weight, at + squares, at + sum, at + low,
                    at + high);
    ekmfast::accumulate(s, weights.data(), k, reference.data(), n_threads, at + again_wx,
                        at + again_w);
    for (T v : weights) all.numbers.push_back(static_cast<double>(v));
    for (T v : distances) all.numbers.push_back(static_cast<double>(v));
    for (T v : closest) all.numbers.push_back(static_cast<double>(v));
    for (std::int32_t v : labels) all.numbers.push_back(static_cast<double>(v));
    return all;
  }
};

// Threads that share the rows get the bits of a thread alone.
template <class T>
void kernels_side_by_side() {
  const Problem<T> problem;
  const Sums alone = problem.compute(1);
  in_threads(3, [&](int thread) {
    for (int i = 0; i < 3; ++i)
      expect(problem.compute(1 + (thread + i) % 4) == alone, "threads changed the bits");
  });
}

// Threads change the instruction set while others compute; all sets give nearly the same weights.
void instruction_sets_that_change() {
  const Problem<float> problem;
  const std::vector<double> alone = problem.compute(1).numbers;
  // The weights come before distances, closest and labels.
  const std::size_t n = index(problem.n), first = alone.size() - index(problem.n * problem.k) - 3 * n;
  std::vector<ekmfast::Isa> isas;
  for (ekmfast::Isa isa : ekmfast::kAllIsas)
    if (ekmfast::isa_available(isa)) isas.push_back(isa);
  const ekmfast::Isa before = ekmfast::isa_in_use();
  in_threads(3, [&](int thread) {
    for (std::size_t i = 0; i < 4; ++i) {
      ekmfast::set_isa(isas[(i + static_cast<std::size_t>(thread)) % isas.size()]);
      const std::vector<double> found = problem.compute(3).numbers;
      for (std::size_t j = first; j < alone.size() - 3 * n; ++j)
        if (!(std::fabs(found[j] - alone[j]) < 1e-3)) return expect(false, "a weight is wrong");
    }
  });
  ekmfast::set_isa(before);
}

void solvers_side_by_side() {
  constexpr i64 runs = 40, k = 10, d = 50;  // enough numbers that advance() uses threads
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  std::vector<double> starts(index(runs * k * d)), alpha(index(runs), 1.0),
      wx(starts.size()), w(index(runs * k), 5.0), reference(index(d)), objective(index(runs), 7.0);
  for (double& v : starts) v = normal(random);
  for (double& v : wx) v = normal(random);
  const auto advanced = [&](int n_threads) {
    const ekmfast::Rules rules{1e-9, 1e-9, 1e-15, 3, true, {}, {}};
    ekmfast::Solver solver(starts.data(), alpha.data(), runs, k, d, rules);
    std::vector<double> objectives = objective;
    for (int i = 0; i < 4; ++i) {
      for (double& v : objectives) v *= 0.5;
      solver.advance(wx.data(), w.data(), w.data(), objectives.data(), reference.data(), n_threads);
    }
    Sums all{std::vector<double>(starts.size())};
    std::vector<double> alphas(index(runs));
    solver.candidates(all.numbers.data(), alphas.data());
    return all;
  };
  const Sums alone = advanced(1);
  in_threads(3, [&](int) {
    for (int i = 0; i < 3; ++i) expect(advanced(4) == alone, "threads changed the steps");
  });
}

// ------------------------------------------------------------------------------------------------
// Forks

// The exit status of a child that runs body.
template <class Body>
int status_of_child(Body body) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    wrong = 0;
    body();
    std::fflush(stdout);
    _exit(wrong ? 1 : 0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  return status;
}

// The child lacks the threads of the pool, and another thread may hold its lock forever.
void forks() {
  const Problem<double> problem;
  const Sums alone = problem.compute(1);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) check_call(50, 3);
  });
  for (int i = 0; i < 4; ++i) {
    const int status = status_of_child([&] {
      for (int n = 1; n < 4; ++n) {
        check_call(30, n);
        expect(problem.compute(n) == alone, "a child got other bits");
      }
      expect(status_of_child([&] { check_call(30, 3); }) == 0, "a child of a child");
    });
    expect(status == 0, "a child of a fork failed");
    check_call(30, 4);
  }
  stop = true;
  other.join();
}

// A signal handler forks during a call. The child cannot go on, and says so.
pid_t forked = -1;

void forks_within_a_call() {
  forked = -1;
  ekmfast::set_poll([] {
    if (forked < 0) {
      std::fflush(stdout);
      forked = fork();
    }
    return false;
  });
  std::atomic<int> ended{0};
  bool refused = false;
  try {
    ekmfast::parallel_for(4, 4, [&](i64, int) {
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(400);
      while (std::chrono::steady_clock::now() < end) ekmfast::checkpoint();
      ++ended;
    });
  } catch (const ekmfast::Forked&) {
    refused = true;
  }
  ekmfast::set_poll(nullptr);
  if (forked == 0) {
    wrong = 0;
    expect(refused, "the child went on with a call that other threads had begun");
    check_call(20, 3);
    _exit(wrong ? 1 : 0);
  }
  expect(!refused && ended == 4, "the parent did not end its call");
  int status = -1;
  waitpid(forked, &status, 0);
  expect(status == 0, "the child of a fork within a call failed");
}

// ------------------------------------------------------------------------------------------------

// The process ends while helpers sleep and while other threads compute: nothing that they use may
// be destroyed before.
int exit_while_computing() {
  static const Problem<float>* const problem = new Problem<float>;
  static std::atomic<int> calls{0};
  for (int i = 0; i < 3; ++i)
    std::thread([] {
      for (;;) {
        problem->compute(3);
        ++calls;
      }
    }).detach();
  while (calls < 2) std::this_thread::yield();
  std::printf("main returns\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "exit") == 0) return exit_while_computing();
  const struct {
    const char* name;
    void (*check)();
  } checks[] = {{"calls side by side", calls_side_by_side},
                {"calls within tasks", calls_within_tasks},
                {"exceptions", exceptions},
                {"thread counts that change", thread_counts_that_change},
                {"interrupts", interrupts},
                {"kernels side by side, float32", kernels_side_by_side<float>},
                {"kernels side by side, float64", kernels_side_by_side<double>},
                {"instruction sets that change", instruction_sets_that_change},
                {"solvers side by side", solvers_side_by_side},
                {"forks", forks},
                {"forks within a call", forks_within_a_call}};
  for (const auto& [name, check] : checks) {
    const auto start = std::chrono::steady_clock::now();
    check();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::printf("%-32s %.1f s\n", name, took.count());
    std::fflush(stdout);
  }
  expect(by_helpers > 0, "no helper ran a task");
  std::printf("%d wrong\n", wrong.load());
  return wrong ? 1 : 0;
}
