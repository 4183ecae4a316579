// Memory that is used again: large temporaries that are mapped and unmapped at every call cost a
// tenth of the time of a training step in page faults.
#pragma once
#include <cstddef>
#include <cstdint>

namespace hiddenstate {

struct Block {
  char* data;
  std::size_t bytes;
};

// Take at least `bytes`, aligned for every instruction set; throws std::bad_alloc.
Block take_block(std::size_t bytes);
void give_block(Block block) noexcept;

// Fill every block that is taken with NaN, so that tests find reads of what was never written.
void fill_blocks_with_nan(bool fill);

// A block for the length of a scope.
class Scratch {
 public:
  explicit Scratch(std::int64_t bytes) : block_(take_block(static_cast<std::size_t>(bytes))) {}
  ~Scratch() { give_block(block_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  char* data() const { return block_.data; }

 private:
  Block block_;
};

}  // namespace hiddenstate
