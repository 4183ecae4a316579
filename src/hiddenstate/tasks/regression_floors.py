"""What a predicted number has to beat: mean and median of training, and a linear model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.forecasts import Forecast
from hiddenstate.tasks.judged_values import JudgedValues
from hiddenstate.tasks.labels import Floats, Given
from hiddenstate.tasks.regression import judge_numbers
from hiddenstate.tasks.series_floors import mean_and_deviation

RIDGES = (0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0)
# Words that the linear model weighs, and sequences or steps that it is fitted to, at most.
MOST_WORDS = 1_000
MOST_ROWS = 20_000
BLOCK = 4_000_000


@dataclass(frozen=True, eq=False)
class Linear:
    """A number as a linear function of what is seen of a sequence, or of a step by itself.

    Of a sequence: its length, and mean and deviation of each channel, or the share of each word.
    Of a step: its place, and its frame or token. The order of the steps is lost, as a floor should
    lose it. Ridge regression on inputs of deviation 1 (Hoerl and Kennard 1970, Technometrics
    12(1)); what it says is cut to the range of the numbers that it was fitted to.

    words:   those weighed, for texts and tokens
    weights: [D], of the length or place first;  within: least and greatest number
    """

    words: tuple[str, ...]
    weights: Floats
    intercept: float
    within: tuple[float, float]
    ridge: float
    every_step: bool

    @classmethod
    def fit(
        cls, given: Given, target: Floats, ridges: Sequence[float], *, every_step: bool
    ) -> tuple[Self, ...]:
        """Return a model for each ridge, fitted where the target [M] is known; NaN is not."""
        words = _frequent(given)
        rows = np.flatnonzero(np.isfinite(target))
        rows = rows[:: max(1, -(-len(rows) // MOST_ROWS))]
        used = np.zeros(len(target), dtype=np.bool_)
        used[rows] = True
        count, truth = len(rows), target[rows]
        mean = float(truth.mean())
        total: Floats | float = 0.0
        gram: Floats | float = 0.0
        cross: Floats | float = 0.0
        for block, shown in _shown(given, words, every_step=every_step):
            x = shown[used[block]]
            total, gram = total + x.sum(axis=0), gram + x.T @ x
            cross = cross + x.T @ (target[block][used[block]] - mean)
        center = np.asarray(total) / count
        spread = np.asarray(gram) - count * np.outer(center, center)
        deviation = np.sqrt(np.maximum(np.diag(spread) / count, 0.0))
        # What hardly varies is left out, for rounding would speak in its place.
        varies = deviation > 1e-6 * (1.0 + np.abs(center))
        scale = np.where(varies, deviation, 1.0)
        alike = np.where(np.outer(varies, varies), spread / np.outer(scale, scale), 0.0)
        pull = np.where(varies, np.asarray(cross) / scale, 0.0)
        within = float(truth.min()), float(truth.max())
        found = []
        for ridge in ridges:
            weights = np.linalg.solve(alike + ridge * np.eye(len(alike)), pull) / scale
            intercept = mean - float(center @ weights)
            found.append(cls(words, weights, intercept, within, ridge, every_step))
        return tuple(found)

    def predict(self, given: Given) -> Floats:
        """Return the numbers of sequences [C] or of steps [N]."""
        found = np.zeros(int(given.offsets[-1]) if self.every_step else given.cases)
        for block, shown in _shown(given, self.words, every_step=self.every_step):
            found[block] = shown @ self.weights + self.intercept
        return np.clip(found, *self.within)


@dataclass(frozen=True, eq=False)
class RegressionFloors:
    """The floors of a number by name, weakest first, fitted on training and validation part.

    levels: of the quantiles that the floors give, () for none
    errors: by floor, quantiles of its errors [Q]; those of the linear model on numbers that it was
            not fitted to, where there is a validation part
    """

    mean: float
    median: float
    linear: Linear
    levels: tuple[float, ...]
    errors: Mapping[str, Floats]
    chosen_on: str
    seen: str

    names = ("mean", "median", "linear")
    compared = ("median", "linear")

    @property
    def description(self) -> str:
        """What was fitted, in words."""
        return (
            f"mean and median of the training and validation part; linear in {self.seen}, ridge "
            f"{self.linear.ridge:g} chosen on {self.chosen_on}"
        )

    @classmethod
    def fit(
        cls,
        training: Given,
        target: Floats,
        validation: Given,
        validation_target: Floats,
        *,
        levels: Sequence[float] = (),
        every_step: bool,
    ) -> Self:
        """Fit the floors for numbers of sequences [C] or, with every_step, of steps [N].

        NaN is a number that is not known; one of the training part must be.
        """
        has_validation = bool(np.isfinite(validation_target).any())
        asked, judged = (validation, validation_target) if has_validation else (training, target)
        known = np.isfinite(judged)
        tried = Linear.fit(training, target, RIDGES, every_step=every_step)
        errors = [(judged - each.predict(asked))[known] for each in tried]
        best = int(np.argmin([(each**2).mean() for each in errors]))
        both = training.followed_by(validation)
        truth = np.concatenate((target, validation_target))
        (linear,) = Linear.fit(both, truth, RIDGES[best : best + 1], every_step=every_step)
        truth = truth[np.isfinite(truth)]
        mean, median = float(truth.mean()), float(np.median(truth))
        missed = {"mean": truth - mean, "median": truth - median, "linear": errors[best]}
        spread = {n: np.quantile(each, levels) for n, each in missed.items()} if levels else {}
        chosen_on = "the validation part" if has_validation else "the training part itself"
        seen = _in_words(training, every_step=every_step)
        return cls(mean, median, linear, tuple(levels), spread, chosen_on, seen)

    def judge(
        self, given: Given, case: NDArray[Any], length: NDArray[Any], target: Floats
    ) -> dict[str, JudgedValues]:
        """Judge every floor on the numbers target [M], with the sequence and length of each [M].

        Steps and sequences without a number (NaN) are left out.
        """
        scored = np.isfinite(target)
        points = {
            "mean": np.full(len(target), self.mean),
            "median": np.full(len(target), self.median),
            "linear": self.linear.predict(given),
        }
        found = {}
        for name in self.names:
            point = points[name][scored]
            spread = point[:, None] + self.errors[name] if self.levels else None
            told = Forecast(point, spread)
            found[name] = judge_numbers(
                case[scored], length[scored], target[scored], told, self.levels
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""
        return {
            "kind": "regression",
            "mean": self.mean,
            "median": self.median,
            "levels": list(self.levels),
            "words": list(self.linear.words),
            "intercept": self.linear.intercept,
            "within": list(self.linear.within),
            "ridge": self.linear.ridge,
            "every_step": self.linear.every_step,
            "errors": list(self.errors),
            "chosen_on": self.chosen_on,
            "seen": self.seen,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        errors = {f"errors/{name}": array for name, array in self.errors.items()}
        return {"linear": self.linear.weights, **errors}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_json` and `to_arrays` wrote."""
        least, greatest = value["within"]
        linear = Linear(
            tuple(value["words"]),
            arrays["linear"],
            float(value["intercept"]),
            (float(least), float(greatest)),
            float(value["ridge"]),
            bool(value["every_step"]),
        )
        return cls(
            float(value["mean"]),
            float(value["median"]),
            linear,
            tuple(float(level) for level in value["levels"]),
            {name: arrays[f"errors/{name}"] for name in value["errors"]},
            str(value["chosen_on"]),
            str(value["seen"]),
        )


