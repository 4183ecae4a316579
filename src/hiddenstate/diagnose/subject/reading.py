"""What the arguments of a module may be by their shapes, types and names, before it is run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.subject.layout import (
    LENGTHS,
    MASK,
    STATE,
    Arguments,
    Layout,
    Lengths,
    Place,
    as_lengths,
    called,
    every_leaf,
    steps_first,
)
from hiddenstate.nn.packed import unpack


def layouts_of(
    arguments: Arguments, batch_first: bool | None = None, states: Iterable[str] = ()
) -> Iterator[Layout]:
    """Yield all readings of the arguments that fit their shapes and lengths, likeliest first."""
    arrays, states = every_leaf(arguments), frozenset(states)
    for main, array in sorted(arrays, key=lambda pair: _rank(pair[0], pair[1], states)):
        if _rank(main, array, states) > 3:
            continue
        if isinstance(array, PackedSequence):
            orders, shape = [(0, 1)], tuple(unpack(array)[0].shape)
        else:
            orders, shape = [(0, 1), (1, 0)], tuple(array.shape)
            if len(shape) in (3, 4) and array.is_floating_point():
                orders.append((0, 2))
        if batch_first is not None:
            orders = [each for each in orders if (each[0] < each[1]) is batch_first]
        for b, t in orders:
            layout = _layout(arguments, main, (b, t), (shape[b], shape[t]), states)
            if layout is not None:
                yield layout


def _rank(name: str, array: Any, states: frozenset[str]) -> int:
    """Return how soon an array is taken for the sequence; above 3 never."""
    if isinstance(array, PackedSequence):
        return 0
    if not isinstance(array, Tensor) or array.ndim < 2 or _is_state(name, states):
        return 9
    if array.ndim > 2 and not called(name, MASK):
        return 1
    return 3 if array.is_floating_point() or called(name, MASK) else 2


def _is_state(name: str, states: frozenset[str]) -> bool:
    return re.split(r"[\[.]", name)[0] in states or called(name, STATE)


def _layout(
    arguments: Arguments,
    main: str,
    axes: tuple[int, int],
    sizes: tuple[int, int],
    states: frozenset[str],
) -> Layout | None:
    """Return the layout that follows when `main` has rows and steps there; None if lengths object.

    Where two sequences have lengths each, those that fit are read.
    """
    places: dict[str, Place] = {}
    lengths: Lengths | None = None
    for name, array in every_leaf(arguments):
        if isinstance(array, PackedSequence):
            x, own = unpack(array)
            fits = tuple(x.shape[:2]) == sizes
            places[name] = Place("sequence", 0, 1) if fits else Place("other")
            if name == main:
                lengths = as_lengths(own)
            continue
        places[name] = Place("sequence", *axes)
        if name == main:
            continue
        counts = _lengths(name, array, arguments, main, axes)
        if counts is None:
            places[name] = _place(name, array, axes, sizes, states)
        elif len(counts) != sizes[0] or counts.max(initial=0) > sizes[1]:
            if _speak_of(name, main, arguments):
                return None
            places[name] = Place("rows", 0) if len(counts) == sizes[0] else Place("other")
        elif (lengths is not None and not (lengths == counts).all()) or _speak_of_another(
            counts, sizes[1], main, arguments
        ):
            places[name] = Place("rows", 0)
        else:
            lengths, places[name] = counts, Place("lengths", 0)
    layout = Layout(*sizes, main, places, lengths)
    told = layout.lengths_of(arguments)
    if told is None:
        return layout
    apart = {
        name: Place("rows", places[name].batch)
        for name in _with_own_lengths(arguments, main, places, told)
    }
    return replace(layout, lengths=told, places={**places, **apart})


def _speak_of_another(counts: Lengths, time: int, main: str, arguments: Arguments) -> bool:
    """Return whether another array has just as many steps as these lengths say, and main more."""
    shape = (len(counts), int(counts.max(initial=0)))
    return shape[1] < time and any(
        isinstance(leaf, Tensor) and name != main and tuple(leaf.shape[:2]) == shape
        for name, leaf in every_leaf(arguments)
    )


def _lengths(
    name: str, array: Any, arguments: Arguments, main: str, axes: tuple[int, int]
) -> Lengths | None:
    """Return an array as lengths if it is called so, or if the rows are padded just there."""
    if isinstance(array, Tensor | np.ndarray) and array.ndim != 1:
        return None
    if isinstance(array, Tensor) and array.dtype == torch.bool:
        return None
    values = as_lengths(array)
    if not len(values) or values.min() < 0:
        return None
    x = dict(every_leaf(arguments))[main]
    if called(name, LENGTHS):
        return values
    if isinstance(x, PackedSequence) or (isinstance(array, Tensor) and array.is_floating_point()):
        return None
    view = x.movedim(axes, (0, 1))
    if len(values) != view.shape[0] or values.max() != view.shape[1] or values.min() < 1:
        return None
    return values if _padded_from(view, values) else None


def _with_own_lengths(
    arguments: Arguments, main: str, places: dict[str, Place], lengths: Lengths
) -> list[str]:
    """Return the other sequences, and their masks, that are padded where other lengths say."""
    arrays, others, found = dict(every_leaf(arguments)), [], []
    for name, place in places.items():
        if place.role in ("rows", "other") and _counts(arrays[name], len(lengths)):
            others.append(as_lengths(arrays[name]))
        elif place.role == "mask":
            real = (steps_first(arrays[name], place) == place.real).sum(1)
            if (as_lengths(real) != lengths).any():
                others.append(as_lengths(real))
                found.append(name)
    for name, place in places.items():
        array = arrays[name]
        if name == main or place.role != "sequence" or not isinstance(array, Tensor):
            continue
        view = steps_first(array, place)
        if not _padded_from(view, lengths) and any(_padded_from(view, each) for each in others):
            found.append(name)
    return found


def _counts(array: Any, rows: int) -> bool:
    if isinstance(array, Tensor | np.ndarray):
        whole = not array.is_floating_point() if isinstance(array, Tensor) else array.dtype != float
        return whole and tuple(array.shape) == (rows,)
    return isinstance(array, list | tuple) and len(array) == rows


def _padded_from(view: Tensor, lengths: Lengths) -> bool:
    """Return whether one and the same thing stands in x [B, T, ...] from the rows' ends on."""
    padding = view[torch.arange(view.shape[1]) >= torch.as_tensor(lengths).unsqueeze(1)]
    return padding.numel() > 0 and bool((padding == padding.flatten()[0]).all())


