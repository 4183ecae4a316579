"""Forecasts of H steps in C channels, and what they cost against the truth.

Everything is in scaled units: the mean is 0 and the deviation 1 in the training part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError
from hiddenstate.tasks.judged_values import JudgedValues, stretches

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

# Single predictions scored at most: beyond, every second, third, ... origin is scored.
MOST_SCORED = 2_000_000
CHUNK_VALUES = 2_000_000


class Forecast(NamedTuple):
    """What is expected after n origins.

    point:     [n, H, C], the mean, or the middle quantile
    quantiles: [n, H, C, Q], rising along the last axis; None for points alone
    scale:     standard deviation [n, H, C] where a normal distribution is meant, else None
    """

    point: Floats
    quantiles: Floats | None = None
    scale: Floats | None = None

    @classmethod
    def normal(cls, mean: Floats, scale: Floats, levels: Sequence[float]) -> Forecast:
        """Return a normal distribution with its quantiles."""
        widths = np.array([NormalDist().inv_cdf(level) for level in levels])
        return cls(mean, mean[..., None] + scale[..., None] * widths, scale)


@dataclass(frozen=True, eq=False)
class Origins:
    """The last known steps of forecasts that are scored, and the series they are in.

    rows, series: [M], by series and time
    horizon:      H, steps ahead
    stretch:      neighbouring origins that the bootstrap draws together
    """

    rows: Longs
    series: Longs
    horizon: int
    stretch: int

    @classmethod
    def of(
        cls, part: Longs, offsets: Longs, *, horizon: int, history: int, period: int = 1
    ) -> Origins:
        """Return every origin whose H steps lie in a part, rows part [P, 2], after some history.

        history: steps of its series that come before and up to an origin, at least
        """
        rows, series = [], []
        for place, (begin, end) in enumerate(part):
            first = max(int(begin) - 1, int(offsets[place]) + history - 1)
            rows.append(np.arange(first, int(end) - horizon))
            series.append(np.full(len(rows[-1]), place))
        every = cls(
            np.concatenate(rows).astype(np.int64),
            np.concatenate(series).astype(np.int64),
            horizon,
            max(horizon, period),
        )
        stride = -(-len(every.rows) * horizon // MOST_SCORED)
        return every.every(stride) if stride > 1 else every

    def every(self, stride: int) -> Origins:
        """Return each stride-th origin."""
        return Origins(self.rows[::stride], self.series[::stride], self.horizon, self.stretch)

    def chunks(self, channels: int) -> Iterator[slice]:
        """Yield neighbouring origins, so many that their steps fit into memory."""
        size = max(1, CHUNK_VALUES // (self.horizon * channels))
        for start in range(0, len(self.rows), size):
            yield slice(start, min(start + size, len(self.rows)))

    def truth(self, values: Floats, chosen: slice = slice(None)) -> Floats:
        """Return what came after the chosen origins [n, H, C], from values [N, C]."""
        ahead = np.arange(1, self.horizon + 1)
        return np.asarray(values[self.rows[chosen, None] + ahead])


class ForecastJudge:
    """Collects what forecasts cost, chunk after chunk of the origins in order.

    Metrics: mse and mae, means over the channels that are known; with quantiles also pinball (mean
    over the levels) and coverage (share of truths between the outermost quantiles); with a scale
    also nll (nats a value).
    """

    def __init__(self, origins: Origins, values: Floats, levels: Sequence[float] = ()) -> None:
        """Prepare for forecasts of values [N, C]; NaN has no truth and is left out."""
        self._origins, self._values, self._levels = origins, values, tuple(levels)
        self._costs: list[dict[str, Floats]] = []
        self._known: list[NDArray[np.bool_]] = []
        self._by_channel = np.zeros((3, values.shape[1]))

    def add(self, chosen: slice, forecast: Forecast) -> None:
        """Judge the forecasts of the chosen origins."""
        truth = self._origins.truth(self._values, chosen)
        known = np.isfinite(truth)
        error = np.where(known, truth - forecast.point, 0.0)
        each = {"mse": error**2, "mae": np.abs(error)}
        self._by_channel += [
            cost.sum(axis=(0, 1)) for cost in (each["mse"], each["mae"], known.astype(float))
        ]
        if forecast.quantiles is not None:
            beyond = truth[..., None] - forecast.quantiles
            levels = np.array(self._levels)
            each["pinball"] = np.maximum(levels * beyond, (levels - 1) * beyond).mean(axis=-1)
            inside = (truth >= forecast.quantiles[..., 0]) & (truth <= forecast.quantiles[..., -1])
            each["coverage"] = inside.astype(np.float64)
        if forecast.scale is not None:
            each["nll"] = (
                0.5 * (error / forecast.scale) ** 2
                + np.log(forecast.scale)
                + 0.5 * np.log(2 * np.pi)
            )
        count = known.sum(axis=-1)
        means = {
            name: np.where(known, cost, 0.0).sum(axis=-1) / np.maximum(count, 1)
            for name, cost in each.items()
        }
        self._costs.append(means)
        self._known.append(count > 0)

    @property
    def by_channel(self) -> tuple[Floats, Floats]:
        """Root mean squared and mean absolute error of each channel [C], in scaled units."""
        squares, sizes, count = self._by_channel
        return np.sqrt(squares / np.maximum(count, 1)), sizes / np.maximum(count, 1)

    def result(self) -> JudgedValues:
        """Return the cost of each origin and step ahead; DataError where no truth is known."""
        known = np.concatenate(self._known) if self._known else np.zeros((0, 1), dtype=np.bool_)
        if not known.any():
            raise DataError(
                f"No value is known in the {self._origins.horizon} steps after any of "
                f"{len(self._origins.rows)} origins.",
                "A score needs at least one step with a truth.",
                "Give a longer file, a shorter horizon, or channels with fewer gaps.",
            )
        origins = self._origins
        case = stretches(origins.rows, origins.series, origins.stretch)
        ahead = np.arange(1, origins.horizon + 1, dtype=np.int32)
        return JudgedValues(
            np.broadcast_to(case[:, None], known.shape)[known],
            np.broadcast_to(ahead, known.shape)[known],
            {
                name: np.concatenate([part[name] for part in self._costs])[known]
                for name in self._costs[0]
            },
        )
