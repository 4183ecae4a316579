"""What a model of signals brings to its diagnosis."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hiddenstate.data.signals import Signal
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.run import Lengths
from hiddenstate.job.evidence import DRAWS, Evidence, Json, Longs, spread
from hiddenstate.job.model import part
from hiddenstate.job.series.evaluate import evaluate_forecasts, evaluate_frames
from hiddenstate.job.series.feed import WindowFeed
from hiddenstate.job.series.frames import PreparedFrames, samples
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.prepared import PreparedSeries
from hiddenstate.job.series.task import NEXT_FRAME, ForecastTask
from hiddenstate.models import Batch
from hiddenstate.schema import Channels
from hiddenstate.tasks.forecast_floors import ForecastFloors
from hiddenstate.tasks.frames import FrameFloors
from hiddenstate.train import SampleFeed

PARTS = {"training": 0, "validation": 1, "test": 2}
SHORTEST_STEPS = 8


class Gathered(Evidence):
    """Windows of the held-back part of a signal, or of one that is given."""

    @cached_property
    def signal(self) -> Signal:
        """The signal that is looked at."""
        if self.source is not None:
            return part(self.model.read(self.source, self.observer), Signal)
        return self._own.signal

    @cached_property
    def span(self) -> Longs:
        """The rows of each series that are looked at [P, 2]."""
        if self.source is None:
            return self._own.bounds.part(PARTS[self.part])
        return np.stack([self.signal.offsets[:-1], self.signal.offsets[1:]], axis=1)

    @cached_property
    def batch(self) -> Batch:
        """Windows of mixed lengths; of frames, whole series."""
        schema = self._schema
        if self._frames:
            every = samples(self.signal, schema)
            inside = np.flatnonzero(np.diff(self.span)[:, 0] > 0)
            chosen = inside[spread(every.lengths[inside], self.rows)]
            return SampleFeed(every).batch(chosen)
        task = self._task
        lanes = Lanes.of(self.signal, schema, task.places(schema))
        base = task.base_of(part(self.model._floors, ForecastFloors))
        steps = 1 if task.recursive else task.horizon
        begins, ends = self.span.T
        first = int(np.argmax(ends - begins))
        begin = int(begins[first])
        room = int(ends[first]) - begin - steps
        lengths = np.linspace(min(SHORTEST_STEPS, task.context), task.context, self.rows)
        lengths = np.minimum(lengths.round().astype(np.int64), max(room, 1))
        starts = begin + np.linspace(0, 1, self.rows) * np.maximum(room - lengths, 0)
        lane = np.arange(self.rows) % lanes.count
        items = np.stack([lane, starts.astype(np.int64), lengths], axis=1)
        return WindowFeed(lanes, base, self.span, steps, task.context, task.context).batch(items)

    def taught(self) -> Json:
        """Return the scores on the training part, or on an end of it as long as what is held."""
        own, runtime = self._own, self.model.runtime
        training = own.bounds.part(0)
        if isinstance(own, PreparedFrames):
            floors = part(self.model._floors, FrameFloors)
            return evaluate_frames(
                runtime,
                self._schema,
                floors,
                own.signal,
                training,
                bootstrap=DRAWS,
                seed=self.seed,
            )
        most = max(int(np.diff(self.span).max()), 10 * self._task.horizon)
        begins = np.maximum(training[:, 0], training[:, 1] - most)
        return evaluate_forecasts(
            runtime,
            self._schema,
            self._task,
            part(self.model._floors, ForecastFloors),
            own.lanes,
            np.stack([begins, training[:, 1]], axis=1),
            bootstrap=DRAWS,
            seed=self.seed,
        )

    def lengths(self) -> Lengths:
        """Return the steps of each series of frames, and of the longest one in training."""
        if not self._frames:
            raise Skip("forecasts rest on windows, of which training has all lengths")
        bounds = self._own.bounds
        longest = int(np.diff(bounds.part(0)).max())
        return Lengths(np.diff(self.span)[:, 0], longest)

    @property
    def _own(self) -> PreparedSeries | PreparedFrames:
        if not isinstance(self.ready, PreparedSeries | PreparedFrames):
            raise Skip("the training part is not there")
        return self.ready

    @property
    def _frames(self) -> bool:
        return bool(self.model.runtime.spec.heads[0].name == NEXT_FRAME)

    @property
    def _task(self) -> ForecastTask:
        return ForecastTask.from_json(self.model.runtime.spec.heads[0].task)

    @property
    def _schema(self) -> Channels:
        return part(self.model.runtime.spec.schema, Channels)
