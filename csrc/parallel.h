// The only place that starts threads: a persistent pool, made on first use.
//
// It does not use OpenMP: two OpenMP runtimes in one process, such as torch's and another one, slow
// each other down by busy waiting, and GNU's is not safe after fork. Threads of this pool sleep
// while they wait (the caller polls for some microseconds first), and the child of a fork makes a
// new pool.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>

namespace ekmfast {

// The number of threads of a call that does not specify it.
int default_threads();
void set_default_threads(int n);

// Runs task(i, slot) for every i in [0, n_tasks), at most n_threads at a time; slot < n_threads is
// the number of the running thread, for scratch memory. Tasks begin in order. While another call
// uses the pool, the calling thread runs all tasks itself, and so does a task that calls it.
void parallel_for(std::int64_t n_tasks, int n_threads,
                  const std::function<void(std::int64_t task, int slot)>& task);

// Sets a function that can stop a long call, as Ctrl-C should. The thread that called parallel_for
// calls it about ten times a second; if it returns true, all threads stop.
void set_poll(bool (*poll)());

// Also calls it at most ten times a second, between two short calls of parallel_for, and throws
// Interrupted if it returns true.
void poll_between_calls();

// parallel_for throws this when it was stopped; the output of the tasks is then incomplete.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// parallel_for throws this in a child process if a signal handler forked during the call: the child
// lacks the threads that run the other tasks. The caller may call parallel_for again.
struct Forked {
  bool stopped;  // the handler also raised an exception: parallel_for throws Interrupted instead
};

// Throws Interrupted if the call was stopped. Tasks call it at least every few milliseconds.
void checkpoint();

}  // namespace ekmfast
