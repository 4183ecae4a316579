"""Cells written as ONNX nodes: their own lines run on values of a graph instead of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hiddenstate.cells.arrays import Array
from hiddenstate.errors import SpecError
from hiddenstate.interop.onnx.graph import Graph, Value


class OnnxOps:
    """`cells.ArrayOps` that write nodes into a graph, or into the Scan body that a value is in.

    So a cell that ONNX has no operator for, one registered tomorrow too, is exported by the lines
    that define it.
    """

    name = "onnx"
    differentiable = False

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def linear(self, x: Value, w: Array, b: Array | None = None) -> Value:
        """Map x [..., D] by w [G, D] and b [G] to [..., G]."""
        product = self._graph.node("MatMul", [x, w.T])
        return product if b is None else product + b

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + exp(-x))."""
        return self._graph.node("Sigmoid", [x])

    def tanh(self, x: Value) -> Value:
        """Hyperbolic tangent."""
        return self._graph.node("Tanh", [x])

    def relu(self, x: Value) -> Value:
        """max(x, 0)."""
        return self._graph.node("Relu", [x])

    def layer_norm(
        self, x: Value, gain: Array, shift: Array | None = None, eps: float = 1e-5
    ) -> Value:
        """Normalise the last axis to mean 0 and (biased) variance 1, then scale and shift."""
        return self._graph.node("LayerNormalization", [x, gain, shift], axis=-1, epsilon=eps)

    def split(self, x: Value, parts: int) -> Sequence[Value]:
        """Cut the last axis into equal parts."""
        if parts == 1:
            return [x]
        return self._graph.nodes("Split", [x], parts, axis=-1)

    def concat(self, arrays: Sequence[Value], axis: int = -1) -> Value:
        """Join along an axis."""
        return self._graph.node("Concat", list(arrays), axis=axis)

    def stack(self, arrays: Sequence[Value], axis: int) -> Value:
        """Join along a new axis."""
        at = np.array([axis], np.int64)
        return self.concat([self._graph.node("Unsqueeze", [each, at]) for each in arrays], axis)

    def unstack(self, x: Value, axis: int) -> tuple[Value, ...]:  # noqa: ARG002
        """Refuse: how many entries an axis has is not known before the model runs."""
        raise SpecError(
            f"A cell takes axis {axis} apart, entry by entry.",
            "An ONNX graph is written before the sizes of its inputs are known.",
            "Write the cell with split, or export another one.",
        )

    def where(self, mask: Value, a: Value, b: Value | float) -> Value:
        """Take a where the mask holds and b elsewhere."""
        return self._graph.node("Where", [mask, a, b])

    def zeros(self, shape: Any, like: Value) -> Value:  # noqa: ARG002
        """Zeros of a shape that another value has, float32."""
        return self._graph.node("ConstantOfShape", [shape])

    def live(self, lengths: Any, time: Any, like: Value) -> Value:  # noqa: ARG002
        """Boolean [B, T, 1]: True at [b, t] while t < lengths[b]; lengths int64, time a scalar."""
        steps = self._graph.node("Range", [np.int64(0), time, np.int64(1)])
        ends = self._graph.node("Unsqueeze", [lengths, np.array([1, 2], np.int64)])
        places = self._graph.node("Unsqueeze", [steps, np.array([0, 2], np.int64)])
        return self._graph.node("Less", [places, ends])
