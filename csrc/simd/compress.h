// Picking lanes of a vector, for instruction sets that have no instruction for it.
#pragma once

#include <cstdint>

namespace ekmfast {
namespace {

// The lanes named in bits, packed, and their numbers counted from `first`. No branch to mispredict:
// each lane is written, and the next over it if it was not named.
template <class F>
static inline void compress_lanes(F a, unsigned bits, std::int32_t first, typename F::T* values,
                                  std::int32_t* numbers) {
  typename F::T lanes[F::W];
  a.store(lanes);
  for (int l = 0; l < F::W; ++l) {
    *values = lanes[l];
    *numbers = first + l;
    values += (bits >> l) & 1;
    numbers += (bits >> l) & 1;
  }
}

}  // namespace
}  // namespace ekmfast
