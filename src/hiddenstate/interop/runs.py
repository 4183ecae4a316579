"""Recurrent layers and the models that hiddenstate serves: out of a run folder, and into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hiddenstate.artifact import Artifact, HeadSpec, LayerSpec, ModelSpec, load
from hiddenstate.cells import from_json
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.proof import Converted, Runner, difference, prove
from hiddenstate.interop.weights import Array, States, Way, Weights
from hiddenstate.runtime import Model
from hiddenstate.runtime.layer import Layer, build
from hiddenstate.runtime.weights import Weights as Given
from hiddenstate.schema import Plain

FOREIGN = """# A model that came from another system

Its weights were trained elsewhere and are those of the file. Inputs are codes or numbers as that
model read them, encoded by nobody here: `schema` has no vocabularies and no scalers.
"""
"""The model card of what was not fitted here."""

PARTS = ("forward_layer.", "backward_layer.")
"""The two directions of a layer in the names of an artifact's arrays."""


def from_run(source: Path | Artifact) -> Converted[tuple[Layer, ...]]:
    """Read the recurrent layers of a run folder or an artifact, in float32.

    What the layers read, an event's embeddings and scaled numbers, and the heads on top of them are
    left behind. `value` holds the layers as they are served, which the proof runs. Raises SpecError
    for other models, ConversionRefusal with the measured error for what is no weight of a cell
    (residuals, layer norm between layers, zoneout).
    """
    artifact = load(source) if isinstance(source, Path) else source
    spec = artifact.spec
    if not isinstance(spec, ModelSpec):
        raise SpecError(
            f"This run is a {type(spec).__name__}: it has an encoder and a decoder.",
            "The layers of a model that reads one sequence are converted.",
            "Convert the parts yourself, from the arrays in weights.safetensors.",
        )
    layers, served = [], []
    for k, layer in enumerate(spec.layers):
        if not isinstance(layer, LayerSpec):
            raise SpecError(
                f"Layer {k} of this run is a transformer.",
                "Recurrent layers are exchanged with other systems.",
                "Convert a model of recurrent layers.",
            )
        layers.append(_ways(k, layer, artifact))
        normalised, given = spec.layer_norm and k > 0, Given(artifact.weights)
        served.append(
            build(k, layer, given, "float32", normalised=normalised, residual=spec.residual)
        )
    weights = Weights(tuple(layers))
    found = {
        "residuals": any(layer.skips for layer in served),
        "layer norm between layers": any(layer.norm is not None for layer in served),
        "zoneout": any(isinstance(layer, LayerSpec) and layer.zoneout for layer in spec.layers),
    }
    reasons = [reason for reason, holds in found.items() if holds]
    one_way = all(len(ways) == 1 for ways in weights.layers)
    run = _runner(served, one_way)
    if reasons:
        error = difference(weights, run, weights.dtype)
        raise ConversionRefusal(
            f"This run's model has {' and '.join(reasons)}.",
            f"Cells, layers and directions are exchanged; without these the output would move by "
            f"{error:.2g}.",
            "Fit a model without them.",
            error,
        )
    proof = prove(weights, run, lengths=True, states=one_way, dtype=weights.dtype)
    note = "embeddings, scalers and heads are left behind: x is what the first layer reads"
    return Converted(tuple(served), weights, proof, (note,))


def to_run(weights: Weights) -> Converted[Artifact]:
    """Return layers as a model that the runtime serves: x [B, T, D] in, top states [B, T, P] out.

    In float32. Raises SpecError for layers that no model here has: one that runs backwards alone,
    two directions of different cells.
    """
    specs, arrays = served_layers(weights)
    names = tuple(f"x.{k}" for k in range(weights.input_size))
    states = HeadSpec({"task": "states", "classes": []}, None, "numbers", weights.output_size)
    # The states themselves are the answer: times 1, plus 0.
    arrays["heads.0.weight"] = np.eye(weights.output_size, dtype=np.float32)
    arrays["heads.0.bias"] = np.zeros(weights.output_size, np.float32)
    spec = ModelSpec(Plain((), names), (), specs, (states,))
    artifact = Artifact(spec, arrays, {}, {}, {}, FOREIGN)
    model, one_way = Model(artifact), not spec.refusals("streaming")

    def run(x: Array, lengths: Array | None, first: States | None) -> tuple[Array, States | None]:
        codes = np.zeros((*x.shape[:2], 0), np.int64)
        given = None if first is None else tuple(state for (state,) in first)
        if not one_way:
            return model.run_whole(codes, x, lengths)[0], None
        (output,), last = model.run(codes, x, lengths, given)
        return output, tuple((state,) for state in last)

    proof = prove(weights, run, lengths=True, states=one_way, dtype=np.float32)
    return Converted(artifact, weights, proof, ("what it gives are the states of its top layer",))


def served_layers(weights: Weights) -> tuple[tuple[LayerSpec, ...], dict[str, Array]]:
    """Return layers as a specification names them, and their float32 arrays as an artifact does."""
    specs, arrays = [], dict[str, Array]()
    for k, ways in enumerate(weights.layers):
        cells = [way.cell.to_json() for way in ways]
        if ways[0].reverse or cells[-1] != cells[0]:
            raise SpecError(
                f"Layer {k} {'runs backwards alone' if ways[0].reverse else 'has two cells'}.",
                "A layer runs forwards, or forwards and backwards with cells of one kind.",
                "Serve the layers one by one, from Python.",
            )
        specs.append(LayerSpec(cells[0], bidirectional=len(ways) > 1))
        for part, way in zip(PARTS if len(ways) > 1 else ("",), ways, strict=True):
            for name, array in way.params.items():
                arrays[f"stack.layers.{k}.{part}{name}"] = np.ascontiguousarray(array, np.float32)
    return tuple(specs), arrays


def _ways(k: int, layer: LayerSpec, artifact: Artifact) -> tuple[Way, ...]:
    cell = from_json(layer.cell)
    return tuple(
        Way(
            cell,
            {name: artifact.weights[f"stack.layers.{k}.{part}{name}"] for name in cell.shapes()},
            reverse,
        )
        for reverse, part in zip((False, True), PARTS if layer.bidirectional else ("",))
    )


def _runner(layers: Sequence[Layer], one_way: bool) -> Runner:
    def run(x: Array, lengths: Array | None, states: States | None) -> tuple[Array, States | None]:
        last = []
        for k, layer in enumerate(layers):
            first = None if states is None else states[k][0]
            x, final = layer.run(x, lengths, first, final_state=True)
            last.append((final,))
        # A layer in both directions shows the forward one's state alone.
        return x, tuple(last) if one_way else None

    return run
