"""What holds for every cell: one function a law, each given one variant."""

from __future__ import annotations

import json
import re

import numpy as np
import torch

from hiddenstate.cells import NUMPY, Cell, from_json
from hiddenstate.nn.arrays import TORCH
from tests.laws.cell_cases import TIGHT, as_torch, input_of, params_of, same, state_of
from tests.laws.equation_runner import execute


def equations_are_the_step(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell)[:, 0], state_of(cell)
    new, gates = cell.step(NUMPY, params, cell.project(NUMPY, params, x), state)
    for row in range(len(x)):
        old = {name: value[row] for name, value in state._asdict().items()}
        symbols = execute(cell, cell.equations, params, x[row], old)
        for name, value in {**new._asdict(), **gates._asdict()}.items():
            np.testing.assert_allclose(
                np.broadcast_to(symbols[name], value[row].shape), value[row], **TIGHT, err_msg=name
            )


def every_term_of_the_equations_counts(cell: Cell) -> None:
    params, x = params_of(cell), input_of(cell)[0, 0]
    state = {name: value[0] for name, value in state_of(cell)._asdict().items()}
    truth = execute(cell, cell.equations, params, x, state)
    for term in re.findall(r" \+ (?:b_\w+|p_\w \* c)", cell.equations):
        without = execute(cell, cell.equations.replace(term, "", 1), params, x, state)
        assert np.abs(without["h"] - truth["h"]).max() > 1e-4, term


def numpy_and_torch_run_the_same_lines(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell), state_of(cell)
    left = cell.step(NUMPY, params, cell.project(NUMPY, params, x[:, 0]), state)
    params, x, state = as_torch(params), as_torch(x), as_torch(state)
    right = cell.step(TORCH, params, cell.project(TORCH, params, x[:, 0]), state)
    for ours, theirs in zip(left, right, strict=True):
        for name, value in ours._asdict().items():
            np.testing.assert_allclose(value, getattr(theirs, name), **TIGHT, err_msg=name)


def step_leaves_its_inputs_alone(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell)[:, 0], state_of(cell)
    before = [array.copy() for array in (*params.values(), x, *state)]
    cell.step(NUMPY, params, cell.project(NUMPY, params, x), state)
    cell.jacobian(params, x, state)
    assert same([*params.values(), x, *state], before)


def gates_stay_in_their_range(cell: Cell) -> None:
    params, state = params_of(cell), state_of(cell)
    assert set(cell.gate_ranges) == set(cell.Gates._fields)
    for scale in (1.0, 1e3):
        x = scale * input_of(cell)[:, 0]
        _, gates = cell.step(NUMPY, params, cell.project(NUMPY, params, x), state)
        for name, (low, high) in cell.gate_ranges.items():
            gate = getattr(gates, name)
            assert gate.shape == (len(x), cell.hidden_size)
            assert low <= gate.min() <= gate.max() <= high, name


def nan_is_never_swallowed(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell)[:, 0], state_of(cell)
    x[1, 0] = np.nan
    new, _ = cell.step(NUMPY, params, cell.project(NUMPY, params, x), state)
    assert np.isnan(new.h[1]).all()
    assert all(np.isfinite(array[[0, 2]]).all() for array in new)


def float32_stays_float32(cell: Cell) -> None:
    params = {name: value.astype(np.float32) for name, value in params_of(cell).items()}
    x = input_of(cell)[:, 0].astype(np.float32)
    state = cell.initial_state(NUMPY, len(x), x)
    new, gates = cell.step(NUMPY, params, cell.project(NUMPY, params, x), state)
    assert {array.dtype for array in (*state, *new, *gates)} == {np.dtype(np.float32)}


def jacobian_is_the_derivative(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell)[:, 0], state_of(cell)
    flat = as_torch(cell.pack(NUMPY, state), grad=True)
    weights = as_torch(params)
    new, _ = cell.step(TORCH, weights, cell.project(TORCH, weights, as_torch(x)), cell.unpack(flat))
    columns = cell.pack(TORCH, new).sum(dim=0)  # rows do not meet, so one backward serves them all
    rows = [torch.autograd.grad(column, flat, retain_graph=True)[0] for column in columns]
    truth = torch.stack(rows, dim=1)
    np.testing.assert_allclose(cell.jacobian(params, x, state), truth, rtol=1e-9, atol=1e-11)


def state_survives_packing(cell: Cell) -> None:
    state = state_of(cell)
    flat = cell.pack(NUMPY, state)
    again = cell.unpack(np.frombuffer(flat.tobytes()).reshape(flat.shape))
    assert type(again) is cell.State
    assert same(again, state)
    assert flat.shape[1] == sum(cell.state_shapes().values())
    assert cell.state_shapes()["h"] == cell.output_size


def specification_survives_json(cell: Cell) -> None:
    assert from_json(json.loads(json.dumps(cell.to_json()))) == cell


def first_parameters_have_their_shapes(cell: Cell) -> None:
    for scheme in ("orthogonal", "identity", "uniform"):
        drawn = cell.init(np.random.default_rng(0), scheme)
        assert {name: array.shape for name, array in drawn.items()} == cell.shapes()
        assert {array.dtype for array in drawn.values()} == {np.dtype(np.float64)}
        assert sum(array.size for array in drawn.values()) == cell.parameter_count
        again = cell.init(np.random.default_rng(0), scheme)
        assert same(drawn.values(), again.values())


def recurrent_blocks_start_orthogonal(cell: Cell) -> None:
    drawn = cell.init(np.random.default_rng(0))["w_h"]
    for block in np.split(drawn, len(cell.blocks)):
        np.testing.assert_allclose(block.T @ block, np.eye(cell.output_size), atol=1e-12)


LAWS = (
    equations_are_the_step,
    every_term_of_the_equations_counts,
    numpy_and_torch_run_the_same_lines,
    step_leaves_its_inputs_alone,
    gates_stay_in_their_range,
    nan_is_never_swallowed,
    float32_stays_float32,
    jacobian_is_the_derivative,
    state_survives_packing,
    specification_survives_json,
    first_parameters_have_their_shapes,
    recurrent_blocks_start_orthogonal,
)
