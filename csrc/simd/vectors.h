// F32 and F64, the vector types of the instruction set whose kernels are being compiled: setup.py
// gives its name, as it stands in isas.h, in EKMFAST_ISA. They lie in an anonymous namespace, as
// all that is compiled with an instruction set's flags does.
#pragma once

#ifndef EKMFAST_ISA
#error "EKMFAST_ISA is to be the name of an instruction set of simd/isas.h"
#endif

#define EKMFAST_QUOTED(text) #text
#define EKMFAST_HEADER_OF(isa) EKMFAST_QUOTED(isa.h)
#include EKMFAST_HEADER_OF(EKMFAST_ISA)
#undef EKMFAST_HEADER_OF
#undef EKMFAST_QUOTED
