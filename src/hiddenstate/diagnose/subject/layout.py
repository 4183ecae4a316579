"""Where rows and steps lie in a module's arguments, and the arguments with other rows and steps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.nested import leaves, mapped
from hiddenstate.nn.packed import unpack

Arguments = Mapping[str, Any]
Lengths = NDArray[np.int64]
Role = Literal["sequence", "mask", "lengths", "state", "rows", "other"]

STATE = re.compile(
    r"(.*_)?(states?|hiddens?|carry|hx|cx|[hc]|[hc]_?[0nt]|[hc]_prev|hc|hc0)|(state|hidden|carry)_.*"
)
LENGTHS = re.compile(r".*len.*|(.*_)?(steps|sizes?|counts?|ls?|n)", re.IGNORECASE)
MASK = re.compile(r".*(mask|valid|pad).*", re.IGNORECASE)


def called(name: str, words: re.Pattern[str]) -> bool:
    """Return whether an argument, or what it is nested in, has such a name.

    >>> called("batch['src_lengths']", LENGTHS), called("state[0]", STATE), called("x", STATE)
    (True, True, False)
    """
    return any(words.fullmatch(part) for part in re.split(r"[^\w]+", name))


@dataclass(frozen=True)
class Place:
    """What one array among the arguments is.

    role:  sequence [B, T, ...] in any order of axes, mask of the real steps, lengths [B], state,
           rows (one thing a row) or other, which is left alone
    batch: its axis of rows, None without one; time alike
    real:  a mask's value at real steps
    """

    role: Role
    batch: int | None = None
    time: int | None = None
    real: bool = True


@dataclass(frozen=True)
class Layout:
    """The places of all arrays; every method returns changed arguments and changes nothing.

    batch, time: sizes B and T
    main:        the array that B and T were read from
    lengths:     [B], as an argument or a PackedSequence tells them; None where nothing does
    """

    batch: int
    time: int
    main: str
    places: Mapping[str, Place]
    lengths: Lengths | None

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the arrays with steps, masks aside."""
        return tuple(name for name, each in self.places.items() if each.role == "sequence")

    def lengths_of(self, arguments: Arguments) -> Lengths | None:
        """Return the lengths [B] that these arguments tell."""
        for name, leaf in every_leaf(arguments):
            place = self.places[name]
            if isinstance(leaf, PackedSequence):
                return unpack(leaf)[1].numpy().astype(np.int64)
            if place.role == "lengths":
                return as_lengths(leaf)
        for name, leaf in every_leaf(arguments):
            place = self.places[name]
            if place.role == "mask":
                # Right-padded by construction: see `mask_place`.
                real = steps_first(leaf, place) == place.real
                return real.sum(1).cpu().numpy().astype(np.int64)
        return None

    def rows(self, arguments: Arguments, indices: Iterable[int]) -> dict[str, Any]:
        """Return the arguments of some rows, in the order given."""
        chosen = np.asarray(list(indices), np.int64)

        def change(place: Place, array: Tensor) -> Tensor:
            if place.batch is None:
                return array
            index = torch.as_tensor(chosen, device=array.device)
            return array.index_select(place.batch, index)

        return self._changed(arguments, change, lambda lengths: lengths[chosen])

    def steps(self, arguments: Arguments, first: int, end: int | None = None) -> dict[str, Any]:
        """Return the first steps of every row, or those from `first` to before `end`."""
        start, stop = (0, first) if end is None else (first, end)

        def change(place: Place, array: Tensor) -> Tensor:
            if place.time is None or place.role == "state":
                return array
            return array.narrow(place.time, start, stop - start)

        return self._changed(
            arguments, change, lambda lengths: np.clip(lengths - start, 0, stop - start)
        )

    def with_lengths(self, arguments: Arguments, lengths: Lengths) -> dict[str, Any]:
        """Return arguments that tell other lengths [B] of the same steps."""
        if self.lengths is None:
            raise Skip("no lengths were given")
        return self._changed(arguments, lambda _, array: array, lambda _: lengths)

    def replaced(
        self, arguments: Arguments, change: Callable[[str, Tensor], Tensor]
    ) -> dict[str, Any]:
        """Return the arguments with change(name, array [B, T, ...]) for each sequence."""

        def leaf(name: str, place: Place, array: Tensor) -> Tensor:
            if place.role != "sequence":
                return array
            return as_given(change(name, steps_first(array, place)), place)

        return self._by_leaf(arguments, leaf, None)

    def _changed(
        self,
        arguments: Arguments,
        change: Callable[[Place, Tensor], Tensor],
        relength: Callable[[Lengths], Lengths],
    ) -> dict[str, Any]:
        return self._by_leaf(arguments, lambda _, place, array: change(place, array), relength)

    def _by_leaf(
        self,
        arguments: Arguments,
        change: Callable[[str, Place, Tensor], Tensor],
        relength: Callable[[Lengths], Lengths] | None,
    ) -> dict[str, Any]:
        """Apply `change` to every array with a place, and make lengths and masks agree."""

        def leaf(name: str, value: Any) -> Any:
            place = self.places[name]
            if isinstance(value, PackedSequence):
                x, counts = unpack(value)
                lengths = counts.numpy().astype(np.int64)
                x = change(name, place, x)
                return packed(x, lengths if relength is None else relength(lengths), value)
            if place.role == "lengths":
                return value if relength is None else like(relength(as_lengths(value)), value)
            if not isinstance(value, Tensor):
                return value
            if place.role == "mask" and relength is not None:
                return remasked(value, place, change(name, place, value), relength)
            return change(name, place, value)

        return {name: mapped(leaf, value, name) for name, value in arguments.items()}


