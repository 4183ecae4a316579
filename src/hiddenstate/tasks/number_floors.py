"""What a task of days has to beat: medians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.contexts import UNSEEN, Histories
from hiddenstate.tasks.judged import Judged, NumberJudge
from hiddenstate.tasks.recency import SHARES, VALIDATION, Past, best_share, recent_in_words
from hiddenstate.tasks.task import Targets


@dataclass(frozen=True, eq=False)
class Medians:
    """The median of all steps and the medians after each activity.

    days:  [1 + activities]; the first is over all steps, and serves activities without any
    share: the most recent share of the training and validation cases that they are over
    """

    days: NDArray[np.float64]
    share: float = 1.0

    @classmethod
    def fit(cls, activities: int, past: Past, share: float = 1.0) -> Self:
        """Take the medians of the most recent share of some steps."""
        learnable = past.recent(share).learnable
        values, place = past.targets.values[learnable], past.histories.symbols[learnable] - UNSEEN
        days = np.full(1 + activities, np.median(values))
        by_place = np.argsort(place, kind="stable")
        present, starts = np.unique(place[by_place], return_index=True)
        for which, group in zip(present, np.split(values[by_place], starts[1:])):
            days[which] = np.median(group)
        return cls(days, share)

    def predict(self, histories: Histories) -> NDArray[np.float64]:
        """Return the median after each event's activity [N]."""
        return self.days[histories.symbols - UNSEEN]


@dataclass(frozen=True, eq=False)
class NumberFloors:
    """The median of all training steps, and one or two medians after each activity.

    `medians` are over all training and validation cases, `recent` over the most recent share of
    them: the one of least mean absolute error on validation. It is None where no share of the
    training cases does better there than all of them. `chosen_on` names what served as validation.
    """

    activities: tuple[str, ...]
    medians: Medians
    recent: Medians | None = None
    chosen_on: str = VALIDATION

    @property
    def names(self) -> tuple[str, ...]:
        """The floors, weakest first."""
        return ("median", *self._per_activity)

    @property
    def compared(self) -> tuple[str, ...]:
        """The floors that verdicts are given for."""
        return tuple(self._per_activity)

    @property
    def description(self) -> str:
        """What was chosen, in words."""
        share = None if self.recent is None else self.recent.share
        return recent_in_words("recent median", share, self.chosen_on)

    @property
    def _per_activity(self) -> dict[str, Medians]:
        recent = {} if self.recent is None else {"recent_median_per_activity": self.recent}
        return {"median_per_activity": self.medians, **recent}

    def judge(self, log: EventLog, targets: Targets) -> dict[str, Judged]:
        """Judge the floors on a log."""
        histories = Histories.of(log, self.activities)
        days = {"median": np.full(log.events, self.medians.days[0])}
        days |= {name: each.predict(histories) for name, each in self._per_activity.items()}
        judged: dict[str, Judged] = {}
        for name, predicted in days.items():
            judge = NumberJudge(log, targets)
            judge.add(np.arange(log.events), predicted)
            judged[name] = judge.result()
        return judged

    def to_json(self) -> dict[str, Any]:
        """Return activities and shares as JSON values."""
        shares = {name: each.share for name, each in self._per_activity.items()}
        return {
            "kind": "number",
            "activities": list(self.activities),
            "shares": shares,
            "chosen_on": self.chosen_on,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the medians by the floor's name."""
        return {name: each.days for name, each in self._per_activity.items()}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_json` and `to_arrays` wrote."""
        medians = {name: Medians(arrays[name], share) for name, share in value["shares"].items()}
        return cls(
            tuple(value["activities"]),
            medians["median_per_activity"],
            medians.get("recent_median_per_activity"),
            value.get("chosen_on", VALIDATION),
        )

    @classmethod
    def fit(
        cls,
        activities: Sequence[str],
        pasts: tuple[Past, Past, Past],
        chosen_on: str = VALIDATION,
    ) -> Self:
        """Choose on validation by medians of training, then take both: pasts of these three."""
        training, validation, both = pasts
        scored = validation.targets.learnable
        truth = validation.targets.values[scored]
        size = len(activities)
        losses = {}
        for share in SHARES:
            predicted = Medians.fit(size, training, share).predict(validation.histories)[scored]
            losses[share] = float(np.abs(predicted - truth).sum())
        best = best_share(losses)
        recent = None if best is None else Medians.fit(size, both, best)
        return cls(tuple(activities), Medians.fit(size, both), recent, chosen_on)
