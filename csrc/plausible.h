// Whether sums may be taken at their word, from the sums alone: a look at few numbers after each
// call, so that only doubtful calls cost another look at the rows (ekmfast/_limits.py).
#pragma once

#include <cstdint>

namespace ekmfast {

// A mean of squares above it does not come from squares that underflow T.
template <class T>
constexpr double kSmallestMean = sizeof(T) == 4 ? 0x1p-100 : 0x1p-960;

// IN what statistics() (ekm.h) gives of n rows, and alpha. False where a sum is not finite; where
// a mean is so small that squares or products may have underflowed; or where rounding moves
// exponents, alpha d, by more than a hundredth in the mean.
template <class T>
bool plausible_sums(std::int64_t n, std::int64_t d, std::int64_t k, std::int64_t n_problems,
                    const double* alpha, const double* sum_wx, const double* sum_w,
                    const double* sum_p, const double* exponent, const double* objective);

// The same for the sums of accumulate() (ekm.h), each column for itself; also false where one of
// the weights' sums is 0.
template <class T>
bool plausible_update(std::int64_t n, std::int64_t d, std::int64_t k, const double* sum_wx,
                      const double* sum_w);

}  // namespace ekmfast
