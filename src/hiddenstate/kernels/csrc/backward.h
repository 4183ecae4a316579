// Back-propagation through time, from the gates that the way forward kept.
//
// Each step turns dL/dh (and dL/dc) into the gradient of the rows of w_x and w_h (dg) and, with one
// product, into dL/dh of the step before. The sums over time for the weights are made later, from
// dg and the inputs of many steps at once (`accumulate`): those are matrix products at full speed.
// Rows of the working buffers are in a fixed order (steps falling, rows by falling length), and each
// chunk's sum starts from zero, so that results do not depend on the number of threads.
#pragma once
#include "forward.h"

namespace {

template <class T> struct BackwardBuffers {
  T *dh, *dc, *drh;
  const T **kept, **before, **dy;
  T** dx;
  i64 width, bytes;

  BackwardBuffers(const Cell& cell, i64 rows, char* memory) {
    Pieces pieces{memory};
    width = spaced<T>(cell.H);
    dh = pieces.take<T>(rows * width);
    dc = pieces.take<T>(cell.lstm() ? rows * width : 0);
    drh = pieces.take<T>(cell.kind == Kind::GRU_BEFORE ? rows * width : 0);
    kept = pieces.take<const T*>(rows);
    before = pieces.take<const T*>(rows);
    dy = pieces.take<const T*>(rows);
    dx = pieces.take<T*>(rows);
    bytes = pieces.used;
  }
};

// f(offset, lanes) over the vectors of H units; all but the last are whole.
template <class T, class Function> INLINE void for_units(i64 H, Function f) {
  i64 j = 0;
  for (; j + LANES<T> <= H; j += LANES<T>) f(j, LANES<T>);
  if (j < H) f(j, static_cast<int>(H - j));
}

template <class T> struct BackwardStep {
  const Cell& cell;
  const BackwardBuffers<T>& buffers;
  const Workspace<T>& work;
  const T* peep;
  i64 row;  // of the workspace
  i64 h_stride, dg_stride;

  INLINE Vec<T> dh(i64 i, i64 j, int lanes) const {
    const Vec<T> own = load(buffers.dh + i * buffers.width + j);
    return buffers.dy[i] == nullptr ? own : own + load_part(buffers.dy[i] + j, lanes);
  }
  INLINE Vec<T> kept(i64 i, int block, i64 j) const {
    return load(buffers.kept[i] + block * padded<T>(cell.H) + j);
  }
  INLINE Vec<T> h(i64 i, i64 j) const { return load(work.hs + (row + i) * h_stride + j); }
  INLINE void put(i64 i, int block, i64 j, int lanes, Vec<T> value) const {
    store_part(work.dg + (row + i) * dg_stride + block * cell.H + j, value, lanes);
  }
};

// One minus the square: the slope of tanh at its value x.
template <class T> INLINE Vec<T> slope(Vec<T> x) { return fma(-x, x, all(T(1))); }

template <class T> void elman_back(i64 n, const BackwardStep<T>& step, const T* const* y) {
  const bool relu = step.cell.kind == Kind::ELMAN_RELU;
  for (i64 i = 0; i < n; i++) {
    for_units<T>(step.cell.H, [&](i64 j, int lanes) ALWAYS {
      const Vec<T> h = load_part(y[i] + j, lanes), d = step.dh(i, j, lanes);
      const Vec<T> zero{};
      step.put(i, 0, j, lanes, relu ? (h > zero ? d : zero) : d * slope<T>(h));
    });
  }
}

template <class T> void lstm_back(i64 n, const BackwardStep<T>& step, i64 G) {
  const Cell& cell = step.cell;
  const int g_at = static_cast<int>(G) - 2, o_at = static_cast<int>(G) - 1, c_at = static_cast<int>(G);
  const i64 width = padded<T>(cell.H);
  const Vec<T> one = all(T(1)), zero{};
  for (i64 i = 0; i < n; i++) {
    for_units<T>(cell.H, [&](i64 j, int lanes) ALWAYS {
      const Vec<T> I = step.kept(i, 0, j), g = step.kept(i, g_at, j), o = step.kept(i, o_at, j);
      const Vec<T> c = step.kept(i, c_at, j);
      const T* before = step.buffers.before[i];
      const Vec<T> old = before == nullptr ? zero : load_part(before + j, lanes);
      const Vec<T> f = G == 4 ? step.kept(i, 1, j)
                              : (cell.kind == Kind::LSTM_COUPLED ? one - I : one);
      const Vec<T> shown = hyperbolic_tangent(c), dh = step.dh(i, j, lanes);
      T* dc_at = step.buffers.dc + i * step.buffers.width + j;
      const Vec<T> d_o = dh * shown * o * (one - o);
      Vec<T> dc = fma(dh * o, slope<T>(shown), load(dc_at));
      if (cell.peephole) dc = fma(d_o, load(step.peep + 2 * width + j), dc);
      const Vec<T> opposed = cell.kind == Kind::LSTM_COUPLED ? g - old : g;
      const Vec<T> d_i = dc * opposed * I * (one - I);
      step.put(i, 0, j, lanes, d_i);
      Vec<T> d_old = dc * f;
      if (G == 4) {
        const Vec<T> d_f = dc * old * f * (one - f);
        step.put(i, 1, j, lanes, d_f);
        if (cell.peephole) d_old = fma(d_f, load(step.peep + width + j), d_old);
      }
      step.put(i, g_at, j, lanes, dc * I * slope<T>(g));
      step.put(i, o_at, j, lanes, d_o);
      if (cell.peephole) {
        d_old = fma(d_i, load(step.peep + j), d_old);
        store(step.work.c_before + (step.row + i) * step.h_stride + j, old);
        store(step.work.c_after + (step.row + i) * step.h_stride + j, c);
      }
      store(dc_at, d_old);
    });
  }
}

// dh becomes the part of dL/dh of the step before that does not go through a product.
template <class T> void gru_after_back(i64 n, const BackwardStep<T>& step) {
  const Vec<T> one = all(T(1));
  const bool writes = step.cell.writes;
  for (i64 i = 0; i < n; i++) {
    for_units<T>(step.cell.H, [&](i64 j, int lanes) ALWAYS {
      const Vec<T> past = step.kept(i, 0, j), r = step.kept(i, 1, j), z = step.kept(i, 2, j);
      const Vec<T> c = step.kept(i, 3, j), h = step.h(i, j), dh = step.dh(i, j, lanes);
      const Vec<T> written = writes ? z : one - z, difference = writes ? c - h : h - c;
      const Vec<T> dn = dh * written * slope<T>(c);
      step.put(i, 0, j, lanes, dn * r);
      step.put(i, 1, j, lanes, dn * past * r * (one - r));
      step.put(i, 2, j, lanes, dh * difference * z * (one - z));
      step.put(i, 3, j, lanes, dn);
      store(step.buffers.dh + i * step.buffers.width + j, dh * (writes ? one - z : z));
    });
  }
}

// C = base (or zero) + dg @ panels
template <class T>
INLINE void times_weights(i64 n, const T* dg, i64 dg_stride, const Panels<T, T, 4>& panels,
                          const T* base, T* C, i64 stride) {
  plain_product(n, dg, dg_stride, panels, base, stride, static_cast<const T*>(nullptr), C, stride);
}

template <class T>
void gru_before_back(i64 n, const BackwardStep<T>& step, const Panels<T, T, 4>& n_panels) {
  const Vec<T> one = all(T(1));
  const bool writes = step.cell.writes;
  const i64 H = step.cell.H;
  for (i64 i = 0; i < n; i++) {
    for_units<T>(H, [&](i64 j, int lanes) ALWAYS {
      const Vec<T> z = step.kept(i, 1, j), c = step.kept(i, 2, j), h = step.h(i, j);
      const Vec<T> dh = step.dh(i, j, lanes);
      const Vec<T> written = writes ? z : one - z, difference = writes ? c - h : h - c;
      step.put(i, 1, j, lanes, dh * difference * z * (one - z));
      step.put(i, 2, j, lanes, dh * written * slope<T>(c));
      store(step.buffers.dh + i * step.buffers.width + j, dh * (writes ? one - z : z));
    });
  }
  times_weights(n, step.work.dg + step.row * step.dg_stride + 2 * H, step.dg_stride, n_panels,
                static_cast<const T*>(nullptr), step.buffers.drh, step.buffers.width);
  for (i64 i = 0; i < n; i++) {
    for_units<T>(H, [&](i64 j, int lanes) ALWAYS {
      const Vec<T> r = step.kept(i, 0, j), h = step.h(i, j);
      const Vec<T> drh = load(step.buffers.drh + i * step.buffers.width + j);
      step.put(i, 0, j, lanes, drh * h * r * (one - r));
      store(step.work.rh + (step.row + i) * step.h_stride + j, r * h);
      T* dh = step.buffers.dh + i * step.buffers.width + j;
      store(dh, fma(drh, r, load(dh)));
    });
  }
}

// dx of n rows of the workspace, of whatever steps: one product for many.
template <class T>
void input_gradients(const Cell& cell, const char* memory, const Workspace<T>& work, i64 row, i64 n) {
  const PackedBackward<T> packed(cell, const_cast<char*>(memory));
  const i64 stride = spaced<T>(cell.gradient_blocks() * cell.H), x_stride = spaced<T>(cell.D);
  const T* dg = work.dg + row * stride + (cell.gradient_blocks() - cell.blocks()) * cell.H;
  T* sums = work.dxs + row * x_stride;
  times_weights(n, dg, stride, packed.x_panels(), static_cast<const T*>(nullptr), sums, x_stride);
  for (i64 i = 0; i < n; i++) copy_exact(sums + i * x_stride, cell.D, work.dx[row + i]);
}

template <class T>
void backward(const Sequences<T>& s, const char* memory, const Upstream<T>& up,
              const Workspace<T>& work, i64 from, i64 to, i64 first, i64 last, char* scratch) {
  const Cell& cell = s.cell;
  const i64 rows = last - first, H = cell.H, D = cell.D, width = padded<T>(H);
  const PackedBackward<T> packed(cell, const_cast<char*>(memory));
  const BackwardBuffers<T> buffers(cell, rows, scratch);
  const i64 dg_stride = spaced<T>(cell.gradient_blocks() * H), x_stride = spaced<T>(D);
  const i64 h_stride = spaced<T>(H), kept_row = cell.kept() * width;
  const bool after = cell.kind == Kind::GRU_AFTER;
  if (from == s.length(0)) {  // the start of the way back, for all rows
    for (i64 i = 0; i < rows; i++) {
      const i64 row = s.order[first + i];
      T *dh = buffers.dh + i * buffers.width, *dc = buffers.dc + i * buffers.width;
      if (up.dh != nullptr) copy_padded(up.dh + row * H, H, dh);
      else zeros(dh, width);
      if (!cell.lstm()) continue;
      if (up.dc != nullptr) copy_padded(up.dc + row * H, H, dc);
      else zeros(dc, width);
    }
  }
  i64 running = 0;
  for (i64 t = from - 1; t >= to; t--) {
    while (running < rows && s.length(first + running) > t) running++;
    const i64 row = work.base[t] + first;
    for (i64 i = 0; i < running; i++) {
      const i64 b = s.order[first + i], at = b * s.T_ + s.time(first + i, t);
      const i64 previous = t > 0 ? b * s.T_ + s.time(first + i, t - 1) : 0;
      if (kept_row > 0) buffers.kept[i] = up.kept + at * kept_row;
      buffers.dy[i] = up.dy == nullptr
                          ? nullptr
                          : up.dy + b * up.dy_row + s.time(first + i, t) * up.dy_step;
      if (cell.lstm()) {
        buffers.before[i] = t > 0 ? up.kept + previous * kept_row + (cell.kept() - 1) * width
                            : s.c0 != nullptr ? s.c0 + b * H
                                              : nullptr;
      } else if (kept_row == 0) {
        buffers.kept[i] = up.y + at * H;
      }
      T* h = work.hs + (row + i) * h_stride;
      if (t > 0) copy_padded(up.y + previous * H, H, h);
      else if (s.h0 != nullptr) copy_padded(s.h0 + b * H, H, h);
      else zeros(h, width);
      if (up.dx != nullptr) work.dx[row + i] = up.dx + at * D;
      copy_padded(s.x + b * s.x_row + s.time(first + i, t) * s.x_step, D,
                  work.xs + (row + i) * x_stride);
    }
    const BackwardStep<T> step{cell, buffers, work, packed.peep, row, h_stride, dg_stride};
    if (cell.lstm()) lstm_back(running, step, cell.blocks());
    else if (after) gru_after_back(running, step);
    else if (cell.gru()) gru_before_back(running, step, packed.n_panels());
    else elman_back(running, step, buffers.kept);
    times_weights(running, work.dg + row * dg_stride, dg_stride, packed.h_panels(),
                  cell.gru() ? buffers.dh : nullptr, buffers.dh, buffers.width);
  }
  if (to > 0) return;
  for (i64 i = 0; i < rows; i++) {
    const i64 row = s.order[first + i];
    if (up.dh0 != nullptr) copy_exact(buffers.dh + i * buffers.width, H, up.dh0 + row * H);
    if (up.dc0 != nullptr) copy_exact(buffers.dc + i * buffers.width, H, up.dc0 + row * H);
    if (up.dx == nullptr) continue;
    zeros(up.dx + (row * s.T_ + s.length(first + i)) * D, (s.T_ - s.length(first + i)) * D);
  }
}

// out [M] (+)= the sum of n rows of A
template <class T>
void column_sums(i64 n, i64 M, const T* A, i64 stride, T* out, bool add) {
  for (i64 m = 0; m < M; m += LANES<T>) {
    Vec<T> sum{};
    for (i64 k = 0; k < n; k++) sum = sum + load(A + k * stride + m);
    store(out + m, add ? load(out + m) + sum : sum);
  }
}

// out [M] (+)= the sum over n rows of A * B, element by element
template <class T>
void column_products(i64 n, i64 M, const T* A, i64 a_stride, const T* B, i64 b_stride, T* out,
                     bool add) {
  for (i64 m = 0; m < M; m += LANES<T>) {
    Vec<T> sum{};
    for (i64 k = 0; k < n; k++) sum = fma(load(A + k * a_stride + m), load(B + k * b_stride + m), sum);
    store(out + m, add ? load(out + m) + sum : sum);
  }
}

// The part-th of `parts` shares of the columns of dg.
inline void share(i64 M, i64 part, i64 parts, i64& from, i64& to) {
  const i64 tiles = (M + 7) / 8;
  from = tiles * part / parts * 8;
  to = tiles * (part + 1) / parts * 8;
  if (to > M) to = M;
}

template <class T>
void accumulate(const Cell& cell, const Workspace<T>& work, i64 row, i64 n, const Sums<T>& sums,
                bool add, i64 part, i64 parts) {
  const i64 H = cell.H, all_rows = cell.gradient_blocks() * H, dg_stride = spaced<T>(all_rows);
  const i64 x_stride = spaced<T>(cell.D), h_stride = spaced<T>(H);
  const T *dg = work.dg + row * dg_stride, *hs = work.hs + row * h_stride;
  i64 from, to;
  auto outer = [&](i64 start, i64 M, const T* B, i64 b_stride, i64 width, T* C) {
    share(M, part, parts, from, to);
    outer_products(n, to - from, units_of<T>(width), dg + start + from, dg_stride, B, b_stride,
                   C + from * b_stride, b_stride, add);
  };
  const i64 x_rows = cell.blocks() * H;
  outer(all_rows - x_rows, x_rows, work.xs + row * x_stride, x_stride, cell.D, sums.w_x);
  if (cell.kind == Kind::GRU_BEFORE) {
    outer(0, 2 * H, hs, h_stride, H, sums.w_h);
    outer(2 * H, H, work.rh + row * h_stride, h_stride, H, sums.w_h + 2 * H * h_stride);
  } else {
    outer(0, x_rows, hs, h_stride, H, sums.w_h);
  }
  if (part > 0) return;
  column_sums(n, all_rows, dg, dg_stride, sums.bias, add);
  if (!cell.peephole) return;
  const T *before = work.c_before + row * h_stride, *after = work.c_after + row * h_stride;
  column_products(n, H, dg, dg_stride, before, h_stride, sums.p_i, add);
  if (cell.kind == Kind::LSTM) {
    column_products(n, H, dg + H, dg_stride, before, h_stride, sums.p_f, add);
  }
  column_products(n, H, dg + (cell.blocks() - 1) * H, dg_stride, after, h_stride, sums.p_o, add);
}

}  // namespace
