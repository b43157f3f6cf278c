// Which instruction sets exist, which this processor has, and which one is in use.
#pragma once

#include "kernels/kernels.h"

namespace ekmfast {

enum class Isa { base, avx2, avx512, neon };
constexpr Isa kAllIsas[] = {Isa::base, Isa::avx2, Isa::avx512, Isa::neon};

const char* isa_name(Isa isa);

// True when the kernels were compiled in and the processor (and its OS) can run them.
bool isa_available(Isa isa);

// The best available one, unless the environment variable EKMFAST_ISA or set_isa() said otherwise.
Isa isa_in_use();
void set_isa(Isa isa);

const KernelTable& kernel_table(Isa isa);

}  // namespace ekmfast
