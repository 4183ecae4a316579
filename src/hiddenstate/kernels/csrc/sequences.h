// Cells over time, as Python calls them; every argument is checked.
#pragma once
#include "arguments.h"

namespace hiddenstate {

// (y [B, T, H], h [B, H], c or None, kept or None, projected or None), in the library of x. want is
// a sum of 1 (keep gates), 2 (keep projections) and 4 (zeros past a row's length in both).
nb::tuple forward(const Packed& packed, nb::handle x, nb::handle h0, nb::handle c0, nb::handle lengths,
                  bool reverse, int want, i64 threads);

// The gradients of x (None unless needs_x), h0, c0 and the seven parameters.
nb::tuple backward(int kind, bool peephole, bool writes, nb::handle weights, nb::handle x, nb::handle h0,
                   nb::handle c0, nb::handle lengths, bool reverse, nb::handle y, nb::handle kept,
                   nb::handle dy, nb::handle dh, nb::handle dc, bool needs_x, i64 threads);

}  // namespace hiddenstate
