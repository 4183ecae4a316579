// The module: steps, linear maps and scans, and what Python sees of them and of sequences.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <chrono>
#include <cstring>

#include "crew.h"
#include "sequences.h"

namespace hiddenstate {
namespace {

// A state of B rows that is stepped in place: no allocation, no checks and no copies in the step, but
// for helpers that are started once. They share out rows, or columns where there are few rows.
class Stepper : public Job {
 public:
  Stepper(nb::object packed, i64 B, i64 threads)
      : packed_(packed), of_(nb::cast<const Packed&>(packed)), B_(B) {
    if (B < 1 || B >= LARGEST_AXIS) refuse("A stepper has at least one row.");
    if (of_.type != 'f') refuse("A stepper runs in float32.");
    const Functions<float>& run = of_.isa->single;
    x_stride_ = run.spaced(of_.cell.D);
    h_stride_ = run.spaced(of_.cell.H);
    const Cell& cell = of_.cell;
    const double operations = 2.0 * static_cast<double>(B) * static_cast<double>(cell.blocks() * cell.H) *
                              static_cast<double>(cell.D + cell.H);
    long_ = operations > LONG_STEP;
    const i64 worth = static_cast<i64>(operations / OPERATIONS_PER_HELPER);
    by_rows_ = B / FEW_ROWS >= threads;
    members_ = std::max(i64{1}, std::min({threads, worth, by_rows_ ? B : cell.H / LEAST_COLUMNS}));
    large_ = members_ > 1 || operations > 400000;
    shares_ = std::make_unique<Shares>(members_);
    const i64 parts = by_rows_ ? members_ : 1;
    for (i64 part = 0; part < parts; part++) {
      const i64 rows = B * (part + 1) / parts - B * part / parts;
      scratch_.emplace_back(run.forward_scratch(cell, rows, by_rows_ ? 1 : members_));
    }
    x_ = std::make_unique<Output>('f', std::vector<i64>{B, of_.cell.D}, std::vector<i64>{x_stride_, 1});
    h_ = std::make_unique<Output>('f', std::vector<i64>{B, of_.cell.H}, std::vector<i64>{h_stride_, 1});
    c_ = std::make_unique<Output>('f', std::vector<i64>{B, of_.cell.H}, std::vector<i64>{h_stride_, 1});
    x_data_ = x_->data<float>();
    h_data_ = h_->data<float>();
    c_data_ = c_->data<float>();
    std::memset(x_data_, 0, static_cast<std::size_t>(B * x_stride_) * sizeof(float));
    std::memset(h_data_, 0, static_cast<std::size_t>(B * h_stride_) * sizeof(float));
    std::memset(c_data_, 0, static_cast<std::size_t>(B * h_stride_) * sizeof(float));
  }
  ~Stepper() override {
    if (members_ > 1) Crew::forget(*this);
  }
  Stepper(const Stepper&) = delete;
  Stepper& operator=(const Stepper&) = delete;

  // The arrays x [B, D], h and c [B, H] that a step reads and writes; to be taken once.
  nb::tuple arrays() {
    if (!x_) refuse("The arrays of this stepper were taken before.");
    nb::tuple given = nb::make_tuple(x_->release(nullptr), h_->release(nullptr), c_->release(nullptr));
    x_.reset();
    held_ = given;
    return given;
  }
  void step() {
    if (!large_) return alone();
    nb::gil_scoped_release free;
    if (members_ == 1) return alone();
    begun_.store(next_, std::memory_order_release);
    if (!Crew::run(*this, members_, long_)) take_part(0);
  }
  // A helper that comes after the step's end still finds the step's own phases, all of them done.
  void take_part(i64 member) override {
    if (member >= members_) return;
    Turn turn{shares_.get(), member, begun_.load(std::memory_order_acquire)};
    if (by_rows_) {
      turn.run(members_, 1, [&](i64 part, i64) {
        const i64 first = B_ * part / members_, last = B_ * (part + 1) / members_;
        Turn own;
        rows(first, last, scratch_[static_cast<std::size_t>(part)].data(), own);
      });
    } else {
      rows(0, B_, scratch_[0].data(), turn);
    }
    if (member == 0) next_ = turn.phase;
  }

