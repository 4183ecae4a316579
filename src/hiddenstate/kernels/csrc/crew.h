// Threads that stay, for what is over before a thread could be started: a single step.
#pragma once
#include <cstdint>

namespace hiddenstate {

// What several threads do together, again and again. Members are numbered from 0, the caller of
// Crew::run; a member that is not 0 may come late or not at all, and then finds nothing to do.
class Job {
 public:
  virtual ~Job() = default;
  virtual void take_part(std::int64_t member) = 0;
};

// The helpers of this process. They look out for the next job for a short while after each one, then
// they sleep; they are woken by a long job, and where one job follows closely on the other. One job has
// them at a time, another that comes meanwhile is its caller's alone.
class Crew {
 public:
  // Members 1 to `members` - 1 of the job for those who are awake, member 0 for the caller.
  static void run(Job& job, std::int64_t members, bool is_long);
  // Return once no helper knows this job any more.
  static void forget(Job& job);
};

}  // namespace hiddenstate
