"""A stack of layers, or a whole artifact, as an ONNX model that carries its state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from hiddenstate.artifact import Artifact, LayerSpec, ModelSpec
from hiddenstate.cells import from_json
from hiddenstate.interop.onnx import heads
from hiddenstate.interop.onnx.agreement import an_ulp_off
from hiddenstate.interop.onnx.graph import Graph, Value
from hiddenstate.interop.onnx.heads import Tensor
from hiddenstate.interop.onnx.layers import Rows, layer, refusals
from hiddenstate.interop.onnx.traced import OnnxOps
from hiddenstate.interop.weights import Way, Weights
from hiddenstate.schema import Channels, Schema, Tokens

Array = NDArray[Any]

ABOUT = """Written by hiddenstate. Inputs and outputs:

codes [batch, time, K] int64: categorical inputs, as the schema encodes them
numbers [batch, time, F] float32: numeric inputs, likewise; of a stack of layers `x`
lengths [batch] int64: valid steps of each row; what stands behind them is ignored
state.K.NAME [batch, width] float32: what layer K remembers; zeros at the beginning
next_state.K.NAME [batch, width] float32: the same after these steps, for the next call
TASK.WHAT: predictions, each told in the metadata hiddenstate.tensors; of a stack `output`

An input that the model does not have is not there. A model that needs whole sequences has no
states. The metadata hiddenstate.spec holds the vocabularies and scalers by which events become
codes and numbers: the label symbols[i] has code i + 1, and 0 is unknown or missing."""


class Layer(NamedTuple):
    """One layer of a stack: its directions, and what stands around them.

    norm:  gain and shift [D] with which its input is normalised, or None
    skips: its input is added to its output
    """

    ways: tuple[Way, ...]
    zoneout: float = 0.0
    norm: tuple[Array, Array] | None = None
    skips: bool = False

    @property
    def refusals(self) -> list[str]:
        """The reasons why it is written as a Scan."""
        return refusals(self.ways, self.zoneout)


def chain_of(spec: ModelSpec, weights: Mapping[str, Array]) -> list[Layer]:
    """Return the layers of an artifact without transformers."""
    chain = []
    for k, each in enumerate(spec.layers):
        assert isinstance(each, LayerSpec)
        cell = from_json(each.cell)
        parts = ("forward_layer.", "backward_layer.") if each.bidirectional else ("",)
        ways = tuple(
            Way(
                cell,
                {name: weights[f"stack.layers.{k}.{part}{name}"] for name in cell.shapes()},
                part == "backward_layer.",
            )
            for part in parts
        )
        norm = None
        if spec.layer_norm and k:
            norm = weights[f"stack.norms.{k - 1}.weight"], weights[f"stack.norms.{k - 1}.bias"]
        skips = spec.residual and cell.input_size == len(ways) * cell.output_size
        chain.append(Layer(ways, each.zoneout, norm, skips))
    return chain


def notes_of(chain: Sequence[Layer]) -> tuple[str, ...]:
    """Return in words how each layer is written."""
    notes = []
    for k, each in enumerate(chain):
        cell, reasons = each.ways[0].cell, each.refusals
        told = f"as a Scan, for {'; '.join(reasons)}" if reasons else "by ONNX's own operator"
        notes.append(f"Layer {k}, {cell.name} ({cell.convention}), is written {told}.")
    if any(each.refusals for each in chain):
        notes.append("ONNX Runtime runs a Scan over at least one step: time is 1 or more.")
    return tuple(notes)


def streamed(weights: Weights) -> bool:
    """Whether a stack can go on from a state: it reads forward alone."""
    return all(len(ways) == 1 and not ways[0].reverse for ways in weights.layers)


def stack_model(weights: Weights) -> ModelProto:
    """Return layers over x, as a model."""
    chain, graph = [Layer(ways) for ways in weights.layers], Graph()
    x = graph.input("x", "float32", ["batch", "time", weights.input_size])
    rows = Rows.of(graph, x, graph.input("lengths", "int64", ["batch"]))
    h, states = _stack(graph, chain, x, rows, streamed(weights))
    output = Tensor("output", ("batch", "time", weights.output_size), "the top layer's output")
    value = graph.node("Transpose", [h], perm=[1, 0, 2])
    graph.output(output.name, value, "float32", output.axes)
    _next_states(graph, chain, states)
    return graph.model("stack", ABOUT, _metadata([output], chain))


def whole_model(artifact: Artifact, spec: ModelSpec, *, moved: bool = False) -> ModelProto:
    """Return an artifact as a model.

    moved: every layer's output is an ulp off, to see what rounding can do
    """
    weights, graph = artifact.weights, Graph()
    chain = chain_of(spec, weights)
    inputs, x = _inputs(graph, spec, weights)
    rows = Rows.of(graph, x, graph.input("lengths", "int64", ["batch"]))
    h, states = _stack(graph, chain, x, rows, not spec.refusals("streaming"), moved=moved)
    table = weights["embeddings.0.weight"] if spec.embeddings else None
    outputs: list[Tensor] = []
    for k, head in enumerate(spec.heads):
        prefix = f"heads.{k}."
        own = {n.removeprefix(prefix): a for n, a in weights.items() if n.startswith(prefix)}
        called = head.name if spec.task_names.count(head.name) == 1 else f"{head.name}.{k}"
        outputs += heads.write(graph, called, head, own, table, h, rows)
    _next_states(graph, chain, states)
    metadata = {
        **_metadata([*inputs, *outputs], chain),
        "hiddenstate.fingerprint": artifact.fingerprint,
        "hiddenstate.spec": json.dumps(spec.to_json(), ensure_ascii=False),
    }
    return graph.model("model", ABOUT, metadata)


def _stack(
    graph: Graph,
    chain: Sequence[Layer],
    x: Value,
    rows: Rows,
    streamed: bool,
    *,
    moved: bool = False,
) -> tuple[Value, list[Any]]:
    """Write layers over x [B, T, D]; return the top's output [T, B, P] and the last States."""
    xp = OnnxOps(graph)
    h = graph.node("Transpose", [x], perm=[1, 0, 2])
    states = []
    for k, each in enumerate(chain):
        first = None
        if streamed:
            cell = each.ways[0].cell
            first = cell.State(
                *(
                    graph.input(f"state.{k}.{name}", "float32", ["batch", width])
                    for name, width in cell.state_shapes().items()
                )
            )
        read = h if each.norm is None else xp.layer_norm(h, *each.norm)
        output, last = layer(graph, each.ways, read, rows, first, each.zoneout)
        if moved:
            output = output * an_ulp_off(sum(way.cell.output_size for way in each.ways))
        h = output + h if each.skips else output
        if streamed:
            states.append(last)
    return h, states


