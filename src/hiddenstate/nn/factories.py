"""`Elman`, `LSTM` and `GRU` with the arguments that users of torch.nn expect."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from hiddenstate.cells import build
from hiddenstate.cells.cell import Scheme
from hiddenstate.nn.layer import Layer
from hiddenstate.nn.recurrent import Recurrent
from hiddenstate.nn.stack import Bidirectional, Stack


def stack_of(
    name: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    variational: bool = False,
    residual: bool = False,
    learned_state: bool = False,
    zoneout: float = 0.0,
    dropconnect: float = 0.0,
    kernel: str | None = None,
    init: Scheme = "orthogonal",
    longest_lag_steps: int | None = None,
    seed: int | np.random.Generator | None = None,
    **cell_options: Any,
) -> Stack:
    """Build a Stack of equal layers of the cell called `name`, always batch first.

    Cell options (biases, peephole, projection, reset, activation, ...) go to `cells.build`; the
    rest is explained in `Recurrent` and `Stack`. Raises SpecError.

    >>> stack_of("lstm", 5, 7, num_layers=2, bidirectional=True).output_size
    14
    """
    rng = np.random.default_rng(int(torch.randint(2**63 - 1, ())) if seed is None else seed)

    def layer(width: int) -> Layer:
        cell = build(name, width, hidden_size, **cell_options)
        one_way: Callable[..., Recurrent] = partial(
            Recurrent,
            cell,
            learned_state=learned_state,
            zoneout=zoneout,
            dropconnect=dropconnect,
            kernel=kernel,
            init=init,
            longest_lag_steps=longest_lag_steps,
            seed=rng,
        )
        return Bidirectional(one_way(), one_way(reverse=True)) if bidirectional else one_way()

    layers = [layer(input_size)]
    layers += [layer(layers[0].output_size) for _ in range(num_layers - 1)]
    return Stack(layers, dropout=dropout, variational=variational, residual=residual)


def Elman(input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> Stack:
    """Build a Stack of Elman cells with the options of `stack_of`."""
    return stack_of("elman", input_size, hidden_size, num_layers, **options)


def LSTM(input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> Stack:
    """Build a Stack of LSTM cells with the options of `stack_of`."""
    return stack_of("lstm", input_size, hidden_size, num_layers, **options)


def GRU(input_size: int, hidden_size: int, num_layers: int = 1, **options: Any) -> Stack:
    """Build a Stack of GRU cells with the options of `stack_of`."""
    return stack_of("gru", input_size, hidden_size, num_layers, **options)
