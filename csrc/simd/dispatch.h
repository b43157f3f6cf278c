// Which instruction sets this processor has, and which one is in use.
#pragma once

#include "isas.h"
#include "kernels/kernels.h"

namespace ekmfast {

const char* isa_name(Isa isa);

// True if the kernels were compiled and the processor and its OS can run them.
bool isa_available(Isa isa);

// The best available one, unless the environment variable EKMFAST_ISA or set_isa() names another.
Isa isa_in_use();
void set_isa(Isa isa);

const KernelTable& kernel_table(Isa isa);

}  // namespace ekmfast
