"""From and to hiddenstate's own torch modules."""

from __future__ import annotations

from typing import Any, cast

import torch

from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.proof import difference
from hiddenstate.interop.weights import Array, States, Way, Weights
from hiddenstate.nn import Bidirectional, Layer, Recurrent, Stack


def from_stack(layer: Layer) -> Weights:
    """Return copies of the weights of a Recurrent, a Bidirectional or a Stack of them.

    Dropout and dropconnect act in training only and are left behind. Raises SpecError for other
    layers, ConversionRefusal with the measured error for what acts when the model runs and is no
    weight of a cell (residuals, layer norm between layers, zoneout, a learned first state).
    """
    layers = cast("list[Layer]", list(layer.layers)) if isinstance(layer, Stack) else [layer]
    directions = [_directions(k, each) for k, each in enumerate(layers)]
    weights = Weights(tuple(tuple(map(_way, ways)) for ways in directions))
    each = [way for ways in directions for way in ways]
    found = {
        "residuals": isinstance(layer, Stack) and layer.residual,
        "layer norm between layers": isinstance(layer, Stack) and len(layer.norms) > 0,
        "zoneout": any(way.zoneout for way in each),
        "a learned first state": any(way.learned_state for way in each),
    }
    reasons = [reason for reason, holds in found.items() if holds]
    if reasons:
        error = difference(weights, _runner(layer), weights.dtype)
        raise ConversionRefusal(
            f"This {type(layer).__name__} has {' and '.join(reasons)}.",
            f"Cells, layers and directions are exchanged; without these the output would move by "
            f"{error:.2g}.",
            "Convert a model without them.",
            error,
        )
    return weights


def to_stack(weights: Weights) -> Stack:
    """Return a Stack (in evaluation mode) that computes what these weights do, on copies."""
    layers: list[Layer] = []
    for ways in weights.layers:
        each = [_recurrent(way) for way in ways]
        layers.append(Bidirectional(*each) if len(each) == 2 else each[0])
    return Stack(layers).eval()


def _directions(k: int, layer: Layer) -> list[Recurrent]:
    if isinstance(layer, Bidirectional):
        return [layer.forward_layer, layer.backward_layer]
    if isinstance(layer, Recurrent):
        return [layer]
    raise SpecError(
        f"Layer {k} is a {type(layer).__name__}.",
        "Recurrent, Bidirectional and a Stack of them are exchanged with other systems.",
        "Convert a model of recurrent layers.",
    )


def _way(layer: Recurrent) -> Way:
    params = {name: weight.detach().cpu().numpy().copy() for name, weight in layer.params.items()}
    return Way(layer.cell, params, layer.reverse)


def _recurrent(way: Way) -> Recurrent:
    arrays = {name: torch.from_numpy(array.copy()) for name, array in way.params.items()}
    layer = Recurrent(way.cell, reverse=way.reverse, init="uniform", seed=0)
    layer = layer.to(arrays["w_x"].dtype)
    layer.load_state_dict(arrays)
    return layer


def _runner(layer: Layer) -> Any:
    def run(x: Array, _: Array | None, __: States | None) -> tuple[Array, None]:
        training, device = layer.training, next(layer.parameters()).device
        with torch.no_grad():
            output, _last = layer.eval()(torch.from_numpy(x).to(device))
        layer.train(training)
        return output.cpu().numpy(), None

    return run
