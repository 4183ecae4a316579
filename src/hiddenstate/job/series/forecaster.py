"""Forecasts by a model without torch: after every step of a signal, or after its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import ModelSpec, TransformerSpec
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.recursion import Recursion
from hiddenstate.job.series.task import ForecastTask
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels
from hiddenstate.tasks.forecast_floors import ForecastFloors
from hiddenstate.tasks.forecasts import Forecast

Array = NDArray[Any]
Longs = NDArray[np.int64]

CHUNK_OUTPUTS = 4_000_000


class Forecaster:
    """Runs a model over lanes and reads forecasts off it, in scaled units.

    A recurrent model has read the whole series up to an origin, a transformer the last `context`
    to twice as many steps.
    """

    def __init__(
        self, runtime: Runtime, schema: Channels, task: ForecastTask, floors: ForecastFloors
    ) -> None:
        """Take a model, the channels that it reads, and what it was fitted to and beside."""
        self.runtime, self.schema, self.task = runtime, schema, task
        self._base = task.base_of(floors)
        self._windowed = reads_windows(runtime.spec)

    def after(self, lanes: Lanes, rows: Longs) -> Iterator[tuple[slice, Forecast]]:
        """Yield the forecasts after rows [M], rising: which of them, and [n, H, S]."""
        if self.task.recursive:
            recursion = Recursion(self.runtime, self.schema, self.task, self._base)
            yield from recursion.after(lanes, rows)
            return
        for chosen, decoded in self._outputs(lanes, rows):
            yield chosen, self._forecast(lanes, rows[chosen], decoded)

    def _outputs(self, lanes: Lanes, rows: Longs) -> Iterator[tuple[slice, Array]]:
        """Yield decoded outputs [J, n, ...] after some of the rows."""
        wide = self.runtime.spec.heads[0].outputs * lanes.count
        size = max(1, CHUNK_OUTPUTS // wide)
        if self._windowed:
            size = min(size, self.task.context)
        for series, begin in enumerate(lanes.offsets[:-1]):
            end = int(lanes.offsets[series + 1])
            low, high = np.searchsorted(rows, [begin, end])
            state = None
            first = int(begin)
            while low < high:
                last = min(first + size, end)
                upto = int(np.searchsorted(rows, last))
                if self._windowed:
                    start = max(first - self.task.context, int(begin))
                    if upto > low:
                        outputs = self.runtime.run_whole(*_between(lanes, start, last))
                else:
                    start = first
                    outputs, state = self.runtime.run(*_between(lanes, start, last), None, state)
                if upto > low:
                    (decoded,) = self.runtime.decode(
                        tuple(o[:, rows[low:upto] - start] for o in outputs)
                    )
                    yield slice(int(low), upto), decoded
                low, first = upto, last

    def _forecast(self, lanes: Lanes, rows: Longs, decoded: Array) -> Forecast:
        base = self._base.at(lanes, rows, self.task.horizon)
        kind, spec = self.task.output, self.runtime.spec.heads[0]
        shape = (lanes.count, len(rows), self.task.horizon, -1)
        if kind == "gaussian":
            mean, scale = (lanes.merged(decoded[:, :, place].reshape(shape)) for place in range(2))
            return Forecast.normal(mean + base, scale, self.task.levels)
        if kind == "quantiles":
            count = len(spec.levels)
            steps = decoded.reshape(*shape[:-1], decoded.shape[2] // self.task.horizon, count)
            quantiles = lanes.merged(steps) + base[..., None]
            middle = int(np.argmin(np.abs(np.array(spec.levels) - 0.5)))
            return Forecast(quantiles[..., middle], quantiles)
        return Forecast(lanes.merged(decoded.reshape(shape)) + base)


def reads_windows(spec: ModelSpec) -> bool:
    """Return whether a model looks at the last 2 * context steps and not at a whole series."""
    return any(isinstance(each, TransformerSpec) for each in spec.layers)


def _between(lanes: Lanes, start: int, end: int) -> tuple[Array, Array]:
    return lanes.codes[:, start:end], lanes.numbers[:, start:end]
