// A step's product with each sum in one chain (the kernels' own code) and in several, to see what
// the fixed order of summation costs. It is compiled at the time of measuring, for this machine.
#include "../../src/hiddenstate/kernels/csrc/packing.h"

namespace {

// One row: CHAINS sums over every CHAINS-th k, added up at the end.
template <int CHAINS>
void several(const float* A, const Panels<float, float, 4>& panels, float* C) {
  constexpr int WIDTH = 4;
  for (i64 block = 0; block + WIDTH <= panels.blocks; block += WIDTH) {
    const float* panel = panels.at(block);
    F sums[CHAINS][WIDTH] = {};
    for (i64 k = 0; k < panels.depth; k += CHAINS) {
      UNROLL for (int part = 0; part < CHAINS; part++) {
        const F a = all(A[k + part]);
        UNROLL for (int j = 0; j < WIDTH; j++) {
          const float* at = panel + ((k + part) * WIDTH + j) * LANES<float>;
          sums[part][j] = fma(a, load(at), sums[part][j]);
        }
      }
    }
    UNROLL for (int j = 0; j < WIDTH; j++) {
      F sum = sums[0][j];
      UNROLL for (int part = 1; part < CHAINS; part++) sum = sum + sums[part][j];
      store(C + (block + j) * LANES<float>, sum);
    }
  }
}

Panels<float, float, 4> panels_of(i64 K, i64 N, const float* packed) {
  return {packed, K, units_of<float>(N)};
}

}  // namespace

extern "C" {

// w [N, K] into the layout of the products; N and K are multiples of 64.
void pack(i64 K, i64 N, const float* w, float* packed) {
  pack_panels<float, float, 4>(K, 0, K, N, 1, &w, K, 1, packed, nullptr);
}

// y [n, N] = x [n, K] w^T as the kernels compute it, `times` times over.
void one_chain(i64 times, i64 n, i64 K, i64 N, const float* x, const float* packed, float* y) {
  const float* none = nullptr;
  for (; times > 0; times--) plain_product(n, x, K, panels_of(K, N, packed), none, 0, none, y, N);
}

// The same for n = 1 with 2 or 4 sums over k.
void two_chains(i64 times, i64, i64 K, i64 N, const float* x, const float* packed, float* y) {
  for (; times > 0; times--) several<2>(x, panels_of(K, N, packed), y);
}
void four_chains(i64 times, i64, i64 K, i64 N, const float* x, const float* packed, float* y) {
  for (; times > 0; times--) several<4>(x, panels_of(K, N, packed), y);
}
}
