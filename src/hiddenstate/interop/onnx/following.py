"""What a node of a foreign graph makes of the flows that it reads, operator by operator.

A function returns what the node's outputs hold, or None where that cannot be told; then the walk
names the node. They need not be strict: whatever is concluded here is run beside ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from hiddenstate.interop.onnx.flows import (
    FEATURES,
    WAYS,
    Atom,
    Axis,
    Content,
    Flow,
    Head,
    Known,
    Lengths,
    Sizes,
    Zeros,
    regroup,
)

Result: TypeAlias = list[Content] | None

MOST_AXES = 8
MOST_ZEROS = 2**24
"""Zeros of a first state that a graph may make, apart from rows and steps."""


@dataclass(frozen=True, eq=False)
class Step:
    """One node: its attributes, what its inputs hold, and the sizes known of the inputs' axes."""

    kind: str
    attributes: Mapping[str, Any]
    contents: Sequence[Content | None]
    outputs: int
    sizes: Mapping[Atom, int]

    @property
    def first(self) -> Content | None:
        """What the first input holds."""
        return self.contents[0]

    def numbers(self, name: str, place: int) -> list[int] | None:
        """Return whole numbers that are an attribute in old opsets and an input in later ones."""
        if name in self.attributes:
            value = self.attributes[name]
            return [value] if isinstance(value, int) else list(value)
        content = self.contents[place] if place < len(self.contents) else None
        if isinstance(content, Known) and content.array.dtype.kind == "i":
            return [int(each) for each in content.array.ravel()]
        return None

    def target(self, place: int) -> list[Atom | int] | None:
        """Return sizes that stand in the file or come from Shape."""
        content = self.contents[place] if place < len(self.contents) else None
        if isinstance(content, Sizes):
            return list(content.entries)
        numbers = self.numbers("shape", place)
        return None if numbers is None else list(numbers)


def _bounded(sizes: Sequence[Atom | int] | None, times: int = 1) -> bool:
    """Whether a tensor of these sizes is small, whatever a batch's rows and steps are."""
    known = [abs(each) for each in sizes or () if isinstance(each, int)]
    return sizes is not None and times * prod(known) <= MOST_ZEROS


def is_zeros(content: Content | None) -> bool:
    """Whether something holds zeros alone."""
    return isinstance(content, Zeros) or (
        isinstance(content, Known) and not np.count_nonzero(content.array)
    )


def _same(step: Step) -> Result:
    return None if step.first is None else [step.first]


def _transpose(step: Step) -> Result:
    if isinstance(step.first, Zeros):
        return [step.first]
    if not isinstance(step.first, Flow):
        return None
    axes = step.first.axes
    order = step.attributes.get("perm", range(len(axes))[::-1])
    return [replace(step.first, axes=tuple(axes[place] for place in order))]


def _squeeze(step: Step) -> Result:
    content, places = step.first, step.numbers("axes", 1)
    if isinstance(content, Sizes) and len(content.entries) == 1:
        return [Sizes(content.entries, scalar=True)]
    if not isinstance(content, Flow):
        return [content] if isinstance(content, Zeros | Lengths) else None
    if places is None:
        places = [k for k, axis in enumerate(content.axes) if axis == ()]
    gone = {place % len(content.axes) for place in places}
    sizes = content.sizes(step.sizes)
    if any(sizes.get(atom) != 1 for place in gone for atom in content.axes[place]):
        return None
    return [_without(content, gone)]


def _unsqueeze(step: Step) -> Result:
    content, places = step.first, step.numbers("axes", 1)
    if isinstance(content, Sizes) and content.scalar:
        return [Sizes(content.entries)]
    if not isinstance(content, Flow) or places is None:
        return [content] if isinstance(content, Zeros | Lengths) else None
    rank = len(content.axes) + len(places)
    left = list(content.axes)
    new = {place % rank for place in places}
    return [replace(content, axes=tuple(() if k in new else left.pop(0) for k in range(rank)))]


def _reshape(step: Step) -> Result:
    content, target = step.first, step.target(1)
    if isinstance(content, Zeros):
        return [content]
    if isinstance(content, Sizes) and target is not None:
        return [Sizes(content.entries, scalar=not target)]
    if not isinstance(content, Flow) or target is None:
        return None
    axes = regroup(content.axes, target, content.sizes(step.sizes))
    return None if axes is None else [replace(content, axes=axes)]


def _shape(step: Step) -> Result:
    if not isinstance(step.first, Flow):
        return None
    sizes = step.first.sizes(step.sizes)
    entries: list[Atom | int] = []
    for axis in step.first.axes:
        unknown = [atom for atom in axis if atom not in sizes]
        if unknown and len(axis) > 1:
            return None
        entries.append(unknown[0] if unknown else int(np.prod([sizes[atom] for atom in axis])))
    some = slice(step.attributes.get("start", 0), step.attributes.get("end"))
    return [Sizes(tuple(entries[some]))]