def _speak_of(name: str, main: str, arguments: Arguments) -> bool:
    """Return whether these lengths are of `main`: they share a word, or there are no others."""
    words = set(name.lower().split("_")) & set(main.lower().split("_"))
    called_so = [each for each, _ in every_leaf(arguments) if called(each, LENGTHS)]
    return bool(words) or len(called_so) == 1


def _place(
    name: str,
    array: Any,
    axes: tuple[int, int],
    sizes: tuple[int, int],
    states: frozenset[str],
) -> Place:
    if not isinstance(array, Tensor) or array.ndim == 0:
        return Place("other")
    (b, t), (batch, time), shape = axes, sizes, tuple(array.shape)
    if _is_state(name, states):
        # torch's own states are [layers, B, H].
        order = (1, 0) if len(shape) == 3 else range(len(shape))
        rows = next((axis for axis in order if shape[axis] == batch), None)
        return Place("state", rows)
    for one, other in ((b, t), (0, 1), (1, 0)):
        if len(shape) > max(one, other) and (shape[one], shape[other]) == (batch, time):
            masks = len(shape) == 2 and (called(name, MASK) or array.dtype == torch.bool)
            if masks:
                return mask_place(array, one, other)
            return Place("sequence", one, other)
    for axis in (b, 0):
        if len(shape) > axis and shape[axis] == batch:
            return Place("rows", axis)
    return Place("other")


def mask_place(array: Tensor, batch: int, time: int) -> Place:
    """Return the place of a mask of real steps; of another two-valued array as a sequence.

    Padding stands at the end, so what stands at the first step of all rows is "real".
    """
    as_sequence = Place("sequence", batch, time)
    if array.is_complex() or not bool(((array == 0) | (array == 1)).all()):
        return as_sequence
    view = steps_first(array, as_sequence).bool()
    falls = (view[:, 1:] != view[:, :-1]).sum(1)
    if bool((falls > 1).any()) or bool((view[:, 0] != view[0, 0]).any()):
        return as_sequence
    return Place("mask", batch, time, bool(view[0, 0]))