 private:
  void alone() {
    Turn turn;
    rows(0, B_, scratch_[0].data(), turn);
  }
  void rows(i64 first, i64 last, char* scratch, Turn& turn) {
    of_.isa->single.step(of_.cell, of_.precision, of_.data(), last - first, x_data_ + first * x_stride_,
                         x_stride_, h_data_ + first * h_stride_, c_data_ + first * h_stride_, scratch, turn);
  }
  nb::object packed_, held_;
  const Packed& of_;
  i64 B_, members_ = 1, x_stride_ = 0, h_stride_ = 0;
  bool large_ = false, long_ = false, by_rows_ = false;
  std::unique_ptr<Shares> shares_;
  std::atomic<i64> begun_{0};  // the phase before those of the step that was begun last
  i64 next_ = 0;               // the same of the step to come
  std::deque<Scratch> scratch_;  // of each part of the rows
  std::unique_ptr<Output> x_, h_, c_;
  float *x_data_ = nullptr, *h_data_ = nullptr, *c_data_ = nullptr;
};

// y = x W^T + b with a row's bits the same in any company.
class Linear {
 public:
  Linear(nb::handle w, nb::handle b) : isa_(&instruction_set()) {
    Input weights(w, "w");
    if (weights.axes() != 2) refuse("w is " + weights.text() + ", expected two axes [outputs, inputs].");
    outputs_ = weights.shape(0);
    inputs_ = weights.shape(1);
    if (inputs_ < 1 || outputs_ < 1 || inputs_ >= LARGEST_AXIS || outputs_ >= LARGEST_AXIS) {
      refuse("w is " + weights.text() + ", expected at least one row and one column.");
    }
    weights.require('f', {outputs_, inputs_});
    Optional bias(b, "b");
    const float* added = bias.data<float>({outputs_});
    memory_ = std::make_unique<Scratch>(isa_->single.packed_linear_bytes(inputs_, outputs_));
    isa_->single.pack_linear(inputs_, outputs_, weights.data<float>(2), added, memory_->data());
  }
  nb::object run(nb::handle x, i64 threads) {
    Input input(x, "x");
    if (input.axes() != 2) refuse("x is " + input.text() + ", expected two axes [n, inputs].");
    const i64 n = input.shape(0);
    input.require('f', {n, inputs_});
    const float* from = input.data<float>(1);
    const i64 wide = isa_->single.padded(outputs_), stride = input.stride(0);
    Output y('f', {n, outputs_}, {wide, 1});
    {
      nb::gil_scoped_release free;
      const double operations = 2.0 * static_cast<double>(n) * static_cast<double>(inputs_ * outputs_);
      const i64 parts = parts_for(threads, n, operations);
      in_parallel(parts, [&](i64 part) {
        const i64 first = n * part / parts, last = n * (part + 1) / parts;
        isa_->single.linear(last - first, inputs_, outputs_, from + first * stride, stride, memory_->data(),
                            y.data<float>() + first * wide);
      });
    }
    return y.release(input.exchange());
  }

