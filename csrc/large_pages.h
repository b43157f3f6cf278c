// Memory in large pages, where the system has them (see portable.h).
#pragma once

#if __has_include(<sys/mman.h>)
#include <sys/mman.h>
#endif

#include <cstddef>
#include <new>
#include <vector>

namespace ekmfast {

constexpr std::size_t kLargePage = std::size_t{2} << 20;

// Asks for large pages for memory that begins and ends with one. The request may fail, which changes
// nothing but the time.
inline void ask_for_large_pages([[maybe_unused]] void* p, [[maybe_unused]] std::size_t bytes) {
#ifdef MADV_HUGEPAGE
  madvise(p, bytes, MADV_HUGEPAGE);
#endif
}

// The memory of long vectors, in large pages. Of small pages each takes a fault when it is first written,
// some 15,000 in a fit of twelve passes at 2 million numbers of centroids, which took 40 to 100 ms of
// the system's time.
template <class T>
struct InLargePages {
  typedef T value_type;

  InLargePages() = default;
  template <class U>
  InLargePages(const InLargePages<U>&) {}

  T* allocate(std::size_t n) {
    if (!is_long(n)) return static_cast<T*>(::operator new(n * sizeof(T)));
    const std::size_t bytes = (n * sizeof(T) + kLargePage - 1) / kLargePage * kLargePage;
    void* const p = ::operator new(bytes, std::align_val_t{kLargePage});
    ask_for_large_pages(p, bytes);
    return static_cast<T*>(p);
  }

  // Numbers without a value stay uninitialised: writing zeros takes as long as writing the numbers.
  template <class U>
  void construct(U* p) {
    ::new (static_cast<void*>(p)) U;
  }

  void deallocate(T* p, std::size_t n) {
    if (is_long(n))
      ::operator delete(p, std::align_val_t{kLargePage});
    else
      ::operator delete(p);
  }

  friend bool operator==(InLargePages, InLargePages) { return true; }
  friend bool operator!=(InLargePages, InLargePages) { return false; }

 private:
  static bool is_long(std::size_t n) { return n >= 2 * kLargePage / sizeof(T); }
};

template <class T>
using LongVector = std::vector<T, InLargePages<T>>;

}  // namespace ekmfast
