"""A model's heads written into a graph: what they give, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from hiddenstate.artifact import HeadSpec
from hiddenstate.interop.onnx.graph import Graph, Value
from hiddenstate.interop.onnx.layers import Rows
from hiddenstate.interop.onnx.traced import OnnxOps
from hiddenstate.schema import LEAST_SCALE

Array = NDArray[Any]


class Tensor(NamedTuple):
    """An input or output of the model: its name, its axes (a size, or a name where it varies)."""

    name: str
    axes: tuple[int | str, ...]
    meaning: str


MEANINGS = {
    "classes": "probability of each class",
    "bernoulli": "probability of each yes",
    "number": "in the task's unit",
    "quantiles": "scaled numbers at each level, rising",
    "mean": "scaled numbers",
    "deviation": "scaled standard deviations, above 0",
}


def write(
    graph: Graph,
    prefix: str,
    head: HeadSpec,
    weights: Mapping[str, Array],
    table: Array | None,
    h: Value,
    rows: Rows,
) -> list[Tensor]:
    """Write a head over h [T, B, P] and make its results outputs; return their descriptions.

    weights: the head's own, by their names in it; table [V, E] is the first embedding's.
    The first output is o as the runtime gives it, the others are what it means.
    """
    xp = OnnxOps(graph)
    axes: tuple[int | str, ...] = ("batch", "time")
    if head.pool is not None:
        h, axes = _pooled(graph, head.pool, weights, h, rows), ("batch",)
    if head.tied and "project.weight" in weights:
        h = xp.linear(h, weights["project.weight"])
    matrix = table if head.tied and table is not None else weights["weight"]
    raw = xp.linear(h, matrix, weights["bias"])
    if head.pool is None:
        raw = graph.node("Transpose", [raw], perm=[1, 0, 2])
    kind = head.output
    first = "logits" if kind in ("classes", "bernoulli") else "raw"
    outputs = [(Tensor(first, (*axes, head.outputs), "o as the model gives it"), raw)]
    wide = graph.node("Cast", [raw], to=TensorProto.DOUBLE)
    for name, value, tail in _meant(graph, head, wide, len(axes)):
        told = MEANINGS.get(name, MEANINGS.get(kind, ""))
        narrow = graph.node("Cast", [value], to=TensorProto.FLOAT)
        outputs.append((Tensor(name, (*axes, *tail), told), narrow))
    described = [tensor._replace(name=f"{prefix}.{tensor.name}") for tensor, _ in outputs]
    for tensor, (_, value) in zip(described, outputs, strict=True):
        graph.output(tensor.name, value, "float32", tensor.axes)
    return described


def meanings(head: HeadSpec) -> dict[str, Callable[[Array], Array]]:
    """Return the outputs after the first, each with how it follows from `Head.decode` of o."""
    if head.output == "classes":
        return {"probabilities": np.exp}
    if head.output == "bernoulli":
        return {"probabilities": lambda odds: 1.0 / (1.0 + np.exp(-odds))}
    if head.output == "quantiles":
        return {"quantiles": lambda levels: levels}
    if head.output == "gaussian":
        return {"mean": lambda both: both[..., 0, :], "deviation": lambda both: both[..., 1, :]}
    if head.output == "number" and head.scaler is not None:
        return {"value": lambda value: value}
    return {}


def _meant(
    graph: Graph, head: HeadSpec, wide: Value, leading: int
) -> list[tuple[str, Value, tuple[int, ...]]]:
    """Return name, value (float64) and last axes of what o [..., V] means; see `Head.decode`."""
    kind, size = head.output, head.size
    if kind == "classes":
        return [("probabilities", graph.node("Softmax", [wide], axis=-1), (head.outputs,))]
    if kind == "bernoulli":
        return [("probabilities", graph.node("Sigmoid", [wide]), (head.outputs,))]
    if kind == "number" and head.scaler is not None:
        value = graph.node("Squeeze", [wide, np.array([-1], np.int64)])
        value = value * np.float64(head.scaler.scale) + np.float64(head.scaler.mean)
        if head.scaler.log1p:
            grown = graph.node("Exp", [graph.node("Abs", [value])]) - np.float64(1)
            value = graph.node("Sign", [value]) * grown
        if not head.signed:
            value = graph.node("Max", [value, np.float64(0)])
        return [("value", value, ())]
    if kind == "quantiles":
        levels = len(head.levels)
        shape = np.array([*[0] * leading, size, levels], np.int64)
        apart = graph.node("Reshape", [wide, shape])
        count = np.array([levels], np.int64)
        rising, _ = graph.nodes("TopK", [apart, count], 2, axis=-1, largest=0, sorted=1)
        return [("quantiles", rising, (size, levels))]
    if kind == "gaussian":
        mean, log_scale = graph.nodes("Split", [wide], 2, axis=-1)
        deviation = graph.node("Exp", [log_scale]) + np.float64(LEAST_SCALE)
        return [("mean", mean, (size,)), ("deviation", deviation, (size,))]
    return []


def _pooled(graph: Graph, pool: str, weights: Mapping[str, Array], h: Value, rows: Rows) -> Value:
    """Return [B, P] from h [T, B, P] over each row's own steps; zeros for a row without any."""
    first = np.array([0], np.int64)

    def total(values: Value) -> Value:
        return graph.node("ReduceSum", [values, first], keepdims=0)

    if pool == "last":
        steps = graph.node("Cast", [rows.live], to=TensorProto.INT64)
        left = graph.node("CumSum", [steps, np.int64(0)], reverse=1)
        here = graph.node("Equal", [left, np.int64(1)])
        return total(graph.node("Where", [here, h, 0.0]))
    h = graph.node("Where", [rows.live, h, 0.0])
    if pool == "mean":
        counts = total(graph.node("Cast", [rows.live], to=TensorProto.FLOAT))
        return total(h) / graph.node("Max", [counts, 1.0])
    if pool == "max":
        lowest = graph.node("Where", [rows.live, h, -np.inf])
        highest = graph.node("ReduceMax", [lowest], axes=[0], keepdims=0)
        return graph.node("Where", [rows.filled, highest, 0.0])
    xp = OnnxOps(graph)
    inner = xp.tanh(xp.linear(h, weights["pool.score.0.weight"], weights["pool.score.0.bias"]))
    scores = xp.linear(inner, weights["pool.score.2.weight"])
    scores = graph.node("Where", [rows.live, scores, np.finfo(np.float32).min])
    return total(graph.node("Softmax", [scores], axis=0) * h)
