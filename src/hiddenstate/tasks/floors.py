"""What any model has to beat, fitted beside it and kept in its artifact.

Orders and shares are chosen on the validation part by counts of the training part; then both parts
are counted, so that the floors are as strong as the log allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.class_floors import ClassFloors
from hiddenstate.tasks.contexts import MOST_ORDERS
from hiddenstate.tasks.judged import Judged
from hiddenstate.tasks.number_floors import NumberFloors
from hiddenstate.tasks.recency import VALIDATION, Past
from hiddenstate.tasks.task import Targets, Task, occurring

HELD_BACK = 0.2


class Floors(Protocol):
    """The floors of one task."""

    @property
    def names(self) -> tuple[str, ...]:
        """The floors, weakest first."""

    @property
    def compared(self) -> tuple[str, ...]:
        """The floors that verdicts are given for."""

    @property
    def description(self) -> str:
        """What was chosen, and on what, in words."""

    def judge(self, log: EventLog, targets: Targets) -> dict[str, Judged]:
        """Return each floor's judged predictions, by name and in the order of `names`."""

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""


def fit_floors(
    task: Task, training: EventLog, validation: EventLog | None = None, orders: int = MOST_ORDERS
) -> ClassFloors | NumberFloors:
    """Fit the floors of a fitted task; without validation cases the last fifth of training helps.

    At most `orders` orders are counted, fewer where the counts would pass 10 million entries
    (240 MB).
    """
    chosen_on = VALIDATION
    if validation is None or validation.events == 0:
        training, validation = _held_back(task, training)
        chosen_on = "these cases themselves" if validation is training else "the last fifth of them"
    activities = sorted({*occurring(training), *occurring(validation)})
    logs = ((training,), (validation,), (training, validation))
    first, judged, both = (Past.of(task, activities, part) for part in logs)
    if task.kind == "number":
        return NumberFloors.fit(activities, (first, judged, both), chosen_on)
    return ClassFloors.fit(activities, task.classes, (first, judged, both), orders, chosen_on)


def _held_back(task: Task, training: EventLog) -> tuple[EventLog, EventLog]:
    """Cut the last fifth of the cases off; a log too small for that serves as both parts."""
    cut = training.cases - max(1, int(training.cases * HELD_BACK))
    first = training.select(np.arange(cut))
    if not task.targets(first).learnable.any():
        return training, training
    return first, training.select(np.arange(cut, training.cases))


def floors_from(value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Floors:
    """Read floors from their JSON and arrays."""
    kind = NumberFloors if value["kind"] == "number" else ClassFloors
    return kind.read(value, arrays)
