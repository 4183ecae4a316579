// Cells over time at the boundary: forward and backward, with their memory and threads.
#include "sequences.h"

#include <atomic>
#include <cstring>
#include <thread>

namespace hiddenstate {
namespace {

constexpr i64 CHUNK_ROWS_BACK = 256;  // rows summed at once for the weights' gradients

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
                       B * T_ * blocks * Hp * static_cast<i64>(sizeof(T)) > STREAM_BYTES,
                       B * T_ * cell.blocks() * Hp * static_cast<i64>(sizeof(T)) > STREAM_BYTES_UNREAD};
  {
    nb::gil_scoped_release free;
    const double operations = operations_of(cell, rows);
    const i64 members = members_for(threads, B, cell, operations);
    if (members > 1) {
      Shares shares(members);
      const Scratch scratch(run.forward_scratch(cell, B, members));
      in_parallel(members, [&](i64 member) {
        run.forward(s, packed.precision, packed.data(), out, 0, B, scratch.data(), {&shares, member});
      });
    } else {
      const std::vector<i64> bounds = rows.bounds(parts_for(threads, B, operations));
      in_parallel(static_cast<i64>(bounds.size()) - 1, [&](i64 part) {
        const i64 from = bounds[static_cast<std::size_t>(part)], to = bounds[static_cast<std::size_t>(part) + 1];
        if (to == from) return;
        const Scratch scratch(run.forward_scratch(cell, to - from, 1));
        run.forward(s, packed.precision, packed.data(), out, from, to, scratch.data(), {});
      });
    }
  }
  const ExchangeAPI* to = x.exchange();
  return nb::make_tuple(y.release(to), h.release(to), given_or_none(c, to), given_or_none(kept, to),
                        given_or_none(projected, to));
}

}  // namespace

nb::tuple forward(const Packed& packed, nb::handle x, nb::handle h0, nb::handle c0, nb::handle lengths,
                  bool reverse, int want, i64 threads) {
  Input input(x, "x");
  if (input.axes() != 3) refuse("x is " + input.text() + ", expected three axes [B, T, D].");
  return packed.type == 'f'
             ? run_forward<float>(packed, input, h0, c0, lengths, reverse, want, threads)
             : run_forward<double>(packed, input, h0, c0, lengths, reverse, want, threads);
}

namespace {

// Copy the first `width` elements of rows that are `stride` apart.
template <class T> void crop(const T* from, i64 stride, i64 rows, i64 width, T* to) {
  for (i64 r = 0; r < rows; r++) {
    std::memcpy(to + r * width, from + r * stride, static_cast<std::size_t>(width) * sizeof(T));
  }
}

// first(part, k) for every part and k < count, then(part, k) once all parts are through first(., k),
// each in rising order of k; `before` comes before all. One start of threads, and nobody waits while
// there is work that he can do. None of the three may throw.
template <class Before, class First, class Then>
void in_two_stages(i64 parts, i64 count, Before before, First first, Then then) {
  if (parts == 1) {
    before();
    for (i64 k = 0; k < count; k++) {
      first(0, k);
      then(0, k);
    }
    return;
  }
  // A part belongs to the thread that takes it: whatever number of threads the system gives, every
  // part has been taken when one has to wait for the others.
  std::atomic<bool> ready{false};
  std::atomic<i64> untaken{0};
  std::vector<std::atomic<i64>> through(static_cast<std::size_t>(parts)), owner(through.size());
  std::vector<i64> added(through.size(), 0);
  in_parallel(parts, [&](i64 thread) {
    if (thread == 0) {
      before();
      ready.store(true, std::memory_order_release);
    }
    while (!ready.load(std::memory_order_acquire)) std::this_thread::yield();
    auto catch_up = [&](i64 part) {
      i64 least = count;
      for (const auto& each : through) least = std::min(least, each.load(std::memory_order_acquire));
      i64& done = added[static_cast<std::size_t>(part)];
      for (; done < least; done++) then(part, done);
      return done == count;
    };
    for (i64 part; (part = untaken.fetch_add(1)) < parts;) {
      owner[static_cast<std::size_t>(part)].store(thread + 1);
      for (i64 k = 0; k < count; k++) {
        first(part, k);
        through[static_cast<std::size_t>(part)].store(k + 1, std::memory_order_release);
        catch_up(part);
      }
    }
    for (i64 part = 0; part < parts; part++) {
      if (owner[static_cast<std::size_t>(part)].load() != thread + 1) continue;
      while (!catch_up(part)) std::this_thread::yield();
    }
  });
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
    const Scratch targets((needs_x ? space : 0) * static_cast<i64>(sizeof(T*)));
    auto at = [](const Scratch& scratch) { return reinterpret_cast<T*>(scratch.data()); };
    const Workspace<T> work{base.data(), at(dg), at(xs_rows), at(dxs), at(hs), at(rh),
                            at(cs), at(cs) + space * h_stride, reinterpret_cast<T**>(targets.data())};
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
    // Scratch of all parts is taken here: nothing below may throw, or others would wait forever.
    std::deque<Scratch> scratch;
    for (i64 part = 0; part < ranges; part++) {
      const auto k = static_cast<std::size_t>(part);
      scratch.emplace_back(run.backward_scratch(cell, bounds[k + 1] - bounds[k]));
    }
    auto back = [&](const Chunk& chunk, i64 part) {
      const auto k = static_cast<std::size_t>(part);
      if (bounds[k + 1] > bounds[k]) {
        run.backward(s, packed.data(), up, work, chunk.from, chunk.to, bounds[k], bounds[k + 1],
                     scratch[k].data());
      }
    };
    // A share of what needs all rows of a chunk: the weights' gradients by columns, dx by rows.
    auto add_up = [&](const Chunk& chunk, i64 part) {
      if (chunk.rows == 0) return;
      if (needs_x) {
        const i64 first = chunk.rows * part / ranges, last = chunk.rows * (part + 1) / ranges;
        run.input_gradients(cell, packed.data(), work, chunk.row + first, last - first);
      }
      run.accumulate(cell, work, chunk.row, chunk.rows, sums, chunk.from < longest, part, ranges);
    };
    in_two_stages(ranges, static_cast<i64>(chunks.size()),
                  [&] { run.pack_backward(cell, p, packed.data()); },
                  [&](i64 part, i64 k) { back(chunks[static_cast<std::size_t>(k)], part); },
                  [&](i64 part, i64 k) { add_up(chunks[static_cast<std::size_t>(k)], part); });
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

}  // namespace

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

}  // namespace hiddenstate
