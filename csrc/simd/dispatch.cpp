#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "processor.h"

namespace ekmfast {
namespace {

struct IsaEntry {
  const char* name;
  const KernelTable* table;  // null where it belongs to another architecture
  bool (*processor_has)();
};

#define EKMFAST_HERE(name, flags, condition) \
  {#name, &name##_kernels, []() -> bool { return condition; }},
#define EKMFAST_ELSEWHERE(name, flags, condition) {#name, nullptr, nullptr},
#if defined(__x86_64__)
#define EKMFAST_X86 EKMFAST_HERE
#else
#define EKMFAST_X86 EKMFAST_ELSEWHERE
#endif
#if defined(__aarch64__)
#define EKMFAST_ARM EKMFAST_HERE
#else
#define EKMFAST_ARM EKMFAST_ELSEWHERE
#endif
const IsaEntry kEntries[] = {EKMFAST_ISAS(EKMFAST_HERE, EKMFAST_X86, EKMFAST_ARM)};

const IsaEntry& entry(Isa isa) { return kEntries[static_cast<int>(isa)]; }

Isa choose_isa() {
  // ekmfast/kernels.py warns if the name is unknown or not available.
  const char* wanted = std::getenv("EKMFAST_ISA");
  Isa best = Isa::base;
  for (Isa isa : kAllIsas) {
    if (!isa_available(isa)) continue;
    best = isa;
    if (wanted && std::strcmp(wanted, isa_name(isa)) == 0) return isa;
  }
  return best;
}

std::atomic<int>& current() {
  static std::atomic<int> value{static_cast<int>(choose_isa())};
  return value;
}

}  // namespace

const char* isa_name(Isa isa) { return entry(isa).name; }

bool isa_available(Isa isa) {
  return entry(isa).table != nullptr && entry(isa).processor_has();
}

Isa isa_in_use() { return static_cast<Isa>(current().load(std::memory_order_relaxed)); }

void set_isa(Isa isa) { current().store(static_cast<int>(isa), std::memory_order_relaxed); }

const KernelTable& kernel_table(Isa isa) { return *entry(isa).table; }

}  // namespace ekmfast
