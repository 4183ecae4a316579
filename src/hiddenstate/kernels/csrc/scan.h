// The diagonal linear recurrence h_t = a_t * h_{t-1} + b_t over one sequence [T, D], and its reverse.
//
// Bound by memory: whole rows in order, each read and written once (narrow strips of columns lose to
// the prefetcher). The running row stays in a small buffer, so that results too large for the cache
// can be stored past it. Rows that are read in falling order come at half the speed, so the way back
// does so in blocks that the cache holds.
#pragma once
#include "stream.h"

namespace {

constexpr i64 STRIP = 2048;  // columns whose running row fits the first-level cache
template <class T> constexpr i64 BLOCK = 65536 / static_cast<i64>(sizeof(T));  // of rows, second level

template <class T> INLINE bool aligned(const T* p, i64 D) {
  return reinterpret_cast<std::uintptr_t>(p) % VECTOR_BYTES == 0 && D % LANES<T> == 0;
}
template <class T, bool STREAM> INLINE void put(T* to, Vec<T> value, int lanes) {
  if constexpr (STREAM) stream_store(to, value);
  else store_part(to, value, lanes);
}

template <class T, bool STREAM>
void scan_strip(i64 steps, i64 D, i64 width, const T* a, const T* b, const T* first, T* h) {
  alignas(64) T running[STRIP + 64];
  for (i64 j = 0; j < width; j++) running[j] = first == nullptr ? T(0) : first[j];
  for (i64 t = 0; t < steps; t++, a += D, b += D, h += D) {
    for (i64 j = 0; j < width; j += LANES<T>) {
      const int lanes = width - j < LANES<T> ? static_cast<int>(width - j) : LANES<T>;
      const Vec<T> next = fma(load_part(a + j, lanes), load(running + j), load_part(b + j, lanes));
      store(running + j, next);
      put<T, STREAM>(h + j, next, lanes);
    }
  }
}

// Columns [from, to) of one sequence; first [D] or null for zeros.
template <class T>
void linear_scan(i64 steps, i64 D, const T* a, const T* b, const T* first, T* h, i64 from, i64 to,
                 bool stream) {
  for (i64 j = from; j < to; j += STRIP) {
    const i64 width = to - j < STRIP ? to - j : STRIP;
    const T* start = first == nullptr ? nullptr : first + j;
    if (stream && aligned(h + j, D) && width % LANES<T> == 0) {
      scan_strip<T, true>(steps, D, width, a + j, b + j, start, h + j);
    } else {
      scan_strip<T, false>(steps, D, width, a + j, b + j, start, h + j);
    }
  }
  end_of_streams();
}

// Results that fit the caches, or are not aligned for stores past them: all in one pass.
template <class T>
void scan_strip_backward(i64 steps, i64 D, i64 width, const T* a, const T* h, const T* first,
                         const T* dh, T* da, T* db, T* d_first) {
  alignas(64) T running[STRIP + 64];
  for (i64 j = 0; j < width; j++) running[j] = T(0);
  for (i64 t = steps - 1; t >= 0; t--) {
    const i64 at = t * D;
    const T* before = t > 0 ? h + at - D : first;
    for (i64 j = 0; j < width; j += LANES<T>) {
      const int lanes = width - j < LANES<T> ? static_cast<int>(width - j) : LANES<T>;
      const Vec<T> g = load_part(dh + at + j, lanes) + load(running + j);
      const Vec<T> old = before == nullptr ? Vec<T>{} : load_part(before + j, lanes);
      store_part(da + at + j, g * old, lanes);
      store_part(db + at + j, g, lanes);
      store(running + j, load_part(a + at + j, lanes) * g);
    }
  }
  for (i64 j = 0; d_first != nullptr && j < width; j++) d_first[j] = running[j];
}

// Larger ones: a block of rows is fetched in rising order, gone back over, and its results are
// stored in rising order, past the caches. width is a multiple of the lanes.
template <class T>
void scan_strip_backward_blocks(i64 steps, i64 D, i64 width, const T* a, const T* h, const T* first,
                                const T* dh, T* da, T* db, T* d_first) {
  constexpr i64 LINE = 64 / static_cast<i64>(sizeof(T));
  alignas(64) T running[STRIP], gs[BLOCK<T>];
  for (i64 j = 0; j < width; j++) running[j] = T(0);
  const i64 rows = BLOCK<T> / width;
  for (i64 end = steps; end > 0;) {
    const i64 from = end > rows ? end - rows : 0;
    for (i64 t = from; t < end; t++) {
      for (i64 j = 0; j < width; j += LINE) {
        __builtin_prefetch(a + t * D + j);
        __builtin_prefetch(dh + t * D + j);
      }
    }
    for (i64 t = end - 1; t >= from; t--) {
      T* to = gs + (t - from) * width;
      for (i64 j = 0; j < width; j += LANES<T>) {
        const Vec<T> g = load(dh + t * D + j) + load(running + j);
        store(to + j, g);
        store(running + j, load(a + t * D + j) * g);
      }
    }
    for (i64 t = from; t < end; t++) {
      const T *g_t = gs + (t - from) * width, *before = t > 0 ? h + (t - 1) * D : first;
      for (i64 j = 0; j < width; j += LANES<T>) {
        const Vec<T> g = load(g_t + j), old = before == nullptr ? Vec<T>{} : load(before + j);
        stream_store(da + t * D + j, g * old);
        stream_store(db + t * D + j, g);
      }
    }
    end = from;
  }
  for (i64 j = 0; d_first != nullptr && j < width; j++) d_first[j] = running[j];
}

template <class T>
void linear_scan_backward(i64 steps, i64 D, const T* a, const T* h, const T* first, const T* dh,
                          T* da, T* db, T* d_first, i64 from, i64 to, bool stream) {
  for (i64 j = from; j < to; j += STRIP) {
    const i64 width = to - j < STRIP ? to - j : STRIP;
    const T* start = first == nullptr ? nullptr : first + j;
    T* d_start = d_first == nullptr ? nullptr : d_first + j;
    if (stream && aligned(da + j, D) && aligned(db + j, D) && width % LANES<T> == 0) {
      scan_strip_backward_blocks(steps, D, width, a + j, h + j, start, dh + j, da + j, db + j, d_start);
    } else {
      scan_strip_backward(steps, D, width, a + j, h + j, start, dh + j, da + j, db + j, d_start);
    }
  }
  end_of_streams();
}

}  // namespace
