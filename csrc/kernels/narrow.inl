// Rows in double as the kernels for float take them.
#pragma once

#include "kernels.h"
#include "simd/vectors.h"

namespace ekmfast {
namespace {

static void narrow_row(const double* x, i64 d, double factor, const double* reference, float* out) {
  for (i64 j = 0; j < d; ++j) out[j] = static_cast<float>(x[j] * factor - reference[j]);
}

static void narrow(const double* x, i64 n, i64 d, i64 stride, const double* factor,
                   const double* reference, float* out) {
  for (i64 i = 0; i < n; ++i)
    narrow_row(x + i * stride, d, factor ? factor[i] : 1.0, reference, out + i * d);
}

}  // namespace
}  // namespace ekmfast
