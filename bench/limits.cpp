// Kernels that measure the limits of the processor, for one vector width and number type. limits.py
// compiles them once for each instruction set, with -DTYPE, -DBYTES and its flags.
#include <cstdint>

typedef TYPE Vector __attribute__((vector_size(BYTES)));
constexpr int kLanes = BYTES / sizeof(TYPE);

#if BYTES == 64
constexpr int kChains = 24;  // of 32 registers
#else
constexpr int kChains = 12;  // of 16
#endif

// Performs `rounds` multiply-adds on each of kChains independent vectors. Returns the number of
// operations.
extern "C" double multiply_add(std::int64_t rounds, TYPE* sink) {
  Vector chain[kChains], factor, term;
  for (int l = 0; l < kLanes; ++l) {
    factor[l] = TYPE(0.5);
    term[l] = TYPE(1);
    for (int c = 0; c < kChains; ++c) chain[c][l] = TYPE(c);
  }
  for (std::int64_t i = 0; i < rounds; ++i)
#pragma GCC unroll 32
    for (int c = 0; c < kChains; ++c) chain[c] = chain[c] * factor + term;
  TYPE sum = 0;
  for (int c = 0; c < kChains; ++c)
    for (int l = 0; l < kLanes; ++l) sum += chain[c][l];
  *sink = sum;
  return 2.0 * static_cast<double>(rounds) * kChains * kLanes;
}

// Reads n numbers, which must be aligned to 64 bytes; n must be a multiple of 16 vectors.
extern "C" void read_all(const TYPE* x, std::int64_t n, TYPE* sink) {
  constexpr int kStreams = 16;
  Vector sums[kStreams] = {};
  const Vector* v = reinterpret_cast<const Vector*>(x);
  for (std::int64_t i = 0; i < n / kLanes; i += kStreams)
    for (int s = 0; s < kStreams; ++s) sums[s] += v[i + s];
  TYPE sum = 0;
  for (int s = 0; s < kStreams; ++s)
    for (int l = 0; l < kLanes; ++l) sum += sums[s][l];
  *sink = sum;
}
