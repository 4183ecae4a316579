"""What holds for every cell over time: one function a law, each given one variant."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from hiddenstate.cells import NUMPY, Cell
from hiddenstate.kernels import Zoneout, scan
from hiddenstate.kernels.backward import backward, refusals
from hiddenstate.nn.arrays import TORCH
from tests.laws.cell_cases import TIGHT, as_torch, input_of, params_of, same, state_of
from tests.naive import NAIVE, recurrence

LENGTHS = [7, 0, 4]


def naive_is_the_scan(cell: Cell) -> None:
    for reverse in (False, True):
        params, x, state = params_of(cell), input_of(cell), state_of(cell)
        fast = scan(NUMPY, cell, params, x, state, LENGTHS, reverse=reverse, trace=True)
        plain = {name: value.tolist() for name, value in params.items()}
        for row, length in enumerate(LENGTHS):
            xs = x[row, :length].tolist()
            first = {name: value[row].tolist() for name, value in state._asdict().items()}
            states, gates = recurrence.run(
                NAIVE[cell.name], plain, cell.to_json(), xs[::-1] if reverse else xs, first
            )
            for name, value in (states[-1] if states else first).items():
                np.testing.assert_allclose(getattr(fast.state, name)[row], value, **TIGHT)
            if reverse:
                states, gates = states[::-1], gates[::-1]
            for t, (now, gate) in enumerate(zip(states, gates, strict=True)):
                np.testing.assert_allclose(fast.output[row, t], now["h"], **TIGHT)
                for name, value in now.items():
                    np.testing.assert_allclose(getattr(fast.states, name)[row, t], value, **TIGHT)
                for name, value in gate.items():
                    np.testing.assert_allclose(getattr(fast.gates, name)[row, t], value, **TIGHT)
            assert not fast.output[row, length:].any()
            for name, value in fast.gates._asdict().items():
                assert not value[row, length:].any(), name


def none_is_zeros_bitwise(cell: Cell) -> None:
    params, x = params_of(cell), input_of(cell)
    zeros = cell.initial_state(NUMPY, len(x), x)
    assert not any(array.any() for array in zeros)
    left, right = (scan(NUMPY, cell, params, x, first) for first in (None, zeros))
    assert same([left.output, *left.state], [right.output, *right.state])


def numpy_is_torch(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell), state_of(cell)
    for reverse in (False, True):
        ours = scan(NUMPY, cell, params, x, state, LENGTHS, reverse=reverse)
        theirs = scan(
            TORCH,
            cell,
            as_torch(params),
            as_torch(x),
            as_torch(state),
            torch.tensor(LENGTHS),
            reverse=reverse,
        )
        np.testing.assert_allclose(ours.output, theirs.output, **TIGHT)
        for mine, other in zip(ours.state, theirs.state, strict=True):
            np.testing.assert_allclose(mine, other, **TIGHT)


def chunked_and_streamed_are_whole(cell: Cell) -> None:
    params, x = params_of(cell), input_of(cell)
    whole = scan(NUMPY, cell, params, x, trace=True)
    for cuts in ([0, 3, 3, 7], list(range(8))):
        state, parts = None, []
        for start, end in pairwise(cuts):
            part = scan(NUMPY, cell, params, x[:, start:end], state, trace=True)
            state = part.state
            parts.append(part)
        output = np.concatenate([part.output for part in parts], axis=1)
        np.testing.assert_allclose(output, whole.output, **TIGHT)
        for name in cell.State._fields:
            np.testing.assert_allclose(getattr(state, name), getattr(whole.state, name), **TIGHT)
            np.testing.assert_array_equal(
                getattr(whole.states, name)[:, -1], getattr(whole.state, name)
            )


def padding_changes_nothing(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell), state_of(cell)
    for filling in (np.nan, np.inf, 9.0):
        padded = x.copy()
        for row, length in enumerate(LENGTHS):
            padded[row, length:] = filling
        for reverse in (False, True):
            left = scan(NUMPY, cell, params, x, state, LENGTHS, reverse=reverse, trace=True)
            right = scan(NUMPY, cell, params, padded, state, LENGTHS, reverse=reverse, trace=True)
            for ours, theirs in zip(left[1:], right[1:], strict=True):
                assert same(ours, theirs)
            assert same([left.output], [right.output])
            alone = scan(NUMPY, cell, params, x[2:, :4], _row(cell, state, 2), reverse=reverse)
            np.testing.assert_allclose(right.output[2:, :4], alone.output, **TIGHT)
            for mine, other in zip(right.state, alone.state, strict=True):
                np.testing.assert_allclose(mine[2:], other, **TIGHT)
                assert not np.isnan(mine).any()


def the_future_changes_no_past(cell: Cell) -> None:
    params, x = params_of(cell), input_of(cell)
    changed = x.copy()
    changed[:, 4:] = np.nan
    left, right = (scan(NUMPY, cell, params, each).output for each in (x, changed))
    assert same([left[:, :4]], [right[:, :4]])
    assert np.isnan(right[:, 4:]).all()
    changed = x.copy()
    changed[:, :3] = np.nan
    left, right = (scan(NUMPY, cell, params, each, reverse=True).output for each in (x, changed))
    assert same([left[:, 3:]], [right[:, 3:]])
    assert np.isnan(right[:, :3]).all()


def rows_are_isolated(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell), state_of(cell)
    broken = x.copy()
    broken[1, 2, 0] = np.nan
    left, right = (scan(NUMPY, cell, params, each, state).output for each in (x, broken))
    assert same([left[[0, 2]], left[1, :2]], [right[[0, 2]], right[1, :2]])
    assert np.isnan(right[1, 2:]).all()
    order = [2, 0, 1]
    moved = cell.State(*(array[order] for array in state))
    permuted = scan(NUMPY, cell, params, x[order], moved).output
    np.testing.assert_allclose(permuted, left[order], **TIGHT)


def no_steps_are_legal(cell: Cell) -> None:
    params, state = params_of(cell), state_of(cell)
    empty = scan(NUMPY, cell, params, np.zeros((3, 0, cell.input_size)), state, trace=True)
    assert empty.output.shape == (3, 0, cell.output_size)
    assert same(empty.state, state)
    for array, width in zip(empty.states, cell.state_shapes().values(), strict=True):
        assert array.shape == (3, 0, width)
    assert all(array.shape == (3, 0, cell.hidden_size) for array in empty.gates)
    assert scan(NUMPY, cell, params, np.zeros((0, 4, cell.input_size))).output.shape[:2] == (0, 4)


def zoneout_keeps_and_expects(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell), state_of(cell)
    widths = cell.state_shapes()
    rates = dict.fromkeys(widths, 0.25)
    keep_all = cell.State(*(np.ones((3, 7, width), bool) for width in widths.values()))
    kept = scan(NUMPY, cell, params, x, state, zoneout=Zoneout(rates, keep_all))
    assert same(kept.state, state)
    keep_none = cell.State(*(~mask for mask in keep_all))
    plain = scan(NUMPY, cell, params, x, state)
    assert same(scan(NUMPY, cell, params, x, state, zoneout=Zoneout(rates, keep_none))[0], plain[0])
    rng = np.random.default_rng(6)
    some = cell.State(*(rng.random((3, 7, width)) < 0.4 for width in widths.values()))
    mixed = scan(NUMPY, cell, params, x, state, trace=True, zoneout=Zoneout(rates, some)).states
    old = state
    for t in range(7):
        new, _ = cell.step(NUMPY, params, cell.project(NUMPY, params, x[:, t]), old)
        old = cell.State(*(np.where(m[:, t], a, b) for m, a, b in zip(some, old, new, strict=True)))
        for now, wanted in zip(mixed, old, strict=True):
            np.testing.assert_allclose(now[:, t], wanted, **TIGHT)
    one = scan(NUMPY, cell, params, x[:, :1], state)
    expected = scan(NUMPY, cell, params, x[:, :1], state, zoneout=Zoneout(rates))
    for before, after, found in zip(state, one.state, expected.state, strict=True):
        np.testing.assert_allclose(found, 0.25 * before + 0.75 * after, **TIGHT)


def gradients_ignore_padding_and_match_the_hand_written(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell), state_of(cell)
    for row, length in enumerate(LENGTHS):
        x[row, length:] = np.nan
    rng = np.random.default_rng(3)
    d_output = rng.standard_normal((3, 7, cell.output_size))
    d_state = cell.State(*(rng.standard_normal(array.shape) for array in state))
    for reverse in (False, True):
        leaves = as_torch(params, True), as_torch(x, True), as_torch(state, True)
        out = scan(TORCH, cell, *leaves, LENGTHS, reverse=reverse)
        loss = (out.output * as_torch(d_output)).sum()
        for last, weight in zip(out.state, as_torch(d_state), strict=True):
            loss = loss + (last * weight).sum()
        wanted = [*leaves[0].values(), leaves[1], *leaves[2]]
        truth = torch.autograd.grad(loss, wanted)
        assert all(torch.isfinite(gradient).all() for gradient in truth)
        for row, length in enumerate(LENGTHS):
            assert not truth[len(params)][row, length:].any()
        if refusals(cell):
            continue
        ours = backward(
            cell, params, x, d_output, d_state, state=state, lengths=LENGTHS, reverse=reverse
        )
        names = [*params, "x", *state._fields]
        mine = [*(ours.params[name] for name in params), ours.x, *ours.state]
        for name, left, right in zip(names, mine, truth, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-10, atol=1e-11, err_msg=name)


def _row(cell: Cell, state: tuple, row: int) -> tuple:
    return cell.State(*(array[row : row + 1] for array in state))


LAWS = (
    naive_is_the_scan,
    none_is_zeros_bitwise,
    numpy_is_torch,
    chunked_and_streamed_are_whole,
    padding_changes_nothing,
    the_future_changes_no_past,
    rows_are_isolated,
    no_steps_are_legal,
    zoneout_keeps_and_expects,
    gradients_ignore_padding_and_match_the_hand_written,
)
