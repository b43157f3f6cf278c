// Memory that is prefetched: asked for some time before it is read.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "portable.h"
#include "tuning.h"

namespace ekmfast {
namespace {

// Cache lines to prefetch. Some of them may lie behind the last row: those are requested too, which
// is allowed for any address, and never read.
template <int kLocality>
struct PrefetchInto {
  static constexpr i64 kLine = 64;  // bytes
  std::uintptr_t at = 0;
  i64 lines = 0;
  i64 tile_lines = 0, feature_lines = 0;  // what one tile of the scores requests, and each feature

  // The `count` numbers that begin `distance` numbers behind x.
  template <class T>
  PrefetchInto(const T* x, i64 distance, i64 count)
      : at(reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(distance) * sizeof(T)),
        lines((count * static_cast<i64>(sizeof(T)) + kLine - 1) / kLine) {}
  PrefetchInto() = default;

  void request(i64 line) const {
    const std::uintptr_t begin = at + static_cast<std::uintptr_t>(line * kLine);
    EKMFAST_PREFETCH(reinterpret_cast<const void*>(begin), kLocality);
  }

  void request_all() const {
    for (i64 line = 0; line < lines; ++line) request(line);
  }

  // Shares the lines out to tiles of d features. Requested all at once they would fill the queue of
  // outstanding reads, and loads would wait behind them.
  void spread(i64 n_tiles, i64 d) {
    tile_lines = uses(Path::prefetch_spread) ? (lines + n_tiles - 1) / n_tiles : lines;
    feature_lines = uses(Path::prefetch_spread) ? (tile_lines + d - 1) / d : lines;
  }

  PrefetchInto share_of_tile(i64 i) const {
    PrefetchInto part = *this;
    part.at += static_cast<std::uintptr_t>(i * tile_lines * kLine);
    part.lines = lines - i * tile_lines < tile_lines ? lines - i * tile_lines : tile_lines;
    return part;
  }
};

typedef PrefetchInto<3> Prefetch;  // into the L1 cache
typedef PrefetchInto<2> PrefetchL2;

}  // namespace
}  // namespace ekmfast
