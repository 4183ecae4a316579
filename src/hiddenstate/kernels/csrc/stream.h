// Stores that go past the caches, for results that are larger than they are and not read soon.
// Where an instruction set has none, they are ordinary ones.
#pragma once
#include "simd.h"

namespace {

INLINE void stream_store(float* to, F value) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, value);
#elif defined(__AVX2__)
  _mm256_stream_ps(to, value);
#else
  store(to, value);
#endif
}
INLINE void stream_store(double* to, D value) {
#if defined(__AVX512F__)
  _mm512_stream_pd(to, value);
#elif defined(__AVX2__)
  _mm256_stream_pd(to, value);
#else
  store(to, value);
#endif
}
inline void end_of_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace
