// Whether sums can be trusted, decided from the sums alone. These are few numbers, so that they are
// checked after each call; only if they are suspicious are the rows read again
// (ekmfast/rows/limits.py).
#pragma once

#include <cstdint>

namespace ekmfast {

// If a mean of squares is above this bound, the squares did not underflow T.
template <class T>
constexpr double kSmallestMean = sizeof(T) == 4 ? 0x1p-100 : 0x1p-960;

// IN the output of statistics() (ekm.h) for n rows, and alpha. False if a sum is not finite, if a
// mean is so small that squares or products may have underflowed, or if rounding changes the
// exponents alpha d by more than 0.01 on average.
template <class T>
bool plausible_sums(std::int64_t n, std::int64_t d, std::int64_t k, std::int64_t n_problems,
                    const double* alpha, const double* sum_wx, const double* sum_w,
                    const double* sum_p, const double* exponent, const double* objective);

// The same for the sums of accumulate() (ekm.h), for each column; also false if the weights of a
// column sum to 0.
template <class T>
bool plausible_update(std::int64_t n, std::int64_t d, std::int64_t k, const double* sum_wx,
                      const double* sum_w);

}  // namespace ekmfast
