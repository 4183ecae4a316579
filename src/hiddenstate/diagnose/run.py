"""What a fitted run knows of itself beside its module: scores, data, and the part it was taught."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.diagnose.finding import Nothing, Skip

UNKNOWN = math.nan


@dataclass(frozen=True)
class Value:
    """A score with its 95 % interval; NaN where there is none."""

    value: float = UNKNOWN
    low: float = UNKNOWN
    high: float = UNKNOWN

    def apart(self, other: Value) -> bool:
        """Return whether both intervals are known and do not touch."""
        return self.low > other.high or self.high < other.low

    @classmethod
    def of(cls, score: Mapping[str, float | None] | None) -> Value:
        """Read a score's JSON, where None stands for what is not known."""
        given = score or {}
        numbers = (given.get(name) for name in ("value", "low", "high"))
        return cls(*(UNKNOWN if each is None else float(each) for each in numbers))


@dataclass(frozen=True)
class Bucket:
    """The scores of one range of lengths, of the model and by the floor's name.

    longest: None where the range has no end
    """

    label: str
    shortest: int
    longest: int | None
    events: int
    model: Value
    floors: Mapping[str, Value]
    calibration: Value = Value()


@dataclass(frozen=True)
class Scored:
    """One task's scores on one part of the data.

    metric:      the one that is judged by; `higher` says whether more of it is better
    by:          what lengths count: events seen, steps ahead
    floors:      by name, the simplest one first; `compared` are those the model has to beat
    worse:       sentences on the floors that the model is worse than in this metric, by a paired
                 bootstrap; `also_worse` in other metrics
    surely:      by how much at least, for the worst of them
    calibration: expected calibration error; or, with `nominal`, the share inside the interval,
                 which should be that
    """

    task: str
    part: str
    metric: str
    higher: bool
    by: str
    cases: int
    events: int
    model: Value
    floors: Mapping[str, Value]
    compared: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    also_worse: tuple[str, ...] = ()
    surely: float = 0.0
    lengths: tuple[Bucket, ...] = ()
    calibration: Value = Value()
    nominal: float | None = None

    def better(self, one: float, other: float) -> float:
        """Return by how much one value is better than the other; below 0: worse."""
        return one - other if self.higher else other - one

    @property
    def best_floor(self) -> tuple[str, Value] | None:
        """The best of the floors that have to be beaten, by name; None without one."""
        known = [
            (name, self.floors[name])
            for name in self.compared
            if name in self.floors and math.isfinite(self.floors[name].value)
        ]
        if not known:
            return None
        return max(known, key=lambda each: self.better(each[1].value, 0.0))


@dataclass(frozen=True)
class Unknowns:
    """Steps whose value of one input the model does not know.

    shown:   some of these values
    trained: steps of the training part that were read as unknown; None where that is not known
    """

    column: str
    steps: int
    unknown: int
    shown: tuple[str, ...] = ()
    trained: int | None = None


@dataclass(frozen=True)
class Suspicion:
    """An input that seems to give the answer away, and what was measured."""

    column: str
    reason: str
    evidence: str


@dataclass(frozen=True, eq=False)
class Lengths:
    """Steps of each sequence that is looked at, and of the longest one in training."""

    looked_at: NDArray[np.int64]
    longest_trained: int


@dataclass(frozen=True, eq=False)
class Reliability:
    """M predictions: the confidence of each [M], whether it came true, and at which length.

    A length is counted as the scores by length count.
    """

    confidence: NDArray[Any]
    correct: NDArray[np.bool_]
    length: NDArray[Any]

    def bins(self, count: int = 15) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean confidence and share that came true of each bin that is not empty.

        The bins are of equal width (Guo et al. 2017, arXiv:1706.04599).
        """
        place = np.digitize(self.confidence, np.linspace(0, 1, count + 1)[1:-1], right=True)
        events = np.bincount(place, minlength=count)
        said, true = (
            np.bincount(place, each, count)[events > 0] / events[events > 0]
            for each in (self.confidence, self.correct)
        )
        return said, true

    def at(self, shortest: int, longest: int | None) -> tuple[float, float]:
        """Return mean confidence and share that came true in a range of lengths, NaN for none."""
        inside = self.length >= shortest
        if longest is not None:
            inside &= self.length <= longest
        if not inside.any():
            return UNKNOWN, UNKNOWN
        return float(self.confidence[inside].mean()), float(self.correct[inside].mean())


@dataclass(frozen=True)
class Difference:
    """The largest difference between two executions of one model, and the largest value."""

    largest: float
    scale: float
    where: str = "the outputs"
    values: Mapping[str, float] = field(default_factory=lambda: Nothing)


class Run(ABC):  # noqa: B024 - each part may be missing, and says so
    """Asked only for what a rule needs; raises Skip with the reason where that is not there."""

    def scores(self) -> tuple[Scored, ...]:
        """Return the scores of every task on the data that are looked at."""
        raise Skip("no scores are known")

    def training_scores(self) -> tuple[Scored, ...]:
        """Return the scores of every task on the part that the model was trained on."""
        raise Skip("the training part is not there")

    def unknowns(self) -> tuple[Unknowns, ...]:
        """Return how many steps hold what the model does not know, by input."""
        raise Skip("its inputs are numbers, of which none is unknown")

    def suspicions(self) -> tuple[Suspicion, ...]:
        """Return the inputs that seem to give the answer away."""
        raise Skip("only event logs are searched for columns that give the answer away")

    def lengths(self) -> Lengths:
        """Return the lengths of what is looked at, and the longest one trained."""
        raise Skip("the lengths of the training sequences are not known")

    def reliability(self) -> Reliability:
        """Return how often predictions of the first task came true, by their confidence."""
        raise Skip("it says no probabilities of classes")

    def difference(self) -> Difference:
        """Return how far the runtime's outputs are from torch's on the batch."""
        raise Skip("there is one execution only")
