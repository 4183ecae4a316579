"""SPEC 6.2, 6.4, 8.4 and 8.5: what powers, radii, singular values and gates come to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.diagnose.measures.dynamics import fixed_points, largest_singular, spectrum
from hiddenstate.diagnose.measures.memory import memory
from hiddenstate.diagnose.tracing.record import LayerTrace
from hiddenstate.kernels import scan

TICKET = np.array(
    [[0.4, 0.2, -0.1, 0.3], [0.1, 0.6, 0.2, -0.2], [-0.3, 0.1, 0.5, 0.4], [0.2, -0.4, 0.1, 0.7]]
)
NON_NORMAL = np.array([[0.9, 5.0], [0.0, 0.9]])


def traced(cell: Cell, params: Any, x: np.ndarray, first: Any = None) -> LayerTrace:
    ran = scan(NUMPY, cell, params, x, first, trace=True)
    first = cell.initial_state(NUMPY, len(x), x) if first is None else first
    lengths = np.full(len(x), x.shape[1])
    return LayerTrace(
        "cell",
        cell,
        params,
        False,
        "reference",
        x,
        lengths,
        first,
        ran.states,
        ran.gates,
        ran.projected,
    )


def linear(w_h: Any, steps: int) -> LayerTrace:
    """A relu cell that stays on, so that it is h <- W h + 1."""
    w_h = np.atleast_2d(np.asarray(w_h, float))
    cell = Elman(1, len(w_h), biases=0, activation="relu")
    x = np.ones((1, steps + 1, 1))
    return traced(cell, {"w_x": np.ones((len(w_h), 1)), "w_h": w_h}, x)


@pytest.mark.parametrize(
    ("weight", "lag", "expected", "unit"),
    [
        (0.8, 20, 0.0115, 5e-5),
        (1.2, 20, 38.3, 5e-2),
        (0.9, 30, 0.0424, 5e-5),
        (0.6, 1, 0.6, 1e-12),
        (0.6, 4, 0.1296, 1e-12),
        (0.6, 8, 0.016796, 5e-7),
        (0.6, 12, 0.002177, 5e-7),
    ],
)
def test_scalar_gradient_products(weight: float, lag: int, expected: float, unit: float) -> None:
    found = memory(linear(weight, lag))
    at = list(found.lags).index(lag)
    assert found.gain[at] == pytest.approx(expected, abs=unit)
    assert found.swapped[at] == pytest.approx(expected, abs=unit)
    assert found.exponent == pytest.approx(np.log(weight), abs=1e-9)


@pytest.mark.parametrize("weight", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_the_horizon_of_a_scalar_cell_is_a_logarithm(weight: float, share: float) -> None:
    found = memory(linear(weight, 16))
    assert found.horizon(share) == int(np.floor(np.log(share) / np.log(weight))) + 1


def test_a_memory_that_does_not_fade_has_no_horizon() -> None:
    assert memory(linear(1.0, 40)).horizon(0.01) is None


def test_a_horizon_is_past_the_last_lag_that_counts() -> None:
    found = replace(memory(linear(0.5, 5)), gain=np.array([1.0, 0.001, 0.5, 0.001, 0.001, 0.001]))
    assert found.horizon(0.01) == 3


def test_the_ticket_matrix_contracts_by_one_measure_and_grows_by_the_other() -> None:
    found = spectrum(TICKET)
    assert found.radius == pytest.approx(0.886705, abs=6e-7)
    assert found.norm == pytest.approx(1.006945, abs=6e-7)
    assert largest_singular(TICKET) == found.norm
    assert found.powers[1] > 1
    assert found.powers[2] > 1
    assert found.powers[3] < 1


def test_a_non_normal_matrix_grows_a_signal_before_it_fades() -> None:
    found = spectrum(NON_NORMAL)
    assert found.radius == pytest.approx(0.9, abs=1e-6)
    assert found.norm == pytest.approx(5.157066, abs=6e-7)
    exact = [np.linalg.norm(np.linalg.matrix_power(NON_NORMAL, k), 2) for k in range(65)]
    np.testing.assert_allclose(found.powers, exact, rtol=1e-9)
    assert found.growth == pytest.approx(max(exact))
    along = memory(linear(NON_NORMAL, 64))
    np.testing.assert_allclose(along.gain, np.array(exact)[along.lags], rtol=1e-9)


def test_wide_matrices_are_measured_as_narrow_ones() -> None:
    w = np.random.default_rng(0).standard_normal((150, 150)) / 150**0.5
    assert largest_singular(w) == pytest.approx(np.linalg.norm(w, 2), rel=0.02)
    assert largest_singular(w[:, :3]) == pytest.approx(np.linalg.norm(w[:, :3], 2), rel=1e-9)
    assert spectrum(w).powers[1] <= np.linalg.norm(w, 2) + 1e-9


def logit(p: float) -> float:
    return float(np.log(p / (1 - p))) if 0 < p < 1 else 1e3 if p > 0 else -1e3


def test_the_path_along_c_is_the_product_of_forget_gates() -> None:
    """SPEC 8.5: forget gates 0, .98, .97."""
    steps = [(0, 0.95, 0.9, 0.8), (0.98, 0.02, 0.1, 0.8), (0.97, 0.15, 0.5, 0.9)]
    w_x = np.array(
        [
            [logit(i) for _, i, _, _ in steps],
            [logit(f) for f, _, _, _ in steps],
            [np.arctanh(g) for _, _, g, _ in steps],
            [logit(o) for _, _, _, o in steps],
        ]
    )
    layer = traced(LSTM(3, 1, biases=0), {"w_x": w_x, "w_h": np.zeros((4, 1))}, np.eye(3)[None])
    found = memory(layer)
    # Rows that are followed end at steps 2, 2, 2, ... : a third of three steps is none back.
    np.testing.assert_allclose(found.keeping, [1.0, 0.97, 0.97 * 0.98], rtol=1e-9)
    assert found.recurrent is not None
    np.testing.assert_allclose(found.recurrent, [1.0, 0.0, 0.0], atol=1e-12)


def test_a_gru_is_followed_along_its_update_gate_in_either_convention() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 12, 3))
    cell = GRU(3, 4)
    params = cell.init(rng)
    flipped = {name: value.copy() for name, value in params.items()}
    for value in flipped.values():
        value[4:8] *= -1
    one = memory(traced(cell, params, x))
    other = memory(traced(GRU(3, 4, update="writes"), flipped, x))
    assert one.keeping is not None
    assert other.keeping is not None
    np.testing.assert_allclose(one.keeping, other.keeping, rtol=1e-9)


def test_fixed_points_of_a_scalar_cell() -> None:
    """h = tanh(2 h): at 0 with slope 2, and at +-.957504 with slope 2 (1 - h^2) = .166372."""
    cell = Elman(1, 1, biases=0)
    x = np.random.default_rng(0).standard_normal((8, 6, 1))
    layer = traced(cell, {"w_x": np.ones((1, 1)), "w_h": np.full((1, 1), 2.0)}, x)
    found = fixed_points(layer, np.zeros(1))
    assert found.stable == 2
    assert sorted(found.points.ravel()) == pytest.approx([-0.957504, 0, 0.957504], abs=1e-6)
    assert found.radii == pytest.approx([0.166372, 0.166372, 2.0], abs=1e-6)
    assert found.came[:2].sum() == pytest.approx(1.0)
    assert found.lost == pytest.approx(0.0)


def test_a_turning_state_never_rests() -> None:
    turn = 1.5 * np.array([[0.0, -1.0], [1.0, 0.0]])
    cell = Elman(1, 2, biases=0)
    x = np.random.default_rng(0).standard_normal((4, 6, 1))
    layer = traced(cell, {"w_x": np.ones((2, 1)), "w_h": turn}, x)
    found = fixed_points(layer, np.zeros(1))
    assert found.lost == 1.0
    assert found.stable == 0
    np.testing.assert_allclose(found.points, 0, atol=1e-6)


def test_chaos_has_a_positive_exponent_and_its_half_does_not() -> None:
    rng = np.random.default_rng(0)
    cell, x = Elman(1, 64, biases=0), 0.1 * rng.standard_normal((4, 60, 1))
    w = rng.standard_normal((64, 64)) / 8
    exponents = [
        memory(traced(cell, {"w_x": np.ones((64, 1)), "w_h": gain * w}, x)).exponent
        for gain in (2.5, 0.8)
    ]
    assert exponents[0] > 0.2
    assert exponents[1] < -0.05


def test_a_latched_state_is_remembered_without_a_gradient() -> None:
    """Bengio, Simard, Frasconi 1994: where a bit is held robustly, its gradient vanishes."""
    cell, rng = Elman(1, 1, biases=0), np.random.default_rng(0)
    x = np.zeros((8, 20, 1))
    x[:, 0, 0] = rng.choice([-2.0, 2.0], 8)
    x[0, 0], x[1, 0] = 2.0, -2.0
    layer = traced(cell, {"w_x": np.ones((1, 1)), "w_h": np.full((1, 1), 3.0)}, x)
    found = memory(layer)
    assert found.gain[3] < 1e-3
    assert found.swapped[-1] > 0.5
    assert found.horizon(0.01, found.reach) is None
