"""Elman's simple recurrent network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from hiddenstate.cells.arrays import NUMPY, Array, ArrayOps
from hiddenstate.cells.cell import Cell, Params
from hiddenstate.cells.registry import register


class ElmanState(NamedTuple):
    """h [B, H]."""

    h: Array


class ElmanGates(NamedTuple):
    """Empty: the cell has no gates."""


@register
@dataclass(frozen=True)
class Elman(Cell):
    """The simplest recurrence: the whole state is rewritten at every step.

    Equations
    ---------
    [activation tanh: h = tanh(W_xh @ x + W_hh @ h [biases: + b_h])]
    [activation relu: h = relu(W_xh @ x + W_hh @ h [biases: + b_h])]

    Shapes: x [B, D], h [B, H]; w_x [H, D], w_h [H, H], b_x [H], b_h [H].
    Numerics: h in (-1, 1) with tanh, unbounded with relu; H(D + H) multiply-adds a step.
    Conventions: torch.nn.RNN is biases=2, and only the sum of the two counts. relu with
    `init(scheme="identity")` is the IRNN.
    References: Elman 1990, 10.1207/s15516709cog1402_1; Le, Jaitly, Hinton 2015, arXiv:1504.00941.

    >>> Elman(input_size=3, hidden_size=2).parameter_count
    12
    """

    activation: Literal["tanh", "relu"] = "tanh"

    name = "elman"
    State = ElmanState
    Gates = ElmanGates
    options: ClassVar[Mapping[str, tuple[object, ...]]] = MappingProxyType(
        {"activation": ("tanh", "relu")}
    )

    @property
    def blocks(self) -> tuple[str, ...]:
        """One block, the state itself."""
        return ("h",)

    @property
    def convention(self) -> str:
        """The activation."""
        return self.activation

    @property
    def gate_ranges(self) -> Mapping[str, tuple[float, float]]:
        """Empty: no gates."""
        return MappingProxyType({})

    def step(
        self, xp: ArrayOps, params: Params, projected: Array, state: Any
    ) -> tuple[ElmanState, ElmanGates]:
        """Return the next state; there are no gates."""
        activate = xp.tanh if self.activation == "tanh" else xp.relu
        total = projected + xp.linear(state.h, params["w_h"], params.get("b_h"))
        return ElmanState(activate(total)), ElmanGates()

    def jacobian(self, params: Params, x_t: Array, state: Any) -> Array:
        """Return diag(phi') W_hh, [B, H, H] (Pascanu, Mikolov, Bengio 2013, eq. 5)."""
        h = self.step(NUMPY, params, self.project(NUMPY, params, x_t), state)[0].h
        slope = 1.0 - h * h if self.activation == "tanh" else np.where(h > 0, 1.0, 0.0)
        return slope[..., None] * params["w_h"]