def every_leaf(arguments: Arguments) -> list[tuple[str, Any]]:
    """Return the leaves of all arguments with their names."""
    return [pair for name, value in arguments.items() for pair in leaves(value, name)]


def steps_first(array: Tensor, place: Place) -> Tensor:
    """Return a view [B, T, ...] of a sequence or mask."""
    assert place.batch is not None
    assert place.time is not None
    return array.movedim((place.batch, place.time), (0, 1))


def as_given(array: Tensor, place: Place) -> Tensor:
    """Undo `steps_first`, in memory as torch would lay out a fresh array."""
    assert place.batch is not None
    assert place.time is not None
    return array.movedim((0, 1), (place.batch, place.time)).contiguous()


def as_lengths(value: Any) -> Lengths:
    """Return lengths as int64 [B], whatever holds them."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    return np.asarray(value).astype(np.int64)


def like(lengths: Lengths, given: Any) -> Any:
    """Return lengths held as the given ones were: a tensor, an array, a list or a tuple."""
    if isinstance(given, Tensor):
        return torch.as_tensor(lengths).to(device=given.device, dtype=given.dtype)
    if isinstance(given, np.ndarray):
        return lengths.astype(given.dtype)
    return type(given)(lengths.tolist())


def packed(x: Tensor, lengths: Sequence[int] | Lengths, given: PackedSequence) -> PackedSequence:
    """Pack x [B, T, ...] as the given one was: sorted only where the rows are in order."""
    if np.min(lengths) < 1:
        raise Skip("a PackedSequence cannot hold a row without steps")
    ordered = given.sorted_indices is None and bool((np.diff(lengths) <= 0).all())
    counts = torch.as_tensor(lengths)
    return pack_padded_sequence(x, counts, batch_first=True, enforce_sorted=ordered)


def remasked(
    before: Tensor, place: Place, after: Tensor, relength: Callable[[Lengths], Lengths]
) -> Tensor:
    """Return the mask `after` rows and steps were chosen, for the lengths that follow."""
    real = steps_first(before, place) == place.real
    lengths = relength(real.sum(1).cpu().numpy().astype(np.int64))
    view = steps_first(after, place)
    kept = torch.arange(view.shape[1], device=after.device) < torch.as_tensor(
        lengths, device=after.device
    ).unsqueeze(1)
    marked = kept if place.real else ~kept
    return as_given(marked.to(after.dtype), place)
