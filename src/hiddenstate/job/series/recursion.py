"""Forecasts step by step: what is predicted is read as the next input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells.state import select
from hiddenstate.job.series.base import Base
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.task import ForecastTask
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels
from hiddenstate.schema.channels import LIMIT
from hiddenstate.tasks.forecasts import Forecast, Longs

Array = NDArray[Any]

# Paths drawn for the quantiles of a normal distribution of the next step.
PATHS = 100
# Paths that run at a time.
CHUNK_PATHS = 50_000


class Recursion:
    """A model of the next step that goes on from its own predictions.

    With a normal distribution 100 paths are drawn from a seed; the forecast is their quantiles,
    mean and deviation. Without, there is one path.
    """

    def __init__(self, runtime: Runtime, schema: Channels, task: ForecastTask, base: Base) -> None:
        """Take a model, the channels that it reads, what it was fitted to, and what it adds to."""
        self.runtime, self.schema, self.task, self.base = runtime, schema, task, base
        self.paths = PATHS if task.output == "gaussian" else 1

    def after(self, lanes: Lanes, rows: Longs, seed: int = 0) -> Iterator[tuple[slice, Forecast]]:
        """Yield the forecasts after rows [M], rising: which of them, and [n, H, S]."""
        size = max(1, CHUNK_PATHS // (lanes.count * self.paths))
        rng = np.random.default_rng(seed)
        for series, begin in enumerate(lanes.offsets[:-1]):
            low, high = np.searchsorted(rows, [begin, lanes.offsets[series + 1]])
            state, done = None, int(begin)
            for first in range(int(low), int(high), size):
                chosen = slice(first, min(first + size, int(high)))
                found = []
                for row in rows[chosen]:
                    heard = slice(done, int(row) + 1)
                    outputs, state = self.runtime.run(
                        lanes.codes[:, heard], lanes.numbers[:, heard], None, state
                    )
                    done = int(row) + 1
                    found.append((outputs[0][:, -1], state))
                yield chosen, self._go_on(lanes, rows[chosen], found, rng)

    def _go_on(
        self, lanes: Lanes, rows: Longs, found: list[tuple[Array, Any]], rng: np.random.Generator
    ) -> Forecast:
        """Return forecasts [n, H, S] from the outputs and states at rows [n].

        A batch row is an origin, a lane and a path, in this order.
        """
        count, paths, horizon = lanes.count, self.paths, self.task.horizon
        output = np.repeat(np.concatenate([each for each, _ in found]), paths, axis=0)
        state = select(_joined([each for _, each in found]), _repeated(len(rows) * count, paths))
        codes = np.repeat(np.tile(lanes.codes[:, 0], (len(rows), 1)), paths, axis=0)
        # The last values, that level and base are made of: [batch, reach, s].
        around = self.schema.around
        reach = max(around, self.base.reach)
        back = rows[:, None] + np.arange(1 - reach, 1)
        begins = lanes.offsets[np.searchsorted(lanes.offsets, rows, side="right") - 1]
        recent = lanes.filled[np.maximum(back, begins[:, None])]
        if lanes.shared:
            recent = np.moveaxis(recent, -1, 1).reshape(-1, reach, 1)
        recent = np.repeat(recent, paths, axis=0)
        drawn = []
        for step in range(1, horizon + 1):
            level = recent[:, reach - around :].mean(axis=1) if around else 0 * recent[:, 0]
            value = self.base.next(recent, level) + self._draw(output, rng)
            drawn.append(value)
            if step == horizon:
                break
            times_us = lanes.times_after(rows, step)
            waves = np.repeat(self.schema.waves(times_us, len(rows)), count * paths, axis=0)
            flags = len(self.schema.number_names) - value.shape[1] - waves.shape[1]
            shown = np.clip(value - level, -LIMIT, LIMIT)
            numbers = np.concatenate((shown, np.zeros((len(value), flags)), waves), axis=1)
            outputs, state = self.runtime.step_many(codes, numbers.astype(np.float32), state)
            output = outputs[0]
            recent = np.concatenate((recent[:, 1:], value[:, None]), axis=1)
        # [H, n * J * paths, s] to [n, H, S, paths].
        every = np.stack(drawn).reshape(horizon, len(rows), count, paths, -1)
        every = every.transpose(1, 0, 2, 4, 3).reshape(len(rows), horizon, -1, paths)
        if paths == 1:
            return Forecast(every[..., 0])
        quantiles = np.quantile(every, self.task.levels, axis=-1)
        return Forecast(every.mean(axis=-1), np.moveaxis(quantiles, 0, -1))

    def _draw(self, output: Array, rng: np.random.Generator) -> Array:
        """Return the next distance from the level [batch, s]."""
        (decoded,) = self.runtime.decode((output,))
        if self.paths == 1:
            return decoded
        mean, scale = decoded[:, 0], decoded[:, 1]
        return np.asarray(rng.normal(mean, scale))


def _repeated(rows: int, times: int) -> Longs:
    return np.repeat(np.arange(rows), times)


def _joined(states: list[Any]) -> Any:
    """Put states [J, ...] of several origins into one, origin by origin."""
    first = states[0]
    if not isinstance(first, tuple):
        return np.concatenate(states)
    parts = [_joined([state[place] for state in states]) for place in range(len(first))]
    return type(first)(*parts) if hasattr(first, "_fields") else tuple(parts)
