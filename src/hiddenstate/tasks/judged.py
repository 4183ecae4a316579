"""Predictions next to the truth, kept small enough for ten million events.

A class task keeps 28 bytes an event instead of V probabilities; a number task 32.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import HiddenstateError, ShapeError
from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.task import UNKNOWN_CLASS, Targets, Task

LEAST_LOG_PROBABILITY = float(np.log(np.finfo(np.float32).tiny))

Ints = NDArray[np.int32]
Floats32 = NDArray[np.float32]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judged:
    """The scored steps, M of them.

    case:   index of the case in its log [M]
    length: events seen at the step, from 1 [M]
    """

    case: Ints
    length: Ints

    def select(self, rows: Bools) -> Self:
        """Return some of the steps [M]."""
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            chosen[field.name] = value[rows] if isinstance(value, np.ndarray) else value
        return type(self)(**chosen)


@dataclass(frozen=True, eq=False)
class JudgedSymbols(Judged):
    """Class predictions of which only the truth's probability was kept.

    target, predicted: class indices [M]; target is UNKNOWN_CLASS for a class not in training
    log_probability:   of the truth [M], in nats; NaN for an unknown class. A probability of zero
                       counts as the least positive float32, 87.3 nats
    """

    target: Ints
    predicted: Ints
    log_probability: Floats32

    @property
    def correct(self) -> Bools:
        """Whether the prediction is the truth [M]."""
        return np.equal(self.target, self.predicted)

    @property
    def known(self) -> Bools:
        """Whether the truth is a class of the training part [M]."""
        return np.not_equal(self.target, UNKNOWN_CLASS)


@dataclass(frozen=True, eq=False)
class JudgedClasses(JudgedSymbols):
    """Class predictions.

    rank:       place of the truth among the classes, 1 is best [M]; 0 for an unknown class
    confidence: probability of the predicted class [M]
    """

    rank: Ints
    confidence: Floats32
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class JudgedNumbers(Judged):
    """Predictions of days: target and predicted [M]."""

    target: Floats
    predicted: Floats

    @property
    def error_days(self) -> Floats:
        """Absolute error in days [M]."""
        return np.abs(self.predicted - self.target)


class _Judge:
    """Which rows of a log are scored, and which of them have been judged so far."""

    def __init__(self, log: EventLog, targets: Targets) -> None:
        self._mask = targets.mask
        self._target = targets.values
        self._judged = np.zeros(log.events, dtype=np.bool_)
        self._log = log

    def _begin(self, rows: NDArray[Any], given: NDArray[Any], shape: tuple[int, ...]) -> Bools:
        """Check one batch and return which of its rows are scored [n]."""
        if given.shape != (len(rows), *shape):
            raise ShapeError(
                f"Predictions of shape {list(given.shape)} came for {len(rows)} events.",
                f"The task needs shape {[len(rows), *shape]}.",
                "Give one prediction for each row.",
            )
        scored: Bools = self._mask[rows]
        if np.isnan(given[scored]).any():
            raise HiddenstateError(
                f"{int(np.isnan(given[scored]).sum())} predictions are NaN.",
                "A prediction must be a number before it can be scored.",
                "Look for NaN in the inputs or in the weights.",
            )
        self._judged[rows] = True
        return scored

    def _finish(self) -> tuple[NDArray[np.int64], Ints, Ints]:
        """Return the scored rows, their cases and history lengths; all must have been judged."""
        left = int((self._mask & ~self._judged).sum())
        if left:
            raise HiddenstateError(
                f"{left} of {int(self._mask.sum())} scored events got no prediction.",
                "Every scored event of the log is judged before it is scored.",
                "Give the missing rows to `add`.",
            )
        rows = np.flatnonzero(self._mask)
        case = self._log.case_of_event()[rows].astype(np.int32)
        length = (self._log.position_of_event()[rows] + 1).astype(np.int32)
        return rows, case, length


class ClassJudge(_Judge):
    """Collects class predictions batch by batch, in any order of the rows."""

    def __init__(self, log: EventLog, targets: Targets, classes: tuple[str, ...]) -> None:
        """Prepare for the N events of a log."""
        super().__init__(log, targets)
        self.classes = classes
        self._predicted = np.zeros(log.events, dtype=np.int32)
        self._rank = np.zeros(log.events, dtype=np.int32)
        self._log_probability = np.zeros(log.events, dtype=np.float32)
        self._confidence = np.zeros(log.events, dtype=np.float32)

    def add(
        self,
        rows: NDArray[Any],
        log_probabilities: NDArray[Any],
        predicted: NDArray[Any] | None = None,
    ) -> None:
        """Judge events `rows` [n] of the log by log probabilities [n, V] in nats.

        Classes of equal probability rank in their order. `predicted` [n] puts another class than
        the most probable one first (the back-off n-gram counts, and does not interpolate).
        Raises ShapeError for another shape and HiddenstateError for NaN.
        """
        scored = self._begin(rows, log_probabilities, (len(self.classes),))
        given, chosen = log_probabilities[scored], np.asarray(rows)[scored]
        first = given.argmax(axis=1) if predicted is None else np.asarray(predicted)[scored]
        each = np.arange(len(given))
        target = self._target[chosen]
        known = target != UNKNOWN_CLASS
        truth = given[each, np.where(known, target, 0)]
        ahead = given > truth[:, None]
        ahead |= (given == truth[:, None]) & (np.arange(given.shape[1]) < target[:, None])
        ahead[each, first] = True
        self._predicted[chosen] = first
        rank = np.where(first == target, 1, 1 + ahead.sum(axis=1))
        self._rank[chosen] = np.where(known, rank, 0)
        bounded = np.maximum(truth, LEAST_LOG_PROBABILITY)
        self._log_probability[chosen] = np.where(known, bounded, np.nan)
        self._confidence[chosen] = np.exp(given[each, first])

    def result(self) -> JudgedClasses:
        """Return what was judged; HiddenstateError if a scored event got no prediction."""
        rows, case, length = self._finish()
        return JudgedClasses(
            case=case,
            length=length,
            target=self._target[rows],
            predicted=self._predicted[rows],
            log_probability=self._log_probability[rows],
            rank=self._rank[rows],
            confidence=self._confidence[rows],
            classes=self.classes,
        )


class NumberJudge(_Judge):
    """Collects predictions of days batch by batch, in any order of the rows."""

    def __init__(self, log: EventLog, targets: Targets) -> None:
        """Prepare for the N events of a log."""
        super().__init__(log, targets)
        self._predicted = np.zeros(log.events)

    def add(self, rows: NDArray[Any], days: NDArray[Any]) -> None:
        """Judge events `rows` [n] of the log by predicted days [n].

        Raises ShapeError for another shape and HiddenstateError for NaN.
        """
        scored = self._begin(rows, days, ())
        self._predicted[np.asarray(rows)[scored]] = days[scored]

    def result(self) -> JudgedNumbers:
        """Return what was judged; HiddenstateError if a scored event got no prediction."""
        rows, case, length = self._finish()
        return JudgedNumbers(case, length, self._target[rows], self._predicted[rows])


def judge(task: Task, log: EventLog, targets: Targets | None = None) -> ClassJudge | NumberJudge:
    """Return an empty judge for a task on a log."""
    truth = task.targets(log) if targets is None else targets
    if task.kind == "classes":
        return ClassJudge(log, truth, task.classes)
    return NumberJudge(log, truth)
