// The columns of a product shared out among threads, where there are too few rows for that.
#pragma once
#include <cstdint>

namespace hiddenstate {

// What a few threads do together, phase after phase: in each phase every share is done once, and none
// is begun before the phase before is over. Each thread goes through all phases and does its own
// share; where the owner of another has not begun, it does that one too. So nobody waits for a thread
// that the system does not run, unless it stopped in the middle of a share; a thread that comes late,
// or not at all, finds its shares done. All memory that a share touches belongs to all of them.
class Shares {
 public:
  explicit Shares(std::int64_t count);
  ~Shares();
  Shares(const Shares&) = delete;
  Shares& operator=(const Shares&) = delete;
  std::int64_t count() const { return count_; }

  // The next share of the phase that this member has to do, -1 once all are done. Phases are numbered
  // from 1 on.
  std::int64_t next(std::int64_t member, std::int64_t phase);
  void done(std::int64_t share, std::int64_t phase);

 private:
  struct Share;
  std::int64_t count_;
  Share* each_;
};

// A moment of a loop that waits.
void pause_processor();

// A thread's way through the phases; without shares it is alone.
struct Turn {
  Shares* shares = nullptr;
  std::int64_t member = 0, phase = 0;

  std::int64_t members() const { return shares == nullptr ? 1 : shares->count(); }

  // One phase: f(from, to) for parts of [0, extent) that begin at multiples of `grain`.
  template <class Function> void run(std::int64_t extent, std::int64_t grain, Function f) {
    if (shares == nullptr) {
      f(std::int64_t{0}, extent);
      return;
    }
    phase++;
    const std::int64_t grains = (extent + grain - 1) / grain, count = shares->count();
    for (std::int64_t share; (share = shares->next(member, phase)) >= 0;) {
      const std::int64_t from = grains * share / count * grain, end = grains * (share + 1) / count * grain;
      const std::int64_t to = end < extent ? end : extent;
      if (from < to) f(from, to);
      shares->done(share, phase);
    }
  }
};

}  // namespace hiddenstate
