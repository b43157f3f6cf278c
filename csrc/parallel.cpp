#include "parallel.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "fork.h"
#include "placement.h"

namespace ekmfast {
namespace {

std::atomic<int> g_default_threads{1};

typedef std::chrono::steady_clock Clock;
constexpr std::chrono::milliseconds kPollEvery{100};
std::atomic<bool (*)()> g_poll{nullptr};

// In a child process: how often it and its parents were forked since the first pool was made.
std::atomic<int> g_forks{0};

// What a thread that runs tasks knows about its call of parallel_for.
struct Call {
  std::atomic<bool>* stopped = nullptr;
  bool polls = false;   // whether this thread called parallel_for and asks g_poll
  bool helped = false;  // whether other threads of the pool work for the same call
  Clock::time_point next_poll;
};
thread_local Call t_call;
// Whether this thread runs a signal handler, which g_poll has called.
thread_local bool t_handling = false;

// Sets t_call during its lifetime and then restores the previous value, since a signal handler may
// call a kernel during another call.
class WorkingFor {
 public:
  WorkingFor(std::atomic<bool>* stopped, bool polls, bool helped) {
    t_call.stopped = stopped;
    t_call.polls = polls && g_poll.load(std::memory_order_relaxed);
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
  const bool handling = std::exchange(t_handling, true);
  const bool stop = g_poll.load(std::memory_order_relaxed)();
  t_handling = handling;
  if (t_call.helped && g_forks.load(std::memory_order_relaxed) != forks) throw Forked{stop};
  if (stop) t_call.stopped->store(true, std::memory_order_relaxed);
  t_call.next_poll = Clock::now() + kPollEvery;
}

// How long the caller polls for the end of the last helpers before it sleeps.
constexpr std::chrono::microseconds kPollForHelpers{50};

// Whether ready() becomes true within kPollForHelpers. Meanwhile other threads may run on this
// processor.
template <class Ready>
bool poll_until(Ready ready) {
  const Clock::time_point end = Clock::now() + kPollForHelpers;
  do {
    if (ready()) return true;
    std::this_thread::yield();
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
      // Without the lock, a helper that is about to sleep would miss the notification.
      std::lock_guard<std::mutex> lock(mutex_);
      const std::uint32_t number = gate_.load(std::memory_order_relaxed).number + 1;
      gate_.store({number, static_cast<std::uint16_t>(helpers), kOpen}, std::memory_order_release);
    }
    if (helpers > 0) wake_.notify_all();
    const WorkingFor call(&stopped_, true, helpers > 0);
    work(0);
    close();
    const auto all_left = [this] { return inside(gate_.load(std::memory_order_acquire)) == 0; };
    if (!poll_until(all_left)) {
      std::unique_lock<std::mutex> lock(mutex_);
      while (!done_.wait_for(lock, kPollEvery, all_left)) {
        // After a stop, another handler must not overwrite the exception that the first one raised.
        if (stopped_.load(std::memory_order_relaxed)) continue;
        lock.unlock();
        poll_when_due();
        lock.lock();
      }
    }
    task_ = nullptr;
    if (stopped_.load(std::memory_order_relaxed)) throw Interrupted();
    // The caller takes the exception with it. If the pool kept it, the next call, of another thread,
    // would destroy what this caller may still read.
    if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  }

 private:
  // Helpers may enter a call while its gate is open. When no task is left, the caller closes the
  // gate and waits only for the helpers that have entered. A helper whose processor is busy with
  // another thread therefore comes too late and delays nobody.
  // The alignment makes it one word of 8 bytes; for a smaller one Clang would call a library.
  struct alignas(8) Gate {
    std::uint32_t number;   // of the call
    std::uint16_t helpers;  // helpers with slots up to this number may enter
    std::uint16_t state;    // the number of helpers inside, plus kOpen while it is open
  };
  static constexpr std::uint16_t kOpen = 0x8000;
  static int inside(Gate gate) { return gate.state & ~kOpen; }

  // Whether the helper entered; number is that of the call.
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
      // Without the lock, the notification could come just before the caller waits for it.
      std::lock_guard<std::mutex> lock(mutex_);
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

  // Starts missing helpers and returns how many there are; the system may refuse to start some.
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
        throw;  // a helper may have held a mutex at the time of the fork, so that none is locked
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

// It and its pool are never destroyed, since threads may still use them when the process exits.
Owner* g_owner = nullptr;

Owner& owner() {
  static const bool made = [] {
    g_owner = new Owner;
    // The child of a fork has none of the threads. It makes a new pool and leaves the old one
    // unused.
    call_in_child_of_fork([] {
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
  if (within_another && !t_handling) {  // called by a task of another call, with which it ends
    for (std::int64_t i = 0; i < n_tasks; ++i) task(i, 0);
    return;
  }
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

void set_poll(bool (*poll)()) { g_poll.store(poll, std::memory_order_relaxed); }

void poll_between_calls() {
  thread_local Clock::time_point next;
  const auto poll = g_poll.load(std::memory_order_relaxed);
  if (!poll || t_call.stopped || Clock::now() < next) return;
  next = Clock::now() + kPollEvery;
  if (poll()) throw Interrupted();
}

void checkpoint() {
  if (!t_call.stopped) return;
  poll_when_due();
  if (t_call.stopped->load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace ekmfast
