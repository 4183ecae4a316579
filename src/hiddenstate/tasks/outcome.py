"""How a case ends: the last value of a column, or whether an activity is still to come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError
from hiddenstate.schema.log import Categorical, EventLog
from hiddenstate.tasks.task import (
    Kind,
    Targets,
    Task,
    class_codes,
    first_of_cases,
    known_ends,
    last_rows,
    missing_name,
    occurring,
)

MOST_CLASSES = 1000


@dataclass(frozen=True)
class Outcome(Task):
    """A column's last non-missing value in the case, asked at every step.

    The column cannot be an input, so the answer is never public and every step of a case that has
    a value is scored, unless the case's end is not known: its last value may be still to come, even
    where it has one. A numeric column's values are classes too, written as short as they can be
    (1.0 is "1"). Classes are the outcomes of the training part, sorted.
    """

    kind: ClassVar[Kind] = "classes"
    type: ClassVar[str] = "outcome"
    of_cases: ClassVar[bool] = True

    column: str = ""

    @property
    def name(self) -> str:
        """The task as written on the command line."""
        return f"{self.type}:column={self.column}"

    @property
    def forbidden(self) -> tuple[str, ...]:
        """The outcome's own column."""
        return (self.column,)

    def fit(self, log: EventLog) -> Self:
        """Take the classes from a training log; DataError for too few or over 1,000 of them."""
        column = self._labelled(log)
        ends = np.unique(column.codes[self._answer_rows(column, log)])
        if len(ends) > MOST_CLASSES:
            raise DataError(
                f"The column {self.column!r} has {len(ends)} different outcomes.",
                f"An outcome is one of a few classes, at most {MOST_CLASSES}.",
                "Choose a column with fewer values, or put its values into groups.",
            )
        return self._with_classes(log, sorted(column.labels[code] for code in ends))

    def targets(self, log: EventLog) -> Targets:
        """Return each case's outcome at each of its events."""
        column = self._labelled(log)
        found = self._answer_rows(column, log, keep_missing=True)
        answers = np.where(found >= 0, column.codes[found], -1) if log.events else found
        per_event = np.repeat(answers, log.lengths[log.lengths > 0])
        return Targets(class_codes(per_event, column.labels, self.classes), per_event >= 0)

    def _labelled(self, log: EventLog) -> Categorical:
        if self.column == log.activity:
            raise DataError(
                f"The outcome column {self.column!r} is the activity column.",
                "An outcome's column cannot be an input, and the activity must be one.",
                "To ask whether an activity will occur use occurs:<activity>.",
            )
        if self.column in log.categorical:
            return log.categorical[self.column]
        if self.column not in log.numeric:
            known = {*log.categorical, *log.numeric} - {log.activity}
            raise missing_name("column", self.column, known, self.name)
        numbers = np.asarray(log.numeric[self.column])
        values, codes = np.unique(numbers, return_inverse=True)
        labels = tuple(f"{value:.15g}" for value in values)
        return Categorical(np.where(np.isnan(numbers), -1, codes).astype(np.int32), labels)

    @staticmethod
    def _answer_rows(
        column: Categorical, log: EventLog, keep_missing: bool = False
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        """Return the row with the last value of each filled case, -1 where none is known."""
        rows = np.where(column.codes >= 0, np.arange(log.events, dtype=np.int64), -1)
        latest = np.maximum.accumulate(rows)[last_rows(log)] if log.events else rows
        starts = log.offsets[:-1][log.lengths > 0]
        ended = known_ends(log)[starts]
        own = np.where((latest >= starts) & ended, latest, -1)
        return own if keep_missing else own[own >= 0]


@dataclass(frozen=True)
class Occurs(Task):
    """Whether an activity will occur strictly after this step.

    From its first occurrence on the answer is public, so these steps are not scored. Nor are those
    of a case without the activity whose end is not known: it may still come. Cases that were cut
    can so teach only yes.
    """

    kind: ClassVar[Kind] = "classes"
    type: ClassVar[str] = "occurs"
    of_cases: ClassVar[bool] = True

    happening: str = ""

    @property
    def name(self) -> str:
        """The task as written on the command line."""
        return f"{self.type}:{self.happening}"

    def fit(self, log: EventLog) -> Self:
        """Check that a training log has cases with the activity and cases without."""
        known = occurring(log)
        if self.happening not in known:
            raise missing_name("activity", self.happening, known, self.name)
        return self._with_classes(log, ("no", "yes"))

    def targets(self, log: EventLog) -> Targets:
        """Return 1 (yes) at the events before the activity, 0 in the cases without it."""
        wanted = class_codes(log.activities.codes, log.activities.labels, (self.happening,)) == 0
        counted = np.concatenate(([0], np.cumsum(wanted)))
        before = np.repeat(counted[log.offsets[:-1]], log.lengths)
        total = np.repeat(np.diff(counted[log.offsets]), log.lengths)
        known = known_ends(log) | (total > 0)
        return Targets((total > 0).astype(np.int32), known & (counted[1:] == before))

    def case_answers(self, log: EventLog) -> NDArray[np.int32]:
        """Return whether each case ever has the activity [C], -1 where that is not known."""
        has = self.targets(log).values
        return first_of_cases(np.where(known_ends(log) | (has == 1), has, -1), log)
