// Lets the child of each later fork call a function before anything else. Windows has no fork.
#pragma once

#ifndef _WIN32
#include <pthread.h>
#endif

namespace ekmfast {

inline void call_in_child_of_fork(void (*function)()) {
#ifdef _WIN32
  static_cast<void>(function);
#else
  pthread_atfork(nullptr, nullptr, function);
#endif
}

}  // namespace ekmfast
