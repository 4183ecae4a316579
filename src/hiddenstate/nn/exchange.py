"""From torch.nn.RNN, LSTM and GRU and back, with the same numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from hiddenstate.cells import GRU, LSTM, Cell, Elman
from hiddenstate.errors import SpecError
from hiddenstate.nn.layer import Layer
from hiddenstate.nn.recurrent import Recurrent
from hiddenstate.nn.rows import missing_in_torch, torch_rows
from hiddenstate.nn.stack import Bidirectional, Stack

TorchModule = nn.RNN | nn.LSTM | nn.GRU


def from_torch(module: TorchModule) -> Stack:
    """Return a Stack that computes what torch's module does, on copies of its weights.

    The Stack is batch first whatever the module's `batch_first`; its state is a tuple over layers
    of named arrays [B, H]. Raises SpecError for another module.

    >>> from_torch(torch.nn.GRU(5, 7, num_layers=2)).layers[1].cell.convention
    'reset after the recurrent product, update keeps the state'
    """
    if not isinstance(module, TorchModule):
        raise SpecError(
            f"from_torch got a {type(module).__name__}.",
            "It reads torch.nn.RNN, torch.nn.LSTM and torch.nn.GRU.",
            "Give one of those, for example model.lstm.",
        )
    layers: list[Layer] = []
    for k in range(module.num_layers):
        if module.bidirectional:
            layers.append(Bidirectional(_one_way(module, k), _one_way(module, k, reverse=True)))
        else:
            layers.append(_one_way(module, k))
    return Stack(layers, dropout=float(module.dropout)).train(module.training)


def to_torch(stack: Stack) -> TorchModule:
    """Return the torch module (batch first) that computes what `stack` does, on copied weights.

    Cells whose mathematics torch has in other rows are converted exactly (an update gate that
    writes, a coupled or absent forget gate, one bias). Raises SpecError with every reason when
    torch has no such module.
    """
    layers = list(cast("list[Layer]", stack.layers))
    ways = [_directions(layer) for layer in layers]
    reasons = _obstacles(stack, ways)
    if reasons:
        raise SpecError(
            f"This Stack has no equal in torch.nn: {'; '.join(reasons)}.",
            "torch.nn repeats one plain cell over equal layers.",
            "Keep it as a hiddenstate module, which is a torch module too.",
        )
    cell, arranged = ways[0][0].cell, [[torch_rows(w.cell, w.params) for w in way] for way in ways]
    projection = {"proj_size": cell.output_size} if cell.output_size != cell.hidden_size else {}
    module: TorchModule = _module_class(cell)(
        cell.input_size,
        cell.hidden_size,
        num_layers=len(layers),
        bias=len(arranged[0][0]) >= 4,
        batch_first=True,
        dropout=stack.dropouts[0].share if len(layers) > 1 else 0.0,
        bidirectional=len(ways[0]) == 2,
        **({"nonlinearity": cell.activation} if isinstance(cell, Elman) else {}),
        **projection,
    )
    first = arranged[0][0][0]
    module.to(device=first.device, dtype=first.dtype).train(stack.training)
    with torch.no_grad():
        for k, way in enumerate(arranged):
            for reverse, weights in enumerate(way):
                for into, weight in zip(_weights(module, k, bool(reverse)), weights):
                    into.copy_(weight)
    return module


def cell_of(
    module: TorchModule, k: int, *, reverse: bool = False
) -> tuple[Cell, dict[str, Tensor]]:
    """Return the cell that layer k of torch's module runs in one direction, with its weights."""
    weights = _weights(module, k, reverse)
    biases = 2 if module.bias else 0
    sizes = (weights[0].shape[1], module.hidden_size, biases)
    cell: Cell
    if isinstance(module, nn.LSTM):
        cell = LSTM(*sizes, projection=module.proj_size or None)
    elif isinstance(module, nn.GRU):
        cell = GRU(*sizes)
    else:
        cell = Elman(*sizes, activation="relu" if module.nonlinearity == "relu" else "tanh")
    names = [*("w_x", "w_h", "b_x", "b_h")[: 2 + biases], "w_p"]
    return cell, {name: weight.detach() for name, weight in zip(names, weights)}


def _one_way(module: TorchModule, k: int, reverse: bool = False) -> Recurrent:
    cell, params = cell_of(module, k, reverse=reverse)
    layer = Recurrent(cell, reverse=reverse, init="uniform", seed=0).to(params["w_x"])
    layer.load_state_dict(params)
    return layer


def _weights(module: TorchModule, k: int, reverse: bool) -> list[Tensor]:
    suffix = f"_l{k}_reverse" if reverse else f"_l{k}"
    names = [f"{name}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    names = names if module.bias else names[:2]
    if module.proj_size:
        names.append(f"weight_hr{suffix}")
    return [getattr(module, name) for name in names]


def _directions(layer: Layer) -> list[Recurrent]:
    if isinstance(layer, Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    return [layer] if isinstance(layer, Recurrent) else []


def _obstacles(stack: Stack, ways: list[list[Recurrent]]) -> list[str]:
    if not all(ways):
        return ["a layer is neither a Recurrent nor a Bidirectional"]
    each = [recurrent for way in ways for recurrent in way]
    cells = [recurrent.cell for recurrent in each]
    outer = stack.input_dropout.share or stack.output_dropout.share
    found = {
        "it has residuals": stack.residual,
        "it has layer norm": len(stack.norms) > 0,
        "it drops inputs or outputs": outer,
        "its dropout is variational": any(d.share and d.variational for d in stack.dropouts),
        "it has zoneout": any(recurrent.zoneout for recurrent in each),
        "it has dropconnect": any(recurrent.dropconnect.share for recurrent in each),
        "it learns its first state": any(recurrent.learned_state for recurrent in each),
        "a layer only runs backwards": any(len(way) == 1 and way[0].reverse for way in ways),
        "its layers differ": len({replace(cell, input_size=1) for cell in cells}) > 1
        or len({len(way) for way in ways}) > 1,
    }
    return [reason for reason, holds in found.items() if holds] + missing_in_torch(cells[0])


def _module_class(cell: Cell) -> Any:
    if isinstance(cell, LSTM):
        return nn.LSTM
    return nn.GRU if isinstance(cell, GRU) else nn.RNN
