"""Two runs compared: what differs by more than rounding, in which rows and at which steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.axes import Output
from hiddenstate.diagnose.subject.facts import Mask
from hiddenstate.diagnose.subject.subject import Subject, flat

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

Floats = NDArray[np.floating[Any]]

LEAST_SHARE = {torch.float64: 1e-8, torch.float32: 1e-4}
"""Differences are looked at from this share of an output's largest value on, by its type."""
COARSE_SHARE, COARSE_ROUNDINGS = 3e-2, 3
"""The same, and as ROUNDINGS, for float16 and bfloat16."""
ROUNDINGS = 30
"""They also have to be so many times what one rounding error in every weight makes."""
CHAOTIC = 0.02
"""A share that one rounding error may make of an output before nothing can be told from it."""


@dataclass(frozen=True)
class Base:
    """The run that others are compared with.

    outputs: as the module gave them, in the order of `Subject.outputs`
    limits:  largest difference of each that may be rounding
    scales:  largest finite size of each
    """

    outputs: tuple[Tensor, ...]
    limits: tuple[float, ...]
    scales: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """What differs in one output.

    by_row:  [B] the largest difference, infinite where one of both is not a number
    by_step: [B, T] the same, 0 at steps that do not count; None for an output without steps
    share:   the largest as a share of the output's largest value
    """

    output: Output
    by_row: Floats
    by_step: Floats | None
    limit: float
    scale: float

    @property
    def largest(self) -> float:
        """The largest difference."""
        return float(self.by_row.max(initial=0.0))

    @property
    def share(self) -> float:
        """The largest difference as a share of the output's largest value."""
        return self.largest / self.scale

    @property
    def counts(self) -> bool:
        """Whether it is more than rounding."""
        return self.largest > self.limit

    @property
    def rows(self) -> list[int]:
        """The rows with a difference that counts."""
        found: list[int] = np.flatnonzero(self.by_row > self.limit).tolist()
        return found

    def only(self, rows: Sequence[int] | NDArray[np.int64]) -> Difference:
        """Return the difference with that of all other rows left out."""
        kept = np.isin(np.arange(len(self.by_row)), rows)
        by_step = None if self.by_step is None else np.where(kept[:, None], self.by_step, 0.0)
        return replace(self, by_row=np.where(kept, self.by_row, 0.0), by_step=by_step)


def base(seen: Examination) -> Base:
    """Return the run of `seen.few` in eval mode, with what rounding can change in it."""
    return seen.known("base", lambda: _base(seen))


def steady(seen: Examination) -> Base:
    """Return the same; raises Skip where results are random, chaotic or not repeatable."""
    found = base(seen)
    least = min(_rounded(seen).values(), default=0.0)
    if least > CHAOTIC:
        raise Skip(
            f"one rounding error in every weight changes its results by {least:.2g} of their size"
        )
    if unset(seen) is not None:
        raise Skip("it reads memory that nobody wrote (HS154)")
    for seed, said in ((0, "not the same in two runs (HS152)"), (1, "random in eval mode (HS151)")):
        after = seen.known(f"seed {seed}", lambda seed=seed: seen.few.run(seed=seed))  # type: ignore[misc]
        if any(each.counts for each in differences(seen.few, found, after)):
            raise Skip(f"its results are {said}")
    return found


def unset(seen: Examination) -> Difference | None:
    """Return what becomes NaN when new arrays are full of NaN until they are written."""

    def measure() -> Difference | None:
        few, known = seen.few, base(seen)
        with filled_memory():
            after = few.run()
        # What stands in such memory may be NaN by chance: then another run may tell.
        for before in (known.outputs, few.run()):
            tried = Base(before, known.limits, known.scales)
            found = worst(differences(few, tried, after))
            if found is not None and np.isinf(found.largest):
                return found
        return None

    return seen.known("unset memory", measure)


@contextmanager
def filled_memory() -> Iterator[None]:
    """Within it torch fills new arrays with NaN, or the largest whole number."""
    settings: Any = torch.utils.deterministic
    mode, fills = torch.get_deterministic_debug_mode(), settings.fill_uninitialized_memory
    torch.set_deterministic_debug_mode("warn")
    settings.fill_uninitialized_memory = True
    try:
        yield
    finally:
        settings.fill_uninitialized_memory = fills
        torch.set_deterministic_debug_mode(mode)


