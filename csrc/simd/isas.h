// The one table of instruction sets. A row is
//
//   ARCHITECTURE(name, compiler flags, condition by which the processor has it)
//
// for every architecture (ANY), for x86-64 or for AArch64; later rows are preferred. The enum, the
// declarations in kernels.h and the entries in dispatch.cpp are generated from it. setup.py reads
// it too and compiles kernels/kernels.cpp once for each row, with the row's flags and its name as
// EKMFAST_ISA. The vector types of a row are in simd/<name>.h.
//
// -ffp-contract=fast allows fused multiply-adds. -Wno-(maybe-)uninitialized hides warnings about
// GCC's own AVX-512 header (GCC bug 105593).
#pragma once

// clang-format off
#define EKMFAST_ISAS(ANY, X86, ARM)                                                               \
  ANY(base, "", true)                                                                             \
  X86(avx2, "-mavx2 -mfma -ffp-contract=fast",                                                    \
      EKMFAST_PROCESSOR_HAS(avx2) && EKMFAST_PROCESSOR_HAS(fma))                                  \
  X86(avx512, "-mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mprefer-vector-width=512 "       \
              "-ffp-contract=fast -Wno-maybe-uninitialized -Wno-uninitialized",                   \
      EKMFAST_PROCESSOR_HAS(avx2) && EKMFAST_PROCESSOR_HAS(fma) &&                                \
      EKMFAST_PROCESSOR_HAS(avx512f) && EKMFAST_PROCESSOR_HAS(avx512dq) &&                        \
      EKMFAST_PROCESSOR_HAS(avx512vl) && EKMFAST_PROCESSOR_HAS(avx512bw))                         \
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
