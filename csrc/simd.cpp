#include "simd.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace ekmfast {
namespace {

struct IsaEntry {
  const char* name;
  const KernelTable* table;  // null where this build does not hold it
};

// In the order of the enum; later is better.
const IsaEntry kEntries[] = {
    {"base", &base_kernels},
#ifdef EKMFAST_HAVE_AVX2
    {"avx2", &avx2_kernels},
#else
    {"avx2", nullptr},
#endif
#ifdef EKMFAST_HAVE_AVX512
    {"avx512", &avx512_kernels},
#else
    {"avx512", nullptr},
#endif
#ifdef EKMFAST_HAVE_NEON
    {"neon", &neon_kernels},
#else
    {"neon", nullptr},
#endif
};
constexpr int kNumEntries = sizeof(kEntries) / sizeof(kEntries[0]);

bool processor_has(Isa isa) {
#if defined(__x86_64__) || defined(__i386__)
  // The builtins ask the OS (XGETBV) too, so a set whose registers are not saved counts as absent.
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  switch (isa) {
    case Isa::base:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
    case Isa::neon:
      return false;
  }
  return false;
#elif defined(__aarch64__)
  return isa == Isa::base || isa == Isa::neon;  // part of the architecture
#else
  return isa == Isa::base;
#endif
}

Isa choose_isa() {
  // An unknown or unavailable name is reported by the Python side, which sees the variable too.
  const char* wanted = std::getenv("EKMFAST_ISA");
  Isa best = Isa::base;
  for (int i = 0; i < kNumEntries; ++i) {
    const Isa isa = static_cast<Isa>(i);
    if (!isa_available(isa)) continue;
    best = isa;
    if (wanted && std::strcmp(wanted, kEntries[i].name) == 0) return isa;
  }
  return best;
}

std::atomic<int>& current() {
  static std::atomic<int> value{static_cast<int>(choose_isa())};
  return value;
}

}  // namespace

const char* isa_name(Isa isa) { return kEntries[static_cast<int>(isa)].name; }

bool isa_available(Isa isa) {
  return kEntries[static_cast<int>(isa)].table != nullptr && processor_has(isa);
}

Isa isa_in_use() { return static_cast<Isa>(current().load(std::memory_order_relaxed)); }

void set_isa(Isa isa) { current().store(static_cast<int>(isa), std::memory_order_relaxed); }

const KernelTable& kernel_table(Isa isa) { return *kEntries[static_cast<int>(isa)].table; }

}  // namespace ekmfast
