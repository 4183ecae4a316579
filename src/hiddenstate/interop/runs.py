"""The recurrent layers of a fitted model, as its run folder holds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hiddenstate.artifact import Artifact, LayerSpec, ModelSpec, load
from hiddenstate.cells import from_json
from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.proof import Converted, Runner, difference, prove
from hiddenstate.interop.weights import Array, States, Way, Weights
from hiddenstate.runtime.layer import Layer, build
from hiddenstate.runtime.weights import Weights as Given


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


def _ways(k: int, layer: LayerSpec, artifact: Artifact) -> tuple[Way, ...]:
    cell = from_json(layer.cell)
    parts = {"forward_layer.": False, "backward_layer.": True}
    return tuple(
        Way(
            cell,
            {name: artifact.weights[f"stack.layers.{k}.{part}{name}"] for name in cell.shapes()},
            reverse,
        )
        for part, reverse in (parts if layer.bidirectional else {"": False}).items()
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
