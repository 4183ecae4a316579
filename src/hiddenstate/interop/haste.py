"""haste's LSTM and GRU: layouts of weights, proven by haste's published equations.

haste needs its own CUDA build, so that the other side of the proof is not the package but
`published`: its equations in NumPy, on its arrays as they lie, which shares nothing with the cells.
Source: github.com/lmnt-com/haste, lib/lstm_forward_gpu.cu.cc and lib/gru_forward_gpu.cu.cc.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from hiddenstate.errors import SpecError
from hiddenstate.interop.conventions import HASTE, TABLE, named
from hiddenstate.interop.express import changes, convention_of, express
from hiddenstate.interop.layout import as_floats, from_order, in_order, names, read, write
from hiddenstate.interop.proof import Converted, Runner, prove
from hiddenstate.interop.weights import Array, States, Weights

Layers: TypeAlias = list[dict[str, Array]]
"""A layer's state_dict for each layer: kernel, recurrent_kernel, bias and, in a GRU,
recurrent_bias."""

_ROWS = [row for row in TABLE if row.system is HASTE]


def from_haste(
    arrays: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, part: str | None = None
) -> Converted[Layers]:
    """Read a layer's state_dict, that of a ModuleList of layers ("0.kernel", ...), or a list.

    part: only what stands below this name, such as "encoder"

    Raises SpecError where there are no such arrays.
    """
    notes = []
    if isinstance(arrays, Mapping):
        given, others = _found(arrays, part)
        notes += [f"{others} other arrays are left behind"] * bool(others)
    else:
        given = [dict(each) for each in arrays]
    layers = [{name: as_floats(array) for name, array in layer.items()} for layer in given]
    ways = []
    for k, layer in enumerate(layers):
        row = named(HASTE, "GRU" if "recurrent_bias" in layer else "LSTM")
        ways.append((read(row, layer, where=f"layer {k}"),))
    weights = Weights(tuple(ways))
    return Converted(layers, weights, _prove(weights, layers), tuple(notes))


def to_haste(weights: Weights) -> Converted[Layers]:
    """Return the arrays of haste's layers, from the lowest.

    Raises ConversionRefusal where that is not exact, SpecError where haste has no such layer.
    """
    backward = [k for k, ways in enumerate(weights.layers) if any(way.reverse for way in ways)]
    if backward:
        raise SpecError(
            f"Layer {backward[0]} runs backwards.",
            "haste's layers run forwards.",
            "Convert its directions one by one, and reverse the input yourself.",
        )
    ways = [express(way, convention_of(HASTE, way, k)) for k, (way,) in enumerate(weights.layers)]
    layers = [write(way, convention_of(HASTE, way)) for way in ways]
    notes = changes(weights, Weights(tuple((way,) for way in ways)))
    return Converted(layers, weights, _prove(weights, layers), notes)


def flatten(layers: Layers) -> dict[str, Array]:
    """Return all arrays by name, as the state_dict of one layer or of a ModuleList has them."""
    if len(layers) == 1:
        return dict(layers[0])
    return {f"{k}.{name}": array for k, layer in enumerate(layers) for name, array in layer.items()}


def published(
    layer: Mapping[str, Array], x: Array, state: Sequence[Array] | None
) -> tuple[Array, tuple[Array, ...]]:
    """Run one layer's arrays over x [B, T, D] by haste's equations; a state is h, or h and c."""
    width = layer["recurrent_kernel"].shape[0]
    zeros = np.zeros((x.shape[0], width), x.dtype)
    gru = "recurrent_bias" in layer
    h, *rest = (zeros, zeros) if state is None else state
    c = rest[0] if rest else zeros
    outputs = []
    for t in range(x.shape[1]):
        from_x, from_h = x[:, t] @ layer["kernel"], h @ layer["recurrent_kernel"]
        if gru:
            b_x, b_h = layer["bias"], layer["recurrent_bias"]
            z, r = (
                _sigmoid((from_x + b_x + from_h + b_h)[:, k * width : (k + 1) * width])
                for k in range(2)
            )
            last = slice(2 * width, None)
            g = np.tanh(from_x[:, last] + b_x[last] + r * (from_h[:, last] + b_h[last]))
            h = z * h + (1.0 - z) * g
        else:
            i, g, f, o = np.split(from_x + from_h + layer["bias"], 4, axis=1)
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            h = _sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, 1), (h,) if gru else (h, c)


def runner(layers: Layers) -> Runner:
    """Return how layers are run on NumPy arrays: by the published equations."""

    def run(x: Array, _: Array | None, states: States | None) -> tuple[Array, States]:
        last = []
        for k, layer in enumerate(layers):
            row = named(HASTE, "GRU" if "recurrent_bias" in layer else "LSTM")
            first = None if states is None else in_order(states[k][0], row)
            x, final = published(layer, x, first)
            last.append((from_order(final, row),))
        return x, tuple(last)

    return run


def _prove(weights: Weights, layers: Layers) -> Any:
    # haste's lengths choose the last state; the loop over time does not know them.
    return prove(weights, runner(layers), lengths=False, states=True, dtype=weights.dtype)


def _sigmoid(x: Array) -> Array:
    half: Array = 0.5 * np.tanh(0.5 * x) + 0.5
    return half


def _found(arrays: Mapping[str, Any], part: str | None) -> tuple[Layers, int]:
    known = {name for row in _ROWS for name in names(row)}
    layers: dict[str, dict[str, Array]] = {}
    for path, array in arrays.items():
        above, _, name = path.rpartition(".")
        inside = part is None or above == part or above.startswith(f"{part}.")
        if inside and name in known:
            layers.setdefault(above, {})[name] = array
    layers = {above: layer for above, layer in layers.items() if "recurrent_kernel" in layer}
    if not layers:
        below = f" below {part!r}" if part is not None else ""
        raise SpecError(
            f"Among {len(arrays)} arrays{below} are no haste layer's: "
            f"{', '.join(list(arrays)[:8])}.",
            "; ".join(f"{row.name} has {', '.join(names(row))}" for row in _ROWS) + ".",
            "Give the state_dict of such a layer.",
        )
    ordered = sorted(layers, key=lambda above: [int(n) for n in re.findall(r"\d+", above)])
    taken = sum(map(len, layers.values()))
    return [layers[above] for above in ordered], len(arrays) - taken
