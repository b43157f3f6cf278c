// The only place that starts threads: a persistent pool, made on first use.
//
// Why our own and not OpenMP: two OpenMP runtimes in one process (torch brings its own) spin
// against each other, and GNU's is not safe after fork. Here waiting threads sleep (the caller after
// it has looked out for some microseconds), and a forked child makes a new pool.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>

namespace ekmfast {

// Threads that a call uses when it does not say: at first what set_default_threads() was given.
int default_threads();
void set_default_threads(int n);

// Runs task(i, slot) for every i in [0, n_tasks), at most n_threads at a time; slot < n_threads
// tells the running thread's scratch apart. Tasks are handed out in order. When another call holds
// the pool, this one runs its tasks alone: results never depend on who ran them.
void parallel_for(std::int64_t n_tasks, int n_threads,
                  const std::function<void(std::int64_t task, int slot)>& task);

// A person may want a long call to end. `poll` is asked about ten times a second, on the thread
// that called parallel_for, and answers true for "stop"; the other threads are told.
void set_poll(bool (*poll)());

// What parallel_for throws when it was stopped; whatever the tasks wrote is then of no use.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// What parallel_for throws in the child of a fork that a handler of a signal made in the midst of
// it: the threads that had the other tasks are the parent's. Nothing is lost by calling it again.
struct Forked {
  bool stopped;  // the handler raised as well; callers of parallel_for see Interrupted then
};

// Between two pieces of a task, of some milliseconds at most: throws Interrupted once stopped.
void checkpoint();

}  // namespace ekmfast
