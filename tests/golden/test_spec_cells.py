"""The worked cases of the specification, in float64, through the cells and the scan.

Section numbers are those of the specification: 1 recurrence, 2 cells, 6 gradients through time,
8 worked cases. Figures with six decimals were recomputed outside this package.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.kernels import Scan, scan

SIX = {"rtol": 0, "atol": 6e-7}  # six printed decimals, half a unit of the last one and rounding

INCIDENT = {
    "w_x": np.array([[0.8, 0.2, 0.1], [0.1, 0.7, 0.4]]),
    "w_h": np.array([[0.5, 0.1], [0.0, 0.6]]),
}
INCIDENT_CELL = Elman(3, 2, biases=0)
TICKET = {
    "w_x": np.array([[0.5, 0.1, -0.2], [-0.3, 0.8, 0.4], [0.2, -0.1, 0.6], [0.7, 0.3, -0.4]]),
    "w_h": np.array(
        [[0.4, 0.2, -0.1, 0.3], [0.1, 0.6, 0.2, -0.2], [-0.3, 0.1, 0.5, 0.4], [0.2, -0.4, 0.1, 0.7]]
    ),
    "b_x": np.array([0.1, -0.05, 0.2, 0.0]),
}
TICKET_EVENTS = np.array([[[0.2, 0.1, 0.8], [0.9, 0.7, 0.6], [0.3, 0.2, 0.9]]])


def states(cell: Cell, params: dict[str, Any], x: np.ndarray, **options: Any) -> np.ndarray:
    return scan(NUMPY, cell, params, x, **options).output[0]


def scalar(activation: str, from_x: float, from_h: float, xs: list[float]) -> np.ndarray:
    cell = Elman(1, 1, biases=0, activation=activation)
    params = {"w_x": np.array([[from_x]]), "w_h": np.array([[from_h]])}
    return states(cell, params, np.array(xs).reshape(1, -1, 1))[:, 0]


def logit(p: float) -> float:
    return float(np.log(p / (1 - p))) if p > 0 else -1e3


def lookup(gates: list[dict[str, float]]) -> np.ndarray:
    """w_x [G, T] that gives event t (one-hot) these gates, when there is no recurrence."""
    inverse = {"g": np.arctanh, "n": np.arctanh}
    return np.array([[inverse.get(k, logit)(step[k]) for step in gates] for k in gates[0]])


class TestWeightSharing:
    """1.1: the parameter count does not depend on T."""

    def test_21_parameters_for_any_length(self) -> None:
        cell = Elman(input_size=3, hidden_size=2)
        head = 3 * 2 + 3
        assert cell.parameter_count + head == 21
        params = cell.init(np.random.default_rng(0))
        for time in (3, 30, 300):
            assert states(cell, params, np.ones((1, time, 3))).shape == (time, 2)
        assert sum(array.size for array in params.values()) + head == 21


class TestCounts:
    """2.4: LSTM 4(HD + HH + H), GRU 3(HD + HH + H)."""

    @pytest.mark.parametrize(("inputs", "hidden"), [(3, 2), (16, 64), (64, 16)])
    def test_gru_is_a_quarter_smaller(self, inputs: int, hidden: int) -> None:
        one = hidden * inputs + hidden * hidden + hidden
        assert LSTM(inputs, hidden).parameter_count == 4 * one
        assert GRU(inputs, hidden).parameter_count == 3 * one
        assert GRU(inputs, hidden).parameter_count == 0.75 * LSTM(inputs, hidden).parameter_count


class TestOrder:
    """8.1, 8.2 and 1.3: the same events in another order give another state."""

    def test_leaky_sum(self) -> None:
        assert scalar("relu", 1.0, 0.6, [1.0, 0.4, 0.9])[-1] == pytest.approx(1.5, abs=1e-12)
        assert scalar("relu", 1.0, 0.6, [0.9, 0.4, 1.0])[-1] == pytest.approx(1.564, abs=1e-12)

    def test_scalar_tanh(self) -> None:
        h = scalar("tanh", 0.8, 0.5, [1.0, 0.4, 0.9])
        np.testing.assert_allclose(h, [0.664037, 0.573027, 0.764316], **SIX)


class TestIncident:
    """8.3 and 8.9: three one-hot events, and what a head says about them."""

    head = np.array([[0.7, -0.3], [-0.4, 0.8], [0.1, 0.2]])  # ignore, rollback, escalate

    def read(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits = self.head @ h
        weights = np.exp(logits - logits.max())
        return logits, weights / weights.sum()

    def test_states(self) -> None:
        expected = [[0.664037, 0.099668], [0.494489, 0.640960], [0.389610, 0.655325]]
        np.testing.assert_allclose(
            states(INCIDENT_CELL, INCIDENT, np.eye(3)[None]), expected, **SIX
        )

    def test_head(self) -> None:
        logits, p = self.read(states(INCIDENT_CELL, INCIDENT, np.eye(3)[None])[-1])
        np.testing.assert_allclose(logits, [0.076130, 0.368416, 0.170026], **SIX)
        np.testing.assert_allclose(p, [0.290872, 0.389620, 0.319508], **SIX)
        assert p.argmax() == 1
        assert round(100 * p[1], 1) == 39.0

    def test_published_page_rounds_the_state_first(self) -> None:
        h = states(INCIDENT_CELL, INCIDENT, np.eye(3)[None])[-1]
        rounded = np.array([0.390, 0.655])
        np.testing.assert_array_equal(h.round(3), rounded)
        logits, p = self.read(rounded)
        np.testing.assert_allclose(logits, [0.0765, 0.368, 0.170], rtol=0, atol=1e-12)
        np.testing.assert_allclose(p, [0.290998, 0.389482, 0.319519], **SIX)
        assert round(100 * p[1], 1) == 38.9

    @pytest.mark.parametrize("events", [1, 2, 3])
    def test_always_two_numbers(self, events: int) -> None:
        last = scan(NUMPY, INCIDENT_CELL, INCIDENT, np.eye(3)[None, :events]).state.h
        assert last.shape == (1, 2)


class TestTicket:
    """8.4: four hidden values over three tickets, and a published figure that is wrong."""

    cell = Elman(3, 4)

    def test_states(self) -> None:
        expected = [
            [0.049958, 0.282135, 0.610677, -0.148885],
            [0.438746, 0.667483, 0.730132, 0.425170],
            [0.424799, 0.709093, 0.848356, 0.101042],
        ]
        np.testing.assert_allclose(states(self.cell, TICKET, TICKET_EVENTS), expected, **SIX)

    def test_published_last_state_is_wrong(self) -> None:
        published = np.array([0.35, 0.72, 0.18, 0.61])
        computed = states(self.cell, TICKET, TICKET_EVENTS)[-1]
        assert (np.abs(computed - published) > 0.01).all()
        assert np.abs(computed - published).max() > 0.6

    def test_two_measures_of_the_same_matrix_disagree(self) -> None:
        radius = np.abs(np.linalg.eigvals(TICKET["w_h"])).max()
        largest = np.linalg.svd(TICKET["w_h"], compute_uv=False)[0]
        assert radius == pytest.approx(0.886705, abs=6e-7)
        assert largest == pytest.approx(1.006945, abs=6e-7)
        growth = [np.linalg.norm(np.linalg.matrix_power(TICKET["w_h"], k), 2) for k in (1, 2, 3, 4)]
        assert growth[0] > 1
        assert growth[3] < growth[2] < 1


class TestGates:
    """8.5 and 8.6: gates given, state computed by the cell itself."""

    def run(self, cell: Cell, w_x: np.ndarray, first: Any) -> Scan:
        params = {"w_x": w_x, "w_h": np.zeros((w_x.shape[0], 1))}
        return scan(NUMPY, cell, params, np.eye(w_x.shape[1])[None], first, trace=True)

    def test_lstm_remembers_the_damage(self) -> None:
        steps = [(0, 0.95, 0.9, 0.8), (0.98, 0.02, 0.1, 0.8), (0.97, 0.15, 0.5, 0.9)]
        given = [{"i": i, "f": f, "g": g, "o": o} for f, i, g, o in steps]
        cell = LSTM(3, 1, biases=0)
        ran = self.run(cell, lookup(given), None)
        for name in "ifgo":
            gate = getattr(ran.gates, name)[0, :, 0]
            np.testing.assert_allclose(gate, [step[name] for step in given], atol=1e-12)
        np.testing.assert_allclose(ran.states.c[0, :, 0], [0.855, 0.8399, 0.889703], **SIX)
        np.testing.assert_allclose(ran.output[0, :, 0], [0.554938, 0.548605, 0.640122], **SIX)

    @pytest.mark.parametrize(("keep", "new"), [(0.95, 0.75), (0.50, 0.30), (0.05, -0.15)])
    def test_gru_blend(self, keep: float, new: float) -> None:
        old = (np.array([[0.80]]),)
        for update, z in (("keeps", keep), ("writes", 1 - keep)):
            for reset in ("after", "before"):
                cell = GRU(1, 1, biases=0, update=update, reset=reset)
                w_x = lookup([{"r": 0.5, "z": z, "n": -0.20}])
                ran = self.run(cell, w_x, cell.State(*old))
                assert ran.state.h.item() == pytest.approx(new, abs=1e-12)

    def test_gru_gate_read_backwards_is_visible(self) -> None:
        w_x = lookup([{"r": 0.5, "z": 0.95, "n": -0.20}])
        cell = GRU(1, 1, biases=0, update="writes")
        ran = self.run(cell, w_x, cell.State(np.array([[0.80]])))
        assert ran.state.h.item() == pytest.approx(-0.15, abs=1e-12)


class TestPadding:
    """8.8: two histories of length 3 and 2 in one batch."""

    def last(self, padding: list[float], lengths: list[int] | None) -> np.ndarray:
        x = np.stack([np.eye(3), np.eye(3)])
        x[1, 2] = padding
        return scan(NUMPY, INCIDENT_CELL, INCIDENT, x, lengths=lengths).state.h

    def test_lengths_keep_the_padding_out(self) -> None:
        quiet, loud = self.last([0, 0, 0], [3, 2]), self.last([9, -9, 9], [3, 2])
        np.testing.assert_array_equal(quiet, loud)
        np.testing.assert_allclose(loud[1], [0.494489, 0.640960], **SIX)

    def test_without_lengths_padding_is_evidence(self) -> None:
        quiet, loud = self.last([0, 0, 0], None), self.last([9, -9, 9], None)
        np.testing.assert_array_equal(quiet[0], loud[0])
        assert np.abs(quiet[1] - loud[1]).max() > 0.1


class TestGradientsThroughTime:
    """6.1, 6.2 and 6.4: products of Jacobians along a sequence."""

    def product(self, w_h: np.ndarray, steps: int) -> np.ndarray:
        """d h_T / d h_0 of a relu cell that stays positive, so that phi' = 1."""
        cell = Elman(1, len(w_h), biases=0, activation="relu")
        params = {"w_x": np.ones((len(w_h), 1)), "w_h": w_h}
        state, total = cell.State(np.ones((1, len(w_h)))), np.eye(len(w_h))
        x = np.ones((1, 1))
        for _ in range(steps):
            total = cell.jacobian(params, x, state)[0] @ total
            state, _ = cell.step(NUMPY, params, cell.project(NUMPY, params, x), state)
        return total

    @pytest.mark.parametrize(
        ("weight", "steps", "expected", "unit"),
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
    def test_powers(self, weight: float, steps: int, expected: float, unit: float) -> None:
        product = self.product(np.array([[weight]]), steps).item()
        assert product == pytest.approx(expected, abs=unit)

    def test_non_normal_matrix_grows_a_signal_before_it_fades(self) -> None:
        w_h = np.array([[0.9, 5.0], [0.0, 0.9]])
        assert np.abs(np.linalg.eigvals(w_h)).max() == pytest.approx(0.9)
        norms = [np.linalg.norm(self.product(w_h, k), 2) for k in range(151)]
        assert norms[0] == pytest.approx(1.0)
        assert max(norms) > 15
        assert 5 < int(np.argmax(norms)) < 15
        assert norms[150] < 1e-3

    def test_lstm_memory_gradient_is_the_product_of_forget_gates(self) -> None:
        cell, rng = LSTM(2, 3), np.random.default_rng(0)
        params = cell.init(rng)
        params["w_h"][:] = 0.0
        x = rng.standard_normal((1, 9, 2))
        ran = scan(NUMPY, cell, params, x, trace=True)
        state, total = cell.initial_state(NUMPY, 1, x), np.eye(3)
        for t in range(9):
            total = cell.jacobian(params, x[:, t], state)[0, 3:, 3:] @ total
            state = cell.State(*(each[:, t] for each in ran.states))
        np.testing.assert_allclose(total, np.diag(ran.gates.f[0].prod(axis=0)), rtol=1e-12)
