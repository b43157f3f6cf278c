// Memory in large pages, where the system has them (see portable.h).
#pragma once

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <cstddef>

namespace ekmfast {

constexpr std::size_t kLargePage = std::size_t{2} << 20;

// Asks for large pages for memory that begins and ends with one. The request may fail, which changes
// nothing but the time.
inline void ask_for_large_pages([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(p, bytes, MADV_HUGEPAGE);
#endif
}

}  // namespace ekmfast
