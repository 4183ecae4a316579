"""A foreign graph, node by node: its recurrent layers, and what stands around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from onnx.reference import ReferenceEvaluator

from hiddenstate.errors import ArtifactError, SpecError
from hiddenstate.interop import weights
from hiddenstate.interop.onnx import operators, tensors
from hiddenstate.interop.onnx.flows import (
    FEATURES,
    WAYS,
    Axis,
    Content,
    Flow,
    Foreign,
    Known,
    Way,
)
from hiddenstate.interop.onnx.following import FOLLOW, Result, Step
from hiddenstate.interop.onnx.nodes import called, read_node
from hiddenstate.interop.onnx.operators import Operator

FOLDED = {
    *("Identity", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Concat", "Slice", "Gather"),
    *("Cast", "Split", "Shape"),
}
"""What is computed where all inputs stand in the file: exporters so put gates in ONNX's order."""
_SPARE_BYTES = 2**24
_NUMBERS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)


class RecurrentNode(NamedTuple):
    """A recurrent node of the graph: what it is, and what its inputs hold.

    time, batch: axes of its input, along which it runs and rows lie
    """

    called: str
    proto: NodeProto
    arrays: dict[str, Any]
    operator: Operator
    x: Content
    lengths: Content | None
    initial: tuple[Content | None, ...]
    time: tuple[str, ...]
    batch: tuple[str, ...]


class GraphInput(NamedTuple):
    """An input of the graph: its type, its sizes (None where one varies), what its axes are."""

    dtype: np.dtype[Any]
    dims: tuple[int | None, ...]
    axes: tuple[Axis, ...]


