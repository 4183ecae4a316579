"""A foreign graph that is [embedding ->] recurrent layers [-> linear heads] as an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, HeadSpec, ModelSpec
from hiddenstate.interop.onnx.flows import (
    FEATURES,
    Content,
    Flow,
    Foreign,
    Head,
    Lengths,
    Way,
)
from hiddenstate.interop.onnx.following import is_zeros
from hiddenstate.interop.onnx.walk import RecurrentNode, Walk
from hiddenstate.interop.runs import FOREIGN, served_layers
from hiddenstate.interop.weights import Weights
from hiddenstate.schema import Plain

Array = NDArray[Any]
Chain = Sequence[tuple[Way, ...]]
"""Layers, each by its directions, the lowest first."""

OUTPUTS = {"": "numbers", "Softmax": "classes", "LogSoftmax": "classes", "Sigmoid": "bernoulli"}
"""What a head's outputs are, by the operator behind it."""


class Unfit(Exception):
    """The graph is more than a model here can be; `reasons` name what."""

    def __init__(self, reasons: Sequence[str]) -> None:
        self.reasons = tuple(dict.fromkeys(reasons))
        super().__init__("; ".join(self.reasons))


class StateInput(NamedTuple):
    """Where a first state comes from: an input's place on its first axis, for a layer's array."""

    name: str
    place: int
    layer: int
    array: str


@dataclass(frozen=True, eq=False)
class Reading:
    """A graph as an artifact, and how the inputs and outputs of the two belong together.

    chain:   its layers
    source:  the input of numbers or of codes, as the lowest layer reads it
    bottom:  the lowest layer's node
    lengths: the input of lengths, where there is one
    states:  inputs of first states
    heads:   outputs that are heads, in the order of the artifact's
    lasts:   outputs that are last states
    """

    artifact: Artifact
    chain: Chain
    source: Flow
    bottom: RecurrentNode
    lengths: str | None
    states: tuple[StateInput, ...]
    heads: Mapping[str, Flow]
    lasts: Mapping[str, Flow]

    @property
    def spec(self) -> ModelSpec:
        """The artifact's specification."""
        assert isinstance(self.artifact.spec, ModelSpec)
        return self.artifact.spec

    def layer_of(self, way: Way) -> int:
        """Return the place of a direction's layer."""
        return next(k for k, layer in enumerate(self.chain) if way in layer)


def reading_of(walk: Walk, chains: Sequence[Chain]) -> Reading:
    """Return a graph as an artifact; raises Unfit with everything that stands in the way."""
    chain, reasons = chains[0], list[str]()
    reasons += [f"{because} has no place in a model here" for because in walk.foreign]
    if len(chains) > 1:
        reasons.append(f"it has {len(chains)} recurrent stacks that do not read each other")
    bottom = walk.nodes[chain[0][0].node]
    source = _source(bottom, reasons)
    lengths = _lengths(walk, chain, reasons)
    states = _states(walk, chain, reasons)
    heads, lasts = _outputs(walk, chain, reasons)
    _require_layers(walk, chain, reasons)
    used = {source.name, lengths, *(each.name for each in states)}
    reasons += [
        f"its input {name!r} has no place in a model here"
        for name in walk.inputs
        if name not in used and source.name
    ]
    if reasons:
        raise Unfit(reasons)
    artifact = _artifact(walk, chain, source, heads)
    return Reading(artifact, chain, source, bottom, lengths, states, heads, lasts)


def _source(bottom: RecurrentNode, reasons: list[str]) -> Flow:
    x = bottom.x
    if isinstance(x, Flow) and x.kind in ("input", "embedded") and x.part is None:
        if len(x.axes) == 3 and x.axes[-1] == (FEATURES,):
            return x
        reasons.append(f"the {bottom.called} reads the input {x.name!r}, rearranged")
    else:
        reasons.append(f"the {bottom.called} reads {_words(x)}")
    return Flow("input", ())


def _lengths(walk: Walk, chain: Chain, reasons: list[str]) -> str | None:
    """Return the input of lengths that all nodes read, None where no node reads one."""
    names: set[str | None] = set()
    for node in _nodes(walk, chain):
        content = node.lengths
        if isinstance(content, Flow) and content.kind == "input" and len(content.axes) == 1:
            names.add(content.name)
        elif content is None or (isinstance(content, Lengths) and (content.time,) == node.time):
            names.add(None)
        else:
            reasons.append(f"the {node.called} reads lengths from {_words(content)}")
    if len(names) > 1:
        reasons.append("its recurrent nodes do not all read the same lengths")
    return names.pop() if names else None


