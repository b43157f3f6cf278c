// What compilers do differently: the rest of csrc/ uses only the names that are defined here. What
// operating systems do differently is in files of its own: fork.h, large_pages.h, placement.* and, for
// processors, simd/processor.h.
#pragma once

#if defined(_MSC_VER) && !defined(__clang__)
#error "cl.exe lacks the vector types of GCC and Clang, of which the kernels consist; use clang-cl"
#endif

// Functions, and lambdas, that are inlined whatever the compiler thinks of their size.
#define EKMFAST_INLINED __attribute__((always_inline))

// Functions that are not inlined, where their code would crowd the registers of the caller.
#define EKMFAST_NOT_INLINED __attribute__((noinline))

// Vectors of 16 bytes, with the operators of their elements.
#define EKMFAST_VECTOR __attribute__((vector_size(16)))

// A vector whose elements are those of another one, converted to another type.
#define EKMFAST_CONVERT(vector, Type) __builtin_convertvector(vector, Type)

// Elements of two vectors, numbered through, in the order given.
#if defined(__clang__) || __GNUC__ >= 12
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define EKMFAST_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, decltype((a) > (b)){__VA_ARGS__})
#endif

// GCC keeps an array of vectors in registers if all loops over it are unrolled early, which those
// at the outermost level of a function are only where they say so.
#if defined(__clang__)
#define EKMFAST_UNROLL
#else
#define EKMFAST_UNROLL _Pragma("GCC unroll 16")
#endif

// Asks for a cache line; any address is allowed. Locality 3 is the L1 cache.
#define EKMFAST_PREFETCH(address, locality) EKMFAST_PREFETCH_FOR(address, 0, locality)
// The same, to write to the line if `write` is 1.
#define EKMFAST_PREFETCH_FOR(address, write, locality) __builtin_prefetch(address, write, locality)

// The number of bits that are set.
#define EKMFAST_COUNT_BITS(bits) __builtin_popcount(bits)

// Infinity. The functions of std::numeric_limits would be weak symbols of the kernels' objects
// (tests/test_isa_files.py).
#define EKMFAST_INFINITY __builtin_inf()

// Square roots, inlined for the same reason.
#define EKMFAST_ROOT(x) __builtin_sqrt(x)
#define EKMFAST_ROOT_FLOAT(x) __builtin_sqrtf(x)

// Functions that other libraries find by their name.
#ifdef _WIN32
#define EKMFAST_EXPORTED __declspec(dllexport)
#else
#define EKMFAST_EXPORTED __attribute__((visibility("default")))
#endif
