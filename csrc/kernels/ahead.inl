// Memory that is asked for before it is read.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace ekmfast {
namespace {

// Lines to be asked for before they are read; what lies behind the last row is asked for too, but
// never read. `a_tile` of them with each tile of the scores, `a_feature` with each of its features.
struct Ahead {
  static constexpr i64 kLine = 64;  // bytes
  std::uintptr_t at = 0;
  i64 lines = 0, a_tile = 0, a_feature = 0;
  bool near = false;  // into the L1 cache, else the L2 cache

  // The `count` numbers that begin `distance` numbers behind x.
  template <class T>
  Ahead(const T* x, i64 distance, i64 count, bool close = false)
      : at(reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(distance) * sizeof(T)),
        lines((count * static_cast<i64>(sizeof(T)) + kLine - 1) / kLine), near(close) {}
  Ahead() = default;

  void prefetch(i64 line) const {
    const std::uintptr_t begin = at + static_cast<std::uintptr_t>(line * kLine);
    const void* address = reinterpret_cast<const void*>(begin);
    if (near)
      __builtin_prefetch(address, 0, 3);
    else
      __builtin_prefetch(address, 0, 2);
  }

  void prefetch() const {
    for (i64 line = 0; line < lines; ++line) prefetch(line);
  }

  void spread(i64 n_tiles, i64 d) {
    a_tile = (lines + n_tiles - 1) / n_tiles;
    a_feature = (a_tile + d - 1) / d;
  }

  // The share of tile i.
  Ahead share(i64 i) const {
    Ahead part = *this;
    part.at += static_cast<std::uintptr_t>(i * a_tile * kLine);
    part.lines = lines - i * a_tile < a_tile ? lines - i * a_tile : a_tile;
    return part;
  }
};

}  // namespace
}  // namespace ekmfast
