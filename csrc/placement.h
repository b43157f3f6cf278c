// Keeps the pool's helpers off the processor of the thread that calls them.
//
// Linux wakes a thread on the processor of the waking thread if it assumes that the others are
// busy. In a virtual machine it assumes so of processors that sleep. Both threads then share one
// processor until Linux balances the load after some milliseconds, which is longer than a short
// pass.
#pragma once

#ifdef __linux__
#include <sched.h>
#endif

#include <thread>
#include <vector>

namespace ekmfast {

// The last request to the system, to avoid repeating it.
struct Placement {
#ifdef __linux__
  cpu_set_t processors = {};
#endif
  int helpers = 0;
};

// Allows the first `count` helpers all processors of the caller except the one on which it runs
// now, unless that is the only one.
void keep_off_this_processor(std::vector<std::thread>& helpers, int count, Placement& last);

}  // namespace ekmfast
