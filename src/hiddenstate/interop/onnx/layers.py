"""Recurrent layers written into a graph, time first: an ONNX operator, or a Scan over the cell.

In one place ONNX Runtime does not treat rows of different lengths as hiddenstate does: the last
state of a row of length 0 is zeros, not the state that it began with. So the graph itself keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto

from hiddenstate.interop.onnx import operators
from hiddenstate.interop.onnx.graph import Graph, Operand, Value
from hiddenstate.interop.onnx.traced import OnnxOps
from hiddenstate.interop.weights import Way
from hiddenstate.kernels import Zoneout

State = Any
"""A cell's State of values [B, width]."""


@dataclass(frozen=True)
class Rows:
    """What the rows of a batch are, as values.

    lengths: [B] int64
    live:    [T, B, 1] bool, true on each row's own steps
    filled:  [B, 1] bool, true for rows that have steps
    """

    lengths: Value
    live: Value
    filled: Value

    @staticmethod
    def of(graph: Graph, x: Value, lengths: Value) -> Rows:
        """Describe the rows of x [B, T, D]."""
        time = graph.node("Gather", [x.shape, np.int64(1)])
        live = OnnxOps(graph).live(lengths, time, x)
        ends = graph.node("Unsqueeze", [lengths, np.array([1], np.int64)])
        filled = graph.node("Greater", [ends, np.zeros(1, np.int64)])
        return Rows(lengths, graph.node("Transpose", [live], perm=[1, 0, 2]), filled)


def refusals(ways: Sequence[Way], zoneout: float = 0.0) -> list[str]:
    """Return the reasons why a layer is not written by ONNX's operators but as a Scan."""
    reasons = [reason for way in ways for reason in operators.refusals(way.cell)]
    return [*dict.fromkeys(reasons), *["ONNX's operators have no zoneout"] * bool(zoneout)]


def layer(
    graph: Graph,
    ways: Sequence[Way],
    x: Value,
    rows: Rows,
    state: State | None = None,
    zoneout: float = 0.0,
) -> tuple[Value, State | None]:
    """Write a layer over x [T, B, D]; return its output [T, B, P], and the last State.

    state is the first State of a layer that reads forward alone; None is zeros, and then there is
    no last one. What stands in x past a row's length, NaN too, reaches nothing within it.
    """
    if refusals(ways, zoneout):
        done = [_scanned(graph, way, x, rows, state, zoneout) for way in ways]
    elif len({str(operators.attributes_of(way.cell)) for way in ways}) == 1:
        return _operator(graph, ways, x, rows, state)
    else:
        done = [_operator(graph, [way], x, rows, state) for way in ways]
    if len(done) == 1:
        return done[0]
    return graph.node("Concat", [output for output, _ in done], axis=-1), None


def _operator(
    graph: Graph, ways: Sequence[Way], x: Value, rows: Rows, state: State | None
) -> tuple[Value, State | None]:
    """Write one node for one direction or two of the same attributes."""
    cell = ways[0].cell
    kind, attributes = operators.attributes_of(cell)
    if "activations" in attributes:
        attributes["activations"] = attributes["activations"] * len(ways)
    reverses = tuple(way.reverse for way in ways)
    direction = next(name for name, each in operators.DIRECTIONS.items() if each == reverses)
    weights = _stacked([operators.arrays_of(way) for way in ways])
    counts = graph.node("Cast", [rows.lengths], to=TensorProto.INT32)
    first = np.array([0], np.int64)
    given = [] if state is None else [graph.node("Unsqueeze", [each, first]) for each in state]
    inputs: list[Operand] = [x, weights["W"], weights["R"], weights.get("B"), counts, *given]
    if "P" in weights:
        missing = len(operators.INPUTS) - 1 - len(inputs)
        inputs += [*[None] * missing, weights["P"]]
    outputs = 1 + len(given)
    y, *last = graph.nodes(kind, inputs, outputs, direction=direction, **attributes)
    turned = graph.node("Transpose", [y], perm=[0, 2, 1, 3])
    # In a Reshape, 0 stands for the size that the axis has.
    shape = np.array([0, 0, cell.hidden_size * len(ways)], np.int64)
    output = graph.node("Reshape", [turned, shape])
    if state is None:
        return output, None
    new = [graph.node("Squeeze", [each, first]) for each in last]
    kept = [graph.node("Where", [rows.filled, b, a]) for a, b in zip(state, new, strict=True)]
    return output, cell.State(*kept)


def _scanned(
    graph: Graph, way: Way, x: Value, rows: Rows, state: State | None, zoneout: float
) -> tuple[Value, State]:
    """Write a Scan whose body is the cell's own step, as `kernels.scan` runs it."""
    cell, params, xp = way.cell, way.params, OnnxOps(graph)
    projected = cell.project(xp, params, x)
    widths = cell.state_shapes()
    if state is None:
        state = cell.State(*(_zeros(graph, rows, width) for width in widths.values()))
    body = Graph(graph)
    old = cell.State(*(body.input(f"{n}_prev", "float32", ["batch", w]) for n, w in widths.items()))
    now = body.input("projected_t", "float32", ["batch", len(cell.blocks) * cell.hidden_size])
    here = body.input("live_t", "bool", ["batch", 1])
    inner = OnnxOps(body)
    new, _ = cell.step(inner, params, now, old)
    if zoneout:
        new = Zoneout(dict.fromkeys(widths, zoneout)).mix(inner, 0, old, new)
    kept = cell.State(*(inner.where(here, b, a) for a, b in zip(old, new, strict=True)))
    for (name, width), each in zip(widths.items(), kept, strict=True):
        body.output(f"{name}_t", each, "float32", ["batch", width])
    shown = inner.where(here, cell.read(kept), 0.0)
    body.output("output_t", shown, "float32", ["batch", cell.output_size])
    *last, output = graph.nodes(
        "Scan",
        [*state, projected, rows.live],
        len(widths) + 1,
        body=body.proto(f"{cell.name}_step"),
        num_scan_inputs=2,
        scan_input_directions=[int(way.reverse)] * 2,
        scan_output_directions=[int(way.reverse)],
    )
    return output, cell.State(*last)


def _zeros(graph: Graph, rows: Rows, width: int) -> Value:
    """Return zeros [B, width]."""
    sizes = graph.node("Concat", [rows.lengths.shape, np.array([width], np.int64)], axis=0)
    return graph.node("ConstantOfShape", [sizes])


def _stacked(each: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the arrays of directions along a new first axis; zeros where only one has them."""
    names = dict.fromkeys(name for arrays in each for name in arrays)
    like = {name: next(arrays[name] for arrays in each if name in arrays) for name in names}
    return {
        name: np.stack([arrays.get(name, np.zeros_like(like[name])) for arrays in each])
        for name in names
    }
