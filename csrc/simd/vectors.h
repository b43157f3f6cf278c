// F32 and F64, the vector types of the instruction set whose kernels are being compiled.
// EKMFAST_ISA, which setup.py defines, is its name in isas.h. The types are in an anonymous
// namespace, as is all code that is compiled with the flags of an instruction set, so that the
// linker cannot use it for another processor.
#pragma once

#ifndef EKMFAST_ISA
#error "EKMFAST_ISA must be the name of an instruction set of simd/isas.h"
#endif

#define EKMFAST_QUOTED(text) #text
#define EKMFAST_HEADER_OF(isa) EKMFAST_QUOTED(isa.h)
#include EKMFAST_HEADER_OF(EKMFAST_ISA)
#undef EKMFAST_HEADER_OF
#undef EKMFAST_QUOTED
