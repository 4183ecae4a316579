"""From a stack of layers or a whole artifact to an ONNX model that was proven to be the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from hiddenstate.artifact import Artifact, LayerSpec, ModelSpec
from hiddenstate.artifact.files import write_atomically
from hiddenstate.errors import SpecError
from hiddenstate.interop.onnx.agreement import moved, prove_model
from hiddenstate.interop.onnx.model_graph import (
    Layer,
    chain_of,
    notes_of,
    stack_model,
    streamed,
    whole_model,
)
from hiddenstate.interop.onnx.session import SLACK, Session
from hiddenstate.interop.proof import Proof, Runner, prove
from hiddenstate.interop.weights import States, Weights

Array = NDArray[Any]

LIMIT_BYTES = 2**31 - 2**24
"""What weights may take: a file of ONNX ends at 2 GiB, and the graph needs some of it."""


@dataclass(frozen=True, eq=False)
class Exported:
    """An ONNX model that was run beside ours; `model_graph` describes its inputs and outputs.

    content: the file's bytes
    proof:   the largest differences in ONNX Runtime
    notes:   how each layer is written, and what else a user should know
    """

    content: bytes
    proof: Proof
    notes: tuple[str, ...]


def export(subject: Artifact | Weights, path: Path) -> Proof:
    """Write an artifact or a stack of layers as an ONNX file, once it has been proven equal.

    Raises what `to_onnx` raises; then nothing is written.
    """
    exported = to_onnx(subject)
    write_atomically(path, exported.content)
    return exported.proof


def to_onnx(subject: Artifact | Weights) -> Exported:
    """Return an artifact or a stack of layers as an ONNX model in float32, with the proof.

    Raises SpecError for what is not exported, with the reasons, and ConversionRefusal where ONNX
    Runtime comes to other numbers.
    """
    if isinstance(subject, Weights):
        return _of_weights(subject)
    if not isinstance(subject.spec, ModelSpec):
        raise SpecError(
            f"The artifact holds a {type(subject.spec).__name__}.",
            "A model of one sequence can be exported; a translator's decoder is run step by step "
            "by a search, which no ONNX graph holds.",
            "Serve it by runtime.Translator.",
        )
    return _of_artifact(subject, subject.spec)


def _of_weights(weights: Weights) -> Exported:
    notes = ["The weights were float64; in the file they are float32."]
    notes *= weights.dtype != np.float32
    weights = weights.astype(np.float32)
    _require_size(array for way in weights.ways for array in way.params.values())
    model = stack_model(weights)
    run = _runner(weights, Session(model))
    states = streamed(weights)
    proof = prove(weights, run, lengths=True, states=states, dtype=np.float32, slack=SLACK)
    return _proven(model, proof, (*notes, *notes_of([Layer(ways) for ways in weights.layers])))


def _of_artifact(artifact: Artifact, spec: ModelSpec) -> Exported:
    _require_layers(spec)
    _require_size(artifact.weights.values())
    model = whole_model(artifact, spec)
    rough = whole_model(moved(artifact), spec, moved=True)
    chain = chain_of(spec, artifact.weights)
    shortest = int(any(each.refusals for each in chain))
    proof = prove_model(artifact, Session(model), Session(rough), shortest_steps=shortest)
    return _proven(model, proof, notes_of(chain))


def _proven(model: ModelProto, proof: Proof, notes: tuple[str, ...]) -> Exported:
    model.metadata_props.add(key="hiddenstate.proof", value=json.dumps(proof.to_json()))
    return Exported(model.SerializeToString(), proof, notes)


def _runner(weights: Weights, session: Session) -> Runner:
    """Return what runs the exported stack as `prove` asks for it."""

    def run(x: Array, lengths: Array | None, first: States | None) -> tuple[Array, States | None]:
        counts = np.full(len(x), x.shape[1]) if lengths is None else lengths
        feeds = {"x": x, "lengths": counts}
        for k, (state, *_) in enumerate(weights.zero_states(len(x)) if first is None else first):
            feeds |= {f"state.{k}.{name}": array for name, array in state._asdict().items()}
        found = session.run(feeds)
        if not streamed(weights):
            return found["output"], None
        last = tuple(
            (way.cell.State(*(found[f"next_state.{k}.{n}"] for n in way.cell.state_shapes())),)
            for k, way in enumerate(weights.ways)
        )
        return found["output"], last

    return run


def _require_layers(spec: ModelSpec) -> None:
    foreign = [k for k, each in enumerate(spec.layers) if not isinstance(each, LayerSpec)]
    if foreign:
        raise SpecError(
            f"Layer {foreign[0]} of the model is a transformer.",
            "Recurrent layers are exported: their state has one size, a transformer's is a cache "
            "that grows with every step.",
            "Serve it by hiddenstate's runtime, which needs no torch.",
        )


def _require_size(arrays: Iterable[Array]) -> None:
    total = sum(array.nbytes for array in arrays)
    if total > LIMIT_BYTES:
        raise SpecError(
            f"The weights take {total} bytes.",
            f"An ONNX file holds at most 2 GiB, of weights {LIMIT_BYTES} bytes; weights in files "
            "beside it are not written.",
            "Serve the model by hiddenstate's runtime, or fit a smaller one.",
        )
