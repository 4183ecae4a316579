"""What the loss asks of a step: an input of the same step, or one that is still to come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.axes import Output
from hiddenstate.diagnose.subject.calling import in_the_loss, seeded
from hiddenstate.diagnose.subject.layout import every_leaf
from hiddenstate.diagnose.subject.nested import leaves, mapped
from hiddenstate.diagnose.subject.subject import Subject

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

BEHIND, AHEAD = 3, 12
"""Steps that an answer may lie behind the input and ahead of it."""
SYMBOLS, NUMBERS = 0.97, 0.998
"""Shares of the steps at which the answer has to be that input."""
LEAST, RARE = 20, 0.1
"""Answers that are needed, and the least share of them that differ from the usual one."""
FEATURES, COLUMNS = 8, 32
RESTING = 0.5
"""The share of one value from which on a feature is at rest most of the time."""
SIGNS, DRAWS = 1000, 6
"""Steps at which a slope's sign is looked at, by several draws where the batch has fewer."""


@dataclass(frozen=True)
class Asked:
    """The answer that an output is compared with.

    sequence: the argument that it stands in; feature: which of its numbers, None for symbols
    ahead:    steps between the output and the input that it is compared with; below 0: behind it
    alone:    whether the loss depends on no other output, but for one of the same shape (a scale)
    """

    output: Output
    sequence: str
    feature: int | None
    ahead: int
    alone: bool

    @property
    def told(self) -> str:
        """The argument in words."""
        return self.sequence if self.feature is None else f"feature {self.feature} {self.sequence}"


def asked(seen: Examination) -> list[Asked]:
    """Return which inputs the loss asks for, by its gradient: it points away from the answer.

    Raises Skip without a loss that can be gone back from.
    """
    return seen.known("asked", lambda: list(_asked(seen)))


def asked_across(seen: Examination) -> list[Asked]:
    """Return the same with rows in the place of steps: the answer stands in the next row."""
    return seen.known("asked across", lambda: list(_asked(seen, across=True)))


