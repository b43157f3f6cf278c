// Factors between natural logarithms and those of base 2, in which the kernels compute.
#pragma once

namespace ekmfast {

constexpr double kLog2E = 1.44269504088896340736;
constexpr double kLn2 = 0.69314718055994530942;

}  // namespace ekmfast
