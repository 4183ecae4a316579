"""What a task is: targets at every step of a history, and which inputs would give them away."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError, nearest
from hiddenstate.schema.log import EventLog

Kind: TypeAlias = Literal["classes", "number"]

UNKNOWN_CLASS = -1
DAY_US = 86_400_000_000


@dataclass(frozen=True, eq=False)
class Targets:
    """The truth of one task at each of N events.

    values: class indices int32 [N], or days float64 [N]; UNKNOWN_CLASS where the truth is a class
            that training never saw
    mask:   bool [N], False where the step is not scored (the value there means nothing)
    """

    values: NDArray[Any]
    mask: NDArray[np.bool_]

    @property
    def learnable(self) -> NDArray[np.bool_]:
        """Steps [N] that a loss may use: scored, and of a known class."""
        if self.values.dtype.kind == "f":
            return self.mask
        known: NDArray[np.bool_] = self.mask & (self.values != UNKNOWN_CLASS)
        return known


@dataclass(frozen=True)
class Task(ABC):
    """What is predicted at every step, from the events up to and including that step.

    A truth of a class unknown to training is scored, and counts as an error whatever was
    predicted; it has no log probability, so the log loss leaves it out and says how many there
    were. A task from `parse` is not fitted; `fit(training_log)` returns it with its classes.
    """

    kind: ClassVar[Kind]
    type: ClassVar[str]
    # Whether the answer is one for the whole case, however far the case has come.
    of_cases: ClassVar[bool] = False

    classes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The task as written on the command line; `parse(task.name)` makes it again."""
        return self.type

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Columns that hold the answer, and so must not be inputs."""
        return ()

    @abstractmethod
    def fit(self, log: EventLog) -> Self:
        """Return the task with the classes of a training log; DataError if it cannot be learnt."""

    @abstractmethod
    def targets(self, log: EventLog) -> Targets:
        """Return the truth at each event of a log; DataError if a needed column is not there."""

    def case_answers(self, log: EventLog) -> NDArray[np.int32]:
        """Return the class of each case [C], -1 where it is not known; for tasks `of_cases`."""
        targets = self.targets(log)
        return first_of_cases(np.where(targets.learnable, targets.values, -1), log)

    def to_json(self) -> dict[str, Any]:
        """Return the task as JSON values."""
        return {"task": self.name, "classes": list(self.classes)}

    def _with_classes(self, log: EventLog, classes: Iterable[str]) -> Self:
        """Return the task with these classes, once at least two of them occur in the targets."""
        fitted = replace(self, classes=tuple(classes))
        targets = fitted.targets(log)
        seen = np.unique(targets.values[targets.learnable])
        if len(seen) < 2:
            only = f"only {fitted.classes[seen[0]]!r}" if len(seen) else "no answer at all"
            raise DataError(
                f"The task {self.name} has {only} in {int(targets.mask.sum())} scored steps of "
                f"{log.cases} training cases.",
                "A class task needs at least two classes in the training part.",
                "Choose another task, or give a log in which the answer varies.",
            )
        return fitted


def last_rows(log: EventLog) -> NDArray[np.int64]:
    """Return the row of each case's last event, for the cases that have events."""
    ends: NDArray[np.int64] = np.asarray(log.offsets[1:][log.lengths > 0]) - 1
    return ends


def known_ends(log: EventLog) -> NDArray[np.bool_]:
    """Return whether each event [N] is of a case whose end is known (`EventLog.ended`)."""
    if log.ended is None:
        return np.ones(log.events, dtype=np.bool_)
    return np.repeat(log.ended, log.lengths)


def first_of_cases(per_event: NDArray[np.int32], log: EventLog) -> NDArray[np.int32]:
    """Return the value at each case's first event [C], -1 for a case without events."""
    filled = log.lengths > 0
    values = np.full(log.cases, -1, dtype=np.int32)
    values[filled] = per_event[log.offsets[:-1][filled]]
    return values


def class_codes(codes: NDArray[Any], labels: Iterable[str], classes: tuple[str, ...]) -> Any:
    """Translate codes into `labels` (-1 missing) to indices into `classes` int32 [N]."""
    index = {name: i for i, name in enumerate(classes)}
    table = [index.get(label, UNKNOWN_CLASS) for label in labels]
    return np.array([*table, UNKNOWN_CLASS], dtype=np.int32)[codes]


def occurring(log: EventLog) -> tuple[str, ...]:
    """Return the activities that occur in a log, sorted by name."""
    labels = log.activities.labels
    return tuple(sorted(labels[code] for code in np.unique(log.activities.codes) if code >= 0))


def missing_name(what: str, name: str, known: Iterable[str], task: str) -> DataError:
    """Return the error for a column or activity that a task needs and a log does not have."""
    names = sorted(known)
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return DataError(
        f"The log has no {what} {name!r}, which the task {task} is about.",
        f"It has: {shown or 'none'}.",
        f"Correct the name.{nearest(name, names)}",
    )


def times_us(log: EventLog, task: str) -> NDArray[np.int64]:
    """Return the event times [N]; DataError for a log without them."""
    if log.time_us is None:
        raise DataError(
            f"The log has no timestamps, and the task {task} measures time.",
            "A task of kind number needs a time for every event.",
            "Name the timestamp column, or choose a task such as next_event.",
        )
    return log.time_us


def read_classes(value: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes of a task's JSON."""
    return tuple(str(name) for name in value["classes"])
