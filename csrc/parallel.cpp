#include "parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "placement.h"

namespace ekmfast {
namespace {

std::atomic<int> g_default_threads{1};

typedef std::chrono::steady_clock Clock;
constexpr std::chrono::milliseconds kPollEvery{100};
bool (*g_poll)() = nullptr;

// Of how many forks since the pool was made this process is the child.
std::atomic<int> g_forks{0};

// What a thread that runs tasks knows of the call that it works for.
struct Call {
  std::atomic<bool>* stopped = nullptr;
  bool polls = false;   // the thread that called parallel_for
  bool helped = false;  // other threads of the pool work for the same call
  Clock::time_point next_poll;
};
thread_local Call t_call;

// Sets t_call for as long as it lives. A handler of a signal may call a kernel itself, in the
// midst of another.
class WorkingFor {
 public:
  WorkingFor(std::atomic<bool>* stopped, bool polls, bool helped) {
    t_call.stopped = stopped;
    t_call.polls = polls && g_poll;
    t_call.helped = helped;
    if (t_call.polls) t_call.next_poll = Clock::now() + kPollEvery;
  }
  ~WorkingFor() { t_call = before_; }

 private:
  const Call before_ = t_call;
};

void poll_when_due() {
  if (!t_call.polls || Clock::now() < t_call.next_poll) return;
  const int forks = g_forks.load(std::memory_order_relaxed);
  const bool stop = g_poll();
  if (t_call.helped && g_forks.load(std::memory_order_relaxed) != forks) throw Forked{stop};
  if (stop) t_call.stopped->store(true, std::memory_order_relaxed);
  t_call.next_poll = Clock::now() + kPollEvery;
}

// How long the caller looks out for the last helpers before it goes to sleep.
constexpr std::chrono::microseconds kLookOut{50};

// Whether ready() came true within kLookOut. Any thread that wants this processor gets it.
template <class Ready>
bool look_out(Ready ready) {
  const Clock::time_point end = Clock::now() + kLookOut;
  do {
    if (ready()) return true;
    sched_yield();
  } while (Clock::now() < end);
  return ready();
}

class Pool {
 public:
  void run(std::int64_t n_tasks, int n_threads,
           const std::function<void(std::int64_t, int)>& task) {
    const int helpers = grow(n_threads - 1);
    keep_off_this_processor(threads_, helpers, placement_);
    task_ = &task;
    n_tasks_ = n_tasks;
    next_.store(0, std::memory_order_relaxed);
    stopped_.store(false, std::memory_order_relaxed);
    failure_ = nullptr;
    {
      std::lock_guard<std::mutex> lock(mutex_);  // or one who is about to sleep misses it
      const std::uint32_t number = gate_.load(std::memory_order_relaxed).number + 1;
      gate_.store({number, static_cast<std::uint16_t>(helpers), kOpen}, std::memory_order_release);
    }
    if (helpers > 0) wake_.notify_all();
    const WorkingFor call(&stopped_, true, helpers > 0);
    work(0);
    close();
    const auto all_left = [this] { return inside(gate_.load(std::memory_order_acquire)) == 0; };
    if (!look_out(all_left)) {
      std::unique_lock<std::mutex> lock(mutex_);
      while (!done_.wait_for(lock, kPollEvery, all_left)) {
        // Once stopped, what the handler raised is not to be overwritten by another.
        if (stopped_.load(std::memory_order_relaxed)) continue;
        lock.unlock();
        poll_when_due();
        lock.lock();
      }
    }
    task_ = nullptr;
    if (stopped_.load(std::memory_order_relaxed)) throw Interrupted();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  // A run is a room: helpers go in while it is open, and the caller, when nothing is left to do,
  // closes it and waits for those inside alone. A helper that some other thread keeps from its
  // processor comes too late and delays nobody.
  // Aligned as one word of 8 bytes: Clang turns atomics of less into calls of a library of its own.
  struct alignas(8) Gate {
    std::uint32_t number;   // of the run
    std::uint16_t helpers;  // the first so many are asked in
    std::uint16_t state;    // how many are inside, and kOpen
  };
  static constexpr std::uint16_t kOpen = 0x8000;
  static int inside(Gate gate) { return gate.state & ~kOpen; }

  // number is that of the run which the helper was let into or not.
  bool enter(int slot, std::uint32_t& number) {
    Gate gate = gate_.load(std::memory_order_acquire);
    for (;;) {
      number = gate.number;
      if (slot > gate.helpers || !(gate.state & kOpen)) return false;
      Gate entered = gate;
      ++entered.state;
      if (gate_.compare_exchange_weak(gate, entered, std::memory_order_acq_rel)) return true;
    }
  }

  void leave() {
    Gate gate = gate_.load(std::memory_order_relaxed), left;
    do {
      left = gate;
      --left.state;
    } while (!gate_.compare_exchange_weak(gate, left, std::memory_order_acq_rel));
    if (left.state == 0) {
      std::lock_guard<std::mutex> lock(mutex_);  // or it is told just before it waits
      done_.notify_one();
    }
  }

  void close() {
    Gate gate = gate_.load(std::memory_order_relaxed), closed;
    do {
      closed = gate;
      closed.state = static_cast<std::uint16_t>(inside(gate));
    } while (!gate_.compare_exchange_weak(gate, closed, std::memory_order_acq_rel));
  }

  // Threads that the system refuses to start are done without.
  int grow(int helpers) {
    helpers = std::min(helpers, kOpen - 1);
    while (static_cast<int>(threads_.size()) < helpers) {
      const int slot = static_cast<int>(threads_.size()) + 1;
      const std::uint32_t number = gate_.load(std::memory_order_relaxed).number;
      try {
        threads_.emplace_back([this, slot, number] { loop(slot, number); });
      } catch (const std::system_error&) {
        return static_cast<int>(threads_.size());
      }
    }
    return helpers;
  }

  void loop(int slot, std::uint32_t number) {
    const auto called = [&] { return gate_.load(std::memory_order_acquire).number != number; };
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, called);
      }
      if (!enter(slot, number)) continue;
      {
        const WorkingFor call(&stopped_, false, true);
        work(slot);
      }
      leave();
    }
  }

