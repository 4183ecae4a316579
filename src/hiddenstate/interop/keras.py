"""Keras 3: SimpleRNN, GRU in both reset forms, LSTM and Bidirectional, on any of its backends.

Only public parts of Keras are used, and all arrays pass through NumPy, so that the backend is
whichever Keras was set up with.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np

from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError, UsageError
from hiddenstate.interop.conventions import KERAS, named
from hiddenstate.interop.express import changes, convention_of, express
from hiddenstate.interop.layout import from_order, in_order, names, read, write
from hiddenstate.interop.proof import Converted, Proof, Runner, difference, prove
from hiddenstate.interop.weights import Array, States, Way, Weights

BACKENDS = ("tensorflow", "torch", "jax")
DTYPE = np.dtype(np.float32)
"""In which Keras runs: on torch and JAX it multiplies in float32 even in layers of float64."""


def _choose_backend() -> None:
    """Where what Keras is set to use is not installed, let it use what is."""
    able = [name for name in BACKENDS if find_spec(name)]
    file = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"
    try:
        wanted = json.loads(file.read_text()).get("backend", BACKENDS[0])
    except (OSError, ValueError, AttributeError):
        wanted = BACKENDS[0]
    asked = os.environ.get("KERAS_BACKEND")
    if not able or (asked and asked not in able):
        raise UsageError(
            f"Keras is set to compute with {asked or wanted}, which is not installed.",
            f"Its backends are {', '.join(BACKENDS)}; here there is {', '.join(able) or 'none'}.",
            "Install one, or name another in the variable KERAS_BACKEND.",
        )
    if not asked and wanted not in able:
        os.environ["KERAS_BACKEND"] = able[0]


if "keras" not in sys.modules:
    _choose_backend()

import keras  # noqa: E402 - it reads the variable when it is imported

Layer: TypeAlias = Any
"""A keras.layers.RNN or Bidirectional."""

CELLS = {
    keras.layers.SimpleRNNCell: "SimpleRNN",
    keras.layers.GRUCell: "GRU",
    keras.layers.LSTMCell: "LSTM",
}
IDLE = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.ActivityRegularization,
)
"""Layers that do nothing outside training."""


def from_keras(
    source: Layer | Sequence[Layer], *, part: str | None = None
) -> Converted[tuple[Layer, ...]]:
    """Read a recurrent layer, a list of them, or those of a model.

    part: name of the layer in a model; None = all that follow upon each other in a Sequential, the
          only one in another model

    `value` holds the layers that were run for the proof: the source's own with return_sequences and
    return_state. Raises SpecError for other layers, ConversionRefusal with the measured error for
    settings that no cell here has (another activation, a lone go_backwards).
    """
    layers, notes = _layers(source, part)
    reasons: list[str] = []
    weights = Weights(tuple(_ways(layer, reasons) for layer in layers))
    if any(layer.stateful for layer in layers):
        notes.append("what a stateful layer has kept since the batch before is left behind")
    full = tuple(map(_with_states, layers))
    run = runner(full, weights)
    if reasons:
        error = difference(weights, run, DTYPE)
        raise ConversionRefusal(
            f"No cell here computes this: {'; '.join(reasons)}.",
            f"A conversion has to be exact; the nearest cell would differ by {error:.2g}.",
            "Train with the standard activations, or keep the model in Keras.",
            error,
        )
    return Converted(full, weights, _prove(weights, run), tuple(notes))


def to_keras(weights: Weights) -> Converted[keras.Sequential]:
    """Build a Sequential that gives the output of every step, [B, T, D] to [B, T, P].

    Raises ConversionRefusal where that is not exact, SpecError where Keras has no such layer.
    """
    moved = []
    for k, ways in enumerate(weights.layers):
        if len(ways) == 1 and ways[0].reverse:
            raise _lone_reverse(k, weights)
        moved.append(tuple(express(way, convention_of(KERAS, way, k)) for way in ways))
    written = Weights(tuple(moved)).astype(DTYPE)
    layers = [_build(k, ways) for k, ways in enumerate(written.layers)]
    with _precision():
        model = keras.Sequential([keras.Input((None, weights.input_size)), *layers])
        for layer, ways in zip(layers, written.layers, strict=True):
            layer.set_weights(_arrays(ways))
    full = tuple(map(_with_states, layers))
    notes = changes(weights, written)
    if weights.dtype != DTYPE:
        notes = (*notes, "the weights are rounded to float32, in which Keras multiplies")
    return Converted(model, weights, _prove(weights, runner(full, weights)), notes)


def load(path: Path) -> Any:
    """Read a .keras file; code in it is never run (safe mode)."""
    return keras.saving.load_model(path, compile=False, safe_mode=True)


def runner(layers: Sequence[Layer], weights: Weights) -> Runner:
    """Return how layers with return_sequences and return_state are run on NumPy arrays."""

    def run(x: Array, lengths: Array | None, states: States | None) -> tuple[Array, States]:
        mask = None if lengths is None else np.arange(x.shape[1]) < lengths[:, None]
        output: Any = x
        last = []
        with _precision():
            for k, (layer, ways) in enumerate(zip(layers, weights.layers, strict=True)):
                rows = [convention_of(KERAS, way) for way in ways]
                first = None
                if states is not None:
                    first = [
                        array
                        for state, row in zip(states[k], rows, strict=True)
                        for array in in_order(state, row)
                    ]
                output, *arrays = layer(output, initial_state=first, mask=mask)
                given = iter([keras.ops.convert_to_numpy(array) for array in arrays])
                last.append(
                    tuple(from_order([next(given) for _ in row.state], row) for row in rows)
                )
            return keras.ops.convert_to_numpy(output), tuple(last)

    return run


def _prove(weights: Weights, run: Runner) -> Proof:
    return prove(weights, run, lengths=True, states=True, dtype=DTYPE)


def _precision() -> AbstractContextManager[None]:
    if keras.config.backend() != "jax":
        return nullcontext()
    from hiddenstate.interop.carries import jax_precision

    return jax_precision(DTYPE)


def _layers(source: Any, part: str | None) -> tuple[list[Layer], list[str]]:
    if not isinstance(source, keras.Model):
        return list(source) if isinstance(source, (list, tuple)) else [source], []
    inside = {layer.name: layer for layer in source.layers}
    recurrent = [name for name, layer in inside.items() if _is_recurrent(layer)]
    between: list[str] = []
    if part is None and isinstance(source, keras.Sequential) and recurrent:
        order = list(inside)
        span = order[order.index(recurrent[0]) : order.index(recurrent[-1])]
        between = [n for n in span if n not in recurrent and not isinstance(inside[n], IDLE)]
        chosen = recurrent
    else:
        chosen = [part] if part is not None else recurrent
    alone = len(chosen) == 1 or isinstance(source, keras.Sequential)
    if between or not chosen or not alone or not set(chosen) <= set(recurrent):
        raise SpecError(
            f"The model {source.name} has the recurrent layers "
            f"{', '.join(recurrent) or '(none)'}"
            + (f"; {part!r} is none of them" if part is not None else "")
            + (f", with {', '.join(between)} between them." if between else "."),
            "Layers that follow upon each other are converted together: SimpleRNN, GRU, LSTM, "
            "RNN over one of their cells, and Bidirectional.",
            "Name one of them as the part." if recurrent else "Give such a layer.",
        )
    others = [name for name in inside if name not in chosen and inside[name].weights]
    notes = [f"other layers are left behind: {', '.join(others)}"] if others else []
    return [inside[name] for name in chosen], notes


def _is_recurrent(layer: Any) -> bool:
    return isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional))


def _ways(layer: Layer, reasons: list[str]) -> tuple[Way, ...]:
    """Read a layer's directions; settings that no cell has are added to the reasons."""
    if not isinstance(layer, keras.layers.Bidirectional):
        backwards = bool(getattr(layer, "go_backwards", False))
        if backwards:
            reasons.append(f"{layer.name} gives its outputs in reversed order (go_backwards)")
        return (_way(layer, reasons, reverse=backwards),)
    forward, backward = layer.forward_layer, layer.backward_layer
    if layer.merge_mode != "concat" or forward.go_backwards:
        raise SpecError(
            f"The layer {layer.name} has merge_mode={layer.merge_mode!r} and a first layer with "
            f"go_backwards={forward.go_backwards}.",
            "Both directions side by side, forward first, are merge_mode='concat'.",
            "Convert its forward_layer and backward_layer one by one.",
        )
    return _way(forward, reasons), _way(backward, reasons, reverse=True)


