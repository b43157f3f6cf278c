#include "placement.h"

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

namespace ekmfast {

#ifdef __linux__

void keep_off_this_processor(std::vector<std::thread>& helpers, int count, Placement& last) {
  const int here = sched_getcpu();
  cpu_set_t processors;
  if (here < 0 || here >= CPU_SETSIZE) return;
  // It fails if there are more processors than cpu_set_t can hold.
  if (sched_getaffinity(0, sizeof processors, &processors) != 0) return;
  if (CPU_COUNT(&processors) > 1) CPU_CLR(here, &processors);
  if (count <= last.helpers && CPU_EQUAL(&processors, &last.processors)) return;
  for (int i = 0; i < count; ++i)
    pthread_setaffinity_np(helpers[static_cast<std::size_t>(i)].native_handle(), sizeof processors,
                           &processors);
  last.processors = processors;
  last.helpers = count;
}

#else

void keep_off_this_processor(std::vector<std::thread>&, int, Placement&) {}

#endif

}  // namespace ekmfast
