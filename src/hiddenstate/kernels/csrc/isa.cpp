// All kernels for one instruction set: compiled once for each, HIDDENSTATE_ISA being its name.
#include "backward.h"
#include "scan.h"

namespace {

#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

// f<W>() for the type of packed weights. Only float32 has narrow ones (the boundary sees to it).
template <class T, class Function> auto for_precision(Precision precision, Function f) {
  if constexpr (sizeof(T) == 4) {
    if (precision == Precision::BFLOAT16) return f.template operator()<Half>();
    if (precision == Precision::INT8) return f.template operator()<std::int8_t>();
  }
  return f.template operator()<T>();
}
template <class T> i64 packed_bytes_of(const Cell& cell, Precision precision) {
  return for_precision<T>(precision, [&]<class W>() { return Packed<T, W>(cell, nullptr).bytes; });
}
template <class T>
void pack_of(const Cell& cell, Precision precision, const Parameters<T>& p, char* memory) {
  for_precision<T>(precision, [&]<class W>() { pack_forward<T, W>(cell, p, memory); });
}
template <class T> i64 packed_backward_bytes_of(const Cell& cell) {
  return PackedBackward<T>(cell, nullptr).bytes;
}
template <class T> i64 forward_scratch_of(const Cell& cell, i64 rows, i64 members) {
  return Buffers<T>(cell, rows, nullptr, members).bytes;
}
template <class T> i64 backward_scratch_of(const Cell& cell, i64 rows) {
  return BackwardBuffers<T>(cell, rows, nullptr).bytes;
}
template <class T>
void forward_of(const Sequences<T>& s, Precision precision, const char* packed,
                const Results<T>& out, i64 first, i64 last, char* scratch, Turn turn) {
  for_precision<T>(precision, [&]<class W>() {
    forward<T, W>(s, packed, out, first, last, scratch, turn);
  });
}

template <class T>
void step_of(const Cell& cell, Precision precision, const char* packed, i64 n, const T* x,
             i64 x_stride, T* h, T* c, char* scratch, Turn& turn) {
  for_precision<T>(precision, [&]<class W>() {
    step_in_place<T, W>(cell, packed, n, x, x_stride, h, c, scratch, turn);
  });
}

// y [n, outputs] = x [n, inputs] W^T + b, each row with the same bits in any company; rows of y are
// padded to whole vectors.
template <class T> struct PackedLinear {
  T *bias, *weights;
  i64 bytes;
  PackedLinear(i64 inputs, i64 outputs, char* memory) {
    Pieces pieces{memory};
    bias = pieces.take<T>(padded<T>(outputs));
    weights = pieces.take<T>(units_of<T>(outputs) * panel_depth<T, T>(inputs));
    bytes = pieces.used;
  }
};
template <class T> i64 packed_linear_bytes(i64 inputs, i64 outputs) {
  return PackedLinear<T>(inputs, outputs, nullptr).bytes;
}
template <class T>
void pack_linear(i64 inputs, i64 outputs, const T* w, const T* b, char* memory) {
  const PackedLinear<T> to(inputs, outputs, memory);
  pack_bias(b, outputs, 1, to.bias);
  pack_panels<T, T, 4>(inputs, 0, inputs, outputs, 1, &w, inputs, 1, to.weights, nullptr);
}
template <class T>
void linear(i64 n, i64 inputs, i64 outputs, const T* x, i64 x_stride, const char* memory, T* y) {
  const PackedLinear<T> packed(inputs, outputs, const_cast<char*>(memory));
  const Panels<T, T, 4> panels{packed.weights, inputs, units_of<T>(outputs)};
  plain_product(n, x, x_stride, panels, static_cast<const T*>(nullptr), 0, packed.bias, y,
                padded<T>(outputs));
}

// Sixteen independent chains of fma: what the machine can do at most. Returns operations done.
double multiply_adds(i64 times, double* sink) {
  constexpr int CHAINS = ACCUMULATORS > 16 ? 16 : ACCUMULATORS - 2;
  F chain[CHAINS];
  for (int i = 0; i < CHAINS; i++) chain[i] = all(static_cast<float>(i) * 1e-3f);
  const F m = all(0.999f), c = all(1e-3f);
  for (i64 k = 0; k < times; k++) {
    UNROLL for (int i = 0; i < CHAINS; i++) chain[i] = fma(chain[i], m, c);
  }
  F sum{};
  for (int i = 0; i < CHAINS; i++) sum = sum + chain[i];
  *sink = static_cast<double>(sum[0]);
  return 2.0 * CHAINS * LANES<float> * static_cast<double>(times);
}

void activations(int which, i64 n, const float* x, float* y) {
  for (i64 i = 0; i < n; i += LANES<float>) {
    const int lanes = n - i < LANES<float> ? static_cast<int>(n - i) : LANES<float>;
    const F each = load_part(x + i, lanes);
    store_part(y + i, which == 0 ? hyperbolic_tangent(each) : sigmoid(each), lanes);
  }
}

template <class T> constexpr Functions<T> functions() {
  return {spaced<T>,
          padded<T>,
          packed_bytes_of<T>,
          pack_of<T>,
          packed_backward_bytes_of<T>,
          pack_backward<T>,
          forward_scratch_of<T>,
          forward_of<T>,
          step_of<T>,
          backward_scratch_of<T>,
          backward<T>,
          input_gradients<T>,
          accumulate<T>,
          linear_scan<T>,
          linear_scan_backward<T>,
          packed_linear_bytes<T>,
          pack_linear<T>,
          linear<T>};
}

}  // namespace

namespace hiddenstate {
namespace HIDDENSTATE_ISA {
extern const InstructionSet table;
const InstructionSet table{TEXT(HIDDENSTATE_ISA), functions<float>(), functions<double>(),
                           multiply_adds, activations};
}  // namespace HIDDENSTATE_ISA
}  // namespace hiddenstate
