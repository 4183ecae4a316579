// Threads that stay: much of what threads do together is over before one could be started.
#pragma once
#include <cstdint>

namespace hiddenstate {

// What several threads do together. Members are numbered from 0, the caller of Crew::run; one that is
// not 0 may come late or not at all, and the others leave nothing for it to do then.
class Job {
 public:
  virtual ~Job() = default;
  virtual void take_part(std::int64_t member) = 0;
};

// The helpers of this process. They look out for the next job for a short while after each one, then
// they sleep; they are woken by a long job, and where one job follows closely on the other. One job has
// them at a time.
class Crew {
 public:
  // Members 1 to `members` - 1 of the job for those who are awake, member 0 for the caller. False, and
  // nothing is done, where another job has them.
  static bool run(Job& job, std::int64_t members, bool is_long);
  // Return once no helper knows this job any more.
  static void forget(Job& job);
};

}  // namespace hiddenstate
