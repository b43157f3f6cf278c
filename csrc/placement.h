// Keeps the pool's helpers off the processor of the thread that calls them.
//
// Linux wakes a thread where its waker runs if it takes the others for busy, and in a virtual
// machine it does so when they have gone to sleep: both then share one processor, for as long as
// the passes are shorter than the milliseconds after which the system looks again.
#pragma once

#include <thread>
#include <vector>

namespace ekmfast {

// What was last asked for, so that it is not asked again.
struct Placement {
  int processor = -1;
  int helpers = 0;
};

// Forbids the first `count` helpers the calling thread's processor. They may use all others that
// the caller may; where there is no other nothing is done.
void keep_off_this_processor(std::vector<std::thread>& helpers, int count, Placement& last);

}  // namespace ekmfast
