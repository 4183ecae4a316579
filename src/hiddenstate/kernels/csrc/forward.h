// Cells over time, forwards: the equations of hiddenstate.cells on tiles of rows and units.
//
// Time goes in chunks: W_x x + b_x of all rows of a chunk is one product, whose result stays in the
// cache for the steps that follow. Rows are sorted by falling length, so the ones that still run at
// a step are the first ones; nothing past a row's length is read.
#pragma once
#include "packing.h"
#include "stream.h"

namespace {

constexpr i64 CHUNK_ROWS = 128;  // rows of x projected at once

template <class T> struct Buffers {
  T *xs, *projected, *h[2], *c, *gates, *sums;
  T **y, **kept;
  i64 width, x_stride, projected_stride, gates_stride, bytes;

  Buffers(const Cell& cell, i64 rows, char* memory) {
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
    y = pieces.take<T*>(rows);
    kept = pieces.take<T*>(rows);
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
void elman_step(i64 n, const Step<T>& step, const Packed<T, W>& packed) {
  const i64 width = step.buffers.width;
  plain_product(n, step.h, width, packed.template h_panels<4>(), step.projected,
                step.buffers.projected_stride, step.b_h, step.next, width);
  const bool relu = step.cell.kind == Kind::ELMAN_RELU;
  for (i64 row = 0; row < n; row++) {
    for (i64 unit = 0; unit < units_of<T>(step.cell.H); unit++) {
      const Vec<T> sum = load(step.next + step.at(row, unit));
      step.put_h(row, unit, relu ? positive_part(sum) : hyperbolic_tangent(sum));
    }
  }
}

template <class T, class W, int G>
void lstm_step(i64 n, const Step<T>& step, const Packed<T, W>& packed) {
  const bool peephole = step.cell.peephole, coupled = step.cell.kind == Kind::LSTM_COUPLED;
  const i64 width = padded<T>(step.cell.H);
  gate_product<T, W, G>(
      n, step.h, step.buffers.width, packed.template h_panels<G>(),
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
void gru_after_step(i64 n, const Step<T>& step, const Packed<T, W>& packed) {
  const bool writes = step.cell.writes;
  gate_product<T, W, 3>(
      n, step.h, step.buffers.width, packed.template h_panels<3>(),
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

template <class T, class W>
void gru_before_step(i64 n, const Step<T>& step, const Packed<T, W>& packed) {
  const Buffers<T>& buffers = step.buffers;
  const i64 stride = buffers.gates_stride, units = units_of<T>(step.cell.H);
  auto every = [&](auto f) ALWAYS {
    for (i64 row = 0; row < n; row++) {
      for (i64 unit = 0; unit < units; unit++) {
        f(row, unit, buffers.gates + row * stride + unit * 2 * LANES<T>);
      }
    }
  };
  every([&](i64 row, i64 unit, T* rz) ALWAYS {
    for (int g = 0; g < 2; g++) {
      store(rz + g * LANES<T>, step.x_part(row, unit, 3, g) + step.bias(unit, 3, g));
    }
  });
  plain_product(n, step.h, buffers.width, packed.template h_panels<4>(), buffers.gates, stride,
                static_cast<const T*>(nullptr), buffers.gates, stride);
  // r * h waits where the next h will stand.
  every([&](i64 row, i64 unit, T* rz) ALWAYS {
    const Vec<T> r = sigmoid(load(rz)), z = sigmoid(load(rz + LANES<T>));
    store(step.next + step.at(row, unit), r * load(step.h + step.at(row, unit)));
    store(buffers.sums + step.at(row, unit), step.x_part(row, unit, 3, 2) + step.bias(unit, 3, 2));
    store(rz + LANES<T>, z);
    if (!step.kept) return;
    step.keep(row, unit, 0, r);
    step.keep(row, unit, 1, z);
  });
  plain_product(n, step.next, buffers.width, packed.n_panels(), buffers.sums, buffers.width,
                static_cast<const T*>(nullptr), buffers.sums, buffers.width);
  every([&](i64 row, i64 unit, T* rz) ALWAYS {
    const Vec<T> c = hyperbolic_tangent(load(buffers.sums + step.at(row, unit)));
    step.put_h(row, unit,
               blend<T>(step.cell.writes, load(rz + LANES<T>), load(step.h + step.at(row, unit)), c));
    if (step.kept) step.keep(row, unit, 2, c);
  });
}

template <class T, class W>
INLINE void run_step(i64 n, const Step<T>& step, const Packed<T, W>& packed) {
  switch (step.cell.kind) {
    case Kind::ELMAN_TANH:
    case Kind::ELMAN_RELU: return elman_step(n, step, packed);
    case Kind::LSTM: return lstm_step<T, W, 4>(n, step, packed);
    case Kind::GRU_AFTER: return gru_after_step(n, step, packed);
    case Kind::GRU_BEFORE: return gru_before_step(n, step, packed);
    default: return lstm_step<T, W, 3>(n, step, packed);
  }
}

// One step in place, for states that are kept from call to call.
template <class T, class W>
void step_in_place(const Cell& cell, const char* memory, i64 n, const T* x, i64 x_stride, T* h,
                   T* c, char* scratch) {
  const Packed<T, W> packed(cell, const_cast<char*>(memory));
  Buffers<T> buffers(cell, n, scratch);
  buffers.c = c;
  plain_product(n, x, x_stride, packed.x_panels(), static_cast<const T*>(nullptr), 0, packed.b_x,
                buffers.projected, buffers.projected_stride);
  const Step<T> step{cell,        buffers, buffers.projected, packed.b_h,
                     packed.peep, h,       buffers.h[1],      false,
                     false,       false};
  run_step(n, step, packed);
  memcpy(h, buffers.h[1], static_cast<std::size_t>(n * buffers.width) * sizeof(T));
}

// Rows past the first `running` ones that a step no longer has: their state is final.
template <class T>
void finish(const Sequences<T>& s, const Results<T>& out, const Buffers<T>& buffers, const T* h,
            i64 first, i64 from, i64 to) {
  const i64 H = s.cell.H;
  for (i64 i = from; i < to; i++) {
    const i64 row = s.order[first + i];
    if (out.h != nullptr) copy_exact(h + i * buffers.width, H, out.h + row * H);
    if (out.c != nullptr) copy_exact(buffers.c + i * buffers.width, H, out.c + row * H);
  }
}

template <class T> void clear_past(const Sequences<T>& s, const Results<T>& out, i64 first, i64 last) {
  const i64 H = s.cell.H, width = padded<T>(H);
  const i64 kept = s.cell.kept() * width, projected = s.cell.blocks() * width;
  for (i64 i = first; i < last; i++) {
    const i64 from = s.order[i] * s.T_ + s.length(i), steps = s.T_ - s.length(i);
    if (out.y != nullptr) zeros(out.y + from * H, steps * H);
    if (out.clear && out.kept != nullptr) zeros(out.kept + from * kept, steps * kept);
    if (out.clear && out.projected != nullptr) zeros(out.projected + from * projected, steps * projected);
  }
}

template <class T, class W>
void forward(const Sequences<T>& s, const char* memory, const Results<T>& out, i64 first, i64 last,
             char* scratch) {
  const Cell& cell = s.cell;
  const i64 rows = last - first, H = cell.H, width = padded<T>(H);
  const Packed<T, W> packed(cell, const_cast<char*>(memory));
  const Buffers<T> buffers(cell, rows, scratch);
  for (i64 i = 0; i < rows; i++) {
    const i64 row = s.order[first + i];
    T *h = buffers.h[0] + i * buffers.width, *c = buffers.c + i * buffers.width;
    if (s.h0 != nullptr) copy_padded(s.h0 + row * H, H, h);
    else zeros(h, width);
    if (!cell.lstm()) continue;
    if (s.c0 != nullptr) copy_padded(s.c0 + row * H, H, c);
    else zeros(c, width);
  }
  i64 running = rows;
  auto still_running = [&](i64 step, i64 from) {
    while (from > 0 && s.length(first + from - 1) <= step) from--;
    return from;
  };
  const T* h = buffers.h[0];
  i64 now = still_running(0, running);
  finish(s, out, buffers, h, first, now, running);
  running = now;
  for (i64 t = 0; running > 0;) {
    // A chunk: steps [t, end) and their rows, projected together.
    i64 end = t, total = 0;
    for (i64 n = running; n > 0 && (end == t || total + n <= CHUNK_ROWS); n = still_running(end, n)) {
      for (i64 i = 0; i < n; i++) {
        const T* from = s.x + s.order[first + i] * s.x_row + s.time(first + i, end) * s.x_step;
        copy_padded(from, cell.D, buffers.xs + (total + i) * buffers.x_stride);
      }
      total += n;
      end++;
    }
    plain_product(total, buffers.xs, buffers.x_stride, packed.x_panels(),
                  static_cast<const T*>(nullptr), 0, packed.b_x, buffers.projected,
                  buffers.projected_stride);
    const T* projected = buffers.projected;
    for (; t < end; t++) {
      for (i64 i = 0; i < running; i++) {
        const i64 at = s.order[first + i] * s.T_ + s.time(first + i, t);
        if (out.y != nullptr) buffers.y[i] = out.y + at * H;
        if (out.kept != nullptr) buffers.kept[i] = out.kept + at * cell.kept() * width;
        if (out.projected == nullptr) continue;
        const T* from = projected + i * buffers.projected_stride;
        for (i64 unit = 0; unit < units_of<T>(H); unit++) {
          for (i64 g = 0; g < cell.blocks(); g++, from += LANES<T>) {
            put_kept(out.projected + (at * cell.blocks() + g) * width + unit * LANES<T>, load(from),
                     out.stream_projected);
          }
        }
      }
      T* next = h == buffers.h[0] ? buffers.h[1] : buffers.h[0];
      const Step<T> step{cell,        buffers,          projected,          packed.b_h,
                         packed.peep, h,                next,               out.y != nullptr,
                         out.kept != nullptr && cell.kept() > 0,
                         out.stream};
      run_step(running, step, packed);
      h = next;
      projected += running * buffers.projected_stride;
      now = still_running(t + 1, running);
      finish(s, out, buffers, h, first, now, running);
      running = now;
    }
  }
  if (out.stream || out.stream_projected) end_of_streams();
  clear_past(s, out, first, last);
}

}  // namespace
