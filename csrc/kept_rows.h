// Rows that many passes read, if they are few: kept as the kernels read them, in panels, so that not every
// pass makes them. Sums are the same to the last bit.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

#include "chunks.h"
#include "ekm.h"
#include "kernels/kernels.h"
#include "narrowing.h"
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
    const std::int64_t packed = kernels.packed_rows(slice_rows_, samples.d, k);
    if (packed == 0) return;
    // Panels take the place of scratch memory of the kernels, before the copies of a slice.
    const std::int64_t bytes = (samples.d + 1) * packed * static_cast<std::int64_t>(sizeof(T));
    if constexpr (std::is_same<T, U>::value) {
      keep(Slices<T>(samples, reference, cut, bytes), cut, packed, kernels);
    } else {
      narrowing_.emplace(samples, reference, cut, bytes);
      keep(*narrowing_, cut, packed, kernels);
    }
  }

  explicit operator bool() const { return !slices_.empty(); }

  // Whether the slices of this cut are kept.
  bool holds(const Cut& cut) const { return *this && cut.slice_rows == slice_rows_; }

  // The slice whose first row this is.
  const Slice<T>& operator()(std::int64_t begin, std::int64_t) const {
    return slices_[static_cast<std::size_t>(begin / slice_rows_)];
  }

 private:
  template <class SliceOf>
  void keep(const SliceOf& slice_of, const Cut& cut, std::int64_t packed, const Kernels<T>& kernels) {
    const std::int64_t each = (slice_of.bytes + 63) / 64 * 64;
    if (each * cut.n_slices > kMostBytes) return;
    memory_ = allocate_scratch(each * cut.n_slices);
    for (std::int64_t begin = 0; begin < cut.n; begin += slice_rows_) {
      char* const here = static_cast<char*>(memory_.get()) + begin / slice_rows_ * each;
      Slice<T> slice = slice_of(begin, std::min(cut.n, begin + slice_rows_), here);
      slice.rows.panels = reinterpret_cast<T*>(here);
      slice.rows.half_norm = slice.rows.panels + packed * slice.rows.d;
      kernels.pack(slice.rows, slice.begin, slice.end);
      slices_.push_back(slice);
    }
  }

  const std::int64_t slice_rows_;
  std::optional<Narrowing> narrowing_;  // the slices read its reference
  Scratch memory_;
  std::vector<Slice<T>> slices_;
};

}  // namespace ekmfast
