"""One recurrent node of a foreign graph: read as cells, and run alone in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.onnx import operators
from hiddenstate.interop.onnx.graph import IR_VERSION, OPSET
from hiddenstate.interop.onnx.operators import Attributes, Operator
from hiddenstate.interop.onnx.session import Session
from hiddenstate.interop.onnx.tensors import attributes_of
from hiddenstate.interop.proof import ROWS, STEPS

Array = NDArray[Any]


def name_of(node: NodeProto) -> str:
    """Return a node's name, or that of its first output where it has none."""
    return node.name or next(filter(None, node.output), "")


def called(node: NodeProto) -> str:
    """Return a node as messages call it, by its type and name."""
    return f"node {node.op_type} {name_of(node)!r}"


def read_node(node: NodeProto, arrays: Mapping[str, Array]) -> Operator:
    """Return what a recurrent node computes with its arrays W, R, and B and P where it has them.

    Raises ConversionRefusal where no cell computes it, with the error that leaving the obstacle out
    would make; ShapeError or SpecError where the node is not by the rules of ONNX.
    """
    known = {k: v for k, v in attributes_of(node).items() if k in Attributes._fields}
    attributes = Attributes(**known)
    obstacles = attributes.obstacles(node.op_type)
    if obstacles:
        error = _error_without(node, arrays, obstacles)
        told = (
            "ONNX Runtime cannot run it either"
            if error is None
            else (f"without that its output moves by up to {error:.2g} on random input")
        )
        raise ConversionRefusal(
            f"The {called(node)} cannot be read: {'; '.join(obstacles.values())}.",
            f"Cells here have tanh and sigmoid (an Elman cell relu or tanh), unclipped; {told}.",
            "Build and train the model without it.",
            float("nan") if error is None else error,
        )
    return operators.read(
        node.op_type, attributes, arrays["W"], arrays["R"], arrays.get("B"), arrays.get("P")
    )


class Alone:
    """A recurrent node by itself in ONNX Runtime, time first, in float32.

    Its weights are those of the file, and its attributes too, but for the layout, which only says
    how axes lie and which ONNX Runtime does not know on the processor.
    """

    def __init__(
        self, node: NodeProto, arrays: Mapping[str, Array], without: Collection[str] = ()
    ) -> None:
        self.states = ("h", "c") if node.op_type == "LSTM" else ("h",)
        bare = NodeProto(op_type=node.op_type)
        bare.attribute.extend(a for a in node.attribute if a.name not in {"layout", *without})
        given = {*arrays, "X", "sequence_lens", *(f"initial_{name}" for name in self.states)}
        bare.input.extend(name if name in given else "" for name in operators.INPUTS)
        while not bare.input[-1]:
            bare.input.pop()
        outputs = ["Y", *(f"Y_{name}" for name in self.states)]
        bare.output.extend(outputs)
        types = {
            name: TensorProto.INT32 if name == "sequence_lens" else TensorProto.FLOAT
            for name in given - set(arrays)
        }
        graph = helper.make_graph(
            [bare],
            "alone",
            [helper.make_tensor_value_info(name, kind, None) for name, kind in types.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        self._session = Session(model)
        self._ways, self._height = arrays["R"].shape[0], arrays["R"].shape[2]

    def run(
        self, x: Array, lengths: Array | None, states: list[Array] | None
    ) -> tuple[Array, list[Array]]:
        """Run x [B, T, D] on from states [W, B, H]; return [B, T, W * H] and the last states.

        Rows have at least one step: ONNX Runtime forgets the state of those that have none.
        """
        batch, time = x.shape[:2]
        counts = np.full(batch, time) if lengths is None else lengths
        feeds = {"X": x.swapaxes(0, 1), "sequence_lens": counts.astype(np.int32)}
        zeros = np.zeros((self._ways, batch, self._height), np.float32)
        for place, name in enumerate(self.states):
            feeds[f"initial_{name}"] = zeros if states is None else states[place]
        found = self._session.run(feeds)
        output = found["Y"].transpose(2, 0, 1, 3).reshape(batch, time, -1)
        return output, [found[f"Y_{name}"] for name in self.states]


def _error_without(
    node: NodeProto, arrays: Mapping[str, Array], obstacles: Collection[str]
) -> float | None:
    """Return how far the output moves when attributes are left out; None if it cannot be run."""
    x = np.random.default_rng(0).standard_normal((ROWS, STEPS, arrays["W"].shape[-1]))
    try:
        sides = [
            Alone(node, arrays, without).run(x.astype(np.float32), None, None)[0]
            for without in ((), obstacles)
        ]
    except SpecError:
        return None
    return float(np.abs(sides[0] - sides[1]).max())
