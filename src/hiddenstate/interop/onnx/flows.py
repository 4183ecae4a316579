"""What the tensors of a foreign graph hold, as far as importing has to know.

The walk over a graph computes with these instead of with numbers. A `Flow` is a tensor that rests
on the inputs; its axes are told by what runs along them, so that any mixture of Transpose, Squeeze,
Reshape and Concat in which an exporter wraps a layer comes down to the same few facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from numpy.typing import NDArray

Array = NDArray[Any]
Atom: TypeAlias = str
Axis: TypeAlias = tuple[Atom, ...]
"""What runs along an axis: nothing (its size is 1), one thing, or several laid end to end."""

WAYS, FEATURES = "ways", "features"
"""The directions of a layer, and a step's numbers. An input's first axes are name.0 and name.1."""


class Known(NamedTuple):
    """Numbers that stand in the file."""

    array: Array


class Zeros(NamedTuple):
    """Zeros, however many: a first state."""


class Sizes(NamedTuple):
    """Sizes of axes, as Shape and what is done with it give them; scalar: it has no axis."""

    entries: tuple[Atom | int, ...]
    scalar: bool = False


class Lengths(NamedTuple):
    """Every row has all steps of this axis."""

    time: Atom


class Foreign(NamedTuple):
    """What nothing is known of, because of this node or input."""

    because: str


class Way(NamedTuple):
    """A direction of a recurrent node: the node's place among them, and the direction's in it."""

    node: int
    place: int


class Head(NamedTuple):
    """A linear map of a layer's output, and what its result is turned into."""

    weight: Array
    bias: Array | None = None
    said: Literal["", "Softmax", "LogSoftmax", "Sigmoid"] = ""


@dataclass(frozen=True, eq=False)
class Flow:
    """A tensor that rests on the inputs.

    kind:  input, embedded, Y, Y_h, Y_c (of recurrent nodes), or head
    axes:  what runs along each axis
    width: how many numbers run along FEATURES
    name:  of the input that it is, or whose codes are embedded
    part:  of an input, from where to where on its first axis; None is all of it
    table: the embedding [V, E]
    ways:  the directions whose results it holds, in this order
    time:  of Y, the axis along which the layer ran
    last:  of Y, the last step alone
    head:  of a head, its map; then `ways` is what it reads
    """

    kind: str
    axes: tuple[Axis, ...]
    width: int = 0
    name: str = ""
    part: tuple[int, int] | None = None
    table: Array | None = None
    ways: tuple[Way, ...] = ()
    time: Axis | None = None
    last: bool = False
    head: Head | None = None

    @property
    def whole(self) -> bool:
        """Whether the last axis holds all that a step or row has, one direction after the other."""
        both = (WAYS, FEATURES) if len(self.ways) > 1 and self.kind != "head" else (FEATURES,)
        return bool(self.axes) and self.axes[-1] == both

    def sizes(self, known: Mapping[Atom, int]) -> dict[Atom, int]:
        """Return the sizes of its atoms, beside those that are known of the inputs' axes."""
        return {**known, FEATURES: self.width, WAYS: len(self.ways)}


Content: TypeAlias = Known | Zeros | Sizes | Lengths | Foreign | Flow


def regroup(
    axes: Sequence[Axis], target: Sequence[Atom | int], sizes: Mapping[Atom, int]
) -> tuple[Axis, ...] | None:
    """Return the axes after a Reshape to sizes, None where they cannot be told.

    target: a size, the axis whose size it is, 0 for the axis that stands there, or once -1
    sizes:  of the atoms whose size is known

    >>> regroup([("t",), ("b",), (WAYS,), (FEATURES,)], [0, 0, -1], {})
    (('t',), ('b',), ('ways', 'features'))
    """
    left = [atom for axis in axes for atom in axis]
    entries: list[Axis | int] = []
    for place, each in enumerate(target):
        if each == 0 and place >= len(axes):
            return None
        entries.append(axes[place] if each == 0 else (each,) if isinstance(each, str) else each)
    free = entries.index(-1) if -1 in entries else len(entries)
    front = [_take(left, entry, sizes, 0) for entry in entries[:free]]
    back = [_take(left, entry, sizes, -1) for entry in reversed(entries[free + 1 :])][::-1]
    if left and free == len(entries):
        return None
    middle = [tuple(left)] if free < len(entries) else []
    found = [*front, *middle, *back]
    return None if None in found else tuple(axis for axis in found if axis is not None)


def _take(
    left: list[Atom], entry: Axis | int, sizes: Mapping[Atom, int], end: Literal[0, -1]
) -> Axis | None:
    """Take an axis, or the atoms of a size, off one end of what is left; None where it is not."""
    taken: list[Atom] = []
    if isinstance(entry, tuple):
        wanted = list(entry)
        while wanted and left and left[end] == wanted[end]:
            taken.append(left.pop(end))
            wanted.pop(end)
        return None if wanted else entry
    size = 1
    while left and (size < entry or not taken) and size * sizes.get(left[end], entry + 1) <= entry:
        size *= sizes[left[end]]
        taken.append(left.pop(end))
    if size != entry:
        return None
    return tuple(taken if end == 0 else taken[::-1])