  void work(int slot) {
    for (;;) {
      const std::int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= n_tasks_) return;
      try {
        (*task_)(i, slot);
      } catch (const Forked&) {
        throw;  // a helper may have held any mutex when this process was forked: touch none
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
        next_.store(n_tasks_, std::memory_order_relaxed);
      }
    }
  }

  std::vector<std::thread> threads_;
  Placement placement_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(std::int64_t, int)>* task_ = nullptr;
  std::int64_t n_tasks_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::exception_ptr failure_;
  std::atomic<Gate> gate_{Gate{0, 0, 0}};
};

struct Owner {
  std::mutex busy;
  Pool* pool = nullptr;
};

// Neither is ever destroyed: threads may still be inside when the process exits.
Owner* g_owner = nullptr;

Owner& owner() {
  static const bool made = [] {
    g_owner = new Owner;
    // The child of a fork has none of the threads; the parent's pool is left behind unused.
    pthread_atfork(nullptr, nullptr, [] {
      g_owner = new Owner;
      ++g_forks;
    });
    return true;
  }();
  (void)made;
  return *g_owner;
}

}  // namespace

int default_threads() { return g_default_threads.load(std::memory_order_relaxed); }

void set_default_threads(int n) {
  g_default_threads.store(n < 1 ? 1 : n, std::memory_order_relaxed);
}

void parallel_for(std::int64_t n_tasks, int n_threads,
                  const std::function<void(std::int64_t, int)>& task) {
  if (n_threads > n_tasks) n_threads = static_cast<int>(n_tasks);
  const bool within_another = t_call.stopped != nullptr;
  if (n_threads > 1 && !within_another) {
    Owner& own = owner();
    std::unique_lock<std::mutex> lock(own.busy, std::try_to_lock);
    if (lock.owns_lock()) {
      if (!own.pool) own.pool = new Pool;
      try {
        own.pool->run(n_tasks, n_threads, task);
      } catch (const Forked& forked) {
        if (forked.stopped) throw Interrupted();
        throw;
      }
      return;
    }
  }
  std::atomic<bool> stopped{false};
  const WorkingFor call(&stopped, true, false);
  for (std::int64_t i = 0; i < n_tasks; ++i) task(i, 0);
}

void set_poll(bool (*poll)()) { g_poll = poll; }

void checkpoint() {
  if (!t_call.stopped) return;
  poll_when_due();
  if (t_call.stopped->load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace ekmfast