def _way(layer: Layer, reasons: list[str], *, reverse: bool = False) -> Way:
    cell = getattr(layer, "cell", None)
    kind = next((name for known, name in CELLS.items() if isinstance(cell, known)), None)
    if kind is None or not layer.built:
        what = "has not been built" if kind else f"is a {type(cell or layer).__name__}"
        raise SpecError(
            f"The layer {getattr(layer, 'name', layer)} {what}.",
            "A built SimpleRNN, GRU or LSTM is read, or an RNN over one of their cells.",
            "Call it once, or build it with layer.build((None, None, D))." if kind else
            "Give such a layer.",
        )  # fmt: skip
    assert cell is not None
    form = {"reset": "after" if cell.reset_after else "before"} if kind == "GRU" else {}
    row = named(KERAS, kind, **form)
    activation = keras.activations.serialize(cell.activation)
    options = {}
    if kind == "SimpleRNN" and activation in ("tanh", "relu"):
        options["activation"] = activation
    elif activation != "tanh":
        reasons.append(f"{layer.name} has activation={activation!r}")
    gate = getattr(cell, "recurrent_activation", None)
    if gate is not None and keras.activations.serialize(gate) != "sigmoid":
        told = keras.activations.serialize(gate)
        reasons.append(f"{layer.name} has recurrent_activation={told!r}")
    arrays = dict(zip(names(row), layer.get_weights(), strict=False))
    return read(row, arrays, reverse=reverse, where=f"the layer {layer.name}", **options)


