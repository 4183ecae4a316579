"""States of whole models: tuples over layers of named arrays [B, width]."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

import numpy as np

from hiddenstate.cells.arrays import Array
from hiddenstate.cells.cell import Cell
from hiddenstate.errors import ShapeError

_HEAD = Struct("<4sBBHI")
"""Mark, version, bytes of one number, count of arrays, B; then each width in 4 bytes."""
_MARK, _VERSION = b"HSST", 1
_FLOATS = {4: "<f4", 8: "<f8"}


def map_state(function: Callable[[Array], Array], state: Any) -> Any:
    """Apply a function to every array of a state, however its layers are nested; None stays None.

    >>> map_state(lambda h: 2 * h, (np.ones(2), (np.ones(1),)))
    (array([2., 2.]), (array([2.]),))
    """
    if state is None:
        return None
    if not isinstance(state, tuple):
        return function(state)
    parts = [map_state(function, part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def select(state: Any, rows: Any) -> Any:
    """Return the state of some rows: a slice, indices or a mask over B."""
    return map_state(lambda array: array[rows], state)


def to_bytes(state: Any) -> bytes:
    """Return a state of NumPy arrays as bytes: a head, then the arrays one after another.

    The layout is the same on every machine (little-endian). Raises ShapeError unless all arrays are
    [B, width] with one B, and all float32 or all float64.
    """
    arrays: list[np.ndarray[Any, Any]] = []
    map_state(arrays.append, state)
    kinds = {(array.dtype.kind, array.dtype.itemsize, array.shape[:1]) for array in arrays}
    if (
        len(kinds) != 1
        or any(array.ndim != 2 for array in arrays)
        or arrays[0].dtype not in (np.float32, np.float64)
    ):
        found = ", ".join(f"{array.dtype} {list(array.shape)}" for array in arrays)
        raise ShapeError(
            f"The state to store holds {found or 'no arrays'}.",
            "Its arrays have to be [B, width] with one B, all float32 or all float64.",
            "Convert it with map_state first.",
        )
    size, rows = arrays[0].dtype.itemsize, arrays[0].shape[0]
    head = _HEAD.pack(_MARK, _VERSION, size, len(arrays), rows)
    widths = np.array([array.shape[1] for array in arrays], "<u4").tobytes()
    return head + widths + b"".join(array.astype(_FLOATS[size]).tobytes() for array in arrays)


def from_bytes(stored: bytes, cells: Sequence[Cell]) -> tuple[Any, ...]:
    """Return the state, one State for each of `cells`, that `to_bytes` stored.

    Sizes are compared with the cells before any array is made. Raises ShapeError for bytes that are
    damaged or belong to other cells.
    """
    expected = [width for cell in cells for width in cell.state_shapes().values()]
    start = _HEAD.size + 4 * len(expected)
    if len(stored) < start:
        raise _foreign(f"{len(stored)} bytes, less than the head of {start}", expected)
    mark, version, size, count, rows = _HEAD.unpack_from(stored)
    if (mark, version) != (_MARK, _VERSION) or size not in _FLOATS:
        raise _foreign(f"bytes that begin with {stored[:6]!r}", expected)
    widths = np.frombuffer(stored, "<u4", min(count, len(expected)), _HEAD.size).tolist()
    if count != len(expected) or widths != expected:
        raise _foreign(f"{count} arrays, of widths {widths} at first", expected)
    if len(stored) != start + rows * sum(expected) * size:
        raise _foreign(f"{len(stored)} bytes for {rows} rows", expected)
    native = np.dtype(_FLOATS[size]).newbyteorder("=")
    states = []
    for cell in cells:
        arrays = []
        for width in cell.state_shapes().values():
            flat = np.frombuffer(stored, _FLOATS[size], rows * width, start)
            arrays.append(flat.reshape(rows, width).astype(native))
            start += flat.nbytes
        states.append(cell.State(*arrays))
    return tuple(states)


def _foreign(found: str, widths: list[int]) -> ShapeError:
    return ShapeError(
        f"The stored state is {found}.",
        f"These cells keep arrays of widths {widths}, stored by hiddenstate in version {_VERSION}.",
        "Use the model that stored it, or start from None.",
    )
