"""Executes the equations of a cell's docstring for one row of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np

from hiddenstate.cells import Cell


class Symbols(dict[str, Any]):
    """Names of the equations; s_i is the block i in the rows of s."""

    def __init__(self, blocks: dict[str, slice], known: dict[str, Any]) -> None:
        super().__init__(known)
        self.blocks = blocks

    def __missing__(self, name: str) -> Any:
        stacked, _, block = name.partition("_")
        if block in self.blocks and stacked in self:
            return self[stacked][self.blocks[block]]
        raise KeyError(name)


def execute(cell: Cell, text: str, params: dict, x: np.ndarray, state: dict) -> Symbols:
    """All symbols after the last line; x [D], state {name: [width]}."""
    size = cell.hidden_size
    blocks = {name: slice(k * size, (k + 1) * size) for k, name in enumerate(cell.blocks)}
    known: dict[str, Any] = {
        "x": x,
        **state,
        "tanh": np.tanh,
        "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
        "relu": lambda a: np.maximum(a, 0),
        "layer_norm": lambda a, gain, shift=0.0: (
            (a - a.mean()) / np.sqrt(a.var() + 1e-5) * gain + shift
        ),
    }
    for name, value in params.items():
        known[name.replace("w_", "W_")] = value
        if name in ("w_x", "w_h", "b_x", "b_h"):
            for block, rows in blocks.items():
                known[f"{name.replace('w_', 'W_')}{block}"] = value[rows]
    for block, rows in blocks.items():
        if biases := [params[name][rows] for name in ("b_x", "b_h") if name in params]:
            known[f"b_{block}"] = sum(biases)
    symbols = Symbols(blocks, known)
    exec(text, {}, symbols)
    return symbols
