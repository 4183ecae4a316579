"""First parameters: what each scheme promises."""

from __future__ import annotations

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, Cell, Elman
from hiddenstate.errors import SpecError
from tests.laws.cell_cases import every_variant, hold, label


def drawn(cell: Cell, *args: str, **options: float) -> dict[str, np.ndarray]:
    return cell.init(np.random.default_rng(7), *args, **options)


def bias_of(cell: Cell, params: dict[str, np.ndarray], block: str) -> np.ndarray:
    return np.split(params["b_x"], len(cell.blocks))[cell.blocks.index(block)]


def test_chrono_refuses_where_nothing_can_keep() -> None:
    hold(chrono_or_refused, every_variant())


@pytest.mark.parametrize("biases", [1, 2])
def test_forget_bias_is_one_by_default_and_counts_once(biases: int) -> None:
    cell = LSTM(3, 5, biases=biases)
    params = drawn(cell)
    assert (bias_of(cell, params, "f") == 1).all()
    assert sum(np.abs(params[name]).sum() for name in ("b_x", "b_h")[:biases]) == 5
    assert (bias_of(cell, drawn(cell, forget_bias=2.5), "f") == 2.5).all()


def test_coupled_lstm_starts_as_forgetful_as_the_plain_one() -> None:
    cell = LSTM(3, 5, coupled=True)
    assert (bias_of(cell, drawn(cell), "i") == -1).all()
    assert not drawn(LSTM(3, 5, forget_gate=False))["b_x"].any()
    assert not drawn(GRU(3, 5))["b_x"].any()


def test_stacked_matrix_is_not_orthogonal_as_a_whole() -> None:
    w_h = drawn(GRU(3, 5))["w_h"]
    assert np.abs(w_h.T @ w_h - 3 * np.eye(5)).max() < 1e-12
    blocks = np.split(w_h, 3)
    assert np.abs(blocks[0] - blocks[1]).max() > 0.1


def test_identity_blocks() -> None:
    cell = LSTM(3, 5)
    np.testing.assert_array_equal(drawn(cell, "identity")["w_h"], np.tile(np.eye(5), (4, 1)))
    irnn = Elman(3, 5, activation="relu")
    np.testing.assert_array_equal(drawn(irnn, "identity")["w_h"], np.eye(5))


def test_uniform_is_within_torch_bounds() -> None:
    params = drawn(GRU(3, 64, biases=2), "uniform")
    largest = max(np.abs(array).max() for array in params.values())
    assert 0.12 < largest <= 1 / 8


@pytest.mark.parametrize(
    ("cell", "signs"),
    [
        (LSTM(3, 100), {"f": 1, "i": -1}),
        (LSTM(3, 100, coupled=True), {"i": -1}),
        (GRU(3, 100), {"z": 1}),
        (GRU(3, 100, update="writes"), {"z": -1}),
    ],
    ids=label,
)
def test_chrono_keeps_for_times_up_to_the_longest(cell: Cell, signs: dict[str, int]) -> None:
    params = drawn(cell, "chrono", longest_lag_steps=100)
    for block in cell.blocks:
        bias = bias_of(cell, params, block)
        if block not in signs:
            assert not bias.any()
            continue
        times = np.exp(signs[block] * bias)  # the state decays by a factor e in 1 + this many steps
        assert 1 <= times.min() < 9 < 90 < times.max() <= 99


def chrono_or_refused(cell: Cell) -> None:
    if cell.keep_rows and cell.biases:
        drawn(cell, "chrono", longest_lag_steps=20)
        with pytest.raises(SpecError, match="longest_lag_steps=None"):
            drawn(cell, "chrono")
        return
    with pytest.raises(SpecError, match="cannot start with the chrono scheme"):
        drawn(cell, "chrono", longest_lag_steps=20)


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(SpecError, match="There is no initialisation 'xavier'"):
        drawn(GRU(3, 5), "xavier")