def slopes(seen: Examination, raw: Any) -> dict[str, Tensor]:
    """Return the loss's gradient by each output, by name, at outputs as `Subject.raw` gives them.

    Outputs that the loss does not depend on are left out.
    """
    if seen.loss is None:
        raise Skip("no loss was given")
    subject, given = seen.subject, dict[str, Tensor]()

    def source(name: str, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.is_floating_point():
            return leaf
        given[name] = leaf.detach().clone().requires_grad_()
        return given[name] * 1

    outputs = mapped(source, raw, "output")
    with seeded(seen.seed, subject.module), torch.enable_grad(), in_the_loss():
        value = seen.loss(subject.as_given(outputs))
        found = torch.autograd.grad(value, list(given.values()), allow_unused=True)
    return {name: each for name, each in zip(given, found) if each is not None}


def aligned(subject: Subject) -> Iterator[tuple[str, Tensor]]:
    """Yield the arrays [B, T, ...] among the arguments by name."""
    for name, leaf in every_leaf(subject.arguments):
        if name in subject.sequences:
            yield name, subject.array(name)
        elif isinstance(leaf, Tensor) and leaf.ndim > 1:
            yield name, leaf


def axes_of(output: Output) -> tuple[int, int] | None:
    """Return the axes of rows and steps; a decoder's output has steps of its own."""
    if output.batch_axis is None:
        return None
    if output.time_axis is None:
        return (0, 1) if output.batch_axis == 0 else None
    return output.batch_axis, output.time_axis


def _asked(seen: Examination, *, across: bool = False) -> Iterator[Asked]:
    subject = seen.subject
    raw = subject.raw(seed=seen.seed)
    plain = slopes(seen, raw)
    shapes = {tuple(each.shape) for each in plain.values()}
    given = {name: leaf for name, leaf in leaves(raw, "output") if isinstance(leaf, Tensor)}
    for output in subject.outputs:
        axes, slope = axes_of(output), plain.get(output.name)
        if axes is None or slope is None or slope.ndim < 2:
            continue
        axes = (axes[1], axes[0]) if across else axes
        view = slope.movedim(axes, (0, 1))
        for name, x in aligned(subject):
            valid = torch.ones(x.shape[:2], dtype=torch.bool)
            if x.shape[:2] == (subject.batch, subject.time):
                valid = torch.as_tensor(subject.valid)
            if across:
                x, valid = x.transpose(0, 1), valid.T
            if x.shape[:2] != view.shape[:2]:
                continue
            found: Iterator[tuple[int | None, int]]
            if x.is_floating_point() and x.ndim in (2, 3):
                values = x if x.ndim == 3 else x.unsqueeze(-1)
                found = _numbers(seen, raw, output.name, axes, given[output.name], values, valid)
            elif x.ndim == 2 and view.ndim == 3 and x.dtype != torch.bool:
                found = _symbols(view, x, valid)
            else:
                continue
            for feature, ahead in found:
                yield Asked(output, name, feature, ahead, len(shapes) == 1)


def _symbols(slope: Tensor, x: Tensor, valid: Tensor) -> Iterator[tuple[int | None, int]]:
    """Yield (None, steps ahead): the slope [B, T, V] falls most towards the symbol asked for."""
    if slope.shape[2] < 2 or int(x.min()) < 0 or int(x.max()) >= slope.shape[2]:
        return
    lowest, answer = slope.min(-1)
    best = (0.0, 0)
    for ahead in _shifts(x.shape[1]):
        here, there = _pair(x.shape[1], ahead)
        counts = valid[:, there] & valid[:, here] & (lowest[:, here] < 0)
        symbols = x[:, there][counts]
        if len(symbols) < LEAST or _usual(symbols) > 1 - RARE:
            continue
        rate = float((answer[:, here][counts] == symbols).double().mean())
        if rate > best[0]:
            best = (rate, ahead)
    if best[0] >= SYMBOLS:
        yield None, best[1]


def _numbers(
    seen: Examination,
    raw: Any,
    output: str,
    axes: tuple[int, int],
    given: Tensor,
    x: Tensor,
    valid: Tensor,
) -> Iterator[tuple[int | None, int]]:
    """Yield (feature, steps ahead): the slope's sign tells on which side the answer lies.

    For that the outputs are put among the values of the feature, in other rows and at other steps.
    """
    generator = torch.Generator().manual_seed(seen.seed)
    for feature in range(min(FEATURES, x.shape[2])):
        values = x[..., feature]
        pool = values[valid]
        if len(pool) < LEAST or not bool(pool.isfinite().all()):
            continue
        # Between pulses, what keeps the last one lies on the same side of 0 as they do.
        if np.unique(pool.cpu().numpy(), return_counts=True)[1].max() > RESTING * len(pool):
            continue
        hits: dict[int, Tensor] = {}
        counts: dict[int, Tensor] = {}
        above: dict[int, Tensor] = {}
        for _ in range(min(DRAWS, 1 + SIGNS // len(pool))):
            view = given.detach().clone().movedim(axes, (0, 1))
            draws = torch.randint(len(pool), view.shape, generator=generator)
            view.copy_(pool[draws])
            moved = view.movedim((0, 1), axes)

            def instead(name: str, leaf: Any, moved: Tensor = moved) -> Any:
                return moved if name == output else leaf

            slope = slopes(seen, mapped(instead, raw, "output")).get(output)
            if slope is None or not bool(slope.isfinite().all()):
                return
            at, side = (
                each.reshape(*view.shape[:2], -1)[..., :COLUMNS]
                for each in (view, slope.movedim(axes, (0, 1)).sign())
            )
            for ahead in _shifts(x.shape[1]):
                here, there = _pair(x.shape[1], ahead)
                gap = (at[:, here] - values[:, there, None]).sign()
                own = (valid[:, there] & valid[:, here]).unsqueeze(-1)
                use = own & (side[:, here] != 0) & (gap != 0)
                for kept, each in (
                    (hits, use & (gap == side[:, here])),
                    (counts, use),
                    (above, use & (side[:, here] > 0)),
                ):
                    kept[ahead] = kept.get(ahead, 0) + each.sum((0, 1)).double()
        rates = {
            ahead: torch.where(
                (counts[ahead] >= 3 * LEAST)
                & (above[ahead] > RARE * counts[ahead])
                & (above[ahead] < (1 - RARE) * counts[ahead]),
                hits[ahead] / counts[ahead].clamp(min=1),
                0.0,
            )
            for ahead in hits
        }
        if not rates:
            continue
        shifts = list(rates)
        best, place = torch.stack([rates[each] for each in shifts]).max(0)
        for ahead in dict.fromkeys(place[best >= NUMBERS].tolist()):
            yield feature, shifts[ahead]


def _shifts(time: int) -> list[int]:
    """Return the steps ahead that are tried, nearest first."""
    return sorted(range(-min(BEHIND, time // 3), min(AHEAD, time // 2) + 1), key=abs)


def _pair(time: int, ahead: int) -> tuple[slice, slice]:
    """Return the steps of the outputs and those of the inputs so many steps ahead of them."""
    if ahead >= 0:
        return slice(0, time - ahead), slice(ahead, time)
    return slice(-ahead, time), slice(0, time + ahead)


def _usual(symbols: Tensor) -> float:
    """Return the share of the commonest symbol."""
    return float(np.bincount(symbols.long().cpu().numpy()).max() / len(symbols))
