// Multiply-add peak of one core: independent chains of fused multiply-adds that stay in registers.
// PEAK_LANES is the number of floats in a vector register. Twelve chains hide the latency of two units
// and leave room for the two factors among sixteen registers.
typedef float vector __attribute__((vector_size(4 * PEAK_LANES)));
constexpr int CHAINS = 12;

extern "C" int lanes() { return PEAK_LANES; }
extern "C" int chains() { return CHAINS; }

extern "C" double multiply_add(long steps) {
  vector sums[CHAINS];
  for (int i = 0; i < CHAINS; i++) sums[i] = vector{} + i * 1e-3f;
  const vector factor = vector{} + 0.999f, term = vector{} + 1e-3f;
  for (long step = 0; step < steps; step++) {
#pragma GCC unroll 12
    for (int i = 0; i < CHAINS; i++) sums[i] = sums[i] * factor + term;
  }
  double total = 0;
  for (const vector& sum : sums)
    for (int lane = 0; lane < PEAK_LANES; lane++) total += sum[lane];
  return total;
}
