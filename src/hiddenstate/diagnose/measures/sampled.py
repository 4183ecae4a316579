"""What the rules on memory, gates and weights look at: layers in reading order, steps at random."""

from __future__ import annotations

import numpy as np

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.measures.once import once
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace, Trace

SAMPLE = 2048
"""Steps of a layer that are looked at; more of them change no share by more than a few percent."""


def layers_of(trace: Trace) -> list[LayerTrace]:
    """Return each layer in reading order, by its call with most steps.

    Left out are layers that ran no step, and those with numbers that are not finite. Raises Skip
    where none is left.
    """
    by_layer: dict[str, LayerTrace] = {}
    for layer in trace.layers:
        name = name_of(layer)
        if name not in by_layer or layer.lengths.sum() > by_layer[name].lengths.sum():
            by_layer[name] = layer
    ran = [layer for layer in by_layer.values() if layer.lengths.sum()]
    finite = [_turned(layer) if layer.reverse else layer for layer in ran if is_finite(layer)]
    if not finite:
        raise Skip("no layer's numbers are finite" if ran else "no recurrent layer ran a step")
    return finite


def name_of(layer: LayerTrace) -> str:
    """Return a layer's place in its module, the same for all calls of it."""
    return layer.name.partition("#")[0]


@once
def is_finite(layer: LayerTrace) -> bool:
    """Return whether what the layer read, its weights and its states are finite."""
    arrays = (layer.x, *layer.states, *layer.params.values())
    return all(bool(np.isfinite(each).all()) for each in arrays)


@once
def _turned(layer: LayerTrace) -> LayerTrace:
    return layer.turned()


def sample(layer: LayerTrace, array: Floats) -> Floats:
    """Return [N, ...] of an array [B, T, ...]: its valid steps, evenly thinned to SAMPLE."""
    rows, steps = np.nonzero(layer.valid)
    if len(rows) > SAMPLE:
        pick = np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)
        rows, steps = rows[pick], steps[pick]
    return np.asarray(array[rows, steps], np.float64)