def _constant_of_shape(step: Step) -> Result:
    value = step.attributes.get("value")
    zero = value is None or not any(
        (value.raw_data.strip(b"\0"), *value.float_data, *value.double_data, *value.int64_data)
    )
    return [Zeros()] if zero and _bounded(step.target(0)) else None


def _expand(step: Step) -> Result:
    """Expand and Tile: zeros stay zeros, and T repeated B times is every row's length."""
    if isinstance(step.first, Known) and is_zeros(step.first):
        return [Zeros()] if _bounded(step.target(1), step.first.array.size) else None
    if isinstance(step.first, Sizes) and len(step.first.entries) == 1:
        (entry,) = step.first.entries
        return [Lengths(entry)] if isinstance(entry, str) else None
    return None


def _concat(step: Step) -> Result:
    contents = [each for each in step.contents if each is not None]
    if not all(isinstance(each, Flow) for each in contents):
        entries: list[Atom | int] = []
        for place in range(len(contents)):
            part = step.target(place)
            if part is None:
                return None
            entries += part
        if len(entries) > MOST_AXES:
            return None
        return [Sizes(tuple(entries))]
    flows = cast("list[Flow]", contents)
    first = flows[0]
    place = step.attributes["axis"] % len(first.axes)
    facts = {(each.kind, each.last, each.width, _others(each, place)) for each in flows}
    ways = tuple(way for each in flows for way in each.ways)
    if len(facts) > 1 or first.kind not in ("Y", "Y_h", "Y_c") or len(set(ways)) < len(ways):
        return None
    joined = {each.axes[place] for each in flows}
    if joined <= {(FEATURES,), (WAYS, FEATURES)} and all(each.whole for each in flows):
        axis: Axis = (WAYS, FEATURES)
    elif joined <= {(), (WAYS,)}:
        axis = (WAYS,)
    else:
        return None
    return [replace(first, axes=_with(first.axes, place, axis), ways=ways)]


def _slice(step: Step) -> Result:
    starts, ends = step.numbers("starts", 1), step.numbers("ends", 2)
    places, steps = step.numbers("axes", 3), step.numbers("steps", 4)
    if starts is None or ends is None or len(starts) != 1 or steps not in (None, [1]):
        return None
    content, place = step.first, (places or [0])[0]
    some = slice(starts[0], ends[0])
    if isinstance(content, Zeros):
        return [content]
    if isinstance(content, Sizes):
        return [Sizes(content.entries[some])]
    if not isinstance(content, Flow):
        return None
    place %= len(content.axes)
    if content.axes[place] == (WAYS,):
        return [_some_ways(content, place, content.ways[some])]
    if content.kind == "input":
        within = 0 <= some.start < some.stop and place == 0 and content.part is None
        return [replace(content, part=(some.start, some.stop))] if within else None
    is_last = some.start == -1 and (some.stop == 0 or some.stop >= np.iinfo(np.int32).max)
    return [_last(content, place)] if is_last and _runs(content, place) else None


def _gather(step: Step) -> Result:
    content, index = step.contents
    place = step.attributes.get("axis", 0)
    if isinstance(content, Known) and isinstance(index, Flow):
        fits = content.array.ndim == 2 and place == 0 and content.array.dtype.kind == "f"
        if not fits or index.kind != "input" or index.part is not None:
            return None
        axes, width = (*index.axes, (FEATURES,)), content.array.shape[1]
        return [Flow("embedded", axes, width, index.name, table=content.array)]
    if not isinstance(index, Known) or index.array.size != 1:
        return [content] if isinstance(content, Zeros) else None
    at, scalar = int(index.array.ravel()[0]), index.array.ndim == 0
    if isinstance(content, Sizes):
        return [Sizes((content.entries[at],), scalar)]
    if isinstance(content, Zeros):
        return [content]
    if not isinstance(content, Flow) or index.array.ndim > 1:
        return None
    place %= len(content.axes)
    found = None
    if content.axes[place] == (WAYS,):
        found = _some_ways(content, place, (content.ways[at],))
    elif content.axes[place] == () and at in (0, -1):
        found = content
    elif content.kind == "input" and place == 0 and content.part is None and at >= 0:
        found = replace(content, part=(at, at + 1), axes=_with(content.axes, 0, ()))
    elif at == -1 and _runs(content, place):
        found = _last(content, place)
    if found is None:
        return None
    return [_without(found, {place}) if scalar else found]


