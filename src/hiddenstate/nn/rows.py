"""Parameters of a cell in the rows, order and number that torch's and cuDNN's operators expect."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hiddenstate.cells import GRU, LSTM, Cell, Elman

SATURATED = 1e4
"""A gate input beyond which a sigmoid is exactly 0 or 1, in float16 as well."""


def missing_in_torch(cell: Cell) -> list[str]:
    """Return what this cell has that torch's operators cannot express; empty if nothing."""
    if isinstance(cell, LSTM):
        wanted = {"peepholes": cell.peephole, "layer norm inside the cell": cell.layer_norm}
        return [f"torch's LSTM has no {name}" for name, has in wanted.items() if has]
    if isinstance(cell, GRU) and cell.reset == "before":
        return ["torch's GRU resets after the recurrent product, this cell before it"]
    if isinstance(cell, (Elman, GRU)):
        return []
    return [f"torch has no operator for the cell {cell.name}"]


def torch_rows(cell: Cell, params: Mapping[str, Tensor]) -> list[Tensor]:
    """Return w_x, w_h, b_x, b_h (without biases none of the two), w_p as torch's operator does.

    Exact for every cell with nothing in `missing_in_torch`: an update gate that writes has its rows
    negated, 1 - sigmoid(a) = sigmoid(-a); so has the forget gate that a coupled LSTM lacks; an LSTM
    without a forget gate gets one that is always 1.
    """
    names = [name for name in ("w_x", "w_h", "b_x", "b_h") if name in params]
    arrays = [params[name] for name in names]
    if len(arrays) == 3:
        arrays.append(torch.zeros_like(arrays[2]))
    if isinstance(cell, GRU) and cell.update == "writes":
        sign = arrays[0].new_ones(3)
        sign[1] = -1.0
        sign = sign.repeat_interleave(cell.hidden_size)
        arrays = [array * sign.view(-1, *(1,) * (array.ndim - 1)) for array in arrays]
    if isinstance(cell, LSTM):
        if cell.coupled:
            arrays = [_insert_forget(array, -array.chunk(3)[0]) for array in arrays]
        elif not cell.forget_gate:
            arrays = _forget_nothing(arrays)
        if cell.projection:
            arrays.append(params["w_p"])
    return arrays


def _insert_forget(array: Tensor, forget: Tensor) -> Tensor:
    height = forget.shape[0]
    return torch.cat([array[:height], forget, array[height:]])


def _forget_nothing(arrays: list[Tensor]) -> list[Tensor]:
    if len(arrays) == 2:
        arrays = [*arrays, *arrays[0].new_zeros(2, arrays[0].shape[0])]
    height = arrays[0].shape[0] // 3
    w_x, w_h, b_x, b_h = (_insert_forget(each, torch.zeros_like(each[:height])) for each in arrays)
    always = torch.zeros_like(b_x)
    always[height : 2 * height] = SATURATED
    return [w_x, w_h, b_x + always, b_h]
