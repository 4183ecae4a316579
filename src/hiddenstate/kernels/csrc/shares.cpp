#include "shares.h"

#include <atomic>
#include <new>
#include <thread>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace hiddenstate {
namespace {

// How often a member looks before it does the share of one who has not begun (some 20 microseconds),
// and before it lets others have the processor.
constexpr int PATIENCE = 1000, SPINS = 2000;

}  // namespace

void pause_processor() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

struct alignas(64) Shares::Share {
  std::atomic<std::int64_t> taken{0}, done{0};  // the last phase in which it was
  // Of the member whose own share this is:
  bool took_others = false;
  int patience = 0;

  bool take(std::int64_t phase) {
    std::int64_t last = taken.load(std::memory_order_relaxed);
    return last < phase && taken.compare_exchange_strong(last, phase, std::memory_order_acq_rel);
  }
};

Shares::Shares(std::int64_t count) : count_(count), each_(new Share[static_cast<std::size_t>(count)]) {}
Shares::~Shares() { delete[] each_; }

std::int64_t Shares::next(std::int64_t member, std::int64_t phase) {
  Share& own = each_[member];
  if (own.take(phase)) {
    own.took_others = false;
    return member;
  }
  for (int looks = 0;; looks++) {
    bool all = true;
    for (std::int64_t k = 0; k < count_; k++) {
      Share& share = each_[k];
      if (share.done.load(std::memory_order_acquire) >= phase) continue;
      all = false;
      if (looks >= own.patience && share.take(phase)) {
        // Who missed this phase may miss the next: no waiting until he is seen again.
        own.took_others = true;
        own.patience = 0;
        return k;
      }
    }
    if (all) {
      if (!own.took_others) own.patience = PATIENCE;
      return -1;
    }
    if (looks < SPINS) pause_processor();
    else std::this_thread::yield();
  }
}

void Shares::done(std::int64_t share, std::int64_t phase) {
  each_[share].done.store(phase, std::memory_order_release);
}

}  // namespace hiddenstate
