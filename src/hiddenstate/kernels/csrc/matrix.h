// Products of a few rows with packed weights, and sums of outer products over many rows.
//
// Weights are packed in panels of WIDTH column blocks, a block being one vector of columns: for each
// k, the vectors of a panel lie side by side. Where the gates of a cell are wanted together, a panel
// holds all gates of one vector of hidden units; elsewhere a panel has four blocks, and blocks that
// fill no panel stand alone.
//
// Every element of a product is one chain of fma over k in rising order from its first value,
// whatever the tile: results do not depend on how many rows run together.
#pragma once
#include "simd.h"

namespace {

struct Half {  // bfloat16: the upper half of a float32
  std::uint16_t bits;
};

constexpr int smaller(int a, int b) { return a < b ? a : b; }
template <class T> constexpr i64 units_of(i64 n) { return (n + LANES<T> - 1) / LANES<T>; }
template <class T> constexpr i64 padded(i64 n) { return units_of<T>(n) * LANES<T>; }
// Rows of a working buffer are one vector longer: rows a power of two apart would share cache sets.
template <class T> constexpr i64 spaced(i64 n) { return padded<T>(n) + LANES<T>; }

// Elements that a panel holds for each unit and gate: bfloat16 comes in pairs of k.
template <class T, class W> constexpr i64 panel_depth(i64 k) {
  return (sizeof(W) == sizeof(Half) ? (k + 1) / 2 * 2 : k) * LANES<T>;
}

template <class T, int ROWS, int COLUMNS> struct Tile {
  Vec<T> v[ROWS][COLUMNS];
};

// tile += A [ROWS, K] @ panels. GROUPS panels of WIDTH vectors lie `next` elements apart.
template <int ROWS, int GROUPS, int WIDTH, class T, class W>
INLINE void multiply_add(Tile<T, ROWS, GROUPS * WIDTH>& tile, i64 K, const T* A, i64 stride,
                         const W* panel, i64 next) {
  constexpr int N = GROUPS * WIDTH;
  if constexpr (sizeof(W) == sizeof(Half)) {
    using Bits = typename Lanes<T>::Bits;
    using Loose = typename Lanes<T>::Loose;
    for (i64 k = 0; k < K; k += 2) {
      const bool both = k + 1 < K;
      Vec<T> even[ROWS], odd[ROWS];
      UNROLL for (int i = 0; i < ROWS; i++) {
        even[i] = all(A[i * stride + k]);
        odd[i] = all(both ? A[i * stride + k + 1] : T(0));
      }
      UNROLL for (int j = 0; j < N; j++) {
        const W* at = panel + (j / WIDTH) * next + (j % WIDTH) * 2 * LANES<T>;
        const Bits pair = reinterpret_cast<Bits>(Vec<T>(*reinterpret_cast<const Loose*>(at)));
        const auto low = reinterpret_cast<Vec<T>>(pair << 16);
        const auto high = reinterpret_cast<Vec<T>>(pair & static_cast<std::int32_t>(0xffff0000u));
        UNROLL for (int i = 0; i < ROWS; i++) {
          tile.v[i][j] = fma(odd[i], high, fma(even[i], low, tile.v[i][j]));
        }
      }
      panel += 2 * WIDTH * LANES<T>;
    }
  } else {
    for (i64 k = 0; k < K; k++) {
      Vec<T> b[N];
      UNROLL for (int j = 0; j < N; j++) {
        const W* at = panel + (j / WIDTH) * next + (j % WIDTH) * LANES<T>;
        if constexpr (sizeof(W) == 1) b[j] = widen(at);
        else b[j] = load(at);
      }
      UNROLL for (int i = 0; i < ROWS; i++) {
        const Vec<T> a = all(A[i * stride + k]);
        UNROLL for (int j = 0; j < N; j++) tile.v[i][j] = fma(a, b[j], tile.v[i][j]);
      }
      panel += WIDTH * LANES<T>;
    }
  }
}

// f<ROWS>(first row) over n rows, in blocks of nearly equal height that fill the registers (float64
// and narrow weights take low blocks: they need not be fast, and each height is more code).
template <class T, class W, int WIDTH, class Function>
INLINE void for_row_blocks(i64 n, Function f) {
  constexpr bool FAST = sizeof(T) == 4 && sizeof(W) == 4;
  constexpr int MOST = smaller(FAST ? 8 : 2, ACCUMULATORS / WIDTH);
  const i64 blocks = (n + MOST - 1) / MOST;
  i64 row = 0;
  for (i64 block = 0; block < blocks; block++) {
    const i64 rows = (n - row + blocks - block - 1) / (blocks - block);
    switch (rows) {
      case 1: f.template operator()<1>(row); break;
      case 2: f.template operator()<smaller(2, MOST)>(row); break;
      case 3: f.template operator()<smaller(3, MOST)>(row); break;
      case 4: f.template operator()<smaller(4, MOST)>(row); break;
      case 5: f.template operator()<smaller(5, MOST)>(row); break;
      case 6: f.template operator()<smaller(6, MOST)>(row); break;
      case 7: f.template operator()<smaller(7, MOST)>(row); break;
      default: f.template operator()<MOST>(row); break;
    }
    row += rows;
  }
}

template <class T, class W, int WIDTH> struct Panels {
  const W* data;
  i64 depth, blocks;
  const float* scale = nullptr;  // [blocks, LANES], int8 only
  i64 first = 0;                 // a product begins here

  // Blocks [from, to) alone; `from` is where a panel begins, `to` where one ends.
  INLINE Panels part(i64 from, i64 to) const { return {data, depth, to, scale, from}; }
  INLINE const W* at(i64 block) const { return data + block * panel_depth<T, W>(depth); }
};

// done(tile, row) with tile = first(row, j) + A [n, depth] @ the GROUPS panels of WIDTH from block.
template <int ROWS, int GROUPS, int WIDTH, class T, class W, int P, class First, class Done>
INLINE void run_tile(const T* A, i64 stride, const Panels<T, W, P>& panels, i64 block, First first,
                     Done done) {
  constexpr int N = GROUPS * WIDTH;
  constexpr bool SCALED = sizeof(W) == 1;
  Tile<T, ROWS, N> tile;
  UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++) {
    tile.v[i][j] = SCALED ? Vec<T>{} : first(i, j);
  }
  multiply_add<ROWS, GROUPS, WIDTH>(tile, panels.depth, A, stride, panels.at(block),
                                    WIDTH * panel_depth<T, W>(panels.depth));
  if constexpr (SCALED) {
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < N; j++) {
      tile.v[i][j] = fma(tile.v[i][j], load(panels.scale + (block + j) * LANES<T>), first(i, j));
    }
  }
  done(tile);
}

