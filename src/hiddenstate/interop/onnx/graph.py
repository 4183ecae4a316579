"""An ONNX graph while it is written: values with arithmetic, and the model that comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

Array: TypeAlias = NDArray[Any]
Dims: TypeAlias = Sequence[int | str]

OPSET, IR_VERSION = 17, 8
"""The oldest with LayerNormalization, so that as many runtimes as can be read the model."""
_SMALL = 64
"""Numbers of a constant up to which an equal one is looked for."""
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


class Value:
    """A tensor of a graph, known by name; its operators write nodes.

    Beside it stand other values, NumPy arrays (which keep their type) and Python numbers (float32).
    """

    # NumPy leaves `array * value` to `Value.__rmul__` then.
    __array_ufunc__ = None

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    @property
    def shape(self) -> Value:
        """The sizes of its axes, a value too."""
        return self.graph.node("Shape", [self])

    def __add__(self, other: Operand) -> Value:
        return self.graph.node("Add", [self, other])

    def __radd__(self, other: Operand) -> Value:
        return self.graph.node("Add", [other, self])

    def __sub__(self, other: Operand) -> Value:
        return self.graph.node("Sub", [self, other])

    def __rsub__(self, other: Operand) -> Value:
        return self.graph.node("Sub", [other, self])

    def __mul__(self, other: Operand) -> Value:
        return self.graph.node("Mul", [self, other])

    def __rmul__(self, other: Operand) -> Value:
        return self.graph.node("Mul", [other, self])

    def __truediv__(self, other: Operand) -> Value:
        return self.graph.node("Div", [self, other])


Operand: TypeAlias = Value | Array | np.generic | float | None


class Graph:
    """Nodes in the order of their writing; names are unique, equal small constants are one.

    A graph inside another (the body of a Scan) sees the values of the outer one, which holds the
    constants of both.
    """

    def __init__(self, outer: Graph | None = None) -> None:
        self._nodes: list[NodeProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._outer = outer
        self._constants: list[TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], Value] = {}
        self._names: set[str] = set()
        self.constant_bytes = 0

    @property
    def depth(self) -> int:
        """How many graphs this one stands inside of."""
        return 0 if self._outer is None else self._outer.depth + 1

    def input(self, name: str, dtype: str, dims: Dims) -> Value:
        """Return a new input; a dimension is a size or, where it varies, a name."""
        named = self._named(name)
        self._inputs.append(helper.make_tensor_value_info(named, _TYPES[dtype], dims))
        return Value(self, named)

    def output(self, name: str, value: Value, dtype: str, dims: Dims) -> None:
        """Make a value an output under this name."""
        named = self._named(name)
        self._nodes.append(helper.make_node("Identity", [value.name], [named], named))
        self._outputs.append(helper.make_tensor_value_info(named, _TYPES[dtype], dims))

    def constant(self, array: Array, name: str = "constant") -> Value:
        """Return a constant of an array's type; small ones are stored once, large ones each."""
        if self._outer is not None:
            return self._outer.constant(array, name)
        array = np.asarray(array, order="C")
        small = array.size <= _SMALL
        key = array.dtype.name, array.shape, array.tobytes() if small else b""
        if small and key in self._known:
            return self._known[key]
        value = Value(self, self._named(name))
        if small:
            self._known[key] = value
        self._constants.append(numpy_helper.from_array(array, value.name))
        self.constant_bytes += array.nbytes
        return value

    def node(self, kind: str, inputs: Sequence[Operand], **attributes: Any) -> Value:
        """Write a node of one output."""
        return self.nodes(kind, inputs, 1, **attributes)[0]

    def nodes(
        self, kind: str, inputs: Sequence[Operand], outputs: int, **attributes: Any
    ) -> list[Value]:
        """Write a node of several outputs; an input that is None is left out."""
        values = [self._value(each) for each in inputs]
        # The innermost of the graphs that its inputs come from: outer values are seen from there.
        place = max([self, *(v.graph for v in values if v)], key=lambda graph: graph.depth)
        names = [place._named(kind) for _ in range(outputs)]
        given = ["" if value is None else value.name for value in values]
        # ONNX allows empty names at the end; ONNX Runtime 1.31 crashes on a layer norm with one.
        while given and not given[-1]:
            given.pop()
        place._nodes.append(helper.make_node(kind, given, names, names[0], **attributes))
        return [Value(place, name) for name in names]

    def proto(self, name: str) -> Any:
        """Return the graph as ONNX has it."""
        return helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._constants)

    def model(self, name: str, about: str, metadata: Mapping[str, str]) -> ModelProto:
        """Return the whole model, checked by the rules of ONNX."""
        made = helper.make_model(
            self.proto(name),
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="hiddenstate",
            producer_version=version("hiddenstate"),
            doc_string=about,
        )
        helper.set_model_props(made, dict(metadata))
        checker.check_model(made, full_check=True)
        return made

    def _value(self, given: Operand) -> Value | None:
        if given is None or isinstance(given, Value):
            return given
        if isinstance(given, (np.ndarray, np.generic)):
            return self.constant(np.asarray(given))
        return self.constant(np.asarray(given, np.float32))

    def _named(self, name: str) -> str:
        """Return a name that no value has, the one asked for if it can be."""
        if self._outer is not None:
            return self._outer._named(name)
        found, count = name, 1
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found
