// What Python hands over, checked: a cell and its parameters, lengths and the order of rows, packed
// parameters; and how many threads a call is worth.
#pragma once
#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <deque>
#include <exception>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "arrays.h"
#include "crew.h"
#include "select.h"

namespace hiddenstate {

constexpr i64 LARGEST_AXIS = i64{1} << 31;
// What makes a thread's part worth it, some 40 microseconds: a helper who looks out for work begins at
// once, one who sleeps within 50 to 100 microseconds, and then the caller has done his part as well.
constexpr double OPERATIONS_PER_THREAD = 4e6;
// Below so many rows for each thread, threads share out the columns of a step, not rows: the weights are
// read once then, not once by each. A share must be worth the meeting at the step's end, some 200
// nanoseconds.
constexpr i64 FEW_ROWS = 4, LEAST_COLUMNS = 64;
constexpr double OPERATIONS_PER_SHARE = 40e3;
// A stepper's step must be worth a helper's look; a long one wakes him even where it comes alone.
constexpr double OPERATIONS_PER_HELPER = 150e3, LONG_STEP = 16e6;
// Results above this size are stored past the caches: those that the way back reads soon, and those
// that only a trace shows.
constexpr i64 STREAM_BYTES = i64{4} << 20, STREAM_BYTES_UNREAD = i64{1} << 19;

// A thread on a stack from the pool. The stack that the system gives is unmapped when its thread ends,
// which interrupts the other cores, and faulted in again by the next: 30 microseconds together.
class Thread {
 public:
  // Throws std::system_error where the system gives none.
  Thread(void* (*run)(void*), void* argument) : stack_(STACK_BYTES + PAGE) {
    pthread_attr_t attributes;
    const auto start = (reinterpret_cast<std::uintptr_t>(stack_.data()) + PAGE - 1) / PAGE * PAGE;
    int failed = pthread_attr_init(&attributes);
    if (!failed) {
      failed = pthread_attr_setstack(&attributes, reinterpret_cast<void*>(start), STACK_BYTES);
      if (!failed) failed = pthread_create(&thread_, &attributes, run, argument);
      pthread_attr_destroy(&attributes);
    }
    if (failed) throw std::system_error(failed, std::generic_category());
  }
  ~Thread() { pthread_join(thread_, nullptr); }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