// C [n, blocks] = base [n, blocks] + bias [blocks] + A [n, depth] @ panels; without a base or a bias
// (null) zero stands for it, and C may be its own base. One row alone runs two panels at a time:
// eight chains hide the latency of fma that four would show.
template <class T, class W>
__attribute__((noinline)) void plain_product(i64 n, const T* A, i64 stride,
                                             const Panels<T, W, 4>& panels, const T* base,
                                             i64 base_stride, const T* bias, T* C, i64 c_stride) {
  auto run = [&]<int ROWS, int GROUPS, int WIDTH>(i64 row, i64 block) ALWAYS {
    T* to = C + row * c_stride + block * LANES<T>;
    run_tile<ROWS, GROUPS, WIDTH>(
        A + row * stride, stride, panels, block,
        [&](int i, int j) ALWAYS {
          const i64 at = (block + j) * LANES<T>;
          const Vec<T> value = base == nullptr ? Vec<T>{} : load(base + (row + i) * base_stride + at);
          return bias == nullptr ? value : value + load(bias + at);
        },
        [&](const Tile<T, ROWS, GROUPS * WIDTH>& tile) ALWAYS {
          UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < GROUPS * WIDTH; j++) {
            store(to + i * c_stride + j * LANES<T>, tile.v[i][j]);
          }
        });
  };
  i64 block = panels.first;
  if (n == 1) {
    for (; block + 8 <= panels.blocks; block += 8) run.template operator()<1, 2, 4>(0, block);
  }
  for (; block + 4 <= panels.blocks; block += 4) {
    for_row_blocks<T, W, 4>(n, [&]<int ROWS>(i64 row) ALWAYS {
      run.template operator()<ROWS, 1, 4>(row, block);
    });
  }
  for (; block < panels.blocks; block++) {
    for_row_blocks<T, W, 1>(n, [&]<int ROWS>(i64 row) ALWAYS {
      run.template operator()<ROWS, 1, 1>(row, block);
    });
  }
}

