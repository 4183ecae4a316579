// What the compiled kernels are asked, as plain data: shared by the boundary (arguments.h), which
// fills and checks it, and the code of each instruction set (isa.cpp), which trusts it.
#pragma once
#include <cstdint>

#include "shares.h"

namespace hiddenstate {

using i64 = std::int64_t;

enum class Kind : int { ELMAN_TANH, ELMAN_RELU, LSTM, LSTM_COUPLED, LSTM_1997, GRU_AFTER, GRU_BEFORE };

struct Cell {
  Kind kind;
  bool peephole;  // LSTM: gates see c
  bool writes;    // GRU: z is the share that is written, not the share that is kept
  i64 D, H;

  bool lstm() const { return kind >= Kind::LSTM && kind <= Kind::LSTM_1997; }
  bool gru() const { return kind >= Kind::GRU_AFTER; }
  // Blocks of H rows in w_x and w_h: h; i f g o; i g o; r z n.
  i64 blocks() const { return kind <= Kind::ELMAN_RELU ? 1 : kind == Kind::LSTM ? 4 : 3; }
  // Blocks kept of each step: none; i f g o c; i g o c; (W_hn h + b_hn) r z n; r z n.
  i64 kept() const {
    switch (kind) {
      case Kind::ELMAN_TANH: case Kind::ELMAN_RELU: return 0;
      case Kind::LSTM: return 5;
      case Kind::GRU_BEFORE: return 3;
      default: return 4;
    }
  }
  // Blocks of the gradient of the rows: as blocks(), and before them r * dn where W_hn h is reset.
  i64 gradient_blocks() const { return blocks() + (kind == Kind::GRU_AFTER); }
};

// One cell's parameters as they come: dense, rows in the cell's order, null where it has none.
template <class T> struct Parameters {
  const T *w_x, *w_h, *b_x, *b_h, *p_i, *p_f, *p_o;
};

enum class Precision : int { FULL, BFLOAT16, INT8 };

// B rows over T steps. Row b runs lengths[b] steps, forwards or (reverse) from its last to its
// first; order lists the rows by falling length, so that those still running come first.
template <class T> struct Sequences {
  Cell cell;
  i64 B, T_;
  bool reverse;
  const i64 *lengths, *order;
  const T* x;
  i64 x_row, x_step;  // strides in elements; the last axis is dense
  const T *h0, *c0;   // [B, H] dense, or null for zeros

  i64 length(i64 i) const { return lengths[order[i]]; }
  i64 time(i64 i, i64 s) const { return reverse ? length(i) - 1 - s : s; }
};

// Where forward writes; null where it is not wanted. Hp is H padded to whole vectors.
template <class T> struct Results {
  T *y;          // [B, T, H], zero past a row's length
  T *h, *c;      // [B, H]
  T *kept;       // [B, T, kept blocks, Hp]
  T *projected;  // [B, T, blocks, Hp]: W_x x + b_x
  bool clear;    // kept and projected are zero past a row's length
  bool stream, stream_projected;  // kept, and projected, are stored past the caches
};

template <class T> struct Upstream {
  const T *y, *kept;
  const T* dy;
  i64 dy_row, dy_step;
  const T *dh, *dc;         // [B, H] dense, or null for zeros
  T *dx, *dh0, *dc0;        // dense [B, T, D], [B, H]; null where not wanted
};

// Working buffers of the way back over the steps [0, max length): row base[s] + i of each holds
// step s of the i-th row in order. A single thread goes chunk by chunk and reuses the space.
template <class T> struct Workspace {
  const i64* base;
  T *dg, *xs, *dxs, *hs, *rh, *c_before, *c_after;
  T** dx;  // where each row of dxs belongs
};

// Sums over all rows and steps, each row padded to `spaced` elements.
template <class T> struct Sums {
  T *w_x, *w_h, *bias, *p_i, *p_f, *p_o;
};

// The functions of one instruction set, for one type. Sizes come first, so that the boundary can
// allocate: `spaced` and `padded` are the strides of working rows and of kept blocks.
template <class T> struct Functions {
  i64 (*spaced)(i64 n);
  i64 (*padded)(i64 n);
  i64 (*packed_bytes)(const Cell&, Precision);
  void (*pack)(const Cell&, Precision, const Parameters<T>&, char* packed);
  i64 (*packed_backward_bytes)(const Cell&);
  void (*pack_backward)(const Cell&, const Parameters<T>&, char* packed);
  // Of all members that go over the same rows; so it is with the two below.
  i64 (*forward_scratch)(const Cell&, i64 rows, i64 members);
  // Rows [first, last) of the order over all their steps.
  void (*forward)(const Sequences<T>&, Precision, const char* packed, const Results<T>&, i64 first,
                  i64 last, char* scratch, Turn);
  // One step of n rows in place: x rows x_stride apart, rows of h and c `spaced` apart.
  void (*step)(const Cell&, Precision, const char* packed, i64 n, const T* x, i64 x_stride, T* h,
               T* c, char* scratch, Turn&);
  i64 (*backward_scratch)(const Cell&, i64 rows);
  // Rows [first, last) of the order, back from step `from` to step `to`. The calls for one range of
  // rows share their scratch, start at the longest length and end at 0.
  void (*backward)(const Sequences<T>&, const char* packed, const Upstream<T>&, const Workspace<T>&,
                   i64 from, i64 to, i64 first, i64 last, char* scratch);
  // dx of n rows of the workspace, once their steps have been gone back over.
  void (*input_gradients)(const Cell&, const char* packed, const Workspace<T>&, i64 row, i64 n);
  // Add n rows of the workspace to the sums: the part-th of `parts` shares of them.
  void (*accumulate)(const Cell&, const Workspace<T>&, i64 row, i64 n, const Sums<T>&, bool add,
                     i64 part, i64 parts);
  // Columns [from, to) of one sequence [steps, D].
  void (*linear_scan)(i64 steps, i64 D, const T* a, const T* b, const T* first, T* h, i64 from,
                      i64 to, bool stream);
  void (*linear_scan_backward)(i64 steps, i64 D, const T* a, const T* h, const T* first,
                               const T* dh, T* da, T* db, T* d_first, i64 from, i64 to, bool stream);
  i64 (*packed_linear_bytes)(i64 inputs, i64 outputs);
  void (*pack_linear)(i64 inputs, i64 outputs, const T* w, const T* b, char* packed);
  void (*linear)(i64 n, i64 inputs, i64 outputs, const T* x, i64 x_stride, const char* packed, T* y);
};

struct InstructionSet {
  const char* name;
  Functions<float> single;
  Functions<double> twice;
  double (*multiply_adds)(i64 times, double* sink);
  void (*activations)(int which, i64 n, const float* x, float* y);
};

}  // namespace hiddenstate
