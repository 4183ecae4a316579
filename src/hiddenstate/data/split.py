"""Training, validation and test cases: by time, by column, or by file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema.log import EventLog, Int64

PARTS = {
    **dict.fromkeys(("train", "training"), 0),
    **dict.fromkeys(("validation", "valid", "val", "dev"), 1),
    **dict.fromkeys(("test", "testing"), 2),
}


@dataclass(frozen=True, eq=False)
class Split:
    """Indices of a log's cases in three parts.

    until_us:   strict splits keep only training and validation events before this time
    dropped:    what strictness took away: {"events": n, "cases": n}
    column:     the column that made the split; it must be no input
    """

    train: Int64
    validation: Int64
    test: Int64
    description: str
    until_us: int | None = None
    dropped: tuple[int, int] = (0, 0)
    column: str | None = None

    def parts(self, log: EventLog) -> tuple[EventLog, EventLog, EventLog]:
        """Return the training, validation and test log; strict ones cut at `until_us`."""
        indices = (self.train, self.validation, self.test)
        train, validation, test = (log.select(part) for part in indices)
        if self.until_us is not None:
            train, validation = _before(train, self.until_us), _before(validation, self.until_us)
        return train, validation, test


def by_time(
    log: EventLog, *, validation: float = 0.1, test: float = 0.2, strict: bool = False
) -> Split:
    """Split by the start of the cases: the first train, the last test; shares are of all cases.

    A case belongs to one part as a whole, so a training case may still run while test cases
    start. strict=True drops training and validation events from the first test start on; a case
    cut so has no known end (`EventLog.ended`), and one left empty goes. Without times the order
    of the log stands. Raises UsageError for shares that do not fit, DataError for too few cases.
    """
    if min(validation, test) < 0 or validation + test >= 1:
        raise UsageError(
            f"The shares are {validation} for validation and {test} for test.",
            "They must not be negative, and must leave cases to train on (sum below 1).",
            "Choose others, such as 0.1 and 0.2.",
        )
    tested, validated = (max(round(log.cases * s), 1) if s else 0 for s in (test, validation))
    trained = log.cases - tested - validated
    if trained < 1:
        raise DataError(
            f"The log has {log.cases} case{'s' * (log.cases != 1)}.",
            "Training, validation and test each need at least one case.",
            "Give a longer log, or name with --case the column that tells its cases apart.",
        )
    train, valid, last = np.split(np.arange(log.cases), [trained, trained + validated])
    order = "start" if log.time_us is not None else "place in the file"
    description = (
        f"by {order}: the first {trained} cases train, {validated} validate, {tested} test"
    )
    if not strict:
        return Split(train, valid, last, description)
    starts = log.starts_us
    if starts is None or not tested:
        raise UsageError(
            "A strict split was asked for" + (" of a log without times." if tested else "."),
            "It cuts training events at the start of the first test case.",
            "Give timestamps and a test share, or leave strict out.",
        )
    until_us = int(starts[last].min())
    before = [log.select(part) for part in (train, valid)]
    after = [_before(part, until_us) for part in before]
    dropped = (
        sum(part.events for part in before) - sum(part.events for part in after),
        sum(part.cases for part in before) - sum(part.cases for part in after),
    )
    return Split(train, valid, last, f"strictly {description}", until_us, dropped)


def by_column(log: EventLog, column: str) -> Split:
    """Split by a categorical column that says train, validation or test for each case.

    Raises DataError where the column is absent, has other values, or changes within a case.
    """
    expected = "Each event says train, validation or test, the same for all events of its case."
    found: Any = log.categorical.get(column)
    if found is None:
        raise DataError(
            f"The log has no categorical column {column!r}; it has {', '.join(log.categorical)}.",
            expected,
            "Name the column that holds the split.",
        )
    part_of = np.array([*(PARTS.get(label.lower(), -1) for label in found.labels), -1])
    parts = part_of[found.codes]
    if (parts < 0).any():
        row = int(np.flatnonzero(parts < 0)[0])
        value = found.labels[found.codes[row]] if found.codes[row] >= 0 else "missing"
        raise DataError(f"The column {column!r} has the value {value!r}.", expected, "Correct it.")
    case_of = log.case_of_event()
    changes = np.flatnonzero((parts[1:] != parts[:-1]) & (case_of[1:] == case_of[:-1]))
    if len(changes):
        name = log.case_ids[case_of[changes[0]]]
        raise DataError(
            f"The case {name!r} is in two parts of {column!r}.", expected, "Correct it."
        )
    filled = np.flatnonzero(log.lengths > 0)
    of_case = parts[log.offsets[:-1][filled]]
    train, valid, test = (filled[of_case == part] for part in range(3))
    return Split(train, valid, test, f"by the column {column!r}", column=column)


def _before(log: EventLog, until_us: int) -> EventLog:
    if log.time_us is None:
        raise DataError(
            "A strict split was applied to a log without times.",
            "It cuts events by their time.",
            "Use the log that the split was made from.",
        )
    return log.keep(log.time_us < until_us)