// done(sums, row, unit) for the G gates of every row and unit of first(row, unit, g) + A @ panels.
template <class T, class W, int G, class First, class Done>
INLINE void gate_product(i64 n, const T* A, i64 stride, const Panels<T, W, G>& panels, First first,
                         Done done) {
  auto run = [&]<int ROWS, int GROUPS>(i64 row, i64 unit) ALWAYS {
    run_tile<ROWS, GROUPS, G>(
        A + row * stride, stride, panels, unit * G,
        [&](int i, int j) ALWAYS { return first(row + i, unit + j / G, j % G); },
        [&](const Tile<T, ROWS, GROUPS * G>& tile) ALWAYS {
          UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int u = 0; u < GROUPS; u++) {
            done(tile.v[i] + u * G, row + i, unit + u);
          }
        });
  };
  const i64 units = panels.blocks / G;
  i64 unit = panels.first / G;
  if (n == 1) {
    for (; unit + 2 <= units; unit += 2) run.template operator()<1, 2>(0, unit);
  }
  for (; unit < units; unit++) {
    for_row_blocks<T, W, G>(n, [&]<int ROWS>(i64 row) ALWAYS {
      run.template operator()<ROWS, 1>(row, unit);
    });
  }
}

// C [M, N] (+)= sum over k < n of A[k, m] B[k, n]: rows of C are `c_stride` apart and padded to
// whole vectors, as those of B. SUMMED rows at a time are one chain from zero, so that a sum over
// many is more exact than one long chain, and the same for any number of threads.
constexpr i64 SUMMED = 256;

template <class T, int WIDTH>
void outer_panel(i64 n, i64 M, const T* A, i64 a_stride, const T* B, i64 b_stride, T* C,
                 i64 c_stride, bool add) {
  // Read once for every few rows of C: side by side, the prefetcher keeps up.
  alignas(64) T packed[SUMMED * WIDTH * LANES<T>];
  for (i64 k = 0; k < n; k++) {
    UNROLL for (int j = 0; j < WIDTH; j++) {
      store(packed + (k * WIDTH + j) * LANES<T>, load(B + k * b_stride + j * LANES<T>));
    }
  }
  for_row_blocks<T, T, WIDTH>(M, [&]<int ROWS>(i64 m) ALWAYS {
    Tile<T, ROWS, WIDTH> tile{};
    const T *a = A + m, *b = packed;
    for (i64 k = 0; k < n; k++, a += a_stride, b += WIDTH * LANES<T>) {
      __builtin_prefetch(a + 8 * a_stride);
      Vec<T> loaded[WIDTH];
      UNROLL for (int j = 0; j < WIDTH; j++) loaded[j] = load(b + j * LANES<T>);
      UNROLL for (int i = 0; i < ROWS; i++) {
        const Vec<T> each = all(a[i]);
        UNROLL for (int j = 0; j < WIDTH; j++) tile.v[i][j] = fma(each, loaded[j], tile.v[i][j]);
      }
    }
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < WIDTH; j++) {
      T* to = C + (m + i) * c_stride + j * LANES<T>;
      store(to, add ? load(to) + tile.v[i][j] : tile.v[i][j]);
    }
  });
}

template <class T>
void outer_products(i64 n, i64 M, i64 units, const T* A, i64 a_stride, const T* B, i64 b_stride,
                    T* C, i64 c_stride, bool add) {
  for (i64 k = 0; k < n; k += SUMMED, add = true) {
    const i64 rows = n - k < SUMMED ? n - k : SUMMED;
    const T *a = A + k * a_stride, *b = B + k * b_stride;
    for (i64 unit = 0; unit < units;) {
      const i64 at = unit * LANES<T>;
      if (unit + 4 <= units) {
        outer_panel<T, 4>(rows, M, a, a_stride, b + at, b_stride, C + at, c_stride, add);
        unit += 4;
      } else {
        outer_panel<T, 1>(rows, M, a, a_stride, b + at, b_stride, C + at, c_stride, add);
        unit += 1;
      }
    }
  }
}

}  // namespace
