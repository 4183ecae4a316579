"""How far back a state reaches: for every cell what products of its exact Jacobians say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hiddenstate.cells import NUMPY, Cell
from hiddenstate.diagnose.measures import linear
from hiddenstate.diagnose.measures.linear import Steps
from hiddenstate.diagnose.measures.memory import ANCHORS, memory
from hiddenstate.diagnose.tracing.record import LayerTrace
from hiddenstate.kernels import Zoneout, scan
from tests.laws.cell_cases import every_variant, families, hold, label, params_of

B, T, D = 3, 9, 3
TIGHT = {"rtol": 1e-9, "atol": 1e-11}
ZONED = {"h": 0.3, "c": 0.6}


def traced(
    cell: Cell,
    *,
    lengths: list[int] | None = None,
    reverse: bool = False,
    zoneout: dict[str, float] | None = None,
    turned: bool = False,
) -> LayerTrace:
    """A trace over drawn input; `turned` reads the same rows from their ends."""
    rng = np.random.default_rng(1)
    x, params = rng.standard_normal((B, T, cell.input_size)), params_of(cell)
    counts = np.full(B, T) if lengths is None else np.array(lengths)
    if turned:
        for row, count in enumerate(counts):
            x[row, :count] = x[row, :count][::-1]
    held = None if zoneout is None else Zoneout(zoneout)
    ran = scan(NUMPY, cell, params, x, lengths=lengths, reverse=reverse, trace=True, zoneout=held)
    live = (np.arange(T) < counts[:, None])[..., None]
    first = cell.initial_state(NUMPY, B, x)
    return LayerTrace(
        "cell",
        cell,
        params,
        reverse,
        "reference",
        np.where(live, x, 0),
        counts,
        first,
        ran.states,
        ran.gates,
        ran.projected,
    )


def pulled_as_by_the_jacobian(cell: Cell) -> None:
    layer = traced(cell)
    steps, rng = Steps.of(layer), np.random.default_rng(2)
    assert not any(steps.held)
    rows, t = np.array([0, 1, 2, 0]), np.array([0, 3, 8, 5])
    v = rng.standard_normal((4, 2, steps.width))
    exact = cell.jacobian(layer.params, layer.x[rows, t], steps.before(rows, t))
    np.testing.assert_allclose(steps.pull(rows, t, v), v @ exact, **TIGHT)


def pulled_as_a_difference_pushes(cell: Cell) -> None:
    """v . (J u) = (J^T v) . u, with J u from two steps of the cell, zoneout and all."""
    names = cell.state_shapes()
    layer = traced(cell, zoneout={name: ZONED[name] for name in names})
    steps, rng = Steps.of(layer), np.random.default_rng(3)
    np.testing.assert_allclose(steps.held, [ZONED[name] for name in names], atol=1e-9)
    rows, t = np.array([0, 1, 2]), np.array([2, 4, 7])
    v, u = rng.standard_normal((2, 3, steps.width))
    state, small = cell.pack(NUMPY, steps.before(rows, t)), 1e-6
    ahead, behind = (
        cell.pack(NUMPY, steps.step(rows, t, cell.unpack(state + sign * small * u)))
        for sign in (1, -1)
    )
    pushed = ((ahead - behind) / (2 * small) * v).sum(axis=1)
    pulled = (steps.pull(rows, t, v[:, None])[:, 0] * u).sum(axis=1)
    np.testing.assert_allclose(pulled, pushed, rtol=1e-5, atol=1e-7)


def singular_values_of_the_product(cell: Cell) -> None:
    layer = traced(cell)
    found = memory(layer)
    assert found.exact
    rows = np.resize(np.arange(B), ANCHORS)
    ends = T - 1 - np.arange(ANCHORS) * T // (3 * ANCHORS)
    for k, lag in enumerate(found.lags):
        each = [
            np.linalg.svd(product(cell, layer, row, end, lag), compute_uv=False)
            for row, end in zip(rows, ends)
            if end >= lag
        ]
        largest = np.array([values[0] for values in each])
        np.testing.assert_allclose(found.gain[k], np.sqrt((largest**2).mean()), rtol=1e-6)
        np.testing.assert_allclose(found.typical[k], np.exp(np.log(largest).mean()), rtol=1e-6)


def product(cell: Cell, layer: LayerTrace, row: int, end: int, lag: int) -> np.ndarray:
    """d state_end / d state_{end - lag}, step by step from the cell's own Jacobian."""
    total = np.eye(sum(cell.state_shapes().values()))
    for t in range(end - lag + 1, end + 1):
        old = cell.State(*(each[row, t - 1][None] for each in layer.states))
        total = cell.jacobian(layer.params, layer.x[row, t][None], old)[0] @ total
    return total


def the_same_from_the_other_end(cell: Cell) -> None:
    lengths = [T, 4, 7]
    one = memory(traced(cell, lengths=lengths))
    other = memory(traced(cell, lengths=lengths, reverse=True, turned=True))
    for name in ("lags", "gain", "swapped", "singular", "keeping", "recurrent"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_allclose(left, right, err_msg=name, **TIGHT)


def exchanged_states_run_on_by_the_cell(cell: Cell) -> None:
    layer = traced(cell)
    found = memory(layer)
    rows = np.repeat(np.resize(np.arange(B), ANCHORS), 2)
    start = 1 + np.arange(len(rows)) * T // (3 * len(rows))
    rng = np.random.default_rng(0)
    donors = rng.choice(np.arange(B), len(rows))
    steps = rng.integers(0, np.full(len(rows), T))
    gaps = np.full((T, len(rows)), np.nan)
    for n, (row, begin) in enumerate(zip(rows, start)):
        state = cell.State(*(each[donors[n], steps[n]][None] for each in layer.states))
        for t in range(begin, T + 1):
            own = np.concatenate([each[row, t - 1] for each in layer.states])
            gaps[t - begin, n] = np.linalg.norm(cell.pack(NUMPY, state)[0] - own)
            if t < T:
                x = cell.project(NUMPY, layer.params, layer.x[row, t][None])
                state, _ = cell.step(NUMPY, layer.params, x, state)
    for k, lag in enumerate(found.lags):
        reach = ~np.isnan(gaps[lag])
        left = np.linalg.norm(gaps[lag, reach]) / np.linalg.norm(gaps[0, reach])
        np.testing.assert_allclose(found.swapped[k], left, **TIGHT)


ONE_STEP = (pulled_as_by_the_jacobian, pulled_as_a_difference_pushes)
ALONG_ROWS = (
    singular_values_of_the_product,
    the_same_from_the_other_end,
    exchanged_states_run_on_by_the_cell,
)


@pytest.mark.parametrize("family", families(), ids=label)
@pytest.mark.parametrize("law", ONE_STEP, ids=label)
def test_one_step(law: Any, family: list[Cell]) -> None:
    hold(law, family)


@pytest.mark.parametrize("family", families()[::3], ids=label)
@pytest.mark.parametrize("law", ALONG_ROWS, ids=label)
def test_along_rows(law: Any, family: list[Cell]) -> None:
    hold(law, family[-1:])


@pytest.mark.parametrize("cell", every_variant()[::9], ids=label)
def test_a_cell_without_a_reverse_step_goes_by_its_jacobian(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "is_written", lambda _: False)
    pulled_as_by_the_jacobian(cell)
    pulled_as_a_difference_pushes(cell)
