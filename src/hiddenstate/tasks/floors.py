"""What any model has to beat, fitted beside it and kept in its artifact.

Orders are chosen on the validation part by counts of the training part; then both parts are
counted, so that the floor is as strong as the data allow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.contexts import MOST_ORDERS, ContextTable, Histories
from hiddenstate.tasks.judged import ClassJudge, Judged, NumberJudge
from hiddenstate.tasks.ngram import NGram
from hiddenstate.tasks.task import Targets, Task, occurring

HELD_BACK = 0.2


class Floors(Protocol):
    """The floors of one task."""

    names: ClassVar[tuple[str, ...]]

    @property
    def best(self) -> str:
        """The name of the floor that a verdict compares with."""

    def judge(self, log: EventLog, targets: Targets) -> dict[str, Judged]:
        """Return each floor's judged predictions."""

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""


@dataclass(frozen=True, eq=False)
class ClassFloors:
    """Most frequent class; most frequent after the last activity; n-gram of the best order.

    The n-gram has one order for accuracy and one for log loss, each the best on validation. Its
    rank of the truth puts the counted prediction first and the rest in order of probability.
    """

    names: ClassVar[tuple[str, ...]] = ("most_frequent", "last_activity", "ngram")
    best: ClassVar[str] = "ngram"

    ngram: NGram
    classes: tuple[str, ...]
    accuracy_order: int
    log_loss_order: int

    def judge(self, log: EventLog, targets: Targets) -> dict[str, Judged]:
        """Judge the three floors on a log; empty contexts fall back to shorter ones."""
        histories = Histories.of(log, self.ngram.activities)
        judges = {name: ClassJudge(log, targets, self.classes) for name in self.names}
        last = min(1, self.ngram.orders)
        for rows in self.ngram.chunks(log.events):
            best = np.zeros(0, dtype=np.int32)
            log_p = np.zeros((0, 0))
            for order, (predicted, p) in enumerate(self.ngram.predictions(histories, rows)):
                if order == 0:
                    judges["most_frequent"].add(rows, np.log(p), predicted)
                if order == last:
                    judges["last_activity"].add(rows, np.log(p), predicted)
                if order == self.accuracy_order:
                    best = predicted.copy()
                if order == self.log_loss_order:
                    log_p = np.log(p)
            judges["ngram"].add(rows, log_p, best)
        return {name: judge.result() for name, judge in judges.items()}

    def to_json(self) -> dict[str, Any]:
        """Return names and orders as JSON values."""
        return {
            "kind": "classes",
            "activities": list(self.ngram.activities),
            "classes": list(self.classes),
            "accuracy_order": self.accuracy_order,
            "log_loss_order": self.log_loss_order,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts."""
        return self.ngram.table.to_arrays()


@dataclass(frozen=True, eq=False)
class NumberFloors:
    """The median of all training steps, and the median after each activity.

    medians: days [1 + activities]; the first is over all steps, and serves unseen activities
    """

    names: ClassVar[tuple[str, ...]] = ("median", "median_per_activity")
    best: ClassVar[str] = "median_per_activity"

    activities: tuple[str, ...]
    medians: NDArray[np.float64]

    def judge(self, log: EventLog, targets: Targets) -> dict[str, Judged]:
        """Judge both floors on a log."""
        number = {name: 1 + i for i, name in enumerate(self.activities)}
        table = [number.get(label, 0) for label in log.activities.labels]
        own = np.array([*table, 0])[log.activities.codes]
        rows = np.arange(log.events)
        judged: dict[str, Judged] = {}
        for name, places in zip(self.names, (np.zeros_like(own), own)):
            judge = NumberJudge(log, targets)
            judge.add(rows, self.medians[places])
            judged[name] = judge.result()
        return judged

    def to_json(self) -> dict[str, Any]:
        """Return the activities as JSON values."""
        return {"kind": "number", "activities": list(self.activities)}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the medians."""
        return {"medians": self.medians}


def fit_floors(
    task: Task, training: EventLog, validation: EventLog | None = None, orders: int = MOST_ORDERS
) -> ClassFloors | NumberFloors:
    """Fit the floors of a fitted task; without validation cases the last fifth of training helps.

    At most `orders` orders are counted, fewer where the counts would pass 10 million entries
    (240 MB).
    """
    if validation is None or validation.events == 0:
        cut = training.cases - max(1, int(training.cases * HELD_BACK))
        validation = training.select(np.arange(cut, training.cases))
        training = training.select(np.arange(cut)) if cut else validation
    if task.kind == "number":
        return _fit_medians(task, (training, validation))
    logs = (training, validation)
    activities = sorted({*occurring(training), *occurring(validation)})
    parts = [(Histories.of(log, activities), task.targets(log)) for log in logs]
    chosen = NGram.fit(activities, len(task.classes), parts[:1], orders)
    accuracy, log_loss = chosen.by_order(*parts[1])
    best = int(accuracy.argmax()), int(log_loss.argmin())
    ngram = NGram.fit(activities, len(task.classes), parts, max(best))
    longest = ngram.orders
    return ClassFloors(ngram, task.classes, min(best[0], longest), min(best[1], longest))


def _fit_medians(task: Task, logs: tuple[EventLog, ...]) -> NumberFloors:
    activities = tuple(sorted({name for log in logs for name in occurring(log)}))
    days, place = [], []
    for log in logs:
        targets = task.targets(log)
        symbols = Histories.of(log, activities).symbols
        days.append(targets.values[targets.mask])
        place.append(symbols[targets.mask])
    values, symbol = np.concatenate(days), np.concatenate(place)
    medians = np.full(1 + len(activities), np.median(values))
    by_symbol = np.argsort(symbol, kind="stable")
    present, starts = np.unique(symbol[by_symbol], return_index=True)
    for which, group in zip(present, np.split(values[by_symbol], starts[1:])):
        medians[which - 1] = np.median(group)
    return NumberFloors(activities, medians)


def floors_from(value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Floors:
    """Read floors from their JSON and arrays."""
    activities = tuple(value["activities"])
    if value["kind"] == "number":
        return NumberFloors(activities, arrays["medians"])
    ngram = NGram(activities, ContextTable.from_arrays(arrays))
    return ClassFloors(
        ngram, tuple(value["classes"]), value["accuracy_order"], value["log_loss_order"]
    )
