// Which instruction sets are compiled in, which the CPU has, and which one runs.
#pragma once
#include <string>
#include <vector>

#include "problem.h"

namespace hiddenstate {

// The sets that are compiled in and that this CPU has, best first.
const std::vector<const InstructionSet*>& instruction_sets();
const InstructionSet& instruction_set();
// Run the named set from now on; throws std::invalid_argument with the names there are.
void select_instruction_set(const std::string& name);

template <class T> const Functions<T>& functions_of(const InstructionSet& isa) {
  if constexpr (sizeof(T) == 4) return isa.single;
  else return isa.twice;
}

}  // namespace hiddenstate