def _in_words(given: Given, *, every_step: bool) -> str:
    if every_step:
        return f"the {'token' if given.frames is None else 'frame'} and place of the step itself"
    if given.frames is None:
        return "the length and the share of each word"
    return "the length, and mean and deviation of each channel"


def _frequent(given: Given) -> tuple[str, ...]:
    """Return the most frequent words, none of series."""
    if given.pieces is None:
        return ()
    words, counts = np.unique(given.pieces.astype(str), return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_WORDS])
    return tuple(words[kept].tolist())


def _shown(
    given: Given, words: tuple[str, ...], *, every_step: bool
) -> Iterator[tuple[slice, Floats]]:
    """Yield blocks of neighbouring sequences or steps and what the model sees of them [n, D]."""
    extent = given.place_of_step if every_step else np.diff(given.offsets)
    total, width = len(extent), len(words)
    if given.pieces is None:
        if given.frames is None:
            raise AssertionError("sequences are texts, tokens or series")
        rest = given.frames.astype(np.float64) if every_step else mean_and_deviation(given)
        yield slice(0, total), np.concatenate((extent[:, None], rest), axis=1)
        return
    number = {word: place for place, word in enumerate(words)}
    ids = np.array([number.get(piece, -1) for piece in given.pieces], dtype=np.int64)
    row = np.arange(len(ids)) if every_step else given.case_of_step
    ends = np.arange(total + 1) if every_step else given.offsets
    size = max(1, BLOCK // max(width, 1))
    for start in range(0, total, size):
        end = min(start + size, total)
        steps = slice(int(ends[start]), int(ends[end]))
        own, at = ids[steps], row[steps] - start
        counts = np.bincount(
            at[own >= 0] * width + own[own >= 0], minlength=(end - start) * width
        ).reshape(end - start, width)
        share = counts / np.maximum(np.diff(ends)[start:end, None], 1)
        yield slice(start, end), np.concatenate((extent[start:end, None], share), axis=1)
