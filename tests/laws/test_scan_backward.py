"""The hand-written reverse pass against finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.errors import KernelRefusal, ShapeError
from hiddenstate.kernels import scan
from hiddenstate.kernels.backward import backward
from hiddenstate.nn.arrays import TORCH
from tests.laws.cell_cases import as_torch, input_of, label, params_of, state_of

LENGTHS = [4, 0, 2]
CELLS: list[Cell] = [
    Elman(3, 4),
    LSTM(3, 4),
    LSTM(3, 4, peephole=True, coupled=True, projection=2),
    GRU(3, 4, 2),
    GRU(3, 4, reset="before", update="writes"),
]


def central_difference(loss: Any, array: np.ndarray, step: float = 1e-6) -> np.ndarray:
    slope = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        kept = array[index]
        array[index] = kept + step
        above = loss()
        array[index] = kept - step
        slope[index] = (above - loss()) / (2 * step)
        array[index] = kept
    return slope


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS, ids=label)
def test_finite_differences(cell: Cell, reverse: bool) -> None:
    params, x, state = params_of(cell), input_of(cell, time=4), state_of(cell)
    rng = np.random.default_rng(3)
    d_output = rng.standard_normal((3, 4, cell.output_size))
    d_state = cell.State(*(rng.standard_normal(array.shape) for array in state))

    def loss() -> float:
        ran = scan(NUMPY, cell, params, x, state, LENGTHS, reverse=reverse)
        ends = sum((a * b).sum() for a, b in zip(ran.state, d_state, strict=True))
        return float((ran.output * d_output).sum() + ends)

    gradients = backward(
        cell, params, x, d_output, d_state, state=state, lengths=LENGTHS, reverse=reverse
    )
    pairs = [(gradients.params[name], params[name]) for name in params]
    for ours, array in [*pairs, (gradients.x, x), *zip(gradients.state, state, strict=True)]:
        np.testing.assert_allclose(ours, central_difference(loss, array), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("cell", [*CELLS, LSTM(3, 4, layer_norm=True)], ids=label)
def test_torch_differentiates_the_same_lines_twice(cell: Cell) -> None:
    params, x, state = params_of(cell), input_of(cell, 2, 3), state_of(cell, 2)
    weights = as_torch(params)

    def output(x: torch.Tensor, *first: torch.Tensor) -> torch.Tensor:
        return scan(TORCH, cell, weights, x, cell.State(*first), [3, 1]).output

    leaves = (as_torch(x, True), *as_torch(state, True))
    assert torch.autograd.gradcheck(output, leaves)
    assert torch.autograd.gradgradcheck(output, leaves)


def test_nothing_asked_is_nothing_given() -> None:
    cell = GRU(3, 4)
    gradients = backward(cell, params_of(cell), input_of(cell))
    assert not any(array.any() for array in (*gradients.params.values(), gradients.x))
    last = cell.State(np.ones((3, 4)))
    assert backward(cell, params_of(cell), input_of(cell), None, last).x.any()


def test_layer_norm_is_refused() -> None:
    cell = LSTM(3, 4, layer_norm=True)
    with pytest.raises(KernelRefusal, match="no reverse step is written for layer norm"):
        backward(cell, params_of(cell), input_of(cell))


def test_gradient_of_another_shape_is_refused() -> None:
    cell = GRU(3, 4)
    with pytest.raises(ShapeError, match="d_output has shape"):
        backward(cell, params_of(cell), input_of(cell), np.zeros((3, 1, 4)))
