// Weights rearranged into the panels that matrix.h reads.
#pragma once
#include "matrix.h"
#include "problem.h"

namespace {

using namespace hiddenstate;

// Hands out pieces of a block of memory, each on its own cache line; from null it only counts.
struct Pieces {
  char* at;
  i64 used = 0;
  template <class T> T* take(i64 count) {
    T* piece = at == nullptr ? nullptr : reinterpret_cast<T*>(at + used);
    used += (count * static_cast<i64>(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
};

inline std::uint16_t bfloat16(float x) {  // to nearest, ties to even; NaN stays NaN
  std::uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Block unit * G + g holds columns [unit, unit + 1) * LANES of gate g; column n of it at depth k is
// w[g][n * n_stride + k * k_stride], for n < N and k < K. Rows [start, start + K) of panels `depth`
// deep and WIDTH blocks wide are written. int8: a scale for each column.
template <class T, class W, int WIDTH>
void pack_panels(i64 depth, i64 start, i64 K, i64 N, i64 G, const T* const* w, i64 n_stride,
                 i64 k_stride, W* out, float* scale) {
  constexpr int L = LANES<T>;
  constexpr bool PAIRS = sizeof(W) == sizeof(Half);
  const i64 blocks = units_of<T>(N) * G, together = blocks / WIDTH * WIDTH;
  for (i64 block = 0; block < blocks; block++) {
    const i64 unit = block / G, first = block < together ? block / WIDTH * WIDTH : block;
    const i64 width = block < together ? WIDTH : 1, column = block - first;
    W* panel = out + first * panel_depth<T, W>(depth);
    const i64 valid = N - unit * L < L ? N - unit * L : L;
    const T* from = w[block % G] + unit * L * n_stride;
    if constexpr (PAIRS) {
      for (i64 k = 0; k < (K + 1) / 2 * 2; k++) {
        W* to = panel + ((start + k) / 2 * width + column) * 2 * L + (start + k) % 2;
        for (i64 q = 0; q < L; q++) {
          const bool inside = q < valid && k < K;
          to[2 * q].bits = inside ? bfloat16(static_cast<float>(from[q * n_stride + k * k_stride])) : 0;
        }
      }
    } else if constexpr (sizeof(W) == 1) {
      for (i64 q = 0; q < L; q++) {
        T largest = 0;
        for (i64 k = 0; q < valid && k < K; k++) {
          const T each = from[q * n_stride + k * k_stride];
          const T size = each < 0 ? -each : each;
          // Written so that a NaN stays the largest and reaches the outputs.
          largest = size <= largest || largest != largest ? largest : size;
        }
        const T step = largest == 0 ? T(1) : largest / 127;
        scale[block * L + q] = static_cast<float>(step);
        for (i64 k = 0; k < K; k++) {
          const T ratio = q < valid ? from[q * n_stride + k * k_stride] / step : T(0);
          const bool finite = ratio >= -128 && ratio <= 127.5;
          panel[((start + k) * width + column) * L + q] =
              static_cast<W>(finite ? __builtin_rint(static_cast<double>(ratio)) : 0);
        }
      }
    } else {
      for (i64 k = 0; k < K; k++) {
        W* to = panel + ((start + k) * width + column) * L;
        const T* each = from + k * k_stride;
        if (valid == L) {
          if (n_stride == 1) store(to, load(each));
          else for (int q = 0; q < L; q++) to[q] = each[q * n_stride];
        } else {
          for (i64 q = 0; q < L; q++) to[q] = q < valid ? each[q * n_stride] : T(0);
        }
      }
    }
  }
}

template <class T, class W> struct Packed {
  T *b_x, *b_h, *peep;
  float *scale_x, *scale_h, *scale_n;
  W *x, *h, *n;
  i64 D, H, gates, blocks, bytes;

  Packed(const Cell& cell, char* memory) : D(cell.D), H(cell.H) {
    Pieces pieces{memory};
    const bool scaled = sizeof(W) == 1, before = cell.kind == Kind::GRU_BEFORE;
    const i64 units = units_of<T>(H), width = units * LANES<T>;
    blocks = cell.blocks();
    gates = blocks - before;  // the product r * h of a GRU that resets before has its own panels
    b_x = pieces.take<T>(blocks * width);
    b_h = pieces.take<T>(blocks * width);
    peep = pieces.take<T>(3 * width);
    scale_x = pieces.take<float>(scaled ? blocks * width : 0);
    scale_h = pieces.take<float>(scaled ? gates * width : 0);
    scale_n = pieces.take<float>(scaled && before ? width : 0);
    x = pieces.take<W>(blocks * units * panel_depth<T, W>(D));
    h = pieces.take<W>(gates * units * panel_depth<T, W>(H));
    n = pieces.take<W>(before ? units * panel_depth<T, W>(H) : 0);
    bytes = pieces.used;
  }
  INLINE auto x_panels() const { return Panels<T, W, 4>{x, D, blocks * units_of<T>(H), scale_x}; }
  template <int WIDTH> INLINE auto h_panels() const {
    return Panels<T, W, WIDTH>{h, H, gates * units_of<T>(H), scale_h};
  }
  INLINE auto n_panels() const { return Panels<T, W, 4>{n, H, units_of<T>(H), scale_n}; }
};

// Biases lie as the tiles want them: [units, gates, LANES].
template <class T> void pack_bias(const T* b, i64 H, i64 gates, T* out) {
  constexpr int L = LANES<T>;
  for (i64 unit = 0; unit < units_of<T>(H); unit++) {
    for (i64 g = 0; g < gates; g++) {
      for (i64 q = 0; q < L; q++) {
        const i64 h = unit * L + q;
        *out++ = b != nullptr && h < H ? b[g * H + h] : T(0);
      }
    }
  }
}

template <class T> void pack_peepholes(const Parameters<T>& p, i64 H, T* out) {
  const i64 width = padded<T>(H);
  const T* each[3] = {p.p_i, p.p_f, p.p_o};
  for (int g = 0; g < 3; g++) {
    for (i64 h = 0; h < width; h++) out[g * width + h] = each[g] && h < H ? each[g][h] : T(0);
  }
}

template <class T, class W>
void pack_forward(const Cell& cell, const Parameters<T>& p, char* memory) {
  const Packed<T, W> to(cell, memory);
  const i64 D = cell.D, H = cell.H;
  const T *x[4], *h[4];
  for (i64 g = 0; g < cell.blocks(); g++) {
    x[g] = p.w_x + g * H * D;
    h[g] = p.w_h + g * H * H;
  }
  pack_bias(p.b_x, H, cell.blocks(), to.b_x);
  pack_bias(p.b_h, H, cell.blocks(), to.b_h);
  pack_peepholes(p, H, to.peep);
  pack_panels<T, W, 4>(D, 0, D, H, cell.blocks(), x, D, 1, to.x, to.scale_x);
  if (to.gates == 3) pack_panels<T, W, 3>(H, 0, H, H, 3, h, H, 1, to.h, to.scale_h);
  else pack_panels<T, W, 4>(H, 0, H, H, to.gates, h, H, 1, to.h, to.scale_h);
  if (cell.kind == Kind::GRU_BEFORE) {
    pack_panels<T, W, 4>(H, 0, H, H, 1, h + 2, H, 1, to.n, to.scale_n);
  }
}

// The way back multiplies gradients of rows by the weights as they stand: plain panels. The
// gradients of a GRU that resets after the product are [r * dn | dr | dz | dn].
template <class T> struct PackedBackward {
  T *peep, *h, *n, *x;
  i64 D, H, h_depth, x_depth, bytes;

  PackedBackward(const Cell& cell, char* memory) : D(cell.D), H(cell.H) {
    Pieces pieces{memory};
    const i64 units = units_of<T>(H), before = cell.kind == Kind::GRU_BEFORE;
    x_depth = cell.blocks() * H;
    h_depth = x_depth - before * H;
    peep = pieces.take<T>(3 * units * LANES<T>);
    h = pieces.take<T>(units * panel_depth<T, T>(h_depth));
    n = pieces.take<T>(before * units * panel_depth<T, T>(H));
    x = pieces.take<T>(units_of<T>(D) * panel_depth<T, T>(x_depth));
    bytes = pieces.used;
  }
  INLINE auto h_panels() const { return Panels<T, T, 4>{h, h_depth, units_of<T>(H)}; }
  INLINE auto n_panels() const { return Panels<T, T, 4>{n, H, units_of<T>(H)}; }
  INLINE auto x_panels() const { return Panels<T, T, 4>{x, x_depth, units_of<T>(D)}; }
};

template <class T>
void pack_backward(const Cell& cell, const Parameters<T>& p, char* memory) {
  const PackedBackward<T> to(cell, memory);
  const i64 H = cell.H, D = cell.D;
  pack_peepholes(p, H, to.peep);
  auto rows = [&](i64 depth, i64 start, i64 count, const T* w, i64 width, T* panels) {
    pack_panels<T, T, 4>(depth, start, count, width, 1, &w, 1, width, panels, nullptr);
  };
  rows(to.x_depth, 0, to.x_depth, p.w_x, D, to.x);
  if (cell.kind == Kind::GRU_AFTER) {
    rows(to.h_depth, 0, H, p.w_h + 2 * H * H, H, to.h);
    rows(to.h_depth, H, 2 * H, p.w_h, H, to.h);
  } else {
    rows(to.h_depth, 0, to.h_depth, p.w_h, H, to.h);
    if (cell.kind == Kind::GRU_BEFORE) rows(H, 0, H, p.w_h + 2 * H * H, H, to.n);
  }
}

}  // namespace
