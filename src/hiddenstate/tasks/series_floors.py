"""What labels of series have to beat: the nearest known series, and the frame by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.labels import Floats, Given, Ints, log_softmax

BLOCK = 4_000_000
LEAST_VARIANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Nearest:
    """The class of the nearest training series, by mean and deviation of each channel.

    The order of the steps is lost, as a floor should lose it. Classes are probable in proportion to
    exp(-temperature d^2), d the distance to their nearest series.

    features: means and deviations of the training series, scaled [R, 2 F]
    target:   their classes [R]
    center, spread: what scales features [2 F]
    """

    features: Floats
    target: Ints
    center: Floats
    spread: Floats
    classes: int
    temperature: float = 1.0

    description = "nearest neighbour by mean and deviation of the channels"

    @classmethod
    def fit(cls, given: Given, target: NDArray[Any], classes: int) -> Nearest:
        """Keep the series of known class, target [C]."""
        known = np.flatnonzero(target >= 0)
        raw = mean_and_deviation(given.select(known))
        center, spread = raw.mean(axis=0), raw.std(axis=0)
        spread = np.where(spread > 0, spread, 1.0)
        return cls((raw - center) / spread, target[known], center, spread, classes)

    def scores(self, given: Given) -> Floats:
        """Return minus the squared distance to the nearest series of each class [C, V]."""
        asked = (mean_and_deviation(given) - self.center) / self.spread
        # A class that training lacks is as far as the farthest.
        found = np.full((given.cases, self.classes), np.nan)
        squares = (self.features**2).sum(axis=1)
        step = max(1, BLOCK // max(len(self.features), 1))
        for start in range(0, given.cases, step):
            block = asked[start : start + step]
            distance = (block**2).sum(axis=1)[:, None] + squares - 2 * block @ self.features.T
            for label in np.unique(self.target):
                nearest = distance[:, self.target == label].min(axis=1)
                found[start : start + step, label] = -np.maximum(nearest, 0.0)
        return np.where(np.isnan(found), np.nanmin(found, axis=1, keepdims=True), found)

    def log_probabilities(self, given: Given) -> tuple[Floats, Ints]:
        """Return log probabilities [C, V] and the predicted classes [C]."""
        scores = self.scores(given)
        predicted: Ints = scores.argmax(axis=1).astype(np.int32)
        return log_softmax(scores, self.temperature), predicted

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {"type": "nearest", "classes": self.classes, "temperature": self.temperature}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the kept series."""
        names = ("features", "target", "center", "spread")
        return {name: np.asarray(getattr(self, name)) for name in names}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Nearest:
        """Read what `to_json` and `to_arrays` wrote."""
        return cls(**arrays, classes=value["classes"], temperature=value["temperature"])


@dataclass(frozen=True, eq=False)
class FrameBayes:
    """Gaussian naive Bayes of the step's own frame: mean and variance of each channel by class.

    mean, variance: [V, F];  steps: training steps of each class [V]
    """

    mean: Floats
    variance: Floats
    steps: NDArray[np.int64]
    temperature: float = 1.0

    description = "naive Bayes over the channels of the step itself"

    @classmethod
    def fit(cls, given: Given, target: NDArray[Any], classes: int) -> FrameBayes:
        """Measure the steps of known class, target [N]."""
        frames = _frames(given)
        known = target >= 0
        steps = np.bincount(target[known], minlength=classes)
        shape = (classes, frames.shape[1])
        mean, square = np.zeros(shape), np.zeros(shape)
        np.add.at(mean, target[known], frames[known])
        np.add.at(square, target[known], frames[known] ** 2)
        count = np.maximum(steps, 1)[:, None]
        mean /= count
        return cls(mean, np.maximum(square / count - mean**2, LEAST_VARIANCE), steps)

    def scores(self, given: Given) -> Floats:
        """Return log p(c, x) [N, V]."""
        frames = _frames(given)
        found = np.empty((len(frames), len(self.mean)))
        for label, (mean, variance) in enumerate(zip(self.mean, self.variance, strict=True)):
            found[:, label] = -0.5 * ((frames - mean) ** 2 / variance + np.log(variance)).sum(1)
        found += np.log(self.steps + 0.5)
        return found

    def log_probabilities(self, given: Given) -> tuple[Floats, Ints]:
        """Return log probabilities [N, V] and the predicted classes [N]."""
        scores = self.scores(given)
        predicted: Ints = scores.argmax(axis=1).astype(np.int32)
        return log_softmax(scores, self.temperature), predicted

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {"type": "frame_bayes", "temperature": self.temperature}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the moments."""
        return {"mean": self.mean, "variance": self.variance, "steps": self.steps}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FrameBayes:
        """Read what `to_json` and `to_arrays` wrote."""
        return cls(**arrays, temperature=value["temperature"])


def _frames(given: Given) -> Floats:
    if given.frames is None:
        raise AssertionError("this floor is for series")
    return given.frames.astype(np.float64)


def mean_and_deviation(given: Given) -> Floats:
    """Return mean and deviation of each channel over each series [C, 2 F]; 0 for an empty one."""
    frames, case = _frames(given), given.case_of_step
    count = np.maximum(np.diff(given.offsets), 1)[:, None]
    total = np.zeros((given.cases, frames.shape[1]))
    square = np.zeros_like(total)
    np.add.at(total, case, frames)
    mean = total / count
    np.add.at(square, case, (frames - mean[case]) ** 2)
    return np.concatenate((mean, np.sqrt(square / count)), axis=1)
