// The boundary to Python: every size and type is checked here, before a pointer is used.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <numeric>
#include <system_error>
#include <thread>

#include "arrays.h"
#include "select.h"

namespace hiddenstate {
namespace {

constexpr i64 LARGEST_AXIS = i64{1} << 31;
// A thread costs some 20 microseconds to start; it must have this much to do.
constexpr double OPERATIONS_PER_THREAD = 4e6;
constexpr i64 CHUNK_ROWS_BACK = 256;  // rows summed at once for the weights' gradients
constexpr i64 STREAM_BYTES = i64{4} << 20;  // results above this size are stored past the caches

// f(part) for every part, each on a thread of its own; threads are started for the call and leave
// nothing behind, so that a fork finds no lock held. Parts for which the system gives no thread run
// on this one; what a part throws is thrown here, after all have ended.
template <class Function> void in_parallel(i64 parts, Function f) {
  std::exception_ptr failure;
  std::mutex mutex;
  auto guarded = [&](i64 part) noexcept {
    try {
      f(part);
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<std::size_t>(parts - 1));
  i64 started = 1;
  try {
    for (; started < parts; started++) others.emplace_back(guarded, started);
  } catch (const std::system_error&) {
  }
  guarded(0);
  for (i64 part = started; part < parts; part++) guarded(part);
  for (std::thread& each : others) each.join();
  if (failure) std::rethrow_exception(failure);
}

Cell cell_of(int kind, bool peephole, bool writes, i64 D, i64 H) {
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

i64 parts_for(i64 threads, i64 rows, double operations) {
  const i64 worth = static_cast<i64>(operations / OPERATIONS_PER_THREAD);
  return std::max(i64{1}, std::min({threads, rows, worth}));
}

double operations_of(const Cell& cell, const Rows& rows) {
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

enum Want : int { KEPT = 1, PROJECTED = 2, CLEAR = 4 };

nb::object given_or_none(std::optional<Output>& output, const ExchangeAPI* exchange) {
  return output ? output->release(exchange) : nb::none();
}

template <class T>
nb::tuple run_forward(const Packed& packed, Input& x, nb::handle h0, nb::handle c0, nb::handle lengths,
                      bool reverse, int want, i64 threads) {
  const Cell& cell = packed.cell;
  const Functions<T>& run = functions_of<T>(*packed.isa);
  const i64 B = x.shape(0), T_ = x.shape(1), H = cell.H, Hp = run.padded(H);
  x.require(kind_of<T>, {B, T_, cell.D});
  Optional first_h(h0, "h0"), first_c(c0, "c0");
  const T* xs = x.data<T>(1);
  const Rows rows(lengths, B, T_);
  const Sequences<T> s{cell, B, T_, reverse, rows.lengths.data(), rows.order.data(), xs,
                       x.stride(0), x.stride(1), first_h.data<T>({B, H}), first_c.data<T>({B, H})};
  Output y(kind_of<T>, {B, T_, H}), h(kind_of<T>, {B, H});
  std::optional<Output> c, kept, projected;
  if (cell.lstm()) c.emplace(kind_of<T>, std::vector<i64>{B, H});
  if ((want & KEPT) && cell.kept() > 0) {
    kept.emplace(kind_of<T>, std::vector<i64>{B, T_, cell.kept(), Hp});
  }
  if (want & PROJECTED) {
    projected.emplace(kind_of<T>, std::vector<i64>{B, T_, cell.blocks(), Hp});
  }
  const i64 blocks = (kept ? cell.kept() : 0) + (projected ? cell.blocks() : 0);
  const Results<T> out{y.template data<T>(),
                       h.template data<T>(),
                       c ? c->template data<T>() : nullptr,
                       kept ? kept->template data<T>() : nullptr,
                       projected ? projected->template data<T>() : nullptr,
                       (want & CLEAR) != 0,
                       B * T_ * blocks * Hp * static_cast<i64>(sizeof(T)) > STREAM_BYTES};
  {
    nb::gil_scoped_release free;
    const i64 parts = parts_for(threads, B, operations_of(cell, rows));
    const std::vector<i64> bounds = rows.bounds(parts);
    in_parallel(static_cast<i64>(bounds.size()) - 1, [&](i64 part) {
      const i64 from = bounds[static_cast<std::size_t>(part)], to = bounds[static_cast<std::size_t>(part) + 1];
      if (to == from) return;
      const Scratch scratch(run.forward_scratch(cell, to - from));
      run.forward(s, packed.precision, packed.data(), out, from, to, scratch.data());
    });
  }
  const ExchangeAPI* to = x.exchange();
  return nb::make_tuple(y.release(to), h.release(to), given_or_none(c, to), given_or_none(kept, to),
                        given_or_none(projected, to));
}

nb::tuple forward(const Packed& packed, nb::handle x, nb::handle h0, nb::handle c0, nb::handle lengths,
                  bool reverse, int want, i64 threads) {
  Input input(x, "x");
  if (input.axes() != 3) refuse("x is " + input.text() + ", expected three axes [B, T, D].");
  return packed.type == 'f'
             ? run_forward<float>(packed, input, h0, c0, lengths, reverse, want, threads)
             : run_forward<double>(packed, input, h0, c0, lengths, reverse, want, threads);
}

// Copy the first `width` elements of rows that are `stride` apart.
template <class T> void crop(const T* from, i64 stride, i64 rows, i64 width, T* to) {
  for (i64 r = 0; r < rows; r++) {
    std::memcpy(to + r * width, from + r * stride, static_cast<std::size_t>(width) * sizeof(T));
  }
}

struct Chunk {
  i64 from, to, row, rows;
};

template <class T>
nb::tuple run_backward(const Cell& cell, Input& x, nb::handle h0, nb::handle c0, Weights& weights,
                       nb::handle lengths, bool reverse, nb::handle y_given, nb::handle kept_given,
                       nb::handle dy_given, nb::handle dh_given, nb::handle dc_given, bool needs_x,
                       i64 threads) {
  const InstructionSet& isa = instruction_set();
  const Functions<T>& run = functions_of<T>(isa);
  const i64 B = x.shape(0), T_ = x.shape(1), D = cell.D, H = cell.H, Hp = run.padded(H);
  x.require(kind_of<T>, {B, T_, D});
  const Parameters<T> p = weights.of<T>(cell);
  Optional first_h(h0, "h0"), first_c(c0, "c0"), dh(dh_given, "dh"), dc(dc_given, "dc");
  Optional kept(kept_given, "kept"), dy(dy_given, "dy"), y(y_given, "y");
  const T* xs = x.data<T>(1);
  const Rows rows(lengths, B, T_);
  const Sequences<T> s{cell, B, T_, reverse, rows.lengths.data(), rows.order.data(), xs,
                       x.stride(0), x.stride(1), first_h.data<T>({B, H}), first_c.data<T>({B, H})};
  Upstream<T> up{};
  up.y = y.data<T>({B, T_, H});
  up.kept = cell.kept() > 0 ? kept.data<T>({B, T_, cell.kept(), Hp}) : nullptr;
  if (!y.input() || (cell.kept() > 0 && !kept.input())) refuse("y or kept is missing.");
  if (dy.input()) {
    dy.input()->require(kind_of<T>, {B, T_, H});
    up.dy = dy.input()->template data<T>(1);
    up.dy_row = dy.input()->stride(0);
    up.dy_step = dy.input()->stride(1);
  }
  up.dh = dh.data<T>({B, H});
  up.dc = dc.data<T>({B, H});
  const i64 G = cell.blocks(), gate_rows = G * H, dg_rows = cell.gradient_blocks() * H;
  Output dh0(kind_of<T>, {B, H}), dw_x(kind_of<T>, {gate_rows, D}), dw_h(kind_of<T>, {gate_rows, H});
  std::optional<Output> dx, dc0, db_x, db_h, dp[3];
  if (needs_x) dx.emplace(kind_of<T>, std::vector<i64>{B, T_, D});
  if (cell.lstm()) dc0.emplace(kind_of<T>, std::vector<i64>{B, H});
  if (p.b_x) db_x.emplace(kind_of<T>, std::vector<i64>{gate_rows});
  if (p.b_h) db_h.emplace(kind_of<T>, std::vector<i64>{gate_rows});
  const T* peepholes[3] = {p.p_i, p.p_f, p.p_o};
  for (int k = 0; k < 3; k++) {
    if (peepholes[k]) dp[k].emplace(kind_of<T>, std::vector<i64>{H});
  }
  up.dx = dx ? dx->template data<T>() : nullptr;
  up.dh0 = dh0.template data<T>();
  up.dc0 = dc0 ? dc0->template data<T>() : nullptr;
  {
    nb::gil_scoped_release free;
    const Scratch packed(run.packed_backward_bytes(cell));
    run.pack_backward(cell, p, packed.data());
    const i64 parts = parts_for(threads, B, 2 * operations_of(cell, rows));
    const std::vector<i64> bounds = rows.bounds(parts);
    const i64 ranges = static_cast<i64>(bounds.size()) - 1;
    // Chunks of steps, from the last back; alone, a thread uses the space of one chunk for all.
    const i64 longest = rows.longest();
    std::vector<Chunk> chunks;
    std::vector<i64> base(static_cast<std::size_t>(longest));
    i64 running = 0, space = 0, row = 0;
    for (i64 t = longest; t > 0;) {
      Chunk chunk{t, t, row, 0};
      while (chunk.to > 0 && (chunk.rows == 0 || chunk.rows + running <= CHUNK_ROWS_BACK)) {
        const i64 step = chunk.to - 1;
        while (running < B && s.length(running) > step) running++;
        base[static_cast<std::size_t>(step)] = row + chunk.rows;
        chunk.rows += running;
        chunk.to = step;
      }
      t = chunk.to;
      chunks.push_back(chunk);
      space = std::max(space, row + chunk.rows);
      if (ranges > 1) row += chunk.rows;
    }
    const i64 dg_stride = run.spaced(dg_rows), x_stride = run.spaced(D), h_stride = run.spaced(H);
    const bool before = cell.kind == Kind::GRU_BEFORE;
    const auto width = static_cast<i64>(sizeof(T));
    const Scratch dg(space * dg_stride * width), xs_rows(space * x_stride * width);
    const Scratch dxs((needs_x ? space : 0) * x_stride * width), hs(space * h_stride * width);
    const Scratch rh((before ? space : 0) * h_stride * width);
    const Scratch cs((cell.peephole ? 2 * space : 0) * h_stride * width);
    std::vector<T*> targets(static_cast<std::size_t>(needs_x ? space : 0));
    auto at = [](const Scratch& scratch) { return reinterpret_cast<T*>(scratch.data()); };
    const Workspace<T> work{base.data(), at(dg), at(xs_rows), at(dxs), at(hs), at(rh),
                            at(cs), at(cs) + space * h_stride, targets.data()};
    const Scratch w_x(gate_rows * x_stride * width), w_h(gate_rows * h_stride * width);
    const Scratch small((run.padded(dg_rows) + 3 * h_stride) * width);
    T* bias = at(small);
    T* peep = bias + run.padded(dg_rows);
    const Sums<T> sums{at(w_x), at(w_h), bias, peep, peep + h_stride, peep + 2 * h_stride};
    if (chunks.empty()) {
      std::memset(w_x.data(), 0, static_cast<std::size_t>(gate_rows * x_stride * width));
      std::memset(w_h.data(), 0, static_cast<std::size_t>(gate_rows * h_stride * width));
      std::memset(small.data(), 0, static_cast<std::size_t>((run.padded(dg_rows) + 3 * h_stride) * width));
      chunks.push_back({0, 0, 0, 0});
    }
    auto back = [&](const Chunk& chunk, i64 part, char* scratch) {
      const i64 from = bounds[static_cast<std::size_t>(part)], to = bounds[static_cast<std::size_t>(part) + 1];
      if (to > from) run.backward(s, packed.data(), up, work, chunk.from, chunk.to, from, to, scratch);
    };
    auto add_up = [&](i64 part, i64 shares, const Chunk& chunk) {
      if (chunk.rows > 0) {
        run.accumulate(cell, work, chunk.row, chunk.rows, sums, chunk.from < longest, part, shares);
      }
    };
    if (ranges == 1) {
      const Scratch scratch(run.backward_scratch(cell, B));
      for (const Chunk& chunk : chunks) {
        back(chunk, 0, scratch.data());
        add_up(0, 1, chunk);
      }
    } else {
      in_parallel(ranges, [&](i64 part) {
        const i64 from = bounds[static_cast<std::size_t>(part)], to = bounds[static_cast<std::size_t>(part) + 1];
        const Scratch scratch(run.backward_scratch(cell, to - from));
        for (const Chunk& chunk : chunks) back(chunk, part, scratch.data());
      });
      in_parallel(ranges, [&](i64 part) {
        for (const Chunk& chunk : chunks) add_up(part, ranges, chunk);
      });
    }
    crop(sums.w_x, x_stride, gate_rows, D, dw_x.template data<T>());
    // A GRU that resets after the product has [r dn | dr | dz | dn]: its h side is n r z.
    const bool after = cell.kind == Kind::GRU_AFTER;
    const i64 turned = after ? H : 0;
    crop(sums.w_h + turned * h_stride, h_stride, gate_rows - turned, H, dw_h.template data<T>());
    crop(sums.w_h, h_stride, turned, H, dw_h.template data<T>() + (gate_rows - turned) * H);
    if (db_x) crop(bias + dg_rows - gate_rows, gate_rows, 1, gate_rows, db_x->template data<T>());
    if (db_h) {
      crop(bias + turned, gate_rows, 1, gate_rows - turned, db_h->template data<T>());
      crop(bias, turned, 1, turned, db_h->template data<T>() + gate_rows - turned);
    }
    const T* each[3] = {sums.p_i, sums.p_f, sums.p_o};
    for (int k = 0; k < 3; k++) {
      if (dp[k]) crop(each[k], H, 1, H, dp[k]->template data<T>());
    }
  }
  const ExchangeAPI* to = x.exchange();
  return nb::make_tuple(given_or_none(dx, to), dh0.release(to), given_or_none(dc0, to), dw_x.release(to),
                        dw_h.release(to), given_or_none(db_x, to), given_or_none(db_h, to),
                        given_or_none(dp[0], to), given_or_none(dp[1], to), given_or_none(dp[2], to));
}

nb::tuple backward(int kind, bool peephole, bool writes, nb::handle weights, nb::handle x, nb::handle h0,
                   nb::handle c0, nb::handle lengths, bool reverse, nb::handle y, nb::handle kept,
                   nb::handle dy, nb::handle dh, nb::handle dc, bool needs_x, i64 threads) {
  Weights given(weights);
  const Cell cell = cell_of(kind, peephole, writes, given.D(), given.H());
  Input input(x, "x");
  if (input.axes() != 3) refuse("x is " + input.text() + ", expected three axes [B, T, D].");
  if (input.kind() == 'f') {
    return run_backward<float>(cell, input, h0, c0, given, lengths, reverse, y, kept, dy, dh, dc, needs_x, threads);
  }
  if (input.kind() != 'd') refuse("x is " + input.text() + ", expected float32 or float64.");
  return run_backward<double>(cell, input, h0, c0, given, lengths, reverse, y, kept, dy, dh, dc, needs_x, threads);
}

// A state of B rows that is stepped in place: no allocation, no checks and no copies in the step.
class Stepper {
 public:
  Stepper(nb::object packed, i64 B) : packed_(packed), of_(nb::cast<const Packed&>(packed)), B_(B) {
    if (B < 1 || B >= LARGEST_AXIS) refuse("A stepper has at least one row.");
    if (of_.type != 'f') refuse("A stepper runs in float32.");
    const Functions<float>& run = of_.isa->single;
    x_stride_ = run.spaced(of_.cell.D);
    h_stride_ = run.spaced(of_.cell.H);
    scratch_ = std::make_unique<Scratch>(run.forward_scratch(of_.cell, B));
    x_ = std::make_unique<Output>('f', std::vector<i64>{B, of_.cell.D}, std::vector<i64>{x_stride_, 1});
    h_ = std::make_unique<Output>('f', std::vector<i64>{B, of_.cell.H}, std::vector<i64>{h_stride_, 1});
    c_ = std::make_unique<Output>('f', std::vector<i64>{B, of_.cell.H}, std::vector<i64>{h_stride_, 1});
    x_data_ = x_->data<float>();
    h_data_ = h_->data<float>();
    c_data_ = c_->data<float>();
    std::memset(x_data_, 0, static_cast<std::size_t>(B * x_stride_) * sizeof(float));
    std::memset(h_data_, 0, static_cast<std::size_t>(B * h_stride_) * sizeof(float));
    std::memset(c_data_, 0, static_cast<std::size_t>(B * h_stride_) * sizeof(float));
    large_ = B * of_.cell.blocks() * of_.cell.H * (of_.cell.D + of_.cell.H) > 200000;
  }
  // The arrays x [B, D], h and c [B, H] that a step reads and writes; to be taken once.
  nb::tuple arrays() {
    if (!x_) refuse("The arrays of this stepper were taken before.");
    nb::tuple given = nb::make_tuple(x_->release(nullptr), h_->release(nullptr), c_->release(nullptr));
    x_.reset();
    held_ = given;
    return given;
  }
  void step() {
    if (!large_) return run();
    nb::gil_scoped_release free;
    run();
  }

 private:
  void run() {
    of_.isa->single.step(of_.cell, of_.precision, of_.data(), B_, x_data_, x_stride_, h_data_, c_data_,
                         scratch_->data());
  }
  nb::object packed_, held_;
  const Packed& of_;
  i64 B_, x_stride_ = 0, h_stride_ = 0;
  bool large_ = false;
  std::unique_ptr<Scratch> scratch_;
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
      .def(nb::init<nb::object, i64>(), nb::arg("packed"), nb::arg("batch"))
      .def("arrays", &Stepper::arrays)
      .def("step", &Stepper::step);
  nb::class_<Linear>(module, "Linear")
      .def(nb::init<nb::handle, nb::handle>(), nb::arg("w"), none("b"))
      .def("run", &Linear::run, nb::arg("x"), nb::arg("threads"));
  module.def("linear_scan", &linear_scan, nb::arg("a"), nb::arg("b"), none("first"), nb::arg("threads"));
  module.def("linear_scan_backward", &linear_scan_backward, nb::arg("a"), nb::arg("h"), none("first"),
             nb::arg("dh"), nb::arg("threads"));
}
