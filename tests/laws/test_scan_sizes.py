"""Odd sizes against torch.nn, packed and bidirectional, forward and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.kernels import scan
from hiddenstate.kernels.backward import backward
from tests.laws.cell_cases import as_torch, input_of, params_of, state_of

NAMES = {"w_x": "weight_ih_l0", "w_h": "weight_hh_l0", "b_x": "bias_ih_l0", "b_h": "bias_hh_l0"}
NAMES["w_p"] = "weight_hr_l0"
D = 4


def twin(cell: Cell, *params: dict[str, np.ndarray]) -> nn.RNNBase:
    """torch.nn's module with these weights, one set a direction."""
    sizes: dict[str, Any] = {"batch_first": True, "dtype": torch.float64}
    sizes["bidirectional"] = len(params) == 2
    module: nn.RNNBase
    if isinstance(cell, Elman):
        module = nn.RNN(cell.input_size, cell.hidden_size, nonlinearity=cell.activation, **sizes)
    elif isinstance(cell, LSTM):
        width = cell.projection or 0
        module = nn.LSTM(cell.input_size, cell.hidden_size, proj_size=width, **sizes)
    else:
        module = nn.GRU(cell.input_size, cell.hidden_size, **sizes)
    for direction, weights in zip(("", "_reverse"), params):
        for name, value in weights.items():
            getattr(module, NAMES[name] + direction).data = torch.tensor(value)
    return module


def cells(hidden: int) -> list[Cell]:
    found: list[Cell] = [
        Elman(D, hidden, 2),
        Elman(D, hidden, 2, activation="relu"),
        LSTM(D, hidden, 2),
        GRU(D, hidden, 2),
    ]
    return [*found, LSTM(D, hidden, 2, projection=2)] if hidden > 2 else found


@pytest.mark.parametrize("hidden", [1, 5, 64])
@pytest.mark.parametrize("batch", [1, 3, 32])
@pytest.mark.parametrize("time", [1, 2, 17, 63])
def test_same_as_torch(time: int, batch: int, hidden: int) -> None:
    for cell in cells(hidden):
        params = {name: value / hidden**0.5 for name, value in params_of(cell).items()}
        x, state = input_of(cell, batch, time), state_of(cell, batch)
        module = twin(cell, params)
        x_leaf, leaves = as_torch(x, True), [each[None] for each in as_torch(state, True)]
        output, last = module(x_leaf, tuple(leaves) if len(leaves) > 1 else leaves[0])
        ours = scan(NUMPY, cell, params, x, state)
        tight: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-11, "err_msg": cell.convention}
        np.testing.assert_allclose(ours.output, output.detach(), **tight)
        for mine, other in zip(ours.state, last if len(leaves) > 1 else [last], strict=True):
            np.testing.assert_allclose(mine, other[0].detach(), **tight)
        weight = np.random.default_rng(5).standard_normal(ours.output.shape)
        gradients = backward(cell, params, x, weight, state=state)
        wanted = [x_leaf, *(getattr(module, NAMES[name]) for name in params)]
        truth = torch.autograd.grad((output * as_torch(weight)).sum(), wanted)
        mine = [gradients.x, *(gradients.params[name] for name in params)]
        for left, right in zip(mine, truth, strict=True):
            np.testing.assert_allclose(left, right, **tight)


@pytest.mark.parametrize("cell", cells(5), ids=lambda cell: f"{cell.name}-{cell.convention}")
def test_reverse_is_torch_packed_and_bidirectional(cell: Cell) -> None:
    lengths = [9, 1, 6, 4]
    there, back = params_of(cell, 0), params_of(cell, 4)
    x = input_of(cell, 4, 9)
    packed = nn.utils.rnn.pack_padded_sequence(
        torch.tensor(x), torch.tensor(lengths), batch_first=True, enforce_sorted=False
    )
    output, _ = nn.utils.rnn.pad_packed_sequence(twin(cell, there, back)(packed)[0], True)
    ours = [
        scan(NUMPY, cell, params, x, lengths=lengths, reverse=reverse).output
        for params, reverse in ((there, False), (back, True))
    ]
    np.testing.assert_allclose(np.concatenate(ours, -1), output.detach(), rtol=1e-10, atol=1e-12)


def test_memory_layout_does_not_matter() -> None:
    cell = GRU(D, 5)
    params, x = params_of(cell), input_of(cell, 4, 9)
    strided = np.asfortranarray(np.repeat(x, 2, axis=1))[:, ::2]
    assert not strided.flags.c_contiguous
    left, right = (scan(NUMPY, cell, params, each).output for each in (x, strided))
    np.testing.assert_allclose(left, right, rtol=1e-13)