def _next_states(graph: Graph, chain: Sequence[Layer], states: Sequence[Any]) -> None:
    for k, (each, state) in enumerate(zip(chain, states)):
        for (name, width), value in zip(each.ways[0].cell.state_shapes().items(), state):
            graph.output(f"next_state.{k}.{name}", value, "float32", ["batch", width])


def _inputs(
    graph: Graph, spec: ModelSpec, weights: Mapping[str, Array]
) -> tuple[list[Tensor], Value]:
    """Write the inputs and x [B, T, D], the embeddings and the numbers side by side."""
    schema, parts, described = spec.schema, [], []
    if spec.embeddings:
        count = len(spec.embeddings)
        codes = graph.input("codes", "int64", ["batch", "time", count])
        for k in range(count):
            column = graph.node("Gather", [codes, np.int64(k)], axis=2)
            parts.append(graph.node("Gather", [weights[f"embeddings.{k}.weight"], column], axis=0))
        names = [f"code {k}" for k in range(count)]
        if isinstance(schema, (Schema, Tokens)):
            names = list(schema.vocabularies)
        elif isinstance(schema, Channels):
            names = ["channel"]
        sizes = ", ".join(f"{n} below {size}" for n, size in zip(names, schema.code_sizes))
        described.append(Tensor("codes", ("batch", "time", count), f"from 0 on: {sizes}"))
    if schema.number_names:
        axes = ("batch", "time", len(schema.number_names))
        parts.append(graph.input("numbers", "float32", axes))
        described.append(Tensor("numbers", axes, f"scaled: {', '.join(schema.number_names)}"))
    return described, parts[0] if len(parts) == 1 else graph.node("Concat", parts, axis=-1)


def _metadata(described: Sequence[Tensor], chain: Sequence[Layer]) -> dict[str, str]:
    return {
        "hiddenstate.tensors": json.dumps([each._asdict() for each in described]),
        "hiddenstate.layers": json.dumps(notes_of(chain)),
    }
