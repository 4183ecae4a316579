"""Cells are built by name; what cannot be built is refused in three parts."""

from __future__ import annotations

from typing import Any

import pytest

from hiddenstate.cells import CELLS, LSTM, build, from_json
from hiddenstate.errors import HiddenstateError, ShapeError, SpecError
from tests.laws.cell_cases import every_variant

REFUSED = [
    (("grru", 3, 4), {}, "Did you mean gru?"),
    (("lstm", 3, 4), {"peephol": True}, "Did you mean peephole?"),
    (("gru", 3, 4), {"reset": "both"}, "'after', 'before'"),
    (("gru", 0, 4), {}, "input_size=0"),
    (("gru", 3, 2.5), {}, "hidden_size=2.5"),
    (("gru", True, 2), {}, "input_size=True"),
    (("elman", 3, 4), {"biases": 3}, "biases=3"),
    (("elman", 3, 4), {"biases": True}, "biases=True"),
    (("lstm", 3, 4), {"peephole": 1}, "peephole=1"),
    (("lstm", 3, 4), {"projection": 4}, "at most 3"),
    (("lstm", 3, 4), {"projection": 0}, "projection=0"),
    (("lstm", 3, 4), {"coupled": True, "forget_gate": False}, "f = 1 - i"),
]


def has_three_parts(error: HiddenstateError) -> bool:
    return all(part.endswith((".", "?")) for part in (error.wrong, error.expected, error.remedy))


@pytest.mark.parametrize(("sizes", "options", "told"), REFUSED)
def test_refused(sizes: tuple[Any, ...], options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(*sizes, **options)
    assert told in str(caught.value)
    assert has_three_parts(caught.value)


def test_incomplete_specification_is_refused() -> None:
    with pytest.raises(SpecError, match="lacks hidden_size") as caught:
        from_json({"cell": "gru", "input_size": 3})
    assert has_three_parts(caught.value)


def test_foreign_packed_state_is_refused() -> None:
    import numpy as np

    with pytest.raises(ShapeError, match="packed state of 4") as caught:
        LSTM(3, 4).unpack(np.zeros((2, 4)))
    assert has_three_parts(caught.value)


def test_parameter_counts() -> None:
    for inputs, hidden in ((3, 2), (40, 128)):
        one_gate = hidden * inputs + hidden * hidden + hidden
        assert build("elman", inputs, hidden).parameter_count == one_gate
        assert build("lstm", inputs, hidden).parameter_count == 4 * one_gate
        assert build("gru", inputs, hidden).parameter_count == 3 * one_gate


def test_every_cell_has_its_variants_and_says_which() -> None:
    cells = every_variant()
    assert {cell.name for cell in cells} == set(CELLS)
    assert len({(cell.name, cell.convention, cell.biases) for cell in cells}) == len(cells)
    assert len({(cell.name, cell.equations) for cell in cells if cell.biases == 1}) == sum(
        cell.biases == 1 for cell in cells
    )
