"""The next frame of binary channels: what a prediction costs, and what it has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.judged_values import JudgedValues

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]

# Added to both counts of every probability, so that none is 0 or 1.
PRIOR = 0.1


def frame_costs(truth: Floats, odds: Floats) -> dict[str, Floats]:
    """Return what predictions cost [M]: truth and log odds of a 1 are [M, C].

    nats_per_frame: sum over the C channels of the log loss
    wrong:          share of wrong channels among those that are 1 in truth or prediction; 0 for two
                    empty frames (1 - the frame accuracy of Bay, Ehmann, Downie 2009)
    """
    nats = np.logaddexp(0.0, np.where(truth > 0, -odds, odds)).sum(axis=1)
    shown, real = odds > 0, truth > 0
    either = (shown | real).sum(axis=1)
    wrong = (shown != real).sum(axis=1) / np.maximum(either, 1)
    return {"nats_per_frame": nats, "wrong": wrong}


def judge_frames(truth: Floats, odds: Floats, offsets: Longs, rows: Longs) -> JudgedValues:
    """Judge log odds [M, C] of the frames at `rows` [M], of series cut by offsets [P + 1]."""
    series = np.searchsorted(offsets, rows, side="right") - 1
    seen = rows - offsets[series]
    costs = frame_costs(truth, odds)
    return JudgedValues(series.astype(np.int32), seen.astype(np.int32), costs)


@dataclass(frozen=True, eq=False)
class FrameFloors:
    """Probabilities of a 1 in each channel: by itself, and given the same channel one step before.

    alone: [C];  after: [2, C], after a 0 and after a 1
    """

    alone: Floats
    after: Floats

    names = ("independent", "markov")
    compared = ("markov",)
    description = (
        "each channel by itself, and after its own value one step before; counted on training and "
        "validation part"
    )

    def judge(self, values: Floats, offsets: Longs, rows: Longs) -> dict[str, JudgedValues]:
        """Judge both floors at `rows` [M], none of which is the first of its series."""
        truth, before = values[rows], values[rows - 1]
        alone = np.broadcast_to(log_odds(self.alone), truth.shape)
        after = np.where(before > 0, log_odds(self.after[1]), log_odds(self.after[0]))
        pairs = zip(self.names, (alone, after), strict=True)
        return {name: judge_frames(truth, each, offsets, rows) for name, each in pairs}

    def to_json(self) -> dict[str, Any]:
        """Return the kind: all else is arrays."""
        return {"kind": "frames"}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the probabilities by name."""
        return {"alone": self.alone, "after": self.after}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_json` and `to_arrays` wrote."""
        del value
        return cls(arrays["alone"], arrays["after"])

    @classmethod
    def fit(cls, values: Floats, rows: Longs) -> Self:
        """Count the frames at `rows` [M], none of which is the first of its series."""
        now, before = values[rows], values[rows - 1]
        pairs = [
            ((now * (before == state)).sum(axis=0) + PRIOR)
            / ((before == state).sum(axis=0) + 2 * PRIOR)
            for state in (0, 1)
        ]
        return cls((now.sum(axis=0) + PRIOR) / (len(rows) + 2 * PRIOR), np.stack(pairs))


def log_odds(probability: Floats) -> Floats:
    """Return log(p / (1 - p))."""
    return np.asarray(np.log(probability) - np.log1p(-probability))
