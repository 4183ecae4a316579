"""A new cell is one class, one registry line and one naive entry: here is one, under all laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest

from hiddenstate.cells import CELLS, NUMPY, Array, ArrayOps, Cell, Params, build
from hiddenstate.kernels.backward import refusals
from tests.laws import cell_laws, scan_laws
from tests.laws.cell_cases import hold, label, variants
from tests.naive import NAIVE


class BlendState(NamedTuple):
    h: Array


class BlendGates(NamedTuple):
    k: Array
    n: Array


@dataclass(frozen=True)
class Blend(Cell):
    """A GRU without its reset gate, or with a fixed blend.

    Equations
    ---------
    [no fixed: k = sigmoid(W_xk @ x + W_hk @ h [biases: + b_k])]
    [fixed: k = 0.5]
    n = tanh(W_xn @ x + W_hn @ h [biases: + b_n])
    h = k * h + (1 - k) * n
    """

    fixed: bool = False

    name = "blend"
    State = BlendState
    Gates = BlendGates
    options: ClassVar[Mapping[str, tuple[object, ...]]] = {"fixed": (False, True)}

    @property
    def blocks(self) -> tuple[str, ...]:
        return ("n",) if self.fixed else ("k", "n")

    @property
    def convention(self) -> str:
        return "fixed" if self.fixed else "gated"

    @property
    def gate_ranges(self) -> Mapping[str, tuple[float, float]]:
        return {"k": (0.0, 1.0), "n": (-1.0, 1.0)}

    def step(self, xp: ArrayOps, params: Params, projected: Array, state: Any) -> Any:
        rows = xp.linear(state.h, params["w_h"], params.get("b_h")) + projected
        *gate, row_n = xp.split(rows, len(self.blocks))
        n = xp.tanh(row_n)
        k = xp.sigmoid(gate[0]) if gate else xp.zeros(n.shape, n) + 0.5
        return BlendState(k * state.h + (1 - k) * n), BlendGates(k, n)

    def jacobian(self, params: Params, x_t: Array, state: Any) -> Array:
        _, (k, n) = self.step(NUMPY, params, self.project(NUMPY, params, x_t), state)
        *w_k, w_n = np.split(params["w_h"], len(self.blocks))
        moved = ((1 - k) * (1 - n * n))[..., None] * w_n
        if w_k:
            moved = moved + ((state.h - n) * k * (1 - k))[..., None] * w_k[0]
        return k[..., None] * np.eye(self.hidden_size) + moved


def naive_blend(params: dict, options: dict, x: list, state: dict) -> tuple[dict, dict]:
    h, size = state["h"], len(state["h"])
    total = []
    for row in range(len(params["w_x"])):
        entry = sum(w * value for w, value in zip(params["w_x"][row], x, strict=True))
        entry += sum(w * value for w, value in zip(params["w_h"][row], h, strict=True))
        total.append(entry + sum(params[b][row] for b in ("b_x", "b_h") if b in params))
    n = [math.tanh(a) for a in total[-size:]]
    k = [0.5 if options["fixed"] else 1 / (1 + math.exp(-a)) for a in total[:size]]
    return {"h": [k[j] * h[j] + (1 - k[j]) * n[j] for j in range(size)]}, {"k": k, "n": n}


@pytest.fixture
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CELLS, "blend", Blend)
    monkeypatch.setitem(NAIVE, "blend", naive_blend)


@pytest.mark.usefixtures("_registered")
@pytest.mark.parametrize("law", [*cell_laws.LAWS, *scan_laws.LAWS], ids=label)
def test_law(law: Callable[[Cell], None]) -> None:
    cells = list(variants("blend"))
    assert len(cells) == 6
    hold(law, cells)


@pytest.mark.usefixtures("_registered")
def test_it_is_built_by_name_and_the_reverse_pass_says_no() -> None:
    assert build("blend", 3, 2, fixed=True).parameter_count == 12
    assert refusals(build("blend", 3, 2)) == ["no reverse step is written for the cell blend"]


def test_it_is_gone_afterwards() -> None:
    assert "blend" not in CELLS