 private:
  const InstructionSet* isa_;
  i64 inputs_ = 0, outputs_ = 0;
  std::unique_ptr<Scratch> memory_;
};

// The parts of B sequences of D columns for a number of threads: whole sequences, or, where there
// are fewer than threads, shares of their columns.
template <class Function> void over_columns(i64 B, i64 D, i64 threads, Function f) {
  const i64 shares = B >= threads ? 1 : (threads + B - 1) / std::max(i64{1}, B);
  const i64 tasks = B * shares, parts = std::max(i64{1}, std::min(threads, tasks));
  in_parallel(parts, [&](i64 part) {
    for (i64 task = tasks * part / parts; task < tasks * (part + 1) / parts; task++) {
      const i64 share = task % shares, vectors = (D + 15) / 16;
      f(task / shares, vectors * share / shares * 16, std::min(D, vectors * (share + 1) / shares * 16));
    }
  });
}

template <class T> nb::object scan_of(Input& a, nb::handle b_given, nb::handle first_given, i64 threads) {
  const i64 B = a.shape(0), T_ = a.shape(1), D = a.shape(2);
  Input b(b_given, "b");
  b.require(kind_of<T>, {B, T_, D});
  Optional first(first_given, "first");
  const T *as = a.data<T>(3), *bs = b.data<T>(3), *start = first.data<T>({B, D});
  Output h(kind_of<T>, {B, T_, D});
  T* to = h.template data<T>();
  {
    nb::gil_scoped_release free;
    const i64 size = T_ * D;
    const bool stream = B * size * static_cast<i64>(sizeof(T)) > STREAM_BYTES;
    const auto scan = functions_of<T>(instruction_set()).linear_scan;
    over_columns(B, D, parts_for(threads, B * D, 64.0 * static_cast<double>(B * size)), [&](i64 row, i64 from, i64 until) {
      const i64 at = row * size;
      scan(T_, D, as + at, bs + at, start == nullptr ? nullptr : start + row * D, to + at, from, until, stream);
    });
  }
  return h.release(a.exchange());
}

nb::object linear_scan(nb::handle a, nb::handle b, nb::handle first, i64 threads) {
  Input input(a, "a");
  if (input.axes() != 3) refuse("a is " + input.text() + ", expected three axes [B, T, D].");
  if (input.kind() == 'f') return scan_of<float>(input, b, first, threads);
  if (input.kind() == 'd') return scan_of<double>(input, b, first, threads);
  refuse("a is " + input.text() + ", expected float32 or float64.");
}

template <class T>
nb::tuple scan_backward_of(Input& a, nb::handle h_given, nb::handle first_given, nb::handle dh_given, i64 threads) {
  const i64 B = a.shape(0), T_ = a.shape(1), D = a.shape(2);
  Input h(h_given, "h"), dh(dh_given, "dh");
  h.require(kind_of<T>, {B, T_, D});
  dh.require(kind_of<T>, {B, T_, D});
  Optional first(first_given, "first");
  const T *as = a.data<T>(3), *hs = h.data<T>(3), *ds = dh.data<T>(3), *start = first.data<T>({B, D});
  Output da(kind_of<T>, {B, T_, D}), db(kind_of<T>, {B, T_, D}), d_first(kind_of<T>, {B, D});
  T *to_a = da.template data<T>(), *to_b = db.template data<T>(), *to_first = d_first.template data<T>();
  {
    nb::gil_scoped_release free;
    const i64 size = T_ * D;
    const bool stream = B * size * static_cast<i64>(sizeof(T)) > STREAM_BYTES;
    const auto scan = functions_of<T>(instruction_set()).linear_scan_backward;
    over_columns(B, D, parts_for(threads, B * D, 64.0 * static_cast<double>(B * size)), [&](i64 row, i64 from, i64 until) {
      const i64 at = row * size;
      scan(T_, D, as + at, hs + at, start == nullptr ? nullptr : start + row * D, ds + at, to_a + at, to_b + at,
           to_first + row * D, from, until, stream);
    });
  }
  const ExchangeAPI* to = a.exchange();
  return nb::make_tuple(da.release(to), db.release(to), d_first.release(to));
}

nb::tuple linear_scan_backward(nb::handle a, nb::handle h, nb::handle first, nb::handle dh, i64 threads) {
  Input input(a, "a");
  if (input.axes() != 3) refuse("a is " + input.text() + ", expected three axes [B, T, D].");
  if (input.kind() == 'f') return scan_backward_of<float>(input, h, first, dh, threads);
  if (input.kind() == 'd') return scan_backward_of<double>(input, h, first, dh, threads);
  refuse("a is " + input.text() + ", expected float32 or float64.");
}

std::vector<std::string> instruction_set_names() {
  std::vector<std::string> names;
  for (const InstructionSet* each : instruction_sets()) names.emplace_back(each->name);
  return names;
}

// Multiply-add peak of this core in operations a second, the best of a few runs.
double peak_operations_per_s() {
  nb::gil_scoped_release free;
  double best = 0, sink = 0;
  for (int run = 0; run < 5; run++) {
    const auto start = std::chrono::steady_clock::now();
    const double operations = instruction_set().multiply_adds(2000000, &sink);
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
    best = std::max(best, operations / spent.count());
  }
  return best;
}

nb::object activation(int which, nb::handle x) {
  Input input(x, "x");
  if (input.axes() != 1) refuse("x is " + input.text() + ", expected one axis.");
  input.require('f', {input.shape(0)});
  Output y('f', {input.shape(0)});
  instruction_set().activations(which, input.shape(0), input.data<float>(1), y.data<float>());
  return y.release(input.exchange());
}

}  // namespace
}  // namespace hiddenstate

