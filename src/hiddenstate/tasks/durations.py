"""How long it takes: to the end of the case, or to the next event. In days."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError
from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.task import DAY_US, Kind, Targets, Task, known_ends, last_rows, times_us


@dataclass(frozen=True)
class Duration(Task):
    """A time in days; its loss is the absolute error, whose best answer is the median."""

    kind: ClassVar[Kind] = "number"

    def fit(self, log: EventLog) -> Self:
        """Check that a training log has times and at least one step to learn from."""
        if not self.targets(log).mask.any():
            raise DataError(
                f"The task {self.name} has nothing to learn from in {log.cases} training cases.",
                "At least one step must have an answer.",
                "Give a log with longer cases, or choose another task.",
            )
        return self

    @abstractmethod
    def targets(self, log: EventLog) -> Targets:
        """Return the days at each event; DataError for a log without times."""


@dataclass(frozen=True)
class RemainingTime(Duration):
    """Days from this event to the last event of the case; 0 at the last one, which is scored.

    A case whose end is not known is not scored.
    """

    type: ClassVar[str] = "remaining_time"

    def targets(self, log: EventLog) -> Targets:
        """Return the days from each event to its case's last."""
        times = times_us(log, self.name)
        ends = np.repeat(times[last_rows(log)], log.lengths[log.lengths > 0])
        return Targets(_days(ends - times), known_ends(log))


@dataclass(frozen=True)
class TimeToNext(Duration):
    """Days from this event to the next; the last event has no next and is not scored."""

    type: ClassVar[str] = "time_to_next"

    def targets(self, log: EventLog) -> Targets:
        """Return the days from each event to its successor, NaN at a case's last event."""
        times = times_us(log, self.name)
        values = np.full(log.events, np.nan)
        values[:-1] = _days(np.diff(times))
        mask = np.ones(log.events, dtype=np.bool_)
        mask[last_rows(log)] = False
        values[~mask] = np.nan
        return Targets(values, mask)


def _days(span_us: NDArray[Any]) -> NDArray[np.float64]:
    return span_us / float(DAY_US)