class Walk:
    """Every tensor's `Content`, from the inputs of a graph to its outputs.

    nodes:   the recurrent ones, in the order of the graph
    inputs:  those that are no constants, by name
    outputs: what the graph's outputs hold, by name
    foreign: what was not understood: the first of the nodes that rest on each other

    Raises SpecError for a recurrent node that no cell computes, ArtifactError for damage.
    """

    def __init__(self, model: ModelProto, content_bytes: int) -> None:
        self.nodes: list[RecurrentNode] = []
        self.foreign: list[str] = []
        self.sizes: dict[str, int] = {}
        self._opset = tensors.opset_of(model)
        # Folding makes copies; a file cannot ask for many times its own size.
        self._budget = 16 * content_bytes + _SPARE_BYTES
        self._held: dict[str, Content] = {}
        for tensor in model.graph.initializer:
            array = tensors.array_of(tensor)
            foreign = Foreign(f"the tensor {tensor.name!r}, which is no number")
            self._hold(tensor.name, foreign if array is None else Known(array))
        self.inputs: dict[str, GraphInput] = {}
        for each in model.graph.input:
            if each.name not in self._held:
                self._hold(each.name, self._input(each))
        for node in model.graph.node:
            self._visit(node)
        self.outputs = {each.name: self._content(each.name) for each in model.graph.output}

    @property
    def flows(self) -> list[Flow]:
        """Every flow of the graph."""
        return [content for content in self._held.values() if isinstance(content, Flow)]

    def way(self, way: Way) -> weights.Way:
        """Return the cell of a direction, with its parameters."""
        return self.nodes[way.node].operator.ways[way.place]

    def _input(self, value: ValueInfoProto) -> Content:
        tensor = value.type.tensor_type
        negative = any(dim.dim_value < 0 for dim in tensor.shape.dim)
        if not tensor.HasField("shape") or negative or tensor.elem_type not in _NUMBERS:
            return Foreign(f"the input {value.name!r}, which has no shape or is no number")
        dims = tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim
        )
        axes: list[tuple[str, ...]] = []
        for place, size in enumerate(dims):
            atom = FEATURES if place == 2 else f"{value.name}.{place}"
            if size is not None and size > 1 and atom != FEATURES:
                self.sizes[atom] = size
            axes.append(() if size == 1 and atom != FEATURES else (atom,))
        dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        self.inputs[value.name] = GraphInput(dtype, dims, tuple(axes))
        width = (dims[2] or 0) if len(dims) == 3 else 0
        return Flow("input", tuple(axes), width, value.name)

    def _content(self, name: str) -> Content:
        return self._held.get(name, Foreign(f"the tensor {name!r}, which no node makes"))

    def _hold(self, name: str, content: Content) -> None:
        if name in self._held:
            raise ArtifactError(
                f"The graph makes the tensor {name!r} twice.",
                "Every tensor of an ONNX graph has a name of its own.",
                "The file is damaged: export the model again.",
            )
        self._held[name] = content

    def _visit(self, node: NodeProto) -> None:
        contents = [self._content(name) if name else None for name in node.input]
        results: Result = None
        if node.domain in ("", "ai.onnx"):
            results = self._followed(node, contents)
        # What is not understood is named where it begins: what rests on it bears the same name.
        own = Foreign(f"the {called(node)}")
        unknown = next((each for each in contents if isinstance(each, Foreign)), own)
        if results is None:
            self.foreign.append(unknown.because)
        for place, name in enumerate(node.output):
            if name:
                fits = results is not None and place < len(results)
                self._hold(name, results[place] if results and fits else unknown)

    def _followed(self, node: NodeProto, contents: Sequence[Content | None]) -> Result:
        if node.op_type == "Constant":
            array = tensors.constant_of(node)
            return None if array is None else [Known(array)]
        if node.op_type in operators.ROWS:
            return self._recurrent(node, contents)
        if node.op_type in FOLDED and all(isinstance(each, Known) for each in contents):
            return self._folded(node, cast("list[Known]", contents))
        follow = FOLLOW.get(node.op_type)
        if follow is None or not contents or any(isinstance(each, Foreign) for each in contents):
            return None
        attributes = tensors.attributes_of(node)
        step = Step(node.op_type, attributes, contents, len(node.output), self.sizes)
        try:
            return follow(step)
        except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
            # Axes, inputs or attributes that are not there: the node is not by the rules of ONNX.
            return None

    def _folded(self, node: NodeProto, contents: Sequence[Known]) -> Result:
        arrays = [each.array for each in contents]
        self._charge(_most_bytes(node, arrays), node)
        names = [f"x{k}" for k in range(len(arrays))]
        bare = NodeProto()
        bare.CopyFrom(node)
        del bare.input[:]
        bare.input.extend(names)
        graph = helper.make_graph(
            [bare],
            "folded",
            [helper.make_empty_tensor_value_info(name) for name in names],
            [helper.make_empty_tensor_value_info(name) for name in bare.output],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self._opset)])
        try:
            results = ReferenceEvaluator(model).run(None, dict(zip(names, arrays)))
        except Exception:  # whatever a mistake of the node makes the evaluator raise
            return None
        self._charge(sum(np.asarray(each).nbytes for each in results), node)
        return [Known(np.asarray(each)) for each in results]

    def _charge(self, count: int, node: NodeProto) -> None:
        """Take bytes off what copies may need together; raises SpecError where it is used up."""
        self._budget -= count
        if self._budget < 0:
            raise SpecError(
                f"The {called(node)} and others before it multiply the tensors of the file.",
                "Weights that exporters rearrange stay near the size of the file.",
                "Export the model again, with its constants folded.",
            )

    def _recurrent(self, node: NodeProto, contents: Sequence[Content | None]) -> Result:
        given = dict(zip(operators.INPUTS, contents))
        arrays = {}
        for name in ("W", "R", "B", "P"):
            content = given.get(name)
            if isinstance(content, Known):
                arrays[name] = content.array
            elif content is not None or name in ("W", "R"):
                because = content.because if isinstance(content, Foreign) else "an input"
                raise SpecError(
                    f"The weights {name} of the {called(node)} come from {because}.",
                    "They have to stand in the file.",
                    "Export the model for inference, with its constants folded.",
                )
        self._charge(sum(array.nbytes for array in arrays.values()), node)
        operator = read_node(node, arrays)
        x = given.get("X")
        if x is None:
            return None
        axes: Any = x.axes if isinstance(x, Flow) and len(x.axes) == 3 else (("t",), ("b",))
        batch, time = axes[:2] if operator.layout else axes[1::-1]
        ways = tuple(Way(len(self.nodes), k) for k in range(len(operator.ways)))
        initial = given.get("initial_h"), given.get("initial_c")
        lengths = given.get("sequence_lens")
        self.nodes.append(
            RecurrentNode(called(node), node, arrays, operator, x, lengths, initial, time, batch)
        )
        by_way = (WAYS,) if len(ways) > 1 else ()
        y = (batch, time, by_way) if operator.layout else (time, by_way, batch)
        last = (batch, by_way) if operator.layout else (by_way, batch)
        width = operator.ways[0].cell.output_size
        return [
            Flow("Y", (*y, (FEATURES,)), width, ways=ways, time=time),
            Flow("Y_h", (*last, (FEATURES,)), width, ways=ways),
            Flow("Y_c", (*last, (FEATURES,)), width, ways=ways),
        ]


def _most_bytes(node: NodeProto, arrays: Sequence[Any]) -> int:
    """Return what a folded node may make of its inputs, where that is more than they are."""
    if node.op_type == "Gather" and len(arrays) == 2 and arrays[0].ndim:
        axis = tensors.attributes_of(node).get("axis", 0) % arrays[0].ndim
        taken: int = arrays[1].size * arrays[0].nbytes // max(1, arrays[0].shape[axis])
        return taken
    if node.op_type in ("Concat", "Cast"):
        return sum(8 * array.size for array in arrays)
    return 0