NB_MODULE(_native, module) {
  using namespace hiddenstate;
  namespace nb = nanobind;
  const auto none = [](const char* name) { return nb::arg(name).none(); };
  module.def("instruction_sets", &instruction_set_names);
  module.def("instruction_set", [] { return std::string(instruction_set().name); });
  module.def("select", &select_instruction_set, nb::arg("name"));
  module.def("padded", [](i64 n) { return instruction_set().single.padded(n); }, nb::arg("n"),
             "Width of a kept float32 block of n units.");
  module.def("padded_double", [](i64 n) { return instruction_set().twice.padded(n); }, nb::arg("n"));
  module.def("peak_operations_per_s", &peak_operations_per_s);
  module.def("fill_with_nan", &fill_blocks_with_nan, nb::arg("fill"));
  module.def("tanh", [](nb::handle x) { return activation(0, x); });
  module.def("sigmoid", [](nb::handle x) { return activation(1, x); });
  nb::class_<Packed>(module, "Packed")
      .def(nb::init<int, bool, bool, nb::handle, int>(), nb::arg("kind"), nb::arg("peephole"),
           nb::arg("writes"), nb::arg("weights"), nb::arg("precision") = 0)
      .def_prop_ro("bytes", &Packed::bytes)
      .def_prop_ro("instruction_set", [](const Packed& packed) { return std::string(packed.isa->name); });
  module.def("forward", &forward, nb::arg("packed"), nb::arg("x"), none("h0"), none("c0"),
             none("lengths"), nb::arg("reverse"), nb::arg("want"), nb::arg("threads"));
  module.def("backward", &backward, nb::arg("kind"), nb::arg("peephole"), nb::arg("writes"),
             nb::arg("weights"), nb::arg("x"), none("h0"), none("c0"), none("lengths"),
             nb::arg("reverse"), none("y"), none("kept"), none("dy"), none("dh"), none("dc"),
             nb::arg("needs_x"), nb::arg("threads"));
  nb::class_<Stepper>(module, "Stepper")
      .def(nb::init<nb::object, i64, i64>(), nb::arg("packed"), nb::arg("batch"), nb::arg("threads") = 1)
      .def("arrays", &Stepper::arrays)
      .def("step", &Stepper::step);
  nb::class_<Linear>(module, "Linear")
      .def(nb::init<nb::handle, nb::handle>(), nb::arg("w"), none("b"))
      .def("run", &Linear::run, nb::arg("x"), nb::arg("threads"));
  module.def("linear_scan", &linear_scan, nb::arg("a"), nb::arg("b"), none("first"), nb::arg("threads"));
  module.def("linear_scan_backward", &linear_scan_backward, nb::arg("a"), nb::arg("h"), none("first"),
             nb::arg("dh"), nb::arg("threads"));
}
