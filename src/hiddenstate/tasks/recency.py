"""How old each step is that a floor learns from: logs drift, and recent cases may say more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.log import EventLog
from hiddenstate.tasks.contexts import Histories
from hiddenstate.tasks.task import Targets, Task

SHARES = (1.0, 1 / 2, 1 / 4, 1 / 8)

# What floors are chosen on, in words.
VALIDATION = "validation"

# A recent floor must beat the whole past by this share of the loss.
MARGIN = 0.005


@dataclass(frozen=True, eq=False)
class Past:
    """The N steps of one or more logs, as a floor learns from them.

    age: share of the cases with an answer that began later than the step's case [N], 0 for the
         newest; without times, cases began in the order of the logs
    """

    histories: Histories
    targets: Targets
    age: NDArray[np.float64]

    @classmethod
    def of(cls, task: Task, activities: Sequence[str], logs: Sequence[EventLog]) -> Past:
        """Put logs behind one another; activities that are not listed are UNSEEN."""
        parts = [task.targets(log) for log in logs]
        targets = Targets(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.mask for part in parts]),
        )
        lengths = np.concatenate([log.lengths for log in logs])
        case = np.repeat(np.arange(len(lengths)), lengths)
        answered = np.unique(case[targets.learnable])
        later = np.ones(len(lengths))
        newest_first = answered[np.argsort(_starts(logs)[answered], kind="stable")][::-1]
        later[newest_first] = np.arange(len(answered)) / max(len(answered), 1)
        histories = Histories.join([Histories.of(log, activities) for log in logs])
        return cls(histories, targets, later[case])

    def recent(self, share: float) -> Targets:
        """Return the targets with only the most recent share of the answered cases left in."""
        return Targets(self.targets.values, self.targets.mask & (self.age < share))


def best_share(losses: Mapping[float, float]) -> float | None:
    """Return the share of SHARES with the least loss; None where none is clearly better than all.

    In a log that does not drift, one of several shares is a little better by chance.
    """
    best = min(losses, key=losses.__getitem__)
    return best if losses[best] < (1 - MARGIN) * losses[1] else None


def recent_in_words(floor: str, share: float | None, chosen_on: str) -> str:
    """Say which cases a recent floor was fitted on, or why there is none (share None)."""
    if share is None:
        better = f"no recent part of the training cases did better on {chosen_on}"
        return f"no {floor}: {better}"
    parts = "training and validation" if chosen_on == VALIDATION else "training"
    return f"{floor}: last {Fraction(share)} of the {parts} cases"


def _starts(logs: Sequence[EventLog]) -> NDArray[Any]:
    starts = [log.starts_us for log in logs]
    known = [each for each in starts if each is not None]
    if len(known) < len(starts):
        return np.arange(sum(log.cases for log in logs))
    return np.concatenate(known)
