#include "crew.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "shares.h"

namespace hiddenstate {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;

// How long a helper looks out for the next job, and for how long of that it keeps the processor to
// itself; and how many short jobs have to follow closely before it is woken.
constexpr microseconds LOOKS_OUT{100}, KEEPS{20};
constexpr int CLOSE_JOBS = 4;
// More than there are processors help nobody.
const std::int64_t MOST_HELPERS = std::max(2u, 2 * std::thread::hardware_concurrency());
constexpr std::size_t STACK_BYTES = std::size_t{1} << 20;

class Helpers {
 public:
  bool run(Job& job, std::int64_t members, bool is_long) {
    if (taken_.exchange(true, std::memory_order_acquire)) return false;
    const auto wanted = static_cast<std::size_t>(std::min(members - 1, MOST_HELPERS));
    bool waiting = helpers_.size() < wanted, wake = false;
    for (std::size_t k = 0; k < wanted && !waiting; k++) waiting = helpers_[k].asleep.load();
    if (waiting) {
      closely_ = Clock::now() - last_ < LOOKS_OUT ? closely_ + 1 : 0;
      wake = is_long || closely_ >= CLOSE_JOBS;
    }
    job_.store(&job);
    members_.store(members);
    number_.fetch_add(1);
    try {
      if (wake) call(wanted);
    } catch (const std::exception&) {
      // No memory for a helper: it never comes.
    }
    job.take_part(0);
    if (waiting) last_ = Clock::now();
    taken_.store(false, std::memory_order_release);
    return true;
  }

  void forget(Job& job) {
    Job* known = &job;
    job_.compare_exchange_strong(known, nullptr);
    const std::lock_guard<std::mutex> lock(mutex_);
    for (const Helper& helper : helpers_) {
      while (helper.job.load() == &job) std::this_thread::yield();
    }
  }

 private:
  struct Helper {
    Helper(Helpers* whole, std::int64_t number) : all(whole), member(number) {}
    Helpers* const all;
    const std::int64_t member;
    std::atomic<Job*> job{nullptr};  // the one that it knows
    std::atomic<bool> asleep{false};
    std::condition_variable sleeping;
    std::optional<pthread_t> thread{};
  };

  // Wake those who sleep, and start those who are missing.
  void call(std::size_t wanted) {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (helpers_.size() < wanted) {
      start(helpers_.emplace_back(this, static_cast<std::int64_t>(helpers_.size()) + 1));
    }
#if defined(__linux__)
    // Not on the caller's processor: where the others are busy, Linux may have a helper wait there until
    // the caller sleeps.
    cpu_set_t others;
    if (sched_getaffinity(0, sizeof others, &others) == 0 && CPU_COUNT(&others) > 1) {
      CPU_CLR(static_cast<std::size_t>(sched_getcpu()), &others);
      for (std::size_t k = 0; k < wanted; k++) {
        if (helpers_[k].thread) pthread_setaffinity_np(*helpers_[k].thread, sizeof others, &others);
      }
    }
#endif
    for (std::size_t k = 0; k < wanted; k++) helpers_[k].sleeping.notify_one();
  }

  void start(Helper& helper) {
    // Signals are for the threads of the program.
    sigset_t every, before;
    sigfillset(&every);
    pthread_sigmask(SIG_SETMASK, &every, &before);
    pthread_attr_t attributes;
    pthread_t thread;
    if (pthread_attr_init(&attributes) == 0) {
      pthread_attr_setstacksize(&attributes, STACK_BYTES);
      pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
      // Where the system gives no more, this one never comes.
      if (pthread_create(&thread, &attributes, help, &helper) == 0) helper.thread = thread;
      pthread_attr_destroy(&attributes);
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  static void* help(void* self) {
    Helper& helper = *static_cast<Helper*>(self);
    Helpers& all = *helper.all;
    for (std::uint64_t seen = 0;;) {
      seen = all.await_other_than(seen, helper);
      Job* const job = all.job_.load();
      helper.job.store(job);
      // Known and then still there: from now on forget() waits.
      if (job != nullptr && all.job_.load() == job) job->take_part(helper.member);
      helper.job.store(nullptr);
    }
  }

  // The number of a job for this helper, other than the one seen last.
  std::uint64_t await_other_than(std::uint64_t seen, Helper& helper) {
    auto called = [&] { return number_.load() != seen && helper.member < members_.load(); };
    const Clock::time_point began = Clock::now();
    for (int looks = 0;; looks++) {
      if (called()) return number_.load();
      pause_processor();
      if (looks % 32 != 31) continue;
      const auto waited = Clock::now() - began;
      if (waited > LOOKS_OUT) break;
      if (waited > KEEPS) std::this_thread::yield();
    }
    std::unique_lock<std::mutex> lock(mutex_);
    helper.asleep.store(true);
    helper.sleeping.wait(lock, called);
    helper.asleep.store(false);
    return number_.load();
  }

  std::atomic<bool> taken_{false};
  std::atomic<Job*> job_{nullptr};
  std::atomic<std::int64_t> members_{0};
  std::atomic<std::uint64_t> number_{0};  // of jobs so far
  std::mutex mutex_;
  std::deque<Helper> helpers_;  // grows by whoever has taken them, under the mutex
  // Of whoever has taken them:
  int closely_ = 0;
  Clock::time_point last_{};
};

std::atomic<Helpers*> all{nullptr};

// The threads do not follow into a fork: the child begins with none.
void begin_anew() { all.store(nullptr); }

// Never destroyed: helpers may sleep in it at the process's end.
Helpers& helpers() {
  static const int registered = pthread_atfork(nullptr, nullptr, begin_anew);
  static_cast<void>(registered);
  Helpers* found = all.load();
  if (found == nullptr) {
    auto* const made = new Helpers;
    if (all.compare_exchange_strong(found, made)) return *made;
    delete made;
  }
  return *found;
}

}  // namespace

bool Crew::run(Job& job, std::int64_t members, bool is_long) {
  return helpers().run(job, members, is_long);
}
void Crew::forget(Job& job) { helpers().forget(job); }

}  // namespace hiddenstate
