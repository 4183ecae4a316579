"""The bootstrap over cases: how far a score could lie elsewhere had other cases come.

The events of one case hang together, so cases are drawn and not events (Efron and Tibshirani,
An Introduction to the Bootstrap, 1993, chapter 8). A score is a function of sums over cases, so
one draw is one row of counts and all draws are one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_GROUPS = 8192
LEVEL = 0.95
RESAMPLES = 1000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """A value and the limits of its 95 % interval.

    NaN, and null in JSON: the value where nothing was counted, the limits also for a single case.
    """

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Return the score as JSON values."""
        return {name: finite(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, float | None]) -> Score:
        """Read what `to_json` wrote."""
        value_low_high = (value[field.name] for field in fields(cls))
        return cls(*(math.nan if each is None else float(each) for each in value_low_high))


class Resampling:
    """Draws of the cases behind M scored events, the same draws for every score asked of it.

    Above 8,192 cases, groups of cases put together at random are drawn instead: the interval's
    width moves by less than a hundredth, and the cost no longer grows with the log. A single case
    is not drawn from: it says nothing of how far others lie.
    """

    def __init__(self, case: NDArray[Any], resamples: int = RESAMPLES, seed: int = 0) -> None:
        """Prepare `resamples` draws over the cases [M] of the events."""
        self._rng = np.random.default_rng(seed)
        distinct, group = np.unique(case, return_inverse=True)
        self.cases = len(distinct)
        self._resamples = resamples if self.cases > 1 else 0
        self.groups = min(self.cases, MOST_GROUPS)
        if self.cases > self.groups:
            group = (self._rng.permutation(self.cases) % self.groups)[group]
        self._group = group

    @cached_property
    def _counts(self) -> Floats:
        """How often each draw holds each group [draws, groups]."""
        counts = np.empty((self._resamples, self.groups))
        for row in counts:
            drawn = self._rng.integers(self.groups, size=self.groups)
            row[:] = np.bincount(drawn, minlength=self.groups)
        return counts

    def sums(self, columns: NDArray[Any], place: NDArray[Any] | None = None, width: int = 1) -> Any:
        """Sum a value of each event [M] in every draw.

        With `place` [M], an index below `width`, sums are kept apart by place.
        Returns [1 + draws, width]; row 0 is the sum over the cases as they are.
        """
        where = self._group if place is None else self._group * width + place
        each = np.bincount(where, columns, self.groups * width).reshape(self.groups, width)
        return np.concatenate((each.sum(axis=0, keepdims=True), self._counts @ each))


def interval(values: Floats) -> Score:
    """Return the score whose value is row 0 of `values` [1 + draws] and whose draws follow it."""
    drawn = values[1:][np.isfinite(values[1:])]
    if not np.isfinite(values[0]) or len(drawn) == 0:
        return Score(float(values[0]), float("nan"), float("nan"))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Score(float(values[0]), float(low), float(high))


def finite(value: float) -> float | None:
    """Return the value, None for NaN and infinities, which JSON does not have."""
    return value if math.isfinite(value) else None


def ratio(top: Floats, bottom: Floats) -> Floats:
    """Divide, with NaN where nothing was counted."""
    quotient: Floats = np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)
    return quotient
