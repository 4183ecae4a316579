"""What a class task has to beat: counts of what followed the last activities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.contexts import ContextTable, Histories
from hiddenstate.tasks.judged import ClassJudge, Judged
from hiddenstate.tasks.ngram import NGram
from hiddenstate.tasks.recency import SHARES, VALIDATION, Past, best_share, recent_in_words
from hiddenstate.tasks.task import Targets


@dataclass(frozen=True, eq=False)
class TunedNGram:
    """A back-off n-gram with the order that is best for accuracy and the one for log loss.

    Its rank of the truth puts the counted prediction first and the rest in order of probability.

    counts: what followed each context
    share:  the most recent share of the training and validation cases that was counted
    """

    counts: NGram
    accuracy_order: int
    log_loss_order: int
    share: float = 1.0

    def judge(self, log: EventLog, targets: Targets, classes: tuple[str, ...]) -> Judged:
        """Judge it on a log; contexts that were not seen fall back to shorter ones."""
        histories = Histories.of(log, self.counts.activities)
        judge = ClassJudge(log, targets, classes)
        longest = max(self.accuracy_order, self.log_loss_order)
        for rows in self.counts.chunks(log.events):
            best = np.zeros(0, dtype=np.int32)
            log_p = np.zeros((0, 0))
            for order, (predicted, p) in enumerate(self.counts.predictions(histories, rows)):
                if order == self.accuracy_order:
                    best = predicted.copy()
                if order == self.log_loss_order:
                    log_p = np.log(p)
                if order == longest:
                    break
            judge.add(rows, log_p, best)
        return judge.result()

    def at_order(self, order: int) -> Self:
        """Return the same counts with one order, or the longest counted, for everything."""
        order = min(order, self.counts.orders)
        return replace(self, accuracy_order=order, log_loss_order=order)

    @property
    def description(self) -> str:
        """The orders in words."""
        if self.accuracy_order == self.log_loss_order:
            return f"order {self.accuracy_order}"
        return f"order {self.accuracy_order} for accuracy, {self.log_loss_order} for log loss"

    def to_json(self) -> dict[str, Any]:
        """Return orders and share as JSON values."""
        return {
            "accuracy_order": self.accuracy_order,
            "log_loss_order": self.log_loss_order,
            "share": self.share,
        }


@dataclass(frozen=True, eq=False)
class ClassFloors:
    """Most frequent class, most frequent after the last activity, and one or two n-grams.

    `ngram` counts all training and validation cases. `recent` counts the most recent share of
    them, for logs that drift; the share and its orders are those of least log loss (and best
    accuracy) on validation. It is None where no share of the training cases does better there
    than all of them: `ngram` is then the strongest floor. `chosen_on` names what served as
    validation.
    """

    ngram: TunedNGram
    recent: TunedNGram | None
    classes: tuple[str, ...]
    chosen_on: str = VALIDATION

    @property
    def names(self) -> tuple[str, ...]:
        """The floors, weakest first."""
        return ("most_frequent", "last_activity", *self._ngrams)

    @property
    def compared(self) -> tuple[str, ...]:
        """The floors that verdicts are given for."""
        return tuple(self._ngrams)

    @property
    def description(self) -> str:
        """What was chosen, in words."""
        said = f"n-gram: {self.ngram.description}; "
        if self.recent is None:
            return said + recent_in_words("recent n-gram", None, self.chosen_on)
        where = recent_in_words("recent n-gram", self.recent.share, self.chosen_on)
        return f"{said}{where}, {self.recent.description}"

    @property
    def _ngrams(self) -> dict[str, TunedNGram]:
        recent = {} if self.recent is None else {"recent_ngram": self.recent}
        return {"ngram": self.ngram, **recent}

    def judge(self, log: EventLog, targets: Targets) -> dict[str, Judged]:
        """Judge the floors on a log."""
        simple = (self.ngram.at_order(order) for order in range(2))
        floors = zip(self.names, (*simple, *self._ngrams.values()), strict=True)
        return {name: floor.judge(log, targets, self.classes) for name, floor in floors}

    def to_json(self) -> dict[str, Any]:
        """Return names, orders and shares as JSON values."""
        return {
            "kind": "classes",
            "activities": list(self.ngram.counts.activities),
            "classes": list(self.classes),
            "chosen_on": self.chosen_on,
            "ngrams": {name: ngram.to_json() for name, ngram in self._ngrams.items()},
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts; names begin with the floor's."""
        return {
            f"{floor}.{name}": array
            for floor, ngram in self._ngrams.items()
            for name, array in ngram.counts.table.to_arrays().items()
        }

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_json` and `to_arrays` wrote."""
        ngrams = {}
        for floor, chosen in value["ngrams"].items():
            own = {
                name.removeprefix(f"{floor}."): array
                for name, array in arrays.items()
                if name.startswith(f"{floor}.")
            }
            counts = NGram(tuple(value["activities"]), ContextTable.from_arrays(own))
            ngrams[floor] = TunedNGram(counts, **chosen)
        recent, chosen_on = ngrams.get("recent_ngram"), value.get("chosen_on", VALIDATION)
        return cls(ngrams["ngram"], recent, tuple(value["classes"]), chosen_on)

    @classmethod
    def fit(
        cls,
        activities: Sequence[str],
        classes: tuple[str, ...],
        pasts: tuple[Past, Past, Past],
        orders: int,
        chosen_on: str = VALIDATION,
    ) -> Self:
        """Choose on validation by counts of training, then count both: pasts of these three."""
        training, validation, both = pasts

        def count(past: Past, share: float, longest: int) -> NGram:
            part = past.histories, past.recent(share)
            return NGram.fit(activities, len(classes), [part], longest)

        chosen: dict[float, tuple[int, int]] = {}
        losses: dict[float, float] = {}
        for share in SHARES:
            trial = count(training, share, orders)
            accuracy, log_loss = trial.by_order(validation.histories, validation.targets)
            chosen[share] = int(accuracy.argmax()), int(log_loss.argmin())
            losses[share] = float(log_loss.min())

        def tuned(share: float) -> TunedNGram:
            counts = count(both, share, max(chosen[share]))
            accuracy, log_loss = (min(order, counts.orders) for order in chosen[share])
            return TunedNGram(counts, accuracy, log_loss, share)

        best = best_share(losses)
        return cls(tuned(1.0), None if best is None else tuned(best), classes, chosen_on)
