#include "pool.h"

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace hiddenstate {
namespace {

constexpr std::size_t RETAINED_BYTES = std::size_t{256} << 20;
constexpr std::size_t HUGE_PAGE = std::size_t{2} << 20;

struct Pool {
  std::mutex mutex;
  std::map<std::size_t, std::vector<char*>> free;  // by size
  std::size_t retained = 0;
  bool fill = false;
};

// Never destroyed: arrays may outlive the module at the interpreter's end.
Pool& pool() {
  static Pool* const only = new Pool;
  return *only;
}

// Sizes in steps of an eighth of a power of two, so that blocks fit requests that differ a little.
std::size_t rounded(std::size_t bytes) {
  std::size_t step = 64;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step + (bytes == 0 ? step : 0);
}

}  // namespace

Block take_block(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  Pool& p = pool();
  char* data = nullptr;
  bool fill;
  {
    const std::lock_guard<std::mutex> lock(p.mutex);
    fill = p.fill;
    const auto found = p.free.find(size);
    if (found != p.free.end() && !found->second.empty()) {
      data = found->second.back();
      found->second.pop_back();
      p.retained -= size;
    }
  }
  if (data == nullptr) {
    const std::size_t alignment = size >= HUGE_PAGE ? HUGE_PAGE : 64;
    const std::size_t whole = (size + alignment - 1) / alignment * alignment;
    data = static_cast<char*>(std::aligned_alloc(alignment, whole));
    if (data == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    if (size >= HUGE_PAGE) madvise(data, whole, MADV_HUGEPAGE);
#endif
  }
  if (fill) std::memset(data, 0xff, size);
  return {data, size};
}

void give_block(Block block) noexcept {
  if (block.data == nullptr) return;
  Pool& p = pool();
  {
    const std::lock_guard<std::mutex> lock(p.mutex);
    if (p.retained + block.bytes <= RETAINED_BYTES) {
      try {
        p.free[block.bytes].push_back(block.data);
        p.retained += block.bytes;
        return;
      } catch (const std::bad_alloc&) {
        // No room to note it: free it below.
      }
    }
  }
  std::free(block.data);
}

void fill_blocks_with_nan(bool fill) {
  const std::lock_guard<std::mutex> lock(pool().mutex);
  pool().fill = fill;
}

}  // namespace hiddenstate
