// Rows in double for kernels that compute in float.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "chunks.h"
#include "ekm.h"
#include "kernels/kernels.h"
#include "simd/dispatch.h"

namespace ekmfast {

// Slices of rows in double as the kernels for float take them, behind the scratch memory of these. Rows
// are centred before they are rounded, so that an offset of all rows costs no digits.
struct Narrowing {
  const Samples<double>& samples;
  const double* reference;
  const std::vector<float> zeros;
  std::int64_t kernel_bytes, bytes;

  Narrowing(const Samples<double>& s, const double* ref, const Cut& cut, std::int64_t for_kernels)
      : samples(s), reference(ref), zeros(static_cast<std::size_t>(s.d), 0.0f),
        kernel_bytes((for_kernels + 63) / 64 * 64) {
    bytes = kernel_bytes + cut.slice_rows * (s.d + 1) * static_cast<std::int64_t>(sizeof(float));
  }

  Slice<float> operator()(std::int64_t begin, std::int64_t end, void* scratch) const {
    const std::int64_t n = end - begin, d = samples.d;
    float* copy = reinterpret_cast<float*>(static_cast<char*>(scratch) + kernel_bytes);
    const double* factor = samples.factor ? samples.factor + begin : nullptr;
    kernel_table(isa_in_use())
        .narrow(samples.x + begin * samples.stride, n, d, samples.stride, factor, reference, copy);
    float* weight = nullptr;
    if (samples.sample_weight) {
      weight = copy + n * d;
      std::transform(samples.sample_weight + begin, samples.sample_weight + end, weight,
                     [](double s) { return static_cast<float>(s); });
    }
    Rows<float> rows{copy, d, d, weight, zeros.data()};
    if (end + n <= samples.n && samples.stride <= 2 * d) {
      rows.next = samples.x + end * samples.stride;
      rows.next_stride = samples.stride;
    }
    return {rows, 0, n, begin};
  }
};

}  // namespace ekmfast