def differences(
    subject: Subject,
    before: Base,
    after: Sequence[Tensor],
    where: Mask | None = None,
    rows: Sequence[int] | None = None,
) -> list[Difference]:
    """Compare two runs output by output; what holds no floating-point numbers is left out.

    where: [B, T] steps that count in outputs with steps; None = the rows' own
    rows:  those of `before` that `after` holds; None = all

    Raises Skip where nothing can be compared.
    """
    if len(after) != len(before.outputs):
        raise Skip("it gives another number of outputs when its arguments change")
    chosen = np.arange(subject.batch) if rows is None else np.asarray(rows, np.int64)
    counted = (subject.valid if where is None else where)[chosen]
    found = []
    for output, one, other, limit, scale in zip(
        subject.outputs, before.outputs, after, before.limits, before.scales
    ):
        if output.batch_axis is None or not one.is_floating_point():
            continue
        one = one.index_select(output.batch_axis, torch.as_tensor(chosen, device=one.device))
        gaps = _gaps(one, other, output)
        if gaps is None:
            continue
        by_step = None
        # A state that grows with every call (a cache of attention) has more steps than the batch.
        if output.time_axis is not None and gaps.shape[1] <= counted.shape[1]:
            steps = gaps.shape[1]
            by_step = np.where(counted[:, :steps], gaps.reshape(*gaps.shape[:2], -1).max(-1), 0.0)
            by_row = by_step.max(1, initial=0.0)
        else:
            by_row = gaps.reshape(len(chosen), -1).max(1, initial=0.0)
        found.append(Difference(output, by_row, by_step, limit, scale))
    if not found:
        raise Skip("no output with rows can be compared")
    return found


def worst(found: Sequence[Difference]) -> Difference | None:
    """Return the difference that counts most; None if all are rounding."""
    counting = [each for each in found if each.counts]
    return max(counting, key=lambda each: each.share, default=None)


def base_of(seen: Examination, arguments: dict[str, Any]) -> Base:
    """Return a run on other arguments of the same rows, with the limits of `base`."""
    known = base(seen)
    return Base(seen.few.run(arguments), known.limits, known.scales)


def shaken(seen: Examination) -> nn.Module:
    """Return a copy of `few`'s module with one rounding error in every weight."""
    rough = seen.few.copy()
    generator = torch.Generator().manual_seed(seen.seed)
    with torch.no_grad():
        for weight in rough.parameters():
            if weight.is_floating_point():
                noise = torch.rand(weight.shape, generator=generator).to(weight) * 2 - 1
                weight.mul_(1 + noise * torch.finfo(weight.dtype).eps)
    return rough


def _base(seen: Examination) -> Base:
    few, rounded = seen.few, _rounded(seen)
    limits, scales = [], []
    for output, array in zip(few.outputs, few.known):
        scale = _size(array) if array.is_floating_point() else 1.0
        coarse = array.dtype not in LEAST_SHARE
        share = COARSE_SHARE if coarse else LEAST_SHARE[array.dtype]
        roundings = COARSE_ROUNDINGS if coarse else ROUNDINGS
        scales.append(scale)
        limits.append(max(scale * max(share, roundings * rounded.get(output.name, 0.0)), 1e-30))
    return Base(few.known, tuple(limits), tuple(scales))


def _rounded(seen: Examination) -> dict[str, float]:
    """Return what one rounding error in every weight changes, as a share of each output's size."""
    return seen.known("rounded", lambda: _shares(seen))


def _shares(seen: Examination) -> dict[str, float]:
    few, found = seen.few, dict[str, float]()
    again, rough = few.run(), flat(few.call(shaken(seen)))
    for output, one, same, other in zip(few.outputs, few.known, again, rough):
        if not one.is_floating_point():
            continue
        scale = _size(one)
        found[output.name] = _rounding(one, other, output) / scale
        if _rounding(one, same, output) > LEAST_SHARE.get(one.dtype, COARSE_SHARE) * scale:
            # What differs from itself says nothing about rounding.
            found[output.name] = 0.0
    return found


def _rounding(one: Tensor, other: Tensor, output: Output) -> float:
    gaps = _gaps(one, other, output)
    if gaps is None or not np.isfinite(gaps).all():
        return 0.0
    return float(gaps.max(initial=0.0))


def _size(array: Tensor) -> float:
    """Return the largest finite size of an array's values; 1 of an array without any.

    Values that masks are filled with, such as -1e9, are no values.
    """
    sizes = array[array.isfinite() & (array != 0)].double().abs()
    if not sizes.numel():
        return 1.0
    common = sizes.flatten().kthvalue(1 + sizes.numel() // 4).values
    return float(sizes[sizes <= 1e4 * common].max())


def _gaps(one: Tensor, other: Tensor, output: Output) -> Floats | None:
    """Return |one - other| as [B, ...] or [B, T, ...]; None where their shapes do not fit.

    Equal infinities and two NaN are alike; a number and none are infinitely apart.
    """
    if one.ndim != other.ndim:
        return None
    axes = [axis for axis in (output.batch_axis, output.time_axis) if axis is not None]
    one, other = (each.movedim(axes, list(range(len(axes)))) for each in (one, other))
    if output.time_axis is not None and axes[0] == output.batch_axis:
        steps = min(one.shape[1], other.shape[1])
        one, other = one[:, :steps], other[:, :steps]
    if one.shape != other.shape:
        return None
    a, b = (each.detach().double().cpu().numpy() for each in (one, other))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        gaps = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(gaps), np.inf, gaps)
