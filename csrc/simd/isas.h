// The one table of instruction sets. A row is
//
//   ARCHITECTURE(name, compiler flags, condition by which the processor has it)
//
// of every architecture (ANY), of x86-64 or of AArch64, and later is better. The enum, the
// declarations in kernels.h and the entries in dispatch.cpp are made of it. setup.py reads it too
// and compiles kernels/kernels.cpp once for each row, with the row's flags and its name as
// EKMFAST_ISA. The vector types of a row lie in simd/<name>.h.
//
// -ffp-contract=fast lets a multiply and an add fuse, which is what these sets are for;
// -Wno-(maybe-)uninitialized hides GCC's bug 105593, in its own header of AVX-512.
#pragma once

// clang-format off
#define EKMFAST_ISAS(ANY, X86, ARM)                                                               \
  ANY(base, "", true)                                                                             \
  X86(avx2, "-mavx2 -mfma -ffp-contract=fast",                                                    \
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))                            \
  X86(avx512, "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mprefer-vector-width=512 "       \
              "-ffp-contract=fast -Wno-maybe-uninitialized -Wno-uninitialized",                   \
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&                          \
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&                  \
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))                   \
  ARM(neon, "-ffp-contract=fast", true)
// clang-format on

namespace ekmfast {

#define EKMFAST_NAME(name, flags, condition) name,
enum class Isa { EKMFAST_ISAS(EKMFAST_NAME, EKMFAST_NAME, EKMFAST_NAME) };
#undef EKMFAST_NAME

#define EKMFAST_NAME(name, flags, condition) Isa::name,
constexpr Isa kAllIsas[] = {EKMFAST_ISAS(EKMFAST_NAME, EKMFAST_NAME, EKMFAST_NAME)};
#undef EKMFAST_NAME

}  // namespace ekmfast
