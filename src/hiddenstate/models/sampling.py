"""Scheduled sampling: how often a decoder reads its own guess in training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from hiddenstate.errors import SpecError, nearest

Schedule = Literal["linear", "exponential", "sigmoid"]

# The three courses of Bengio et al. 2015, section 2.4, from 0 to 1 over the training.
RISES: dict[Schedule, Callable[[float], float]] = {
    "linear": lambda done: done,
    "exponential": lambda done: (1 - math.exp(-5 * done)) / (1 - math.exp(-5)),
    "sigmoid": lambda done: (math.tanh(6 * done - 3) / math.tanh(3) + 1) / 2,
}


def own_share(highest: float, schedule: Schedule = "linear") -> Callable[[float], float] | None:
    """Return the share of own guesses by the share of training done; None where it is always 0.

    It rises from 0, which is teacher forcing, to `highest` (Bengio et al. 2015, arXiv:1506.03099).
    Raises SpecError for another schedule.

    >>> own_share(0.5, "linear")(0.25)
    0.125
    """
    if schedule not in RISES:
        raise SpecError(
            f"There is no schedule {schedule!r}.",
            f"hiddenstate knows {', '.join(RISES)}.",
            f"Choose one of them.{nearest(schedule, RISES)}",
        )
    rise = RISES[schedule]
    return (lambda done: highest * rise(done)) if highest else None