def _build(k: int, ways: Sequence[Way]) -> Layer:
    each = []
    for way in ways:
        row = convention_of(KERAS, way)
        options: dict[str, Any] = {"use_bias": way.cell.biases > 0}
        if row.layer == "GRU":
            options["reset_after"] = row.options["reset"] == "after"
        if row.layer == "SimpleRNN":
            options["activation"] = cast(Any, way.cell).activation
        build: Callable[..., Layer] = getattr(keras.layers, row.layer)
        each.append(
            build(
                way.cell.hidden_size,
                return_sequences=True,
                go_backwards=way.reverse,
                dtype=DTYPE.name,
                name=f"{row.layer.lower()}_{k}" + "_backward" * way.reverse,
                **options,
            )
        )
    if len(each) == 1:
        return each[0]
    return keras.layers.Bidirectional(
        each[0],
        backward_layer=each[1],
        dtype=DTYPE.name,
        name=f"bidirectional_{k}",
    )


def _arrays(ways: Sequence[Way]) -> list[Array]:
    return list(chain.from_iterable(write(way, convention_of(KERAS, way)).values() for way in ways))


def _with_states(layer: Layer) -> Layer:
    """Return a copy of a layer that gives the output of every step and its last state."""
    config = layer.get_config()
    both = isinstance(layer, keras.layers.Bidirectional)
    inner = [config["layer"], config["backward_layer"]] if both else [{"config": config}]
    for each in (part["config"] for part in inner):
        each |= {"return_sequences": True, "return_state": True, "stateful": False}
        each["dtype"] = DTYPE.name
        if "cell" in each:
            each["cell"]["config"]["dtype"] = DTYPE.name
    config["dtype"] = DTYPE.name
    weights = layer.get_weights()
    with _precision():
        copy = type(layer).from_config(config)
        copy.build((None, None, weights[0].shape[0]))
        copy.set_weights(weights)
    return copy


def _lone_reverse(k: int, weights: Weights) -> ConversionRefusal:
    x = np.random.default_rng(0).standard_normal((5, 11, weights.input_size))
    output = weights.astype(np.float64).run(x).output
    error = float(np.abs(output - output[:, ::-1]).max())
    return ConversionRefusal(
        f"Layer {k} only runs backwards.",
        f"Keras gives such a layer's outputs from the last step to the first, which would differ "
        f"by {error:.2g}.",
        "Convert both directions, or the layer as a forward one over reversed input.",
        error,
    )
