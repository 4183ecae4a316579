"""Which axes are rows and which are steps: found by taking some away and looking what shrinks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.subject.calling import Caller, Refused
from hiddenstate.diagnose.subject.layout import Arguments, Layout, Place, every_leaf
from hiddenstate.diagnose.subject.nested import copied, tensors
from hiddenstate.diagnose.subject.reading import layouts_of
from hiddenstate.errors import ShapeError
from hiddenstate.nn import Layer

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Output:
    """An array that the module gives.

    batch_axis: its axis of rows; None without one
    time_axis:  its axis of steps, as many as the rows have; None without one
    stretches:  its shape depends on the number of steps in another way
    joined:     rows and steps come as one axis, as view(-1, V) does; a Subject splits it
    """

    name: str
    batch_axis: int | None
    time_axis: int | None
    stretches: bool = False
    joined: bool = False


@dataclass(frozen=True)
class Call:
    """How many rows a recurrent layer saw, and how many steps of them in all its calls."""

    layer: str
    rows: int
    steps: int


@dataclass(frozen=True)
class Pass:
    """Shapes of what came out of one run, and what the recurrent layers saw.

    rowless: layers that were given one sequence without an axis of rows
    """

    shapes: Shapes
    calls: tuple[Call, ...]
    rowless: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axes:
    """What `find_axes` found.

    fixed_rows, fixed_steps: why other numbers of rows or steps cannot be run; None where they can
    astray: layers that take the rows for steps: they were built for another order of axes
    """

    layout: Layout
    outputs: tuple[Output, ...]
    fixed_rows: str | None
    fixed_steps: str | None
    astray: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Tried:
    layout: Layout
    wider: Pass | None
    shorter: Pass | None
    fixed_rows: str | None
    fixed_steps: str | None
    share: tuple[int, int]


def find_axes(
    caller: Caller, *, batch_first: bool | None = None, states: Iterable[str] = ()
) -> Axes:
    """Read the layout of a module's arguments and outputs.

    Lengths [B] decide where they can, then what the recurrent layers see when a row is added and
    steps are taken away; without such a layer, which axis the module keeps apart.
    Raises ShapeError where no array has rows and steps.
    """
    first = observe(caller, caller.arguments)
    if first.rowless:
        raise ShapeError(
            f"{first.rowless[0] or 'The layer'} is given one sequence without an axis of rows.",
            "A batch of sequences [B, T, ...] is examined, also if it holds one row only.",
            "Give x.unsqueeze(0) where rows come first, or x.unsqueeze(1) where steps do.",
        )
    layouts = list(layouts_of(caller.arguments, batch_first, frozenset(states)))
    if not layouts:
        shapes = {
            name: list(getattr(each, "shape", ())) for name, each in every_leaf(caller.arguments)
        }
        raise ShapeError(
            f"None of the arguments has rows and steps: {shapes}.",
            "A batch of sequences [B, T, ...] is examined, with lengths [B] where rows differ.",
            "Give at least one array with both axes, and lengths from 0 to T, one for each row.",
        )
    likely = _likely(layouts, first)
    tried = [_try(caller, each) for each in likely]
    if all(each.shorter is None for each in tried):
        # Features may be as many as the steps that some layer saw.
        tried += [_try(caller, each) for each in layouts if each not in likely]
    chosen = _choose(caller, tried, first)
    apart = _with_own_steps(caller, chosen, first)
    if apart:
        places = {**chosen.layout.places, **apart}
        chosen = _try(caller, replace(chosen.layout, places=places))
    outputs = tuple(_split(caller, chosen, first, each) for each in _outputs(first, chosen))
    return Axes(
        chosen.layout, outputs, chosen.fixed_rows, chosen.fixed_steps, _astray(first, chosen)
    )


def observe(caller: Caller, arguments: Arguments) -> Pass:
    """Run once; return the shapes of the outputs and what the recurrent layers saw."""
    module = copied(caller.module)
    seen: dict[tuple[str, int], int] = {}
    rowless: dict[str, None] = {}

    def look(name: str, layer: nn.Module, given: Any) -> None:
        x = given[0] if given else None
        if isinstance(x, PackedSequence):
            rows, steps = int(x.batch_sizes[0]), len(x.batch_sizes)
        elif not isinstance(x, Tensor):
            return
        elif isinstance(layer, nn.RNNCellBase) and x.ndim == 2:
            rows, steps = x.shape[0], 1
        elif x.ndim == 3:
            first = isinstance(layer, Layer) or bool(getattr(layer, "batch_first", False))
            rows, steps = x.shape[:2] if first else (x.shape[1], x.shape[0])
        else:
            rowless[name] = None
            return
        seen[name, rows] = seen.get((name, rows), 0) + steps

    for name, part in module.named_modules():
        if isinstance(part, nn.RNNBase | nn.RNNCellBase | Layer):
            part.register_forward_pre_hook(lambda layer, given, name=name: look(name, layer, given))
    raw = caller.call(arguments, module=module)
    shapes = {name: tuple(each.shape) for name, each in tensors(raw)}
    return Pass(shapes, tuple(Call(*key, steps) for key, steps in seen.items()), tuple(rowless))


def _likely(layouts: list[Layout], first: Pass) -> list[Layout]:
    """Keep the readings in which a layer saw as many rows and steps, where there are any."""
    seen = {(each.rows, each.steps) for each in first.calls}
    fitting = [
        each
        for each in layouts
        if (each.batch, _longest(each)) in seen or (each.batch, each.time) in seen
    ]
    return fitting or layouts


def _longest(layout: Layout) -> int:
    """Return how many steps the longest row has, at least 1."""
    if layout.lengths is None:
        return layout.time
    return max(1, int(layout.lengths.max(initial=0)))


def _try(caller: Caller, layout: Layout) -> _Tried:
    wider = shorter = fixed_rows = fixed_steps = None
    # Another last row, so that rows sorted by length stay sorted.
    more = [*range(layout.batch), layout.batch - 1]
    try:
        wider = observe(caller, layout.rows(caller.arguments, more))
    except Refused as error:
        fixed_rows = str(error)
    longest = _longest(layout)
    fewer = 0
    for fewer in dict.fromkeys([longest - max(1, longest // 3), longest - 1]):
        if fewer < 1:
            fixed_steps = "the rows have only one step"
            break
        try:
            shorter = observe(caller, layout.steps(caller.arguments, fewer))
            fixed_steps = None
            break
        except Refused as error:
            fixed_steps = str(error)
    return _Tried(layout, wider, shorter, fixed_rows, fixed_steps, (longest, fewer))


def _choose(caller: Caller, tried: list[_Tried], first: Pass) -> _Tried:
    running = [each for each in tried if each.wider is not None] or tried
    running.sort(key=lambda each: each.shorter is None)
    # Where fewer steps do not run, the axis may be that of features.
    running.sort(key=lambda each: each.shorter is None)
    for each in running:
        if each.wider is not None and _layers_agree(first, each):
            return each
    if len(running) > 1:
        for each in running:
            if _keeps_rows_apart(caller, each, first):
                return each
    return running[0]


def _layers_agree(first: Pass, tried: _Tried) -> bool:
    """Return whether some layer saw one row more, and fewer steps where there were fewer."""
    batch = tried.layout.batch
    assert tried.wider is not None
    later = tried.wider.calls
    if len(later) != len(first.calls):
        return False
    for k, (one, other) in enumerate(zip(first.calls, later)):
        if one.rows * (batch + 1) != other.rows * batch or one.steps != other.steps:
            continue
        if tried.shorter is None or len(tried.shorter.calls) <= k:
            return True
        less = tried.shorter.calls[k]
        # Long rows may have been folded into the batch.
        if less.steps < one.steps or less.rows < one.rows:
            return True
    return False


def _with_own_steps(caller: Caller, tried: _Tried, first: Pass) -> dict[str, Place]:
    """Return the places of sequences that only happen to have T steps, such as a target's.

    They can be cropped alone; where the steps of two arrays belong together, that does not run.
    """
    layout, found = tried.layout, dict[str, Place]()
    for name in layout.sequences if tried.shorter is not None else ():
        if name == layout.main:
            continue
        try:
            alone = _cropped(caller, tried, [name])
        except Refused:
            continue
        try:
            rest = _cropped(caller, tried, [each for each in layout.sequences if each != name])
        except Refused:
            rest = first
        # A loop over both stops with the shorter one: what shrinks with either has their steps.
        if any(
            shape != alone.shapes.get(each) == rest.shapes.get(each)
            for each, shape in first.shapes.items()
        ):
            continue
        found[name] = Place("rows", layout.places[name].batch)
    return found


def _cropped(caller: Caller, tried: _Tried, names: list[str]) -> Pass:
    """Run with fewer steps of these arguments alone."""
    layout = tried.layout
    places = {
        each: place if each in names else Place("other") for each, place in layout.places.items()
    }
    alone = replace(layout, lengths=None, places=places)
    return observe(caller, alone.steps(caller.arguments, tried.share[1]))


def _keeps_rows_apart(caller: Caller, tried: _Tried, first: Pass) -> bool:
    """Return whether a change in the last row leaves the others as they were."""
    layout = tried.layout
    if layout.batch < 2:
        return False
    others = list(range(layout.batch - 1))
    mixed = layout.rows(caller.arguments, [*others, 0])
    before, after = tensors(caller.call(caller.arguments)), tensors(caller.call(mixed))
    compared = False
    for output, (_, one), (_, other) in zip(_outputs(first, tried), before, after):
        if output.batch_axis is None or not one.is_floating_point():
            continue
        if one.shape != other.shape:
            return False
        kept = torch.tensor(others)
        one, other = (each.index_select(output.batch_axis, kept) for each in (one, other))
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-6, equal_nan=True):
            return False
        compared = True
    return compared


def _outputs(first: Pass, tried: _Tried) -> Iterator[Output]:
    batch, (longest, fewer) = tried.layout.batch, tried.share
    for name, shape in first.shapes.items():
        wider = None if tried.wider is None else tried.wider.shapes.get(name)
        shorter = None if tried.shorter is None else tried.shorter.shapes.get(name)
        rows = _axis(shape, wider, batch, batch + 1)
        times = {longest: fewer, tried.layout.time: min(fewer, tried.layout.time)}
        steps = next(
            (
                axis
                for size, less in times.items()
                if (axis := _axis(shape, shorter, size, less, rows)) is not None
            ),
            None,
        )
        stretches = steps is None and shorter is not None and shorter != shape
        yield Output(name, rows, steps, stretches)


def _split(caller: Caller, tried: _Tried, first: Pass, output: Output) -> Output:
    """Return the axes that an output has once its joined rows and steps are split."""
    batch, (longest, fewer) = tried.layout.batch, tried.share
    if not output.stretches or output.batch_axis is not None:
        return output
    sizes = [
        None if each is None else each.shapes.get(output.name, (0,))[:1]
        for each in (first, tried.wider, tried.shorter)
    ]
    if sizes != [(batch * longest,), ((batch + 1) * longest,), (batch * fewer,)]:
        return output
    others = list(range(batch - 1))
    exchanged = tried.layout.rows(caller.arguments, [*others, 0])
    one, other = (
        dict(tensors(caller.call(given)))[output.name] for given in (caller.arguments, exchanged)
    )
    place = tried.layout.places[tried.layout.main]
    orders = [(0, 1), (1, 0)] if (place.batch or 0) < (place.time or 0) else [(1, 0), (0, 1)]
    for rows, steps in orders:
        split = (batch, longest) if rows < steps else (longest, batch)
        before, after = (
            each.reshape(*split, *each.shape[1:]).index_select(rows, torch.tensor(others)).double()
            for each in (one, other)
        )
        if torch.allclose(before, after, rtol=1e-4, atol=1e-6, equal_nan=True):
            return Output(output.name, rows, steps, joined=True)
    return Output(output.name, *orders[0], joined=True)


def _axis(
    shape: tuple[int, ...],
    after: tuple[int, ...] | None,
    size: int,
    later: int,
    taken: int | None = None,
) -> int | None:
    """Return the axis of this size that became `later`; by its size where that did not run."""
    for axis, before in enumerate(shape):
        if before != size or axis == taken:
            continue
        if after is None or (len(after) == len(shape) and after[axis] == later):
            return axis
    return None


def _astray(first: Pass, tried: _Tried) -> tuple[str, ...]:
    """Return the layers that saw one step more when a row was added."""
    if tried.wider is None or len(tried.wider.calls) != len(first.calls):
        return ()
    batch = tried.layout.batch
    wrong = [
        one.layer
        for one, other in zip(first.calls, tried.wider.calls)
        if one.steps == batch and other.steps == batch + 1 and one.rows == other.rows
    ]
    return tuple(dict.fromkeys(wrong))
