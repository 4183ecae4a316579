// Vectors of one instruction set, and exp, sigmoid and tanh on them.
//
// Included only by isa.cpp, which is compiled once for each instruction set. Everything lives in an
// unnamed namespace and nothing here instantiates templates of the standard library: a weak symbol
// with AVX-512 code in it could be the one that the linker keeps for all.
//
// A product and a sum are fused only where fma() says so (the build passes -ffp-contract=off), so
// that the same row has the same bits in every tile shape, and on every instruction set that fuses.
#pragma once
#include <cstdint>
#include <cstring>
#include <math.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))
#define ALWAYS __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

namespace {

using i64 = std::int64_t;

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64, ACCUMULATORS = 24;
#elif defined(__AVX2__)
constexpr int VECTOR_BYTES = 32, ACCUMULATORS = 12;
#elif defined(__ARM_NEON)
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 24;
#else
constexpr int VECTOR_BYTES = 16, ACCUMULATORS = 12;
#endif

template <class T> struct Lanes;
template <> struct Lanes<float> {
  typedef float Vector __attribute__((vector_size(VECTOR_BYTES)));
  typedef float Loose __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
  typedef std::int32_t Bits __attribute__((vector_size(VECTOR_BYTES)));
};
template <> struct Lanes<double> {
  typedef double Vector __attribute__((vector_size(VECTOR_BYTES)));
  typedef double Loose __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
  typedef std::int64_t Bits __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T> using Vec = typename Lanes<T>::Vector;
template <class T> constexpr int LANES = VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T> INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Lanes<T>::Loose*>(p);
}
template <class T> INLINE void store(T* p, Vec<T> x) {
  *reinterpret_cast<typename Lanes<T>::Loose*>(p) = x;
}
// The first n lanes; the others read as zero and are not written.
template <class T> INLINE Vec<T> load_part(const T* p, int n) {
  if (n >= LANES<T>) return load(p);
  Vec<T> x{};
  memcpy(&x, p, static_cast<std::size_t>(n) * sizeof(T));
  return x;
}
template <class T> INLINE void store_part(T* p, Vec<T> x, int n) {
  if (n >= LANES<T>) return store(p, x);
  memcpy(p, &x, static_cast<std::size_t>(n) * sizeof(T));
}

using F = Vec<float>;
using D = Vec<double>;
// fma(a, b, c) = a * b + c in one rounding. lower(x, b) is b where x is under b, and x (NaN too)
// elsewhere; upper likewise. NaN must survive: a clamp that swallows it hides a broken model.
#if defined(__AVX512F__)
INLINE F all(float x) { return _mm512_set1_ps(x); }
INLINE D all(double x) { return _mm512_set1_pd(x); }
INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
INLINE D fma(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
// The unmasked forms start from an undefined register, of which GCC 12 warns.
INLINE F lower(F x, F bound) { return _mm512_maskz_max_ps(0xffff, bound, x); }
INLINE F upper(F x, F bound) { return _mm512_maskz_min_ps(0xffff, bound, x); }
#elif defined(__AVX2__)
INLINE F all(float x) { return _mm256_set1_ps(x); }
INLINE D all(double x) { return _mm256_set1_pd(x); }
INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
INLINE D fma(D a, D b, D c) { return _mm256_fmadd_pd(a, b, c); }
INLINE F lower(F x, F bound) { return _mm256_max_ps(bound, x); }
INLINE F upper(F x, F bound) { return _mm256_min_ps(bound, x); }
#elif defined(__ARM_NEON)
INLINE F all(float x) { return vdupq_n_f32(x); }
INLINE D all(double x) { return vdupq_n_f64(x); }
INLINE F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
INLINE D fma(D a, D b, D c) { return vfmaq_f64(c, a, b); }
INLINE F lower(F x, F bound) { return vmaxq_f32(bound, x); }
INLINE F upper(F x, F bound) { return vminq_f32(bound, x); }
#else
INLINE F all(float x) { return F{x, x, x, x}; }
INLINE D all(double x) { return D{x, x}; }
INLINE F fma(F a, F b, F c) { return a * b + c; }
INLINE D fma(D a, D b, D c) { return a * b + c; }
INLINE F lower(F x, F bound) { return bound > x ? bound : x; }
INLINE F upper(F x, F bound) { return bound < x ? bound : x; }
#endif

// One vector of whole numbers in a byte each.
INLINE F widen(const std::int8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
#elif defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
#else
  F x;
  for (int i = 0; i < LANES<float>; i++) x[i] = static_cast<float>(p[i]);
  return x;
#endif
}

// exp(x) = 2^n e^r with |r| <= ln(2) / 2 and a polynomial of degree 6, relative error 2e-9 before
// rounding. Adding 1.5 * 2^23 rounds to the nearest whole number and leaves it in the low bits.
INLINE F exponential(F x) {
  const F magic = all(12582912.0f);
  x = upper(lower(x, all(-87.0f)), all(88.0f));
  const F shifted = fma(x, all(1.442695041f), magic);
  const F n = shifted - magic;
  // ln 2 in two parts, the first short enough for n times it to be exact without fma too.
  const F r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), x));
  F p = all(1.383684555e-3f);
  p = fma(p, r, all(8.374815802e-3f));
  p = fma(p, r, all(4.166822558e-2f));
  p = fma(p, r, all(1.666642017e-1f));
  p = fma(p, r, all(4.999999208e-1f));
  p = fma(p, r, all(1.000000036f));
  p = fma(p, r, all(1.0f));
  using Bits = Lanes<float>::Bits;
  return reinterpret_cast<F>(reinterpret_cast<Bits>(p) + (reinterpret_cast<Bits>(shifted) << 23));
}
INLINE F sigmoid(F x) { return all(1.0f) / (all(1.0f) + exponential(-x)); }

// Odd rational x P(x^2) / Q(x^2) of degrees 5 and 3, fitted on |x| <= 8, where float32's tanh is 1
// to the last bit but one; relative error 2e-8 before rounding.
INLINE F hyperbolic_tangent(F x) {
  x = upper(lower(x, all(-8.0f)), all(8.0f));
  const F y = x * x;
  F p = all(2.350764541e-11f);
  p = fma(p, y, all(-1.470389612e-08f));
  p = fma(p, y, all(9.878563645e-06f));
  p = fma(p, y, all(2.985852065e-03f));
  p = fma(p, y, all(1.297921444e-01f));
  p = fma(p, y, all(9.999999811e-01f));
  F q = all(2.372018317e-04f);
  q = fma(q, y, all(2.402788484e-02f));
  q = fma(q, y, all(4.631253048e-01f));
  q = fma(q, y, all(1.0f));
  return x * p / q;
}
// float64 serves the laws, not speed: the C library, lane by lane.
INLINE D sigmoid(D x) {
  for (int i = 0; i < LANES<double>; i++) x[i] = 1.0 / (1.0 + ::exp(-x[i]));
  return x;
}
INLINE D hyperbolic_tangent(D x) {
  for (int i = 0; i < LANES<double>; i++) x[i] = ::tanh(x[i]);
  return x;
}
template <class V> INLINE V positive_part(V x) { return x > V{} ? x : (x == x ? V{} : x); }

}  // namespace
