// Cells over time, forwards.
//
// Time goes in chunks: W_x x + b_x of all rows of a chunk is one product, whose result stays in the
// cache for the steps that follow. Rows are sorted by falling length, so the ones that still run at
// a step are the first ones; nothing past a row's length is read.
#pragma once
#include "cell.h"

namespace {

// Rows past the first `running` ones that a step no longer has: their state is final.
template <class T>
void finish(const Sequences<T>& s, const Results<T>& out, const Buffers<T>& buffers, const T* h,
            i64 first, i64 from, i64 to, Units<T> units) {
  const i64 H = s.cell.H, columns = units.columns(H), at = units.first();
  for (i64 i = from; i < to; i++) {
    const i64 row = s.order[first + i] * H + at;
    if (out.h != nullptr) copy_exact(h + i * buffers.width + at, columns, out.h + row);
    if (out.c != nullptr) copy_exact(buffers.c + i * buffers.width + at, columns, out.c + row);
  }
}

// The first state of all rows
template <class T>
void begin(const Sequences<T>& s, const Buffers<T>& buffers, i64 first, i64 rows, Units<T> units) {
  const i64 H = s.cell.H, columns = units.columns(H), at = units.first();
  for (i64 i = 0; i < rows; i++) {
    const i64 row = s.order[first + i] * H + at;
    T *h = buffers.h[0] + i * buffers.width + at, *c = buffers.c + i * buffers.width + at;
    if (s.h0 != nullptr) copy_padded(s.h0 + row, columns, h);
    else zeros(h, (units.to - units.from) * LANES<T>);
    if (!s.cell.lstm()) continue;
    if (s.c0 != nullptr) copy_padded(s.c0 + row, columns, c);
    else zeros(c, (units.to - units.from) * LANES<T>);
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

// The projections of n rows as a trace shows them: `at` of each is its place in [B, T].
template <class T>
void show_projections(const Cell& cell, const Results<T>& out, const Buffers<T>& buffers,
                      const T* projected, i64 at, i64 row, Units<T> units) {
  const i64 blocks = cell.blocks(), width = padded<T>(cell.H);
  const T* from = projected + row * buffers.projected_stride + units.first() * blocks;
  for (i64 unit = units.from; unit < units.to; unit++) {
    for (i64 g = 0; g < blocks; g++, from += LANES<T>) {
      put_kept(out.projected + (at * blocks + g) * width + unit * LANES<T>, load(from),
               out.stream_projected);
    }
  }
}

template <class T, class W>
void forward(const Sequences<T>& s, const char* memory, const Results<T>& out, i64 first, i64 last,
             char* scratch, Turn turn) {
  const Cell& cell = s.cell;
  const i64 rows = last - first, H = cell.H, width = padded<T>(H);
  const i64 all = units_of<T>(H), grain = grain_of(cell);
  const Packed<T, W> packed(cell, const_cast<char*>(memory));
  const Buffers<T> buffers(cell, rows, scratch, turn.members(), turn.member);
  auto still_running = [&](i64 step, i64 from) {
    while (from > 0 && s.length(first + from - 1) <= step) from--;
    return from;
  };
  const T* h = buffers.h[0];
  i64 running = still_running(0, rows);
  turn.run(all, grain, [&](i64 from, i64 to) {
    begin(s, buffers, first, rows, Units<T>{from, to});
    finish(s, out, buffers, h, first, running, rows, Units<T>{from, to});
  });
  for (i64 t = 0; running > 0;) {
    // A chunk: steps [t, end) and their rows, projected together.
    i64 end = t, total = 0;
    for (i64 n = running; n > 0 && (end == t || total + n <= CHUNK_ROWS); n = still_running(end, n)) {
      total += n;
      end++;
    }
    turn.run(total, 1, [&](i64 from, i64 to) {
      i64 row = 0;
      for (i64 at = t, n = running; at < end; n = still_running(++at, n)) {
        for (i64 i = 0; i < n; i++, row++) {
          if (row < from || row >= to) continue;
          const T* x = s.x + s.order[first + i] * s.x_row + s.time(first + i, at) * s.x_step;
          copy_padded(x, cell.D, buffers.xs + row * buffers.x_stride);
        }
      }
    });
    turn.run(all, grain, [&](i64 from, i64 to) {
      project(total, static_cast<const T*>(buffers.xs), buffers.x_stride, packed, cell.blocks(),
              Units<T>{from, to}, buffers);
    });
    const T* projected = buffers.projected;
    for (; t < end; t++) {
      for (i64 i = 0; i < running; i++) {
        const i64 at = s.order[first + i] * s.T_ + s.time(first + i, t);
        if (out.y != nullptr) buffers.y[i] = out.y + at * H;
        if (out.kept != nullptr) buffers.kept[i] = out.kept + at * cell.kept() * width;
      }
      T* next = h == buffers.h[0] ? buffers.h[1] : buffers.h[0];
      const Step<T> step{cell,        buffers,          projected,          packed.b_h,
                         packed.peep, h,                next,               out.y != nullptr,
                         out.kept != nullptr && cell.kept() > 0,
                         out.stream};
      const i64 left = still_running(t + 1, running);
      run_step(
          running, step, packed, turn,
          [&](Units<T> units) {
            for (i64 i = 0; out.projected != nullptr && i < running; i++) {
              const i64 at = s.order[first + i] * s.T_ + s.time(first + i, t);
              show_projections(cell, out, buffers, projected, at, i, units);
            }
          },
          [&](Units<T> units) {
            if (left < running) finish(s, out, buffers, next, first, left, running, units);
          });
      h = next;
      projected += running * buffers.projected_stride;
      running = left;
    }
  }
  turn.run(rows, 1, [&](i64 from, i64 to) { clear_past(s, out, first + from, first + to); });
  if (out.stream || out.stream_projected) end_of_streams();
}

}  // namespace
