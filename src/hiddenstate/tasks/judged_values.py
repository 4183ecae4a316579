"""Predictions of which the value of every metric was kept, for tasks whose scores are means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.judged import Bools, Floats, Judged


@dataclass(frozen=True, eq=False)
class JudgedValues(Judged):
    """What M predictions cost; a score is the mean over them, or the root of the mean.

    case:   what is drawn together in the bootstrap: a series, or a stretch of one [M]
    length: steps ahead, or steps seen, from 1 [M]
    values: by metric, float64 [M]
    roots:  metrics whose score is the square root of the mean
    """

    values: Mapping[str, Floats]
    roots: tuple[str, ...] = ()

    def select(self, rows: Bools) -> JudgedValues:
        """Return some of the predictions [M]."""
        kept = {name: each[rows] for name, each in self.values.items()}
        return replace(self, case=self.case[rows], length=self.length[rows], values=kept)


def stretches(
    origins: NDArray[np.int64], series: NDArray[np.int64], steps: int
) -> NDArray[np.int32]:
    """Return for each origin [M] the number of its stretch of `steps` neighbouring steps.

    Forecasts of neighbouring origins err together, so a bootstrap draws whole stretches (Künsch
    1989, Annals of Statistics 17(3)). Stretches never cross from one series to the next.
    """
    begins = np.flatnonzero(np.diff(series, prepend=-1))
    firsts = np.repeat(origins[begins], np.diff([*begins, len(origins)]))
    own = (origins - firsts) // max(steps, 1)
    _, numbers = np.unique(np.stack([series, own], axis=1), axis=0, return_inverse=True)
    return numbers.reshape(-1).astype(np.int32)
