"""An ONNX file as a model and its tensors: sizes are compared before anything is allocated.

Nothing is unpickled, and no file beside the one that was named is opened: weights that a tensor
says lie elsewhere are refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    defs,
    helper,
    numpy_helper,
)

from hiddenstate.errors import ArtifactError, SpecError

Array = NDArray[Any]

LIMIT_BYTES = 2**31 - 1
"""No longer file can be a message of protobuf."""
OLDEST_OPSET = 7
_FIELDS: Mapping[int, tuple[str, int]] = {
    TensorProto.FLOAT: ("float_data", 4),
    TensorProto.DOUBLE: ("double_data", 8),
    TensorProto.INT32: ("int32_data", 4),
    TensorProto.INT64: ("int64_data", 8),
    TensorProto.BOOL: ("int32_data", 1),
}
"""The types that are read: where their values stand when they are not raw, and a value's bytes."""


def parse(content: bytes, where: str) -> ModelProto:
    """Return the model of a file's bytes; ArtifactError for damage, SpecError for what is not read.

    where: the file, for messages
    """
    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError:
        model = ModelProto()
    if not model.graph.node:
        raise ArtifactError(
            f"{where} is not a whole ONNX model.",
            "A model with a graph of nodes was expected, as exporters write it.",
            "Check that it is an .onnx file, or export it again.",
        )
    version = opset_of(model)
    if not OLDEST_OPSET <= version <= defs.onnx_opset_version():
        raise SpecError(
            f"{where} is written in opset {version} of ONNX.",
            f"Opsets {OLDEST_OPSET} to {defs.onnx_opset_version()} are read, the last as far as "
            "the installed package onnx goes.",
            "Export the model with another opset, or update onnx.",
        )
    if model.functions:
        names = ", ".join(function.name for function in model.functions[:5])
        raise SpecError(
            f"{where} defines functions of its own: {names}.",
            "A graph of ONNX's own operators is read.",
            "Inline them first: onnx.inliner.inline_local_functions.",
        )
    for tensor in _all_tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise SpecError(
                f"{where} keeps the tensor {tensor.name!r} in another file.",
                "One file with all weights in it is read; no other is opened.",
                "Save it whole: onnx.save(onnx.load(path), path, save_as_external_data=False).",
            )
    return model


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operators that a model uses, 0 if it does not say."""
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    return max(versions, default=0)


def array_of(tensor: TensorProto) -> Array | None:
    """Return a tensor's values, None for a type that no weight or shape has (text, float16).

    Raises ArtifactError where its dimensions do not fit the bytes that are there.
    """
    if tensor.data_type not in _FIELDS:
        return None
    field, width = _FIELDS[tensor.data_type]
    count = math.prod(tensor.dims)
    stored = len(tensor.raw_data) if tensor.raw_data else len(getattr(tensor, field)) * width
    whole = stored == count * width and not tensor.HasField("segment")
    if any(size < 0 for size in tensor.dims) or not whole:
        raise ArtifactError(
            f"The tensor {tensor.name!r} says that it is {list(tensor.dims)} and has {stored} "
            "bytes.",
            f"Its dimensions ask for {count * width}.",
            "The file is damaged: export the model again.",
        )
    array: Array = numpy_helper.to_array(tensor)
    return array


def constant_of(node: NodeProto) -> Array | None:
    """Return the value of a Constant node, None for a type that is not read."""
    (attribute,) = node.attribute
    if attribute.type == AttributeProto.TENSOR:
        return array_of(attribute.t)
    if attribute.type in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        return np.array(helper.get_attribute_value(attribute), np.float32)
    if attribute.type in (AttributeProto.INT, AttributeProto.INTS):
        return np.array(helper.get_attribute_value(attribute), np.int64)
    return None


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name; text is decoded, tensors and graphs stay as they are."""
    found = {}
    for each in node.attribute:
        value = helper.get_attribute_value(each)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif each.type == AttributeProto.STRINGS:
            value = tuple(text.decode("utf-8", "replace") for text in value)
        found[each.name] = value
    return found


def _all_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every tensor of a graph, those of its nodes' attributes and of inner graphs too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _all_tensors(inner)
