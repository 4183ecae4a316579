"""From which steps a result is made: by gradients, all steps at once, exact zeros included."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.measures.carrying import held_states
from hiddenstate.diagnose.subject.axes import Output
from hiddenstate.diagnose.subject.calling import cloned
from hiddenstate.diagnose.subject.layout import every_leaf, steps_first
from hiddenstate.diagnose.subject.nested import mapped
from hiddenstate.diagnose.subject.subject import Subject, flat
from hiddenstate.nn import Bidirectional, Layer, Stack
from hiddenstate.nn.packed import unpack

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

Floats = NDArray[np.floating[Any]]

LIKE = 4
"""Rows of one length that are looked at, at least, where there are so many."""
LEAST = 6
"""Steps that these rows should have, where two rows have so many."""


@dataclass(frozen=True)
class Reach:
    """What one output is made from.

    output:   one for each row; or one for each step, then it is that of the step `end`
    end:      the last step that it may have read
    by_step:  [B, T] the gradient's size at every step of the input
    backward: by layer, [B, T] that at the outputs of the layer's backward direction
    """

    output: Output
    end: int
    by_step: Floats
    backward: dict[str, Floats]

    @property
    def support(self) -> NDArray[np.bool_]:
        """[B, T], true at steps with any influence."""
        return self.by_step > 0


def alike(seen: Examination) -> Subject:
    """Return a few rows cropped to one length, so that all have the same steps and no padding."""
    return seen.known("rows alike", lambda: _alike(seen.few))


def reaches(seen: Examination) -> list[Reach]:
    """Return the reach of every output of `alike`; raises Skip where no gradient gets through."""
    return seen.known("reach", lambda: _reaches(alike(seen), seen.seed, held_states(seen)))


def longest(seen: Examination) -> tuple[Subject, list[Reach]]:
    """Return the longest rows alone, and the reach of their outputs; Skip where it is `alike`."""
    few, steps = seen.few, int(seen.few.ends.max())
    if steps <= alike(seen).time or few.fixed_rows is not None or few.fixed_steps is not None:
        raise Skip("the longest rows are those looked at")
    rows = np.flatnonzero(few.ends == steps)
    part = few.on(few.steps(steps, arguments=few.rows(rows)), rows=rows, steps=steps)
    return part, _reaches(part, seen.seed, held_states(seen))


def _alike(few: Subject) -> Subject:
    ends = np.sort(few.ends)[::-1]
    # Rather fewer rows than hardly any steps.
    steps = max(int(ends[min(LIKE, len(ends)) - 1]), min(LEAST, int(ends[min(2, len(ends)) - 1])))
    if steps < 3:
        raise Skip("the rows have fewer than three steps")
    if steps == few.time and (few.ends == few.time).all():
        return few
    if few.fixed_rows is not None or (few.fixed_steps is not None and steps != few.time):
        raise Skip("no other number of rows or steps can be run")
    rows = np.flatnonzero(few.ends >= steps)
    return few.on(few.steps(steps, arguments=few.rows(rows)), rows=rows, steps=steps)


def _reaches(part: Subject, seed: int, states: frozenset[str]) -> list[Reach]:
    module = part.copy()
    sources = _Sources(part, module)
    with sources.open(), _both_ways(module) as directions:
        raw = part.call(module, sources.arguments, gradients=True, keep=True)
        outputs = flat(raw)
    generator = torch.Generator().manual_seed(seed)
    arrays = [*sources.arrays(), *(each for each, _ in directions.values())]
    count = len(arrays) - len(directions)
    if not count:
        raise Skip("what stands at the steps is neither numbers nor looked up in a table")
    found = []
    for output, array in zip(part.outputs, outputs):
        if output.batch_axis is None or not (array.is_floating_point() and array.requires_grad):
            continue
        if output.name in states or (output.time_axis is None and output.stretches):
            continue
        for end in _ends(output, array, part.time):
            chosen = array if output.time_axis is None else array.select(output.time_axis, end)
            weights = 0.5 + torch.rand(chosen.shape, generator=generator).to(chosen)
            gradients = torch.autograd.grad(
                (chosen * weights).sum(), arrays, retain_graph=True, allow_unused=True
            )
            by_step = sources.by_step(gradients[:count])
            if by_step is None or not (by_step > 0).any():
                continue
            backward = {
                name: _rows_and_steps(gradient, layer)
                for gradient, (name, (_, layer)) in zip(gradients[count:], directions.items())
                if gradient is not None
            }
            found.append(Reach(output, end, by_step, backward))
    if not found:
        raise Skip("no gradient gets from an output to the steps of the input")
    return found


def _ends(output: Output, array: Tensor, time: int) -> list[int]:
    """Return steps to look at: two, for the last may be the first of a chunk."""
    if output.time_axis is None:
        return [time - 1]
    return [array.shape[output.time_axis] - 1, array.shape[output.time_axis] - 2]


class _Sources:
    """What stands at each step of the input and has a gradient: floats, or what tables give."""

    def __init__(self, part: Subject, module: nn.Module) -> None:
        self._part, self._module = part, module
        self._given: list[tuple[str, Tensor]] = []
        self._read: list[tuple[Tensor, Tensor]] = []

        def watched(name: str, leaf: Any) -> Any:
            if name not in part.sequences:
                return leaf
            array = leaf.data if isinstance(leaf, PackedSequence) else leaf
            if not array.is_floating_point():
                return leaf
            array.requires_grad_()
            self._given.append((name, array))
            # Not the leaf itself: the module may write into it.
            passed = array * 1
            return leaf._replace(data=passed) if isinstance(leaf, PackedSequence) else passed

        self.arguments = {
            name: mapped(watched, cloned(value), name) for name, value in part.arguments.items()
        }

    @contextmanager
    def open(self) -> Iterator[None]:
        """While a module runs, take what its embeddings give for a source of gradients."""

        def take(_: nn.Module, given: Any, out: Any) -> Any:
            if not isinstance(out, Tensor) or not torch.is_grad_enabled():
                return None
            source = out.detach().requires_grad_()
            self._read.append((given[0], source))
            return source * 1

        hooks = [
            each.register_forward_hook(take)
            for each in self._module.modules()
            if isinstance(each, nn.Embedding)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def arrays(self) -> list[Tensor]:
        """Return all sources."""
        return [*(each for _, each in self._given), *(each for _, each in self._read)]

    def by_step(self, gradients: tuple[Tensor | None, ...]) -> Floats | None:
        """Return the largest size of the gradient at each step, [B, T]."""
        part = self._part
        found = []
        count = len(self._given)
        for (name, _), gradient in zip(self._given, gradients):
            if gradient is None:
                continue
            leaf = dict(every_leaf(part.arguments))[name]
            if isinstance(leaf, PackedSequence):
                found.append(unpack(leaf._replace(data=gradient))[0])
            else:
                found.append(steps_first(gradient, part.layout.places[name]))
        read = [(codes, each) for (codes, _), each in zip(self._read, gradients[count:])]
        found += _looked_up(part, read)
        whole = (part.batch, part.time)
        # An array may be there and have no features.
        sizes = [_size(each) for each in found if each.shape[:2] == whole and each.numel()]
        return np.max(sizes, axis=0) if sizes else None


def _looked_up(part: Subject, read: list[tuple[Tensor, Tensor | None]]) -> list[Tensor]:
    """Return the gradients [B, T, E] of looked-up rows, whole or step by step."""
    found, single = [], []
    for codes, gradient in read:
        if gradient is None:
            gradient = torch.zeros(*codes.shape, 1)
        for name, leaf in every_leaf(part.arguments):
            if name not in part.sequences:
                continue
            if isinstance(leaf, PackedSequence) and codes.shape == leaf.data.shape:
                found.append(unpack(leaf._replace(data=gradient))[0])
                break
            # Of several codes a step one may be looked up: [B, T] of [B, T, K].
            if isinstance(leaf, Tensor) and codes.shape in (leaf.shape, leaf.shape[:2]):
                found.append(steps_first(gradient, part.layout.places[name]))
                break
            if isinstance(leaf, Tensor) and codes.ndim == leaf.ndim == 2:
                place = part.layout.places[name]
                whole = _within(*(steps_first(x, place) for x in (codes, gradient, leaf)))
                if whole is not None:
                    found.append(whole)
                    break
        else:
            if codes.numel() == part.batch:
                single.append(gradient.reshape(part.batch, -1))
    if len(single) == part.time:
        found.append(torch.stack(single, 1))
    return found


def _within(codes: Tensor, gradient: Tensor, leaf: Tensor) -> Tensor | None:
    """Return the gradient [B, T, E] where codes [B, S] are S steps of leaf [B, T] that follow."""
    steps = codes.shape[1]
    for first in range(leaf.shape[1] - steps + 1):
        if torch.equal(codes, leaf[:, first : first + steps]):
            return functional.pad(gradient, (0, 0, first, leaf.shape[1] - steps - first))
    return None


@contextmanager
def _both_ways(module: nn.Module) -> Iterator[dict[str, tuple[Tensor, Any]]]:
    """Collect what bidirectional layers give: array, and (width of the backward half, packed)."""
    seen: dict[str, tuple[Tensor, Any]] = {}

    def look(name: str, layer: nn.Module, out: Any) -> None:
        width = _backward_width(layer)
        output = out[0] if isinstance(out, tuple) and not isinstance(out, PackedSequence) else out
        array = output.data if isinstance(output, PackedSequence) else output
        if width and isinstance(array, Tensor) and array.requires_grad:
            first = isinstance(layer, Layer) or bool(getattr(layer, "batch_first", False))
            seen[name] = (array, (width, output, first))

    hooks = [
        each.register_forward_hook(lambda layer, _, out, name=name: look(name, layer, out))
        for name, each in module.named_modules()
        if _backward_width(each)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _backward_width(layer: nn.Module) -> int:
    """Return how many of the last features come from the backward direction."""
    if isinstance(layer, nn.RNNBase):
        return (layer.proj_size or layer.hidden_size) if layer.bidirectional else 0
    if isinstance(layer, Stack) and not layer.residual:
        return _backward_width(layer.layers[-1])
    return layer.backward_layer.output_size if isinstance(layer, Bidirectional) else 0


def _rows_and_steps(gradient: Tensor, layer: Any) -> Floats:
    """Return [B, T], the size of the gradient in the backward half of a layer's output."""
    width, output, first = layer
    if isinstance(output, PackedSequence):
        gradient = unpack(output._replace(data=gradient))[0]
    elif not first:
        gradient = gradient.transpose(0, 1)
    return _size(gradient[..., -width:])


def _size(gradient: Tensor) -> Floats:
    by_step = gradient.detach().abs().reshape(*gradient.shape[:2], -1).amax(2)
    sizes: Floats = by_step.double().cpu().numpy()
    return sizes
