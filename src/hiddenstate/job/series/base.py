"""What a forecaster's outputs are added to: it learns what a simple forecast leaves open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hiddenstate.job.series.lanes import Lanes
from hiddenstate.tasks.forecast_floors import Linear

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Kind = Literal["level", "period", "linear"]


@dataclass(frozen=True, eq=False)
class Base:
    """A simple forecast in scaled units.

    kind:   level: the mean of the last steps, or 0 where no mean is taken off; period: the values
            one period before; linear: a linear model of the training part, beside which the
            network is the part that is not linear (Lai et al. 2018, LSTNet)
    period: steps of the period
    linear: its weights, for that kind
    """

    kind: str
    period: int = 1
    linear: Linear | None = None

    @property
    def reach(self) -> int:
        """Steps of the past that it looks at, besides the level's."""
        if self.linear is not None:
            return len(self.linear.weights)
        return self.period if self.kind == "period" else 1

    def at(self, lanes: Lanes, rows: Longs, horizon: int, lane: Longs | None = None) -> Floats:
        """Return forecasts after rows [...] of all channels [..., H, S], or of one lane's.

        lane: where channels are shared, the place of a channel for each row; gives [..., H, 1]
        """
        every: Longs | slice = slice(None) if lane is None else lane
        if self.kind == "level":
            level = lanes.levels[rows, every]
            return np.repeat(_last(level, lane)[..., None, :], horizon, axis=-2)
        begins = lanes.offsets[np.searchsorted(lanes.offsets, rows, side="right") - 1][..., None]
        ahead = np.arange(1, horizon + 1)
        if self.linear is None:
            seen = ahead - self.period * -(-ahead // self.period)
        else:
            seen = np.arange(1 - self.reach, 1)
        back = np.maximum(rows[..., None] + seen, begins)
        past = _last(lanes.filled[back, every if lane is None else lane[..., None]], lane)
        if self.linear is None:
            return past
        return np.moveaxis(self.linear.ahead(np.moveaxis(past, -1, -2))[..., :horizon], -1, -2)

    def next(self, recent: Floats, level: Floats) -> Floats:
        """Return the forecast of one step [B, S] from the last values [B, K, S] and their level."""
        if self.kind == "level":
            return level
        if self.linear is None:
            return np.asarray(recent[:, -self.period])
        past = np.moveaxis(recent[:, -self.reach :], 1, -1)
        return np.asarray(self.linear.ahead(past)[..., 0])


def _last(values: Floats, lane: Longs | None) -> Floats:
    """Return values with an axis of channels at the end, which one lane's do not have."""
    return values if lane is None else values[..., None]
