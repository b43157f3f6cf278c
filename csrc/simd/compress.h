// Packing some lanes of a vector, for instruction sets without an instruction for it.
#pragma once

#include <cstdint>

namespace ekmfast {
namespace {

// Writes the lanes whose bits are set, one after another, and their numbers, which begin at
// `first`. Each lane is written, and the next one overwrites it if its bit is not set: this avoids
// branches, which would often be mispredicted.
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
