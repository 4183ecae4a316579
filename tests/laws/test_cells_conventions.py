"""Conversions between conventions are exact, or refused with the error they would make."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.cells.conventions import ConversionRefusal, convert, measured_error
from hiddenstate.errors import SpecError
from hiddenstate.kernels import scan
from tests.laws.cell_cases import D, H, families, hold, input_of, label, params_of, variants

EXACT = 1e-13


def targets(source: Cell) -> list[Cell]:
    """All that differs from the source in its conventions only."""
    if isinstance(source, GRU):
        return list(variants("gru"))
    return [replace(source, biases=biases) for biases in (0, 1, 2)]


def difference(source: Cell, params: dict, target: Cell, converted: dict) -> float:
    x = input_of(source, time=12)
    ours = scan(NUMPY, source, params, x).output
    return float(np.abs(ours - scan(NUMPY, target, converted, x).output).max())


def exact_or_refused(source: Cell) -> None:
    params = params_of(source)
    before = {name: value.copy() for name, value in params.items()}
    for target in targets(source):
        if is_exact(source, target):
            converted = convert(source, params, target)
            assert {name: value.shape for name, value in converted.items()} == target.shapes()
            assert difference(source, params, target, converted) < EXACT
        else:
            with pytest.raises(ConversionRefusal) as caught:
                convert(source, params, target)
            assert caught.value.measured_error > 1e-3
            assert f"{caught.value.measured_error:.2g}" in caught.value.expected
    assert all(np.array_equal(params[name], before[name]) for name in params)


@pytest.mark.parametrize("cells", families(), ids=label)
def test_exact_or_refused(cells: list[Cell]) -> None:
    hold(exact_or_refused, cells)


def is_exact(source: Cell, target: Cell) -> bool:
    try:
        convert(source, params_of(source), target)
    except ConversionRefusal:
        return False
    return True


def test_which_conversions_are_exact() -> None:
    def gru(biases: int, reset: str = "after", update: str = "keeps") -> GRU:
        return GRU(D, H, biases, reset=reset, update=update)

    assert is_exact(gru(2), gru(2, update="writes"))
    assert is_exact(gru(1), gru(2))
    assert not is_exact(gru(2), gru(1))
    assert is_exact(gru(2, "before"), gru(1, "before", "writes"))
    assert not is_exact(gru(1), gru(1, "before"))
    assert not is_exact(gru(1, "before"), gru(1))
    assert not is_exact(gru(1), gru(0))
    assert is_exact(LSTM(D, H, biases=2), LSTM(D, H, biases=1))
    assert is_exact(Elman(D, H, biases=2), Elman(D, H, biases=1))


def test_update_gate_turned_twice_is_bitwise_the_same() -> None:
    keeps, writes = GRU(D, H, 2), GRU(D, H, 2, update="writes")
    params = params_of(keeps)
    again = convert(writes, convert(keeps, params, writes), keeps)
    assert all(np.array_equal(params[name], again[name]) for name in params)


def test_two_biases_merge_where_b_hn_is_zero() -> None:
    two, one = GRU(D, H, 2), GRU(D, H, 1)
    params = params_of(two)
    params["b_h"][2 * H :] = 0
    assert difference(two, params, one, convert(two, params, one)) < EXACT


def test_reset_passes_through_a_diagonal_product() -> None:
    after, before = GRU(D, H), GRU(D, H, reset="before")
    params = params_of(after)
    params["w_h"][2 * H :] = np.diag(np.diag(params["w_h"][2 * H :]))
    assert difference(after, params, before, convert(after, params, before)) < EXACT
    assert difference(before, params, after, convert(before, params, after)) < EXACT


def test_measured_error_sees_a_wrong_conversion() -> None:
    keeps, writes = GRU(D, H), GRU(D, H, update="writes")
    params = params_of(keeps)
    assert measured_error(keeps, params, writes, params) > 0.1
    assert measured_error(keeps, params, writes, convert(keeps, params, writes)) < EXACT


@pytest.mark.parametrize(
    "target", [GRU(D, H + 1), LSTM(D, H), GRU(D + 1, H)], ids=["hidden", "cell", "input"]
)
def test_other_differences_are_no_convention(target: Cell) -> None:
    with pytest.raises(SpecError, match="The two cells differ in"):
        convert(GRU(D, H), params_of(GRU(D, H)), target)
