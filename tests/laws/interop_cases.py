"""Weights to exchange, and the systems that they are exchanged with, where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
import pytest

from hiddenstate.cells import GRU, LSTM, Cell, Elman
from hiddenstate.interop.conventions import FLAX, HASTE, KERAS, NNX, TORCH, System
from hiddenstate.interop.weights import Way, Weights

D, H = 2, 3
CELLS: dict[str, Callable[[int, int], Cell]] = {
    "elman": lambda *sizes: Elman(*sizes, 2),
    "elman relu": lambda *sizes: Elman(*sizes, activation="relu"),
    "lstm": lambda *sizes: LSTM(*sizes, 2),
    "lstm one bias": lambda *sizes: LSTM(*sizes),
    "lstm bare": lambda *sizes: LSTM(*sizes, 0),
    "lstm coupled": lambda *sizes: LSTM(*sizes, coupled=True),
    "lstm 1997": lambda *sizes: LSTM(*sizes, 0, forget_gate=False),
    "lstm projection": lambda *sizes: LSTM(*sizes, 2, projection=2),
    "lstm peephole": lambda *sizes: LSTM(*sizes, peephole=True),
    "lstm layer norm": lambda *sizes: LSTM(*sizes, layer_norm=True),
    "gru": lambda *sizes: GRU(*sizes, 2),
    "gru one bias": lambda *sizes: GRU(*sizes),
    "gru bare": lambda *sizes: GRU(*sizes, 0),
    "gru writes": lambda *sizes: GRU(*sizes, 2, update="writes"),
    "gru before": lambda *sizes: GRU(*sizes, reset="before"),
    "gru before two": lambda *sizes: GRU(*sizes, 2, reset="before", update="writes"),
}
SHAPES = {
    "one layer": (False,),
    "both directions": (True,),
    "two layers, both directions": (True, True),
}
DTYPES = ("float32", "float64")


class Face(NamedTuple):
    """How a system is asked: into it, and back from what came out."""

    system: System
    module: str
    needs: str
    to: str
    back: Callable[[Any, Any, str], Any]

    def load(self) -> Any:
        """Return the converters, or skip where the system is not installed."""
        if not find_spec(self.needs):
            pytest.skip(f"{self.needs} is not installed: pip install 'hiddenstate[interop]'")
        return import_module(f"hiddenstate.interop.{self.module}")


FACES = {
    "torch": Face(
        *(TORCH, "torch", "torch", "to_torch"),
        lambda m, value, phi: m.from_torch(value.state_dict(), activation=phi),
    ),
    "keras": Face(KERAS, "keras", "keras", "to_keras", lambda m, value, _: m.from_keras(value)),
    "haste": Face(
        *(HASTE, "haste", "numpy", "to_haste"),
        lambda m, value, _: m.from_haste(m.flatten(value)),
    ),
    "flax": Face(
        *(FLAX, "flax", "flax", "to_flax"),
        lambda m, value, phi: m.from_flax(m.flatten(value.params), activation=phi),
    ),
    "nnx": Face(NNX, "nnx", "flax", "to_nnx", lambda m, value, _: m.from_nnx(value)),
}


def way(cell: Cell, rng: np.random.Generator, dtype: str, *, reverse: bool = False) -> Way:
    """Draw weights in which nothing is zero or one, from U(-1.4 / sqrt(H), 1.4 / sqrt(H))."""
    shapes, bound = cell.shapes().items(), 1.4 / sqrt(cell.hidden_size)
    params = {name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in shapes}
    return Way(cell, params, reverse)


def weights(name: str, shape: str, dtype: str, sizes: tuple[int, int] = (D, H)) -> Weights:
    """Draw layers of one cell with D and H."""
    rng, (size, height), layers = np.random.default_rng(0), sizes, []
    for both in SHAPES[shape]:
        ways = [way(CELLS[name](size, height), rng, dtype)]
        if both:
            ways.append(way(CELLS[name](size, height), rng, dtype, reverse=True))
        layers.append(tuple(ways))
        size = sum(each.cell.output_size for each in ways)
    return Weights(tuple(layers))


def same(left: Weights, right: Weights) -> bool:
    """Whether two are the same cells with the same bits."""
    return [way.cell for way in left.ways] == [way.cell for way in right.ways] and all(
        a.reverse == b.reverse and all(np.array_equal(a.params[k], b.params[k]) for k in a.params)
        for a, b in zip(left.ways, right.ways, strict=True)
    )