 private:
  // The kernels hold some 100 kB in arrays; the largest page of today's systems is 64 kB.
  static constexpr i64 STACK_BYTES = i64{1} << 20, PAGE = i64{1} << 16;
  Scratch stack_;
  pthread_t thread_;
};

// f(part) for every part, by this thread and the crew's helpers, or, where another call has them, by
// threads that are started for it. Who comes first takes the next part: nobody waits for a thread that
// the system does not give. What a part throws is thrown here, after all have ended.
template <class Function> void in_parallel(i64 parts, Function f) {
  struct Parts : Job {
    Function& f;
    i64 count;
    std::atomic<i64> untaken{1};
    std::vector<std::exception_ptr> failures;

    Parts(Function& function, i64 parts)
        : f(function), count(parts), failures(static_cast<std::size_t>(parts)) {}
    void take_part(i64 member) override {
      for (i64 part = member == 0 ? 0 : untaken.fetch_add(1); part < count; part = untaken.fetch_add(1)) {
        try {
          f(part);
        } catch (...) {
          failures[static_cast<std::size_t>(part)] = std::current_exception();
        }
      }
    }
    static void* help(void* self) {
      static_cast<Parts*>(self)->take_part(1);
      return nullptr;
    }
  };
  if (parts == 1) return f(0);
  Parts all(f, parts);
  if (Crew::run(all, parts, true)) {
    Crew::forget(all);
  } else {
    std::deque<Thread> others;
    try {
      while (static_cast<i64>(others.size()) < parts - 1) others.emplace_back(Parts::help, &all);
    } catch (const std::exception&) {
      // No thread, or no memory for its stack.
    }
    all.take_part(0);
  }
  for (const std::exception_ptr& failure : all.failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

inline Cell cell_of(int kind, bool peephole, bool writes, i64 D, i64 H) {
  if (kind < 0 || kind > static_cast<int>(Kind::GRU_BEFORE)) refuse("There is no such kind of cell.");
  if (D < 1 || H < 1 || D >= LARGEST_AXIS || H >= LARGEST_AXIS) {
    refuse("D is " + std::to_string(D) + " and H is " + std::to_string(H) + ", expected 1 to 2^31 - 1.");
  }
  const Cell cell{static_cast<Kind>(kind), peephole, writes, D, H};
  if (peephole && !cell.lstm()) refuse("Only an LSTM has peepholes.");
  return cell;
}

// An argument that may be None.
class Optional {
 public:
  Optional(nb::handle object, const char* name) {
    if (!object.is_none()) input_.emplace(object, name);
  }
  template <class T> const T* data(std::initializer_list<i64> shape) {
    if (!input_) return nullptr;
    input_->require(kind_of<T>, shape);
    return input_->template data<T>(static_cast<int>(shape.size()));
  }
  std::optional<Input>& input() { return input_; }

 private:
  std::optional<Input> input_;
};

constexpr const char* PARAMETERS[] = {"w_x", "w_h", "b_x", "b_h", "p_i", "p_f", "p_o"};

// The seven parameters of a cell, None where it has none.
class Weights {
 public:
  explicit Weights(nb::handle given) {
    if (!PyTuple_Check(given.ptr()) || PyTuple_GET_SIZE(given.ptr()) != 7) {
      refuse("The parameters are no tuple of w_x, w_h, b_x, b_h, p_i, p_f, p_o.");
    }
    for (std::size_t k = 0; k < 7; k++) {
      each_[k].emplace(nb::handle(PyTuple_GET_ITEM(given.ptr(), static_cast<Py_ssize_t>(k))), PARAMETERS[k]);
    }
    if (!each_[0]->input() || each_[0]->input()->axes() != 2 || !each_[1]->input() ||
        each_[1]->input()->axes() != 2) {
      refuse("w_x and w_h are matrices [rows, D] and [rows, H].");
    }
  }
  i64 D() { return each_[0]->input()->shape(1); }
  i64 H() { return each_[1]->input()->shape(1); }
  char kind() { return each_[0]->input()->kind(); }
  bool has(std::size_t k) { return each_[k]->input().has_value(); }
  template <class T> Parameters<T> of(const Cell& cell) {
    const i64 rows = cell.blocks() * cell.H;
    const Parameters<T> p{each_[0]->data<T>({rows, cell.D}), each_[1]->data<T>({rows, cell.H}),
                          each_[2]->data<T>({rows}),         each_[3]->data<T>({rows}),
                          each_[4]->data<T>({cell.H}),       each_[5]->data<T>({cell.H}),
                          each_[6]->data<T>({cell.H})};
    const bool complete = p.p_i && p.p_o && (p.p_f != nullptr) == (cell.kind == Kind::LSTM);
    if (cell.peephole ? !complete : (p.p_i || p.p_f || p.p_o)) {
      refuse("The peepholes given are not those of the cell.");
    }
    return p;
  }

 private:
  std::array<std::optional<Optional>, 7> each_;
};

// Lengths and the order of rows by falling length; equal lengths stay in order.
class Rows {
 public:
  Rows(nb::handle given, i64 B, i64 T) : lengths(static_cast<std::size_t>(B), T), order(lengths.size()) {
    std::iota(order.begin(), order.end(), i64{0});
    if (given.is_none()) return;
    Input input(given, "lengths");
    input.require('q', {B});
    const i64* data = input.data<i64>(1);
    for (i64 b = 0; b < B; b++) {
      if (data[b] < 0 || data[b] > T) {
        refuse("lengths[" + std::to_string(b) + "] is " + std::to_string(data[b]) + ", expected 0 to " +
               std::to_string(T) + ".");
      }
      lengths[static_cast<std::size_t>(b)] = data[b];
    }
    std::stable_sort(order.begin(), order.end(), [this](i64 a, i64 b) {
      return lengths[static_cast<std::size_t>(a)] > lengths[static_cast<std::size_t>(b)];
    });
  }
  i64 total() const { return std::accumulate(lengths.begin(), lengths.end(), i64{0}); }
  i64 longest() const { return lengths.empty() ? 0 : lengths[static_cast<std::size_t>(order[0])]; }

  // Bounds of the parts of the order: row ranges of nearly equal work.
  std::vector<i64> bounds(i64 parts) const {
    const i64 B = static_cast<i64>(order.size());
    std::vector<i64> found{0};
    i64 done = 0;
    const i64 all = total();
    for (i64 i = 0; i < B && static_cast<i64>(found.size()) < parts; i++) {
      done += lengths[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
      if (done * parts >= all * static_cast<i64>(found.size())) found.push_back(i + 1);
    }
    found.push_back(B);
    return found;
  }

  std::vector<i64> lengths, order;
};

inline i64 parts_for(i64 threads, i64 rows, double operations) {
  const i64 worth = static_cast<i64>(operations / OPERATIONS_PER_THREAD);
  return std::max(i64{1}, std::min({threads, rows, worth}));
}

// How many threads share out the columns of every step; 1 where they do better to share out rows.
inline i64 members_for(i64 threads, i64 rows, const Cell& cell, double operations) {
  if (rows / FEW_ROWS >= threads || operations < 2 * OPERATIONS_PER_THREAD) return 1;
  const double step = 2.0 * static_cast<double>(rows) * static_cast<double>(cell.blocks() * cell.H * cell.H);
  const i64 worth = static_cast<i64>(step / OPERATIONS_PER_SHARE);
  return std::max(i64{1}, std::min({threads, worth, cell.H / LEAST_COLUMNS}));
}

inline double operations_of(const Cell& cell, const Rows& rows) {
  return 2.0 * static_cast<double>(rows.total()) * static_cast<double>(cell.blocks() * cell.H) *
         static_cast<double>(cell.D + cell.H);
}

// Parameters packed for one instruction set, to be used again for as long as they do not change.
class Packed {
 public:
  Packed(int kind, bool peephole, bool writes, nb::handle weights, int precision)
      : isa(&instruction_set()) {
    Weights given(weights);
    cell = cell_of(kind, peephole, writes, given.D(), given.H());
    type = given.kind();
    if (precision < 0 || precision > 2 || (precision > 0 && type != 'f')) {
      refuse("Narrow weights are for float32 only.");
    }
    this->precision = static_cast<Precision>(precision);
    if (type == 'f') pack<float>(given);
    else if (type == 'd') pack<double>(given);
    else refuse("w_x is neither float32 nor float64.");
  }
  const char* data() const { return memory_->data(); }
  i64 bytes() const { return bytes_; }

  const InstructionSet* isa;
  Cell cell{};
  char type;
  Precision precision;

 private:
  template <class T> void pack(Weights& given) {
    const Functions<T>& run = functions_of<T>(*isa);
    const Parameters<T> p = given.of<T>(cell);
    bytes_ = run.packed_bytes(cell, precision);
    memory_ = std::make_unique<Scratch>(bytes_);
    run.pack(cell, precision, p, memory_->data());
  }
  std::unique_ptr<Scratch> memory_;
  i64 bytes_ = 0;
};

}  // namespace hiddenstate
