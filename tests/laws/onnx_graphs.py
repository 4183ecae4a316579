"""Graphs as exporters write recurrent models, made by hand: torch's, TensorFlow's, and odd ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

D, H, V = 3, 5, 4
ROWS = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = {"RNN": ("h",), "GRU": ("h",), "LSTM": ("h", "c")}


class Graph:
    """Nodes one after another; every method returns the name of what it made."""

    def __init__(self, opset: int = 14) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self._count = 0

    def input(self, name: str, dims: Sequence[int | str], kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        return name

    def constant(self, array: Any) -> str:
        name = self._named("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        names = [self._named(kind) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names

    def recurrent(
        self, kind: str, x: str, size: int = D, ways: int = 1, seed: int = 0, **given: Any
    ) -> list[str]:
        """A recurrent node with weights of its own; `given` names inputs, or attributes."""
        rng, rows = np.random.default_rng(seed), ROWS[kind] * H
        shapes = {"W": (ways, rows, size), "R": (ways, rows, H), "B": (ways, 2 * rows)}
        weights = {
            name: self.constant(rng.normal(0, 0.5, shape).astype(given.get("dtype", np.float32)))
            for name, shape in shapes.items()
        }
        given.pop("dtype", None)
        places = ("sequence_lens", "initial_h", "initial_c", "P")
        inputs = [x, *weights.values(), *(given.pop(name, "") for name in places)]
        given.setdefault("direction", "bidirectional" if ways == 2 else "forward")
        if kind == "GRU":
            given.setdefault("linear_before_reset", 1)
        inputs = inputs[: 8 if kind == "LSTM" else 6]
        while not inputs[-1]:
            inputs.pop()
        return self.several(kind, 1 + len(STATES[kind]), *inputs, hidden_size=H, **given)

    def dense(self, x: str, size: int, seed: int = 9) -> str:
        """MatMul and Add."""
        rng = np.random.default_rng(seed)
        matrix = self.constant(rng.normal(size=(size, V)).astype(np.float32))
        bias = self.constant(rng.normal(size=V).astype(np.float32))
        return self.add("Add", self.add("MatMul", x, matrix), bias)

    def model(self, **outputs: str) -> ModelProto:
        """The model, its outputs under these names."""
        for name, made in outputs.items():
            self.nodes.append(helper.make_node("Identity", [made], [name]))
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "graph", self.inputs, values, self.constants)
        opset = helper.make_opsetid("", self.opset)
        return helper.make_model(graph, opset_imports=[opset], ir_version=8)

    def _named(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"


def torch_style(
    kind: str, *, ways: int = 1, batch_first: bool = True, last: bool = False, state: bool = False
) -> ModelProto:
    """Two layers as torch's exporter writes them, with Slices of a first state of all layers.

    Without a state given: zeros of a shape that is computed from the input's.
    """
    graph, size = Graph(), D
    x = graph.input("x", ["a", "b", D])
    if batch_first:
        x = graph.add("Transpose", x, perm=[1, 0, 2])
    states = {}
    for name in STATES[kind]:
        if state:
            states[name] = graph.input(f"{name}0", [2 * ways, "rows", H])
        else:
            batch = graph.add("Gather", graph.add("Shape", x), graph.constant(np.int64(1)), axis=0)
            batch = graph.add("Unsqueeze", batch, graph.ints(0))
            sizes = graph.add("Concat", graph.ints(2 * ways), batch, graph.ints(H), axis=0)
            zero = numpy_helper.from_array(np.zeros(1, np.float32))
            states[name] = graph.add("ConstantOfShape", sizes, value=zero)
    lasts: dict[str, list[str]] = {name: [] for name in states}
    for layer in range(2):
        first = {
            f"initial_{name}": graph.add(
                "Slice",
                each,
                graph.ints(ways * layer),
                graph.ints(ways * (layer + 1)),
                graph.ints(0),
            )
            for name, each in states.items()
        }
        y, *ends = graph.recurrent(kind, x, size, ways, seed=layer, **first)
        for name, end in zip(states, ends):
            lasts[name].append(end)
        if ways == 1:
            x = graph.add("Squeeze", y, graph.ints(1))
        else:
            x = graph.add("Transpose", y, perm=[0, 2, 1, 3])
            x = graph.add("Reshape", x, graph.ints(0, 0, -1))
        size = ways * H
    if batch_first:
        x = graph.add("Transpose", x, perm=[1, 0, 2])
    if last:
        x = graph.add("Gather", x, graph.constant(np.int64(-1)), axis=1 if batch_first else 0)
        rng = np.random.default_rng(3)
        matrix = graph.constant(rng.normal(size=(V, size)).astype(np.float32))
        bias = graph.constant(rng.normal(size=V).astype(np.float32))
        out = graph.add("Gemm", x, matrix, bias, transB=1)
    else:
        out = graph.dense(x, size)
    ends = {f"{name}n": graph.add("Concat", *each, axis=0) for name, each in lasts.items()}
    return graph.model(out=out, **(ends if state else {}))


def tensorflow_style(kind: str, *, sequences: bool = True) -> ModelProto:
    """An embedding, one layer told that every row has all steps, and a dense layer with softmax."""
    graph = Graph(opset=13)
    rng = np.random.default_rng(5)
    table = graph.constant(rng.normal(size=(7, D)).astype(np.float32))
    codes = graph.input("codes", ["batch", "time"], TensorProto.INT32)
    x = graph.add("Transpose", graph.add("Gather", table, codes, axis=0), perm=[1, 0, 2])
    shape = graph.add("Shape", x)
    time = graph.add("Slice", shape, graph.ints(0), graph.ints(1), graph.ints(0))
    batch = graph.add("Slice", shape, graph.ints(1), graph.ints(2), graph.ints(0))
    lengths = graph.add("Cast", graph.add("Tile", time, batch), to=TensorProto.INT32)
    sizes = graph.add("Concat", graph.ints(1), batch, graph.ints(H), axis=0)
    zeros = graph.add("Expand", graph.constant(np.zeros((1, 1, 1), np.float32)), sizes)
    states = {f"initial_{name}": zeros for name in STATES[kind]}
    y, last, *_ = graph.recurrent(kind, x, sequence_lens=lengths, **states)
    if not sequences:
        return graph.model(
            out=graph.add(
                "Softmax", graph.dense(graph.add("Squeeze", last, graph.ints(0)), H), axis=-1
            )
        )
    x = graph.add("Transpose", graph.add("Squeeze", y, graph.ints(1)), perm=[1, 0, 2])
    flat = graph.dense(graph.add("Reshape", x, graph.ints(-1, H)), H)
    sizes = graph.add("Concat", batch, time, graph.ints(V), axis=0)
    return graph.model(out=graph.add("Softmax", graph.add("Reshape", flat, sizes), axis=2))


def paired_style(kind: str) -> ModelProto:
    """Both directions as a node each, whose outputs are joined; the lengths are an input."""
    graph = Graph()
    x = graph.input("x", ["time", "batch", D])
    lengths = graph.input("lengths", ["batch"], TensorProto.INT32)
    outputs = [
        graph.recurrent(kind, x, seed=seed, direction=direction, sequence_lens=lengths)[0]
        for seed, direction in enumerate(("forward", "reverse"))
    ]
    one = graph.ints(1)
    joined = graph.add("Concat", *(graph.add("Squeeze", y, one) for y in outputs), axis=-1)
    return graph.model(out=graph.add("Sigmoid", graph.dense(joined, 2 * H)))


def rearranged_style() -> ModelProto:
    """Gates in torch's order in the file, and nodes that bring them into ONNX's."""
    graph = Graph()
    x = graph.input("x", ["a", "b", D])
    rng = np.random.default_rng(2)

    def weight(*shape: int) -> str:
        stacked = graph.constant(rng.normal(0, 0.5, shape).astype(np.float32))
        first = graph.ints(0)
        r, z, n = (
            graph.add("Slice", stacked, graph.ints(k * H), graph.ints((k + 1) * H), first)
            for k in range(3)
        )
        return graph.add("Concat", z, r, n, axis=0)

    zero = graph.ints(0)
    w, r = (graph.add("Unsqueeze", weight(3 * H, size), zero) for size in (D, H))
    biases = graph.add("Concat", weight(3 * H), weight(3 * H), axis=0)
    b = graph.add("Unsqueeze", biases, zero)
    y, _ = graph.several("GRU", 2, x, w, r, b, hidden_size=H, linear_before_reset=1)
    return graph.model(y=graph.add("Squeeze", y, graph.ints(1)))


def bare(kind: str, *, layout: int = 0, ways: int = 1, opset: int = 14, **given: Any) -> ModelProto:
    """One node between an input and an output."""
    graph = Graph(opset)
    x = graph.input("x", ["a", "b", D])
    layouts = {"layout": layout} if layout else {}
    y, *_ = graph.recurrent(kind, x, ways=ways, **layouts, **given)
    return graph.model(y=y)