def _states(walk: Walk, chain: Chain, reasons: list[str]) -> tuple[StateInput, ...]:
    found = []
    for k, layer in enumerate(chain):
        for node in _nodes(walk, [layer]):
            for array, content in zip(("h", "c"), node.initial):
                if content is None or is_zeros(content):
                    continue
                if not (isinstance(content, Flow) and content.kind == "input"):
                    reasons.append(f"the {node.called} begins with a state from {_words(content)}")
                elif len(layer) > 1 or node.operator.layout:
                    reasons.append(
                        f"the {node.called} is given a first state by the input {content.name!r}, "
                        "which our runtime gives to layers that read forward only, and layout 0"
                    )
                elif (place := content.part[0] if content.part else 0) >= len(chain):
                    reasons.append(f"the input {content.name!r} has a state of more layers")
                else:
                    found.append(StateInput(content.name, place, k, array))
    return tuple(found)


def _outputs(
    walk: Walk, chain: Chain, reasons: list[str]
) -> tuple[dict[str, Flow], dict[str, Flow]]:
    """Return the outputs that are heads, and those that are last states."""
    heads: dict[str, Flow] = {}
    lasts: dict[str, Flow] = {}
    flows = [each for each in walk.outputs.values() if isinstance(each, Flow)]
    predicts = any(flow.kind in ("Y", "head") for flow in flows)
    for name, content in walk.outputs.items():
        if not isinstance(content, Flow) or content.kind in ("input", "embedded"):
            reasons.append(f"its output {name!r} comes from {_words(content)}")
        elif content.kind == "Y_c" or (content.kind == "Y_h" and predicts):
            lasts[name] = content
        elif content.ways != chain[-1] or (_reads(content) == "Y_h" and len(content.ways) > 1):
            reasons.append(
                f"its output {name!r} is not of the top layer, at each step or at the last one"
            )
        elif content.last and walk.nodes[content.ways[0].node].lengths is not None:
            reasons.append(f"its output {name!r} is of the batch's last step, not of each row's")
        else:
            heads[name] = content
    if not heads:
        reasons.append("none of its outputs is a prediction")
    return heads, lasts


def _reads(flow: Flow) -> str:
    """Return what of a recurrent node a head reads: Y or Y_h."""
    return flow.name if flow.kind == "head" else flow.kind


def _require_layers(walk: Walk, chain: Chain, reasons: list[str]) -> None:
    for layer in chain:
        ways, node = [walk.way(way) for way in layer], walk.nodes[layer[0].node]
        if [way.reverse for way in ways] == [True]:
            reasons.append(f"the {node.called} reads backwards alone")
        if len({str(way.cell) for way in ways}) > 1:
            reasons.append(f"the two directions of the {node.called} differ in their cells")


def _artifact(walk: Walk, chain: Chain, source: Flow, heads: Mapping[str, Flow]) -> Artifact:
    weights: dict[str, Array] = {}
    embeddings: tuple[int, ...] = ()
    width = walk.way(chain[0][0]).cell.input_size
    schema = Plain((), tuple(f"{source.name}.{k}" for k in range(width)))
    if source.table is not None:
        weights["embeddings.0.weight"] = source.table
        schema, embeddings = Plain((len(source.table),), ()), (source.width,)
    layers, arrays = served_layers(
        Weights(tuple(tuple(walk.way(way) for way in layer) for layer in chain))
    )
    weights |= arrays
    given = sum(walk.way(way).cell.output_size for way in chain[-1])
    specs = []
    for k, (name, flow) in enumerate(heads.items()):
        # Without a linear map the states themselves are the answer: times 1, plus 0.
        head = flow.head or Head(np.eye(given))
        size = len(head.weight)
        zeros = np.zeros(size, np.float32)
        weights[f"heads.{k}.weight"] = head.weight
        weights[f"heads.{k}.bias"] = zeros if head.bias is None else head.bias
        output: Any = OUTPUTS[head.said]
        classes = [str(code) for code in range(size)] if output == "classes" else []
        pool = "last" if flow.last or _reads(flow) == "Y_h" else None
        task = {"task": name, "classes": classes}
        specs.append(HeadSpec(task, None, output, 1 if classes else size, pool=pool))
    spec = ModelSpec(schema, embeddings, layers, tuple(specs))
    narrow = {name: np.ascontiguousarray(each, np.float32) for name, each in weights.items()}
    return Artifact(spec, narrow, {}, {}, {}, FOREIGN)


def _nodes(walk: Walk, chain: Chain) -> list[RecurrentNode]:
    places = dict.fromkeys(way.node for layer in chain for way in layer)
    return [walk.nodes[place] for place in places]


def _words(content: Content | None) -> str:
    if isinstance(content, Foreign):
        return content.because
    if isinstance(content, Flow):
        return f"the input {content.name!r}" if content.kind == "input" else "another layer"
    return "numbers of the file"
