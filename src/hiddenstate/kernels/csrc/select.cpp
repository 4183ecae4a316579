#include "select.h"

#include <atomic>
#include <stdexcept>

namespace hiddenstate {

#define DECLARE(name) \
  namespace name {    \
  extern const InstructionSet table; \
  }
#if defined(__x86_64__)
DECLARE(avx512)
DECLARE(avx2)
DECLARE(generic)
#elif defined(__aarch64__)
DECLARE(neon)
#else
DECLARE(generic)
#endif

namespace {

std::vector<const InstructionSet*> find() {
  std::vector<const InstructionSet*> found;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    found.push_back(&avx512::table);
  }
  if (avx2) found.push_back(&avx2::table);
  found.push_back(&generic::table);
#elif defined(__aarch64__)
  found.push_back(&neon::table);
#else
  found.push_back(&generic::table);
#endif
  return found;
}

std::atomic<const InstructionSet*>& chosen() {
  static std::atomic<const InstructionSet*> one{instruction_sets().front()};
  return one;
}

}  // namespace

const std::vector<const InstructionSet*>& instruction_sets() {
  static const std::vector<const InstructionSet*> all = find();
  return all;
}

const InstructionSet& instruction_set() { return *chosen().load(std::memory_order_relaxed); }

void select_instruction_set(const std::string& name) {
  std::string names;
  for (const InstructionSet* each : instruction_sets()) {
    if (name == each->name) {
      chosen().store(each);
      return;
    }
    names += (names.empty() ? "" : ", ") + std::string(each->name);
  }
  throw std::invalid_argument("There is no instruction set " + name + " here; there are " + names + ".");
}

}  // namespace hiddenstate
