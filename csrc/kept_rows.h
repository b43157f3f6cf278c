// Rows that many passes read, if they are few: kept as the kernels read them, in panels, so that not every
// pass makes them. Sums are the same to the last bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "chunks.h"
#include "ekm.h"
#include "kernels/kernels.h"
#include "simd/dispatch.h"

namespace ekmfast {

template <class T>
class KeptRows {
 public:
  // Of more bytes than a core's L2 cache holds, reading takes as long as making them.
  static constexpr std::int64_t kMostBytes = 512 << 10;

  // Keeps nothing if that would take too many bytes. IN samples, reference (d,), as the functions of
  // ekm.h take them; if T is float and U is double, rows are centred and rounded.
  template <class U>
  KeptRows(const Samples<U>& samples, const U* reference, const Cut& cut, std::int64_t k)
      : slice_rows_(cut.slice_rows) {
    const Kernels<T>& kernels = kernels_of<T>(kernel_table(isa_in_use()));
    const std::int64_t n = samples.n, d = samples.d, size = static_cast<std::int64_t>(sizeof(T));
    const std::int64_t slice = kernels.packed_rows(slice_rows_, d, k);
    const std::int64_t bytes = (d + 1) * slice * cut.n_slices * size;
    constexpr bool narrowed = !std::is_same<T, U>::value;
    if (slice == 0 || bytes + (narrowed || samples.factor ? n * d * size : 0) > kMostBytes) return;
    if constexpr (narrowed) {
      zeros_.resize(static_cast<std::size_t>(d));
      copy_.resize(static_cast<std::size_t>(n * d));
      kernel_table(isa_in_use())
          .narrow(samples.x, n, d, samples.stride, samples.factor, reference, copy_.data());
      if (samples.sample_weight)
        for (std::int64_t i = 0; i < n; ++i)
          weight_.push_back(static_cast<T>(samples.sample_weight[i]));
      rows_ = {copy_.data(), d, d, weight_.empty() ? nullptr : weight_.data(), zeros_.data()};
    } else {
      rows_ = rows_of(samples, reference);
      if (samples.factor) {
        copy_.resize(static_cast<std::size_t>(n * d));
        for (std::int64_t i = 0; i < n; ++i) copy_row(samples, i, copy_.data() + i * d);
        rows_.x = copy_.data();
        rows_.stride = d;
      }
    }
    packed_ = slice;
    memory_ = allocate_scratch(bytes);
    for (std::int64_t begin = 0; begin < n; begin += slice_rows_)
      kernels.pack(at(begin), begin, std::min(n, begin + slice_rows_));
  }

  explicit operator bool() const { return packed_ > 0; }

  Slice<T> operator()(std::int64_t begin, std::int64_t end) const { return {at(begin), begin, end, 0}; }

 private:
  Rows<T> at(std::int64_t begin) const {
    Rows<T> rows = rows_;
    rows.panels = static_cast<T*>(memory_.get()) + begin / slice_rows_ * packed_ * (rows.d + 1);
    rows.half_norm = rows.panels + packed_ * rows.d;
    return rows;
  }

  std::int64_t slice_rows_, packed_ = 0;  // of a slice
  Rows<T> rows_{};
  std::vector<T> copy_, weight_, zeros_;
  Scratch memory_;
};

}  // namespace ekmfast
