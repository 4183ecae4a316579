"""How layers come by what they read: steps in their order, from the end, or a summary of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hiddenstate.diagnose.subject.calling import cloned, seeded
from hiddenstate.diagnose.tracing.capture import trace
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

MOVED = 1e-4
"""A change that counts, as a share of the largest value."""


@dataclass(frozen=True, eq=False)
class Exchanged:
    """A layer before and after the steps of every row from `step` on were exchanged."""

    before: LayerTrace
    after: LayerTrace
    step: int

    @property
    def read(self) -> Floats:
        """[B, T, D], how what it read has changed."""
        change: Floats = self.after.x - self.before.x
        return np.where(np.abs(change) > MOVED * _size(self.before.x), change, 0.0)

    @property
    def begins_late(self) -> bool:
        """Whether its first states are made from steps that were exchanged."""
        return any(
            one.shape == other.shape and bool((np.abs(one - other) > MOVED * _size(one)).any())
            for one, other in zip(self.before.first, self.after.first)
        )

    @property
    def from_the_end(self) -> bool:
        """Whether it reads the steps in turned order: late ones changed, early ones did."""
        changed = (self.read != 0).any(-1)
        steps = np.arange(changed.shape[1])
        for ends in (self.before.lengths, np.full(len(changed), changed.shape[1])):
            early = steps < (ends - self.step)[:, None]
            if changed[early].any() and not (changed & ~early).any():
                # Rows that were not exchanged at all say nothing, and steps in order do not pass.
                return True
        return False

    @property
    def summary(self) -> tuple[bool, bool]:
        """Whether some features, and all, hold the same of the row at every step."""
        own, read = self.before.valid, self.read
        moving = (read != 0).any((1, 2)) & (own.sum(1) > 2)
        if not moving.any():
            return False, False
        # Behind the exchange and before it, all of a row's steps change alike.
        gaps = np.where(own[..., None], np.abs(read - read[:, :1]), 0.0)[moving].max((0, 1))
        alike = gaps <= MOVED * _size(self.before.x)
        changing = (read[moving] != 0).any((0, 1))
        return bool((alike & changing).any()), bool(alike[changing].all())


def reads_both_sides(seen: Examination) -> str | None:
    """Return in words which layer reads from the end, or decodes a summary of the row."""
    for each in _exchanged(seen):
        if each.from_the_end:
            return f"{each.before.name} is given the steps from the last to the first"
    return decodes(seen)


def decodes(seen: Examination) -> str | None:
    """Return in words which layer writes from a summary of the row that another one has made."""
    for place, each in enumerate(_exchanged(seen)):
        name = each.before.name
        # A layer that goes on from its own last state reads a long row piece by piece.
        if each.begins_late and "#" not in name:
            return f"{name} begins in a state that is made from the whole row"
        some, all_of_it = each.summary
        if all_of_it or (some and place):
            return f"{name} reads the same of the row at every step"
    return None


def _exchanged(seen: Examination) -> list[Exchanged]:
    found: list[Exchanged] = seen.known("exchanged", lambda: _traced(seen))
    return found


def _traced(seen: Examination) -> list[Exchanged]:
    few, found = seen.few, []
    step = max(1, int(few.ends.max(initial=0)) // 2)
    try:
        later = few.changed(few.valid & (np.arange(few.time) >= step), seen.rng("reads both sides"))
        traces = []
        for arguments in (few.arguments, later):
            with seeded(seen.seed, few.module):
                traces.append(trace(few.copy(), cloned(arguments)).layers)
    except Exception:
        # What cannot be traced is asked by its outputs alone.
        return []
    for one, other in zip(*traces):
        if one.name == other.name and one.x.shape == other.x.shape and one.x.shape[1] > 1:
            found.append(Exchanged(one, other, step))
    return found


def _size(array: Floats) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) or 1.0
