// One step of a cell, forwards: the equations of hiddenstate.cells on tiles of rows and units.
#pragma once
#include "packing.h"
#include "stream.h"

namespace {

constexpr i64 CHUNK_ROWS = 128;  // rows of x projected at once

// Shared by all members that go over the same rows, but for y and kept.
template <class T> struct Buffers {
  T *xs, *projected, *h[2], *c, *gates, *sums, *reset;
  T **y = nullptr, **kept;
  i64 width, x_stride, projected_stride, gates_stride, bytes;

  Buffers(const Cell& cell, i64 rows, char* memory, i64 members, i64 member = 0) {
    Pieces pieces{memory};
    const i64 chunk = rows > CHUNK_ROWS ? rows : CHUNK_ROWS;
    width = spaced<T>(cell.H);
    x_stride = spaced<T>(cell.D);
    projected_stride = cell.blocks() * padded<T>(cell.H) + LANES<T>;
    gates_stride = 2 * padded<T>(cell.H) + LANES<T>;
    xs = pieces.take<T>(chunk * x_stride);
    projected = pieces.take<T>(chunk * projected_stride);
    h[0] = pieces.take<T>(rows * width);
    h[1] = pieces.take<T>(rows * width);
    c = pieces.take<T>(cell.lstm() ? rows * width : 0);
    const bool before = cell.kind == Kind::GRU_BEFORE;
    gates = pieces.take<T>(before ? rows * gates_stride : 0);
    sums = pieces.take<T>(before ? rows * width : 0);
    reset = pieces.take<T>(before ? rows * width : 0);
    for (i64 k = 0; k < members; k++) {
      T** const pointers = pieces.take<T*>(2 * rows);
      if (k == member) y = pointers;
    }
    kept = y == nullptr ? nullptr : y + rows;
    bytes = pieces.used;
  }
};

template <class T> void copy_padded(const T* from, i64 n, T* to) {
  i64 j = 0;
  for (; j + LANES<T> <= n; j += LANES<T>) store(to + j, load(from + j));
  if (j < n) store(to + j, load_part(from + j, static_cast<int>(n - j)));
}
template <class T> void copy_exact(const T* from, i64 n, T* to) {
  i64 j = 0;
  for (; j + LANES<T> <= n; j += LANES<T>) store(to + j, load(from + j));
  if (j < n) store_part(to + j, load(from + j), static_cast<int>(n - j));
}
template <class T> void zeros(T* to, i64 n) { memset(to, 0, static_cast<std::size_t>(n) * sizeof(T)); }

// Past the caches only where a vector is a whole cache line.
template <class T> INLINE void put_kept(T* to, Vec<T> value, bool stream) {
  if (stream && VECTOR_BYTES == 64) stream_store(to, value);
  else store(to, value);
}

// Columns [from, to) of a cell's units, of which the last may reach over the end.
template <class T> struct Units {
  i64 from, to;

  INLINE i64 first() const { return from * LANES<T>; }
  INLINE i64 columns(i64 H) const { return (to * LANES<T> < H ? to * LANES<T> : H) - first(); }
};
// Parts of a cell's units begin where panels of all its products do.
inline i64 grain_of(const Cell& cell) { return cell.kind == Kind::LSTM ? 2 : 4; }

// What a tile needs to know about the step that it belongs to.
template <class T> struct Step {
  const Cell& cell;
  const Buffers<T>& buffers;
  const T* projected;  // of the first row
  const T *b_h, *peep, *h;
  T* next;
  bool y, kept, stream;

  INLINE i64 at(i64 row, i64 unit) const { return row * buffers.width + unit * LANES<T>; }
  INLINE Vec<T> x_part(i64 row, i64 unit, int gates, int g) const {
    return load(projected + row * buffers.projected_stride + (unit * gates + g) * LANES<T>);
  }
  INLINE Vec<T> bias(i64 unit, int gates, int g) const {
    return load(b_h + (unit * gates + g) * LANES<T>);
  }
  INLINE void put_h(i64 row, i64 unit, Vec<T> value) const {
    store(next + at(row, unit), value);
    if (y) {
      const i64 left = cell.H - unit * LANES<T>;
      T* to = buffers.y[row] + unit * LANES<T>;
      if (left >= LANES<T>) store(to, value);
      else store_part(to, value, static_cast<int>(left));
    }
  }
  INLINE void keep(i64 row, i64 unit, int block, Vec<T> value) const {
    T* to = buffers.kept[row] + block * padded<T>(cell.H) + unit * LANES<T>;
    put_kept(to, value, stream);
  }
};

template <class T, class W>
void elman_step(i64 n, const Step<T>& step, const Packed<T, W>& packed, Units<T> units) {
  const i64 width = step.buffers.width;
  const auto panels = packed.template h_panels<4>().part(units.from, units.to);
  plain_product(n, step.h, width, panels, step.projected,
                step.buffers.projected_stride, step.b_h, step.next, width);
  const bool relu = step.cell.kind == Kind::ELMAN_RELU;
  for (i64 row = 0; row < n; row++) {
    for (i64 unit = units.from; unit < units.to; unit++) {
      const Vec<T> sum = load(step.next + step.at(row, unit));
      step.put_h(row, unit, relu ? positive_part(sum) : hyperbolic_tangent(sum));
    }
  }
}

template <class T, class W, int G>
void lstm_step(i64 n, const Step<T>& step, const Packed<T, W>& packed, Units<T> units) {
  const bool peephole = step.cell.peephole, coupled = step.cell.kind == Kind::LSTM_COUPLED;
  const i64 width = padded<T>(step.cell.H);
  gate_product<T, W, G>(
      n, step.h, step.buffers.width, packed.template h_panels<G>().part(units.from * G, units.to * G),
      [&](i64 row, i64 unit, int g) ALWAYS {
        return step.x_part(row, unit, G, g) + step.bias(unit, G, g);
      },
      [&](const Vec<T>* sum, i64 row, i64 unit) ALWAYS {
        T* at = step.buffers.c + step.at(row, unit);
        const T* peep = step.peep + unit * LANES<T>;
        const Vec<T> old = load(at);
        Vec<T> i_sum = sum[0], f_sum = sum[1], o_sum = sum[G - 1];
        if (peephole) {
          i_sum = fma(load(peep), old, i_sum);
          f_sum = fma(load(peep + width), old, f_sum);
        }
        const Vec<T> i = sigmoid(i_sum), g = hyperbolic_tangent(sum[G - 2]);
        Vec<T> f = all(T(1));
        if constexpr (G == 4) f = sigmoid(f_sum);
        else if (coupled) f = all(T(1)) - i;
        const Vec<T> c = fma(f, old, i * g);
        if (peephole) o_sum = fma(load(peep + 2 * width), c, o_sum);
        const Vec<T> o = sigmoid(o_sum);
        store(at, c);
        step.put_h(row, unit, o * hyperbolic_tangent(c));
        if (!step.kept) return;
        step.keep(row, unit, 0, i);
        if constexpr (G == 4) step.keep(row, unit, 1, f);
        step.keep(row, unit, G - 2, g);
        step.keep(row, unit, G - 1, o);
        step.keep(row, unit, G, c);
      });
}

template <class T> INLINE Vec<T> blend(bool writes, Vec<T> z, Vec<T> h, Vec<T> n) {
  return writes ? fma(z, n - h, h) : fma(z, h - n, n);
}

template <class T, class W>
void gru_after_step(i64 n, const Step<T>& step, const Packed<T, W>& packed, Units<T> units) {
  const bool writes = step.cell.writes;
  gate_product<T, W, 3>(
      n, step.h, step.buffers.width, packed.template h_panels<3>().part(units.from * 3, units.to * 3),
      [&](i64 row, i64 unit, int g) ALWAYS {
        const Vec<T> bias = step.bias(unit, 3, g);
        return g == 2 ? bias : step.x_part(row, unit, 3, g) + bias;
      },
      [&](const Vec<T>* sum, i64 row, i64 unit) ALWAYS {
        const Vec<T> r = sigmoid(sum[0]), z = sigmoid(sum[1]);
        const Vec<T> c = hyperbolic_tangent(fma(r, sum[2], step.x_part(row, unit, 3, 2)));
        step.put_h(row, unit, blend<T>(writes, z, load(step.h + step.at(row, unit)), c));
        if (!step.kept) return;
        step.keep(row, unit, 0, sum[2]);
        step.keep(row, unit, 1, r);
        step.keep(row, unit, 2, z);
        step.keep(row, unit, 3, c);
      });
}

// f(row, unit, reset and update gate) for every row and unit
template <class T, class Function>
INLINE void over_gates(i64 n, const Buffers<T>& buffers, Units<T> units, Function f) {
  for (i64 row = 0; row < n; row++) {
    for (i64 unit = units.from; unit < units.to; unit++) {
      f(row, unit, buffers.gates + row * buffers.gates_stride + unit * 2 * LANES<T>);
    }
  }
}

// A GRU that resets before the product: first both gates and r * h, then, once r * h is whole, the rest.
template <class T, class W>
void gru_before_gates(i64 n, const Step<T>& step, const Packed<T, W>& packed, Units<T> units) {
  const Buffers<T>& buffers = step.buffers;
  const i64 stride = buffers.gates_stride;
  over_gates(n, buffers, units, [&](i64 row, i64 unit, T* rz) ALWAYS {
    for (int g = 0; g < 2; g++) {
      store(rz + g * LANES<T>, step.x_part(row, unit, 3, g) + step.bias(unit, 3, g));
    }
  });
  plain_product(n, step.h, buffers.width, packed.template h_panels<4>().part(2 * units.from, 2 * units.to),
                buffers.gates, stride, static_cast<const T*>(nullptr), buffers.gates, stride);
  over_gates(n, buffers, units, [&](i64 row, i64 unit, T* rz) ALWAYS {
    const Vec<T> r = sigmoid(load(rz)), z = sigmoid(load(rz + LANES<T>));
    store(buffers.reset + step.at(row, unit), r * load(step.h + step.at(row, unit)));
    store(buffers.sums + step.at(row, unit), step.x_part(row, unit, 3, 2) + step.bias(unit, 3, 2));
    store(rz + LANES<T>, z);
    if (!step.kept) return;
    step.keep(row, unit, 0, r);
    step.keep(row, unit, 1, z);
  });
}

template <class T, class W>
void gru_before_step(i64 n, const Step<T>& step, const Packed<T, W>& packed, Units<T> units) {
  const Buffers<T>& buffers = step.buffers;
  plain_product(n, buffers.reset, buffers.width, packed.n_panels().part(units.from, units.to),
                buffers.sums, buffers.width, static_cast<const T*>(nullptr), buffers.sums, buffers.width);
  over_gates(n, buffers, units, [&](i64 row, i64 unit, T* rz) ALWAYS {
    const Vec<T> c = hyperbolic_tangent(load(buffers.sums + step.at(row, unit)));
    step.put_h(row, unit,
               blend<T>(step.cell.writes, load(rz + LANES<T>), load(step.h + step.at(row, unit)), c));
    if (step.kept) step.keep(row, unit, 2, c);
  });
}

// One step of n rows; before(units) and after(units) go before and behind the first and the last of
// what is done for them.
template <class T, class W, class Before, class After>
INLINE void run_step(i64 n, const Step<T>& step, const Packed<T, W>& packed, Turn& turn, Before before,
                     After after) {
  const i64 all = units_of<T>(step.cell.H), grain = grain_of(step.cell);
  const Kind kind = step.cell.kind;
  if (kind == Kind::GRU_BEFORE) {
    turn.run(all, grain, [&](i64 from, i64 to) {
      before(Units<T>{from, to});
      gru_before_gates(n, step, packed, Units<T>{from, to});
    });
  }
  turn.run(all, grain, [&](i64 from, i64 to) {
    const Units<T> units{from, to};
    if (kind != Kind::GRU_BEFORE) before(units);
    switch (kind) {
      case Kind::ELMAN_TANH:
      case Kind::ELMAN_RELU: elman_step(n, step, packed, units); break;
      case Kind::LSTM: lstm_step<T, W, 4>(n, step, packed, units); break;
      case Kind::GRU_AFTER: gru_after_step(n, step, packed, units); break;
      case Kind::GRU_BEFORE: gru_before_step(n, step, packed, units); break;
      default: lstm_step<T, W, 3>(n, step, packed, units);
    }
    after(units);
  });
}

// The projection of n rows, of some units.
template <class T, class W>
INLINE void project(i64 n, const T* x, i64 x_stride, const Packed<T, W>& packed, i64 blocks,
                    Units<T> units, const Buffers<T>& buffers) {
  plain_product(n, x, x_stride, packed.x_panels().part(units.from * blocks, units.to * blocks),
                static_cast<const T*>(nullptr), 0, packed.b_x, buffers.projected, buffers.projected_stride);
}

// One step in place, for states that are kept from call to call.
template <class T, class W>
void step_in_place(const Cell& cell, const char* memory, i64 n, const T* x, i64 x_stride, T* h,
                   T* c, char* scratch, Turn& turn) {
  const Packed<T, W> packed(cell, const_cast<char*>(memory));
  Buffers<T> buffers(cell, n, scratch, turn.members(), turn.member);
  buffers.c = c;
  T* const next = buffers.h[1];
  const Step<T> step{cell,        buffers, buffers.projected, packed.b_h,
                     packed.peep, h,       next,              false,
                     false,       false};
  run_step(
      n, step, packed, turn,
      [&](Units<T> units) { project(n, x, x_stride, packed, cell.blocks(), units, buffers); },
      [](Units<T>) {});
  const i64 width = n == 1 ? padded<T>(cell.H) : n * buffers.width;
  turn.run(width, LANES<T>, [&](i64 from, i64 to) {
    memcpy(h + from, next + from, static_cast<std::size_t>(to - from) * sizeof(T));
  });
}

}  // namespace
