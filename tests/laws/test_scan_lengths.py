"""Any lengths and any chunk boundaries, drawn by hypothesis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.errors import ShapeError
from hiddenstate.kernels import scan
from tests.laws.cell_cases import TIGHT, D, H, input_of, params_of, same

CELLS = [Elman(D, H), LSTM(D, H), GRU(D, H)]
QUICK = settings(max_examples=40, deadline=None, database=None, derandomize=True)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@QUICK
@given(lengths=some.lists(some.integers(0, 9), min_size=1, max_size=6), reverse=some.booleans())
def test_each_row_is_as_if_alone(cell: Cell, lengths: list[int], reverse: bool) -> None:
    params, x = params_of(cell), input_of(cell, len(lengths), 9)
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    together = scan(NUMPY, cell, params, x, lengths=lengths, reverse=reverse)
    for row, length in enumerate(lengths):
        alone = scan(NUMPY, cell, params, x[row : row + 1, :length], reverse=reverse)
        np.testing.assert_allclose(together.output[row, :length], alone.output[0], **TIGHT)
        assert not together.output[row, length:].any()
        for mine, other in zip(together.state, alone.state, strict=True):
            np.testing.assert_allclose(mine[row], other[0], **TIGHT)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@QUICK
@given(cuts=some.lists(some.integers(0, 11), max_size=6))
def test_chunks_anywhere_are_the_whole(cell: Cell, cuts: list[int]) -> None:
    params, x = params_of(cell), input_of(cell, 2, 11)
    lengths = np.array([11, 7])
    whole = scan(NUMPY, cell, params, x, lengths=lengths)
    state, outputs = None, []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 11]):
        left = np.clip(lengths - start, 0, end - start)
        part = scan(NUMPY, cell, params, x[:, start:end], state, left)
        state = part.state
        outputs.append(part.output)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole.output, **TIGHT)
    for mine, other in zip(state, whole.state, strict=True):
        np.testing.assert_allclose(mine, other, **TIGHT)


def test_full_lengths_are_no_lengths_bitwise() -> None:
    for cell in CELLS:
        params, x = params_of(cell), input_of(cell)
        left, right = (
            scan(NUMPY, cell, params, x, lengths=lengths, trace=True) for lengths in (None, [7] * 3)
        )
        assert same([left.output, *left.states], [right.output, *right.states])


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"x": np.zeros((3, 7, 4))}, "x has 4 features"),
        ({"x": np.zeros((7, 3))}, "x has 2 axes"),
        ({"lengths": [7, 7]}, "lengths holds 2, x has 3 rows"),
        ({"lengths": np.array(7)}, "lengths holds one number"),
        ({"lengths": [7, 8, 1]}, r"lengths\[1\] is 8"),
        ({"lengths": [7, -1, 1]}, r"lengths\[1\] is -1"),
        ({"lengths": np.array([7.0, 1.0, 1.0])}, r"lengths\[0\] is 7.0"),
        ({"state": "h"}, "The state given is str"),
    ],
    ids=["features", "axes", "too few", "one", "too long", "negative", "fraction", "no state"],
)
def test_what_does_not_fit_is_refused(cell: Cell, change: dict, told: str) -> None:
    given = {"x": input_of(cell), **change}
    with pytest.raises(ShapeError, match=told):
        scan(NUMPY, cell, params_of(cell), **given)


def test_state_of_another_cell_is_refused() -> None:
    lstm, gru = LSTM(D, H), GRU(D, H)
    foreign = gru.initial_state(NUMPY, 3, np.zeros(1))
    with pytest.raises(ShapeError, match="'c'"):
        scan(NUMPY, lstm, params_of(lstm), input_of(lstm), foreign)
    with pytest.raises(ShapeError, match="The state given"):
        scan(NUMPY, gru, params_of(gru), input_of(gru, 2), foreign)
