// EKMFAST_PROCESSOR_HAS(feature): whether the processor has a feature of x86-64, and whether the
// operating system saves the registers that belong to it.
#pragma once

#ifndef _WIN32

#define EKMFAST_PROCESSOR_HAS(feature) (__builtin_cpu_init(), __builtin_cpu_supports(#feature))

#else

// On Windows, Clang's builtins need a library that no linker finds by itself.
#define EKMFAST_PROCESSOR_HAS(feature) (ekmfast::features_of_processor().feature)

#include <immintrin.h>
#include <intrin.h>

namespace ekmfast {

struct ProcessorFeatures {
  bool avx2, fma, avx512f, avx512dq, avx512bw, avx512vl;
};

__attribute__((target("xsave"))) inline ProcessorFeatures features_of_processor() {
  const auto bit = [](int word, int number) { return ((word >> number) & 1) != 0; };
  int basic[4], extended[4];  // EAX, EBX, ECX, EDX
  __cpuidex(basic, 0, 0);
  const bool has_extended = basic[0] >= 7;
  __cpuidex(basic, 1, 0);
  const bool os_saves = bit(basic[2], 27);  // whether _xgetbv may be called
  if (!has_extended || !os_saves) return {};
  __cpuidex(extended, 7, 0);
  const auto saved = _xgetbv(0);
  const bool ymm = (saved & 0x06) == 0x06, zmm = (saved & 0xe6) == 0xe6;
  return {ymm && bit(extended[1], 5),  ymm && bit(basic[2], 12),    zmm && bit(extended[1], 16),
          zmm && bit(extended[1], 17), zmm && bit(extended[1], 30), zmm && bit(extended[1], 31)};
}

}  // namespace ekmfast

#endif
