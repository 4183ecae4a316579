"""Which activity comes next, the end of the case being one of the answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from hiddenstate.errors import DataError
from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.task import (
    Kind,
    Targets,
    Task,
    class_codes,
    known_ends,
    last_rows,
    occurring,
)

END = "<end>"


@dataclass(frozen=True)
class NextEvent(Task):
    """The activity of the next event, or END at the last one.

    Every step is scored but the last one of a case whose end is not known. Classes are the
    activities of the training part, sorted by name, and END last.
    """

    kind: ClassVar[Kind] = "classes"
    type: ClassVar[str] = "next_event"

    def fit(self, log: EventLog) -> Self:
        """Take the classes from a training log; DataError where one of them is called END."""
        activities = occurring(log)
        if END in activities:
            raise DataError(
                f"The log has an activity called {END!r}.",
                "hiddenstate uses that name for the end of a case, which is not an event.",
                "Drop these events, or rename the activity.",
            )
        return self._with_classes(log, (*activities, END))

    def targets(self, log: EventLog) -> Targets:
        """Return the class of each event's successor."""
        own = class_codes(log.activities.codes, log.activities.labels, self.classes)
        values = np.empty(log.events, dtype=np.int32)
        values[:-1] = own[1:]
        last = last_rows(log)
        values[last] = len(self.classes) - 1
        mask = np.ones(log.events, dtype=np.bool_)
        mask[last] = known_ends(log)[last]
        return Targets(values, mask)
