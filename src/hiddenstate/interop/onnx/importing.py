"""From an ONNX file to weights, and to a model that our runtime runs, both with proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact
from hiddenstate.artifact.files import read_bytes
from hiddenstate.errors import SpecError
from hiddenstate.interop.onnx import tensors
from hiddenstate.interop.onnx.flows import Flow, Known, Way
from hiddenstate.interop.onnx.imported_model import Unfit, reading_of
from hiddenstate.interop.onnx.imported_proof import prove_import
from hiddenstate.interop.onnx.nodes import Alone, name_of
from hiddenstate.interop.onnx.session import SLACK
from hiddenstate.interop.onnx.walk import RecurrentNode, Walk
from hiddenstate.interop.proof import Proof, Runner, prove
from hiddenstate.interop.weights import States, Weights

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Stack:
    """Recurrent layers that read each other.

    nodes: names of their nodes, the lowest first
    proof: differences from the same nodes in ONNX Runtime
    """

    nodes: tuple[str, ...]
    weights: Weights
    proof: Proof


@dataclass(frozen=True, eq=False)
class Imported:
    """What an ONNX file holds.

    stacks:   its recurrent layers
    artifact: the whole graph as a model for our runtime, None where it is more than one
    proof:    differences of that model from the whole graph in ONNX Runtime
    refusals: why there is no artifact
    notes:    what somebody who goes on with the result should know
    """

    stacks: tuple[Stack, ...]
    artifact: Artifact | None
    proof: Proof | None
    refusals: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def weights(self) -> Weights:
        """The weights of the only stack; raises SpecError where there are several."""
        if len(self.stacks) > 1:
            raise SpecError(
                f"The graph has {len(self.stacks)} recurrent stacks, which do not read each other: "
                f"{'; '.join(', '.join(stack.nodes) for stack in self.stacks)}.",
                "One was expected.",
                "Choose one of `stacks`.",
            )
        return self.stacks[0].weights


def read(path: Path) -> Imported:
    """Read an ONNX file; nothing in it is unpickled, and no file beside it is opened.

    Raises ArtifactError for a damaged file, SpecError or ConversionRefusal for one without
    recurrent operators or with some that no cell here computes, and where ONNX Runtime comes to
    other numbers.
    """
    return imported(read_bytes(path, tensors.LIMIT_BYTES), str(path))


def imported(content: bytes, where: str = "the file") -> Imported:
    """Do what `read` does with a file's bytes; where: what messages call it."""
    model = tensors.parse(content, where)
    walk = Walk(model, len(content))
    if not walk.nodes:
        kinds = sorted({node.op_type for node in model.graph.node})
        raise SpecError(
            f"{where} has no recurrent operator; its nodes are of type {', '.join(kinds[:12])}.",
            "An RNN, GRU or LSTM was expected.",
            "Exporters write recurrent cells in loops of their own as Loop or Scan, or unrolled: "
            "export the framework's recurrent layer.",
        )
    chains = _chains(walk)
    stacks = tuple(_stack(walk, chain) for chain in chains)
    notes = []
    if stacks[0].weights.dtype != np.float32:
        notes.append("The weights are float64; the proof, and an artifact, are in float32.")
    notes += [
        f"The {node.called} begins with a state of the file, which is not part of the weights."
        for node in walk.nodes
        if any(isinstance(each, Known) and each.array.any() for each in node.initial)
    ]
    try:
        reading = reading_of(walk, chains)
        proof = prove_import(reading, walk, model)
    except Unfit as unfit:
        return Imported(stacks, None, None, unfit.reasons, tuple(notes))
    if reading.lasts and reading.spec.refusals("streaming"):
        names = ", ".join(map(repr, reading.lasts))
        notes.append(
            f"The outputs {names} are last states of layers that read both ways, which the runtime "
            "does not give."
        )
    return Imported(stacks, reading.artifact, proof, (), tuple(notes))


def _chains(walk: Walk) -> list[list[tuple[Way, ...]]]:
    """Return layers, as the ways in each, in chains in which each reads the one before alone."""
    below = {k: _source(node) for k, node in enumerate(walk.nodes)}
    layers = _layers(walk, below)
    readers: dict[tuple[Way, ...], list[tuple[Way, ...]]] = {}
    for layer in layers:
        readers.setdefault(below[layer[0].node], []).append(layer)
    chains: list[list[tuple[Way, ...]]] = []
    for layer in layers:
        source = below[layer[0].node]
        behind = next((chain for chain in chains if chain[-1] == source), None)
        if behind is not None and len(readers[source]) == 1:
            behind.append(layer)
        else:
            chains.append([layer])
    return chains


def _source(node: RecurrentNode) -> tuple[Way, ...]:
    """Return the layer that a node reads, () where it reads something else."""
    x = node.x
    plain = isinstance(x, Flow) and x.kind == "Y" and x.whole and not x.last and len(x.axes) == 3
    return x.ways if isinstance(x, Flow) and plain else ()


def _layers(walk: Walk, below: dict[int, tuple[Way, ...]]) -> list[tuple[Way, ...]]:
    """Return the ways that make a layer together, lower layers first."""
    whole = [flow for flow in walk.flows if flow.kind in ("Y", "Y_h", "head") and flow.whole]
    wide = list(dict.fromkeys(flow.ways for flow in whole if len(flow.ways) == 2))
    found: list[tuple[Way, ...]] = []
    for k, node in enumerate(walk.nodes):
        own = tuple(Way(k, place) for place in range(len(node.operator.ways)))
        pair = next((ways for ways in wide if own[0] in ways), own)
        alike = len({(below[way.node], _named(walk.nodes[way.node].x)) for way in pair}) == 1
        in_order = [walk.way(way).reverse for way in pair] == [False, True]
        layer = pair if alike and in_order else own
        if layer not in found:
            found.append(layer)
    return found


def _named(content: object) -> str:
    return content.name if isinstance(content, Flow) else str(content)


def _stack(walk: Walk, chain: Sequence[tuple[Way, ...]]) -> Stack:
    weights = Weights(tuple(tuple(walk.way(way) for way in layer) for layer in chain))
    protos = [walk.nodes[way.node].proto for layer in chain for way in layer]
    proof = prove(
        weights.astype(np.float32),
        _runner(walk, chain, weights),
        lengths=True,
        states=True,
        dtype=np.float32,
        shortest=1,
        slack=SLACK,
    )
    return Stack(tuple(dict.fromkeys(map(name_of, protos))), weights, proof)


def _runner(walk: Walk, chain: Sequence[tuple[Way, ...]], weights: Weights) -> Runner:
    """Return what runs the nodes of a chain in ONNX Runtime, one after the other."""
    sessions = {
        way.node: Alone(walk.nodes[way.node].proto, walk.nodes[way.node].arrays)
        for layer in chain
        for way in layer
    }

    def run(x: Array, lengths: Array | None, states: States | None) -> tuple[Array, States]:
        given = weights.astype(np.float32).zero_states(len(x)) if states is None else states
        last = []
        for layer, firsts in zip(chain, given, strict=True):
            outputs, ends = [], []
            for node in dict.fromkeys(way.node for way in layer):
                mine = [state for way, state in zip(layer, firsts) if way.node == node]
                arrays = [np.stack(parts) for parts in zip(*mine, strict=True)]
                output, final = sessions[node].run(x, lengths, arrays)
                outputs.append(output)
                ends += [type(mine[0])(*parts) for parts in zip(*final, strict=True)]
            x = np.concatenate(outputs, axis=-1)
            last.append(tuple(ends))
        return x, tuple(last)

    return run
