#include "placement.h"

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

namespace ekmfast {

#ifdef __linux__

void keep_off_this_processor(std::vector<std::thread>& helpers, int count, Placement& last) {
  const int here = sched_getcpu();
  if (here < 0 || here >= CPU_SETSIZE) return;
  if (here == last.processor && count <= last.helpers) return;
  cpu_set_t others;
  if (sched_getaffinity(0, sizeof others, &others) != 0) return;
  CPU_CLR(here, &others);
  if (CPU_COUNT(&others) == 0) return;
  for (int i = 0; i < count; ++i)
    pthread_setaffinity_np(helpers[static_cast<std::size_t>(i)].native_handle(), sizeof others,
                           &others);
  last = {here, count};
}

#else

void keep_off_this_processor(std::vector<std::thread>&, int, Placement&) {}

#endif

}  // namespace ekmfast
