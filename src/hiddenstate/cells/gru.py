"""The gated recurrent unit, in each of its published conventions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from hiddenstate.cells.arrays import NUMPY, Array, ArrayOps
from hiddenstate.cells.cell import Cell, Params
from hiddenstate.cells.registry import register


class GRUState(NamedTuple):
    """h [B, H]."""

    h: Array


class GRUGates(NamedTuple):
    """Reset r, update z, candidate n, each [B, H]."""

    r: Array
    z: Array
    n: Array


@register
@dataclass(frozen=True)
class GRU(Cell):
    """A state blended with a candidate by one update gate; two choices name the convention.

    Equations
    ---------
    r = sigmoid(W_xr @ x + W_hr @ h [biases: + b_r])
    z = sigmoid(W_xz @ x + W_hz @ h [biases: + b_z])
    [reset after: n = tanh(W_xn @ x [biases: + b_xn] + r * (W_hn @ h [biases 2: + b_hn]))]
    [reset before: n = tanh(W_xn @ x + W_hn @ (r * h) [biases: + b_n])]
    [update keeps: h = z * h + (1 - z) * n]
    [update writes: h = (1 - z) * h + z * n]

    Shapes: x [B, D], h r z n [B, H]; w_x [3H, D], w_h [3H, H], b_x [3H], b_h [3H], rows r z n.
    Numerics: r, z in (0, 1), n in (-1, 1), h between its old value and n; 3H(D + H)
    multiply-adds a step. b_r is the sum of the biases there are, b_xr + b_hr; so are b_z, b_n.
    Conventions: reset "after" and update "keeps" with biases=2 is torch.nn.GRU and cuDNN;
    "before" is Cho et al. 2014, later version, and Chung et al. 2014. `conventions.convert`
    turns keeps into writes exactly and refuses before <-> after.
    References: Cho et al. 2014, arXiv:1406.1078, eq. 5-8; Chung et al. 2014, arXiv:1412.3555,
    section 3.2.

    >>> print(GRU(3, 2, biases=0, update="writes").equations.splitlines()[-1])
    h = (1 - z) * h + z * n
    """

    reset: Literal["after", "before"] = "after"
    update: Literal["keeps", "writes"] = "keeps"

    name = "gru"
    State = GRUState
    Gates = GRUGates
    options: ClassVar[Mapping[str, tuple[object, ...]]] = MappingProxyType(
        {"reset": ("after", "before"), "update": ("keeps", "writes")}
    )

    @property
    def blocks(self) -> tuple[str, ...]:
        """r, z, n, as in torch and cuDNN."""
        return GRUGates._fields

    @property
    def convention(self) -> str:
        """Where the reset gate acts and which way the update gate points."""
        return f"reset {self.reset} the recurrent product, update {self.update} the state"

    @property
    def gate_ranges(self) -> Mapping[str, tuple[float, float]]:
        """Sigmoids in [0, 1], the candidate in [-1, 1]."""
        return MappingProxyType({"r": (0.0, 1.0), "z": (0.0, 1.0), "n": (-1.0, 1.0)})

    @property
    def keep_rows(self) -> Mapping[str, int]:
        """The update gate, in the direction that the convention gives it."""
        return MappingProxyType({"z": 1 if self.update == "keeps" else -1})

    def step(
        self, xp: ArrayOps, params: Params, projected: Array, state: Any
    ) -> tuple[GRUState, GRUGates]:
        """Return the next state and its gates."""
        x_r, x_z, x_n = xp.split(projected, 3)
        h, w_h, b_h = state.h, params["w_h"], params.get("b_h")
        if self.reset == "after":
            h_r, h_z, h_n = xp.split(xp.linear(h, w_h, b_h), 3)
            r, z = xp.sigmoid(x_r + h_r), xp.sigmoid(x_z + h_z)
            n = xp.tanh(x_n + r * h_n)
        else:
            two = 2 * self.hidden_size
            b_rz, b_n = (None, None) if b_h is None else (b_h[:two], b_h[two:])
            h_r, h_z = xp.split(xp.linear(h, w_h[:two], b_rz), 2)
            r, z = xp.sigmoid(x_r + h_r), xp.sigmoid(x_z + h_z)
            n = xp.tanh(x_n + xp.linear(r * h, w_h[two:], b_n))
        keep, write = (z, 1.0 - z) if self.update == "keeps" else (1.0 - z, z)
        return GRUState(keep * h + write * n), GRUGates(r, z, n)

    def jacobian(self, params: Params, x_t: Array, state: Any) -> Array:
        """Return d h_t / d h_{t-1}, [B, H, H]."""
        _, (r, z, n) = self.step(NUMPY, params, self.project(NUMPY, params, x_t), state)
        h, identity = state.h, np.eye(self.hidden_size)
        w_r, w_z, w_n = np.split(params["w_h"], 3)
        r_h = (r * (1 - r))[..., None] * w_r
        z_h = (z * (1 - z))[..., None] * w_z
        if self.reset == "after":
            b_h = params.get("b_h")
            inner = NUMPY.linear(h, w_n, None if b_h is None else b_h[2 * self.hidden_size :])
            n_h = inner[..., None] * r_h + r[..., None] * w_n
        else:
            n_h = w_n @ (h[..., None] * r_h + r[..., None] * identity)
        n_h = (1 - n * n)[..., None] * n_h
        sign = 1.0 if self.update == "keeps" else -1.0
        keep = z if self.update == "keeps" else 1 - z
        moved = (sign * (h - n))[..., None] * z_h + (1 - keep)[..., None] * n_h
        return keep[..., None] * identity + moved
