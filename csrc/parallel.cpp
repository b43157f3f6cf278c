#include "parallel.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace ekmfast {
namespace {

std::atomic<int> g_default_threads{1};

typedef std::chrono::steady_clock Clock;
constexpr std::chrono::milliseconds kPollEvery{100};
bool (*g_poll)() = nullptr;

// What a thread that runs tasks knows of the call that it works for.
struct Call {
  std::atomic<bool>* stopped = nullptr;
  bool polls = false;  // the thread that called parallel_for
  Clock::time_point next_poll;
};
thread_local Call t_call;

// Sets t_call for as long as it lives. A handler of a signal may call a kernel itself, in the
// midst of another.
class WorkingFor {
 public:
  WorkingFor(std::atomic<bool>* stopped, bool polls) {
    t_call.stopped = stopped;
    t_call.polls = polls && g_poll;
    if (t_call.polls) t_call.next_poll = Clock::now() + kPollEvery;
  }
  ~WorkingFor() { t_call = before_; }

 private:
  const Call before_ = t_call;
};

void poll_when_due() {
  if (!t_call.polls || Clock::now() < t_call.next_poll) return;
  if (g_poll()) t_call.stopped->store(true, std::memory_order_relaxed);
  t_call.next_poll = Clock::now() + kPollEvery;
}

class Pool {
 public:
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  void run(std::int64_t n_tasks, int n_threads,
           const std::function<void(std::int64_t, int)>& task) {
    const int helpers = grow(n_threads - 1);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task;
      n_tasks_ = n_tasks;
      next_.store(0, std::memory_order_relaxed);
      stopped_.store(false, std::memory_order_relaxed);
      failure_ = nullptr;
      wanted_ = helpers;
      running_ = helpers;
      ++generation_;
    }
    if (helpers > 0) wake_.notify_all();
    const WorkingFor call(&stopped_, true);
    work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    while (!done_.wait_for(lock, kPollEvery, [this] { return running_ == 0; })) {
      // Once stopped, what the handler raised is not to be overwritten by another.
      if (stopped_.load(std::memory_order_relaxed)) continue;
      lock.unlock();
      poll_when_due();
      lock.lock();
    }
    task_ = nullptr;
    if (stopped_.load(std::memory_order_relaxed)) throw Interrupted();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  // Threads that the system refuses to start are done without.
  int grow(int helpers) {
    while (static_cast<int>(threads_.size()) < helpers) {
      const int slot = static_cast<int>(threads_.size()) + 1;
      try {
        threads_.emplace_back([this, slot, seen = generation_] { loop(slot, seen); });
      } catch (const std::system_error&) {
        return static_cast<int>(threads_.size());
      }
    }
    return helpers;
  }

  void loop(int slot, std::uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      if (slot > wanted_) continue;
      lock.unlock();
      {
        const WorkingFor call(&stopped_, false);
        work(slot);
      }
      lock.lock();
      if (--running_ == 0) done_.notify_one();
    }
  }

  void work(int slot) {
    for (;;) {
      const std::int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
      if (i >= n_tasks_) return;
      try {
        (*task_)(i, slot);
      } catch (...) {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
        next_.store(n_tasks_, std::memory_order_relaxed);
      }
    }
  }

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(std::int64_t, int)>* task_ = nullptr;
  std::int64_t n_tasks_ = 0;
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> stopped_{false};
  std::exception_ptr failure_;
  int wanted_ = 0, running_ = 0;
  std::uint64_t generation_ = 0;
  bool stop_ = false;
};

struct Owner {
  std::mutex busy;
  std::unique_ptr<Pool> pool;
};

// Never destroyed: a thread may still be inside when the process exits.
Owner* g_owner = nullptr;

Owner& owner() {
  static const bool made = [] {
    g_owner = new Owner;
    // The child of a fork has none of the threads; the parent's pool is left behind unused.
    pthread_atfork(nullptr, nullptr, [] { g_owner = new Owner; });
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
      if (!own.pool) own.pool.reset(new Pool);
      own.pool->run(n_tasks, n_threads, task);
      return;
    }
  }
  std::atomic<bool> stopped{false};
  const WorkingFor call(&stopped, true);
  for (std::int64_t i = 0; i < n_tasks; ++i) task(i, 0);
}

void set_poll(bool (*poll)()) { g_poll = poll; }

void checkpoint() {
  if (!t_call.stopped) return;
  poll_when_due();
  if (t_call.stopped->load(std::memory_order_relaxed)) throw Interrupted();
}

}  // namespace ekmfast