def _split(step: Step) -> Result:
    content = step.first
    if isinstance(content, Zeros):
        return [content] * step.outputs
    if not isinstance(content, Flow):
        return None
    place = step.attributes.get("axis", 0) % len(content.axes)
    by_way = content.axes[place] == (WAYS,)
    counts = step.numbers("split", 1)
    if counts is None and by_way:
        counts = [len(content.ways) // step.outputs] * step.outputs
    if counts is None or not (by_way or (content.kind == "input" and place == 0)):
        return None
    ends = np.cumsum(counts).tolist()
    parts = [(end - count, end) for count, end in zip(counts, ends)]
    if by_way:
        return [_some_ways(content, place, content.ways[a:b]) for a, b in parts]
    return [replace(content, part=part) for part in parts] if content.part is None else None


def _linear(step: Step) -> Result:
    """MatMul and Gemm: a head, where a layer's output is mapped."""
    content, weight = step.contents[:2]
    fits = isinstance(content, Flow) and content.kind in ("Y", "Y_h") and content.whole
    if not fits or not isinstance(weight, Known) or weight.array.ndim != 2:
        return None
    flow, matrix, bias = cast("Flow", content), weight.array.T, None
    if step.kind == "Gemm":
        plain = step.attributes.get("alpha", 1.0) == step.attributes.get("beta", 1.0) == 1.0
        if not plain or step.attributes.get("transA") or len(flow.axes) != 2:
            return None
        matrix = matrix.T if step.attributes.get("transB") else matrix
        if len(step.contents) > 2 and step.contents[2] is not None:
            bias = _bias(step.contents[2], len(matrix))
            if bias is None:
                return None
    axes = (*flow.axes[:-1], (FEATURES,))
    head = Head(matrix, bias)
    return [replace(flow, kind="head", axes=axes, width=len(matrix), head=head, name=flow.kind)]


def _add(step: Step) -> Result:
    flows = [each for each in step.contents if isinstance(each, Flow)]
    others = [each for each in step.contents if not isinstance(each, Flow)]
    if len(flows) != 1 or len(others) != 1:
        return None
    flow, head = flows[0], flows[0].head
    bias = _bias(others[0], flow.width)
    if head is None or head.bias is not None or head.said or bias is None or not flow.whole:
        return None
    return [replace(flow, head=head._replace(bias=bias))]


def _said(step: Step) -> Result:
    """Softmax, LogSoftmax and Sigmoid of a head."""
    flow = step.first
    if not isinstance(flow, Flow) or flow.head is None or flow.head.said or not flow.whole:
        return None
    last = len(flow.axes) - 1
    if step.kind != "Sigmoid" and step.attributes.get("axis", -1) % len(flow.axes) != last:
        return None
    said = cast('Literal["Softmax", "LogSoftmax", "Sigmoid"]', step.kind)
    return [replace(flow, head=flow.head._replace(said=said))]


def _bias(content: Content | None, width: int) -> Any:
    if not isinstance(content, Known) or content.array.dtype.kind != "f":
        return None
    array = content.array
    flat = array.size in (1, width) and (array.ndim == 0 or array.shape[-1] == array.size)
    return np.broadcast_to(array.ravel(), (width,)) if flat else None


def _runs(flow: Flow, place: int) -> bool:
    """Whether an axis of a layer's output is the one that the layer runs along."""
    return flow.kind == "Y" and not flow.last and flow.axes[place] == flow.time


def _last(flow: Flow, place: int) -> Flow:
    return replace(flow, last=True, axes=_with(flow.axes, place, ()))


def _some_ways(flow: Flow, place: int, ways: Any) -> Flow:
    axis: Axis = (WAYS,) if len(ways) > 1 else ()
    return replace(flow, ways=tuple(ways), axes=_with(flow.axes, place, axis))


def _with(axes: Sequence[Axis], place: int, axis: Axis) -> tuple[Axis, ...]:
    return (*axes[:place], axis, *axes[place + 1 :])


def _without(flow: Flow, places: set[int]) -> Flow:
    return replace(flow, axes=tuple(axis for k, axis in enumerate(flow.axes) if k not in places))


def _others(flow: Flow, place: int) -> tuple[Axis, ...]:
    return (*flow.axes[:place], *flow.axes[place + 1 :])


FOLLOW: Mapping[str, Callable[[Step], Result]] = {
    **dict.fromkeys(("Identity", "Dropout", "Cast"), _same),
    **dict.fromkeys(("Expand", "Tile"), _expand),
    **dict.fromkeys(("MatMul", "Gemm"), _linear),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Sigmoid"), _said),
    "Add": _add,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""The operators that are understood around recurrent ones."""
