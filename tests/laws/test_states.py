"""States chosen by row, stored as bytes and read back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from hiddenstate.cells import GRU, LSTM, Cell, Elman, state
from hiddenstate.errors import ShapeError
from tests.laws.cell_cases import every_variant, state_of

CELLS: list[Cell] = [LSTM(3, 4, projection=2), GRU(2, 5), Elman(5, 1)]


def example(dtype: type = np.float64, batch: int = 3) -> tuple:
    drawn = tuple(state_of(cell, batch) for cell in CELLS)
    return state.map_state(lambda array: array.astype(dtype), drawn)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_bytes_and_back(dtype: type, batch: int) -> None:
    first = example(dtype, batch)
    again = state.from_bytes(state.to_bytes(first), CELLS)
    for left, right in zip(first, again, strict=True):
        assert type(left) is type(right)
        for a, b in zip(left, right, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_every_cell_goes_through_bytes() -> None:
    for cell in every_variant():
        kept = state_of(cell)
        (back,) = state.from_bytes(state.to_bytes((kept,)), [cell])
        for a, b in zip(kept, back, strict=True):
            np.testing.assert_array_equal(a, b)


def test_rows_are_chosen() -> None:
    first = example()
    for rows in ([2, 0], slice(1, None), np.array([True, False, True])):
        for left, right in zip(state.select(first, rows), first, strict=True):
            for a, b in zip(left, right, strict=True):
                np.testing.assert_array_equal(a, b[rows])
    assert state.select(None, [0]) is None


@given(cut=some.integers(0, 10_000), flip=some.integers(0, 31), bit=some.integers(0, 7))
def test_damaged_bytes_are_refused(cut: int, flip: int, bit: int) -> None:
    stored = state.to_bytes(example())
    with pytest.raises(ShapeError, match="The stored state is"):
        state.from_bytes(stored[: cut % len(stored)], CELLS)
    with pytest.raises(ShapeError, match="The stored state is"):
        state.from_bytes(stored + b"\0", CELLS)
    broken = bytearray(stored)
    broken[flip % 28] ^= 1 << bit
    with pytest.raises(ShapeError, match="The stored state is"):
        state.from_bytes(bytes(broken), CELLS)


def test_other_cells_and_huge_claims_are_refused() -> None:
    stored = state.to_bytes(example())
    for cells in (CELLS[:2], CELLS[::-1], [*CELLS, GRU(1, 1)]):
        with pytest.raises(ShapeError, match="The stored state is"):
            state.from_bytes(stored, cells)
    claim = stored[:8] + b"\xff\xff\xff\xff" + stored[12:]
    with pytest.raises(ShapeError, match="for 4294967295 rows"):
        state.from_bytes(claim, CELLS)


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        (GRU.State(np.zeros((2, 3), np.int64)),),
        (GRU.State(np.zeros((2, 3), np.float16)),),
        (GRU.State(np.zeros(3)),),
        (GRU.State(np.zeros((2, 3))), GRU.State(np.zeros((1, 3)))),
        (GRU.State(np.zeros((2, 3))), GRU.State(np.zeros((2, 3), np.float32))),
    ],
)
def test_states_that_cannot_be_stored_are_refused(wrong: tuple) -> None:
    with pytest.raises(ShapeError, match="The state to store holds"):
        state.to_bytes(wrong)
