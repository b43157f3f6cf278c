// Keeps the pool's helpers off the processor of the thread that calls them.
//
// Linux wakes a thread where its waker runs if it takes the others for busy, and in a virtual
// machine it does so when they have gone to sleep: both then share one processor, for as long as
// the passes are shorter than the milliseconds after which the system looks again.
#pragma once

#ifdef __linux__
#include <sched.h>
#endif

#include <thread>
#include <vector>

namespace ekmfast {

// What was last asked for, so that it is not asked again.
struct Placement {
#ifdef __linux__
  cpu_set_t processors = {};
#endif
  int helpers = 0;
};

// Lets the first `count` helpers run where the caller may, but for the processor on which it is
// now; if there is no other, there.
void keep_off_this_processor(std::vector<std::thread>& helpers, int count, Placement& last);

}  // namespace ekmfast
