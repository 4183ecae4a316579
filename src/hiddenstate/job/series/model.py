"""A model fitted to signals, as the command line and Python use it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from hiddenstate.artifact import Artifact
from hiddenstate.data.signals import Signal
from hiddenstate.errors import DataError
from hiddenstate.job.model import Model, Remark, part, refuse_options, silent
from hiddenstate.job.series.evaluate import (
    evaluate_forecasts,
    evaluate_frames,
    frame_odds,
    refuse_other_values,
)
from hiddenstate.job.series.forecaster import Forecaster
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.task import FORECAST, NEXT_FRAME, ForecastTask
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels
from hiddenstate.tasks.forecast_floors import ForecastFloors
from hiddenstate.tasks.forecasts import Forecast
from hiddenstate.tasks.frames import FrameFloors

if TYPE_CHECKING:
    import polars

READING = (
    *("case", "timestamp", "time_format", "format", "delimiter", "encoding", "exclude"),
    "allow_bad_rows",
)


class Fitted(Model):
    """Forecasts what follows a signal, or which channels are on in the next frame."""

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Wrap an artifact; `weights` is how its recurrent weights are held, as in `runtime`."""
        super().__init__(artifact, weights)
        self.runtime = Runtime(artifact, weights)
        self._schema = part(self.runtime.spec.schema, Channels)
        self._reading = dict(artifact.metrics["reading"])
        head = self.runtime.spec.heads[0]
        arrays = {name.removeprefix("0/"): each for name, each in artifact.floor_arrays.items()}
        self._floors: ForecastFloors | FrameFloors
        self._task: ForecastTask | None = None
        if head.name == NEXT_FRAME:
            self._floors = FrameFloors.read(artifact.floors[NEXT_FRAME], arrays)
        else:
            self._task = ForecastTask.from_json(head.task)
            self._floors = ForecastFloors.read(artifact.floors[FORECAST], arrays)

    def read(self, source: Any, observer: Remark = silent, **reading: Any) -> Signal:
        """Read a source as the fit did, with the model's channels; tell what was mended.

        reading: fields of `data.Options` that differ from the fit's, such as timestamp="at"
        """
        from hiddenstate.data.read_signal import read_signal

        refuse_options(reading, READING, self.runtime.spec.heads[0].name)
        changed = {k: v for k, v in reading.items() if k in READING and v is not None}
        settings = {"attributes": list(self._schema.names), **self._reading, **changed}
        signal, remarks = read_signal(source, **settings)
        for remark in remarks:
            observer(remark)
        if self._task is None:
            refuse_other_values(signal)
        return signal

    def evaluate(
        self,
        source: Any,
        *,
        bootstrap: int = 1000,
        seed: int = 0,
        observer: Remark = silent,
        **options: Any,
    ) -> dict[str, Any]:
        """Score the model on all of a source, beside its floors; `options` are those of `read`.

        A forecast is scored after every step that has enough history and a whole future.
        """
        signal = self.read(source, observer, **options)
        whole = np.stack([signal.offsets[:-1], signal.offsets[1:]], axis=1)
        if self._task is None:
            floors = part(self._floors, FrameFloors)
            return evaluate_frames(
                self.runtime, self._schema, floors, signal, whole, bootstrap=bootstrap, seed=seed
            )
        task = self._task
        longest = int(signal.lengths.max())
        if longest < task.history + task.horizon:
            raise DataError(
                f"The longest series has {longest} steps.",
                f"A score needs {task.history} steps of history and {task.horizon} of future.",
                "Give a longer file.",
            )
        return evaluate_forecasts(
            self.runtime,
            self._schema,
            task,
            part(self._floors, ForecastFloors),
            Lanes.of(signal, self._schema, task.places(self._schema)),
            whole,
            bootstrap=bootstrap,
            seed=seed,
        )

    def predict(
        self, source: Any, *, observer: Remark = silent, **options: Any
    ) -> polars.DataFrame:
        """Return what follows the end of every series of a source.

        A forecast has a row for each step ahead: series (where there are several), step, time
        (where there are times), and each channel with its quantiles. Next frames have a row for
        each series with the probability that each channel is 1.
        """
        import polars

        signal = self.read(source, observer, **options)
        ends = signal.offsets[1:][signal.lengths > 0] - 1
        ids = [name for name, length in zip(signal.ids, signal.lengths) if length]
        if self._task is None:
            whole = np.stack([signal.offsets[:-1], signal.offsets[1:]], axis=1)
            odds = frame_odds(self.runtime, self._schema, signal, whole)[ends]
            chances = 1 / (1 + np.exp(-odds))
            columns: dict[str, Any] = {"series": ids}
            columns |= {
                f"p({name})": chances[:, place] for place, name in enumerate(self._schema.names)
            }
            return polars.DataFrame(columns)
        task, horizon = self._task, self._task.horizon
        lanes = Lanes.of(signal, self._schema, task.places(self._schema))
        floors = part(self._floors, ForecastFloors)
        forecaster = Forecaster(self.runtime, self._schema, task, floors)
        found = [forecast for _, forecast in forecaster.after(lanes, ends)]
        columns = {} if len(ids) == 1 else {"series": np.repeat(ids, horizon)}
        columns["step"] = np.tile(np.arange(1, horizon + 1), len(ids))
        if lanes.step_us is not None:
            times = [lanes.times_after(ends, step) for step in range(1, horizon + 1)]
            times_us = np.stack([each for each in times if each is not None], axis=1)
            columns["time"] = [datetime.fromtimestamp(t / 1e6, UTC) for t in times_us.ravel()]
        return polars.DataFrame(columns | self._in_own_units(found))

    def _in_own_units(self, found: list[Forecast]) -> dict[str, Any]:
        """Return a column for each channel, and behind it one for each of its quantiles."""
        task = part(self._task, ForecastTask)
        count = len(task.targets)
        # Point and quantiles side by side [n, H, 1 + Q, S].
        sides = [
            each.point[:, :, None]
            if each.quantiles is None
            else np.concatenate((each.point[:, :, None], each.quantiles.swapaxes(2, 3)), axis=2)
            for each in found
        ]
        own = self._schema.decode(np.concatenate(sides), task.places(self._schema))
        flat = own.reshape(-1, own.shape[2], count)
        suffixes = ["", *(f" {level:g}" for level in task.levels)]
        return {
            f"{name}{suffix}": flat[:, side, place]
            for place, name in enumerate(task.targets)
            for side, suffix in enumerate(suffixes)
        }
