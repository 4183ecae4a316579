"""Scores of judged predictions, each with a 95 % bootstrap interval, and by history length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError
from hiddenstate.tasks.judged import Judged, JudgedClasses, JudgedNumbers, JudgedSymbols
from hiddenstate.tasks.judged_values import JudgedValues
from hiddenstate.tasks.resampling import RESAMPLES, Resampling, Score, interval, ratio

TOP_K = 3
ECE_BINS = 15
BUCKETS: tuple[tuple[int, int | None], ...] = (
    (1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256),
    (257, 512), (513, None),
)  # fmt: skip
MEDIAN_BINS = 256
CLASS_BLOCK = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Bucket:
    """The scores of the steps with `shortest` to `longest` events seen (None: no limit)."""

    shortest: int
    longest: int | None
    events: int
    metrics: Mapping[str, Score]

    @property
    def label(self) -> str:
        """The bucket as a table prints it: 1, 3-4, 513+."""
        if self.longest is None:
            return f"{self.shortest}+"
        return str(self.shortest) + (f"-{self.longest}" if self.longest > self.shortest else "")


@dataclass(frozen=True)
class Scores:
    """All scores of one predictor on one log.

    unknown: scored events whose truth is a class that training never saw; they count as errors
             and are left out of log_loss
    """

    events: int
    cases: int
    unknown: int
    metrics: Mapping[str, Score]
    by_length: tuple[Bucket, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        return {
            "events": self.events,
            "cases": self.cases,
            "unknown": self.unknown,
            "metrics": {name: score.to_json() for name, score in self.metrics.items()},
            "by_length": [
                {
                    "from": bucket.shortest,
                    "to": bucket.longest,
                    "events": bucket.events,
                    "metrics": {name: score.to_json() for name, score in bucket.metrics.items()},
                }
                for bucket in self.by_length
            ],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scores:
        """Read what `to_json` wrote."""
        buckets = (
            Bucket(part["from"], part["to"], part["events"], _scores(part["metrics"]))
            for part in value["by_length"]
        )
        metrics = _scores(value["metrics"])
        return cls(value["events"], value["cases"], value["unknown"], metrics, tuple(buckets))


def score(judged: Judged, resamples: int = RESAMPLES, seed: int = 0) -> Scores:
    """Score class predictions or predictions of days; DataError if no step was scored.

    Classes: accuracy; log_loss in nats, over known truths; top_3; ece (expected calibration
    error, 15 bins of equal width; Guo et al. 2017, arXiv:1706.04599, equation 5); macro_f1, the
    mean F1 over the classes that occur or were predicted. Symbols: nats, bits, perplexity (of the
    mean over known truths), accuracy. Days: mae_days; median_error_days. Values: their means, or
    the roots of these.
    """
    if len(judged.case) == 0:
        raise DataError(
            "No event of this log is scored.",
            "A score needs at least one step with an answer.",
            "Look at the task's column or activity in this file.",
        )
    whole = Resampling(judged.case, resamples, seed)
    buckets = []
    for shortest, longest in BUCKETS:
        inside = judged.length >= shortest
        if longest is not None:
            inside &= judged.length <= longest
        if inside.any():
            part = judged.select(inside)
            metrics = _measure(part, Resampling(part.case, resamples, seed))
            buckets.append(Bucket(shortest, longest, len(part.case), metrics))
    unknown = int((~judged.known).sum()) if isinstance(judged, JudgedSymbols) else 0
    events, metrics = len(judged.case), _measure(judged, whole)
    return Scores(events, whole.cases, unknown, metrics, tuple(buckets))


def _measure(judged: Judged, draws: Resampling) -> dict[str, Score]:
    if isinstance(judged, JudgedClasses):
        return _measure_classes(judged, draws)
    if isinstance(judged, JudgedSymbols):
        return _measure_symbols(judged, draws)
    if isinstance(judged, JudgedNumbers):
        return _measure_numbers(judged, draws)
    if isinstance(judged, JudgedValues):
        return _measure_values(judged, draws)
    raise TypeError(f"no scores are known for {type(judged).__name__}")


def _measure_classes(judged: JudgedClasses, draws: Resampling) -> dict[str, Score]:
    known = judged.known
    ones = np.ones(len(known))
    events = draws.sums(ones)[:, 0]
    nats = draws.sums(np.where(known, -judged.log_probability.astype(np.float64), 0))[:, 0]
    top = known & (judged.rank <= TOP_K)
    means = {
        "accuracy": ratio(draws.sums(judged.correct)[:, 0], events),
        "log_loss": ratio(nats, draws.sums(known)[:, 0]),
        f"top_{TOP_K}": ratio(draws.sums(top)[:, 0], events),
        "ece": ratio(_calibration_gaps(judged, draws), events),
        "macro_f1": _macro_f1(judged, draws),
    }
    return {name: interval(values) for name, values in means.items()}


def _measure_symbols(judged: JudgedSymbols, draws: Resampling) -> dict[str, Score]:
    known = judged.known
    nats = np.where(known, -judged.log_probability.astype(np.float64), 0)
    mean = ratio(draws.sums(nats)[:, 0], draws.sums(known)[:, 0])
    right = ratio(draws.sums(judged.correct)[:, 0], draws.sums(np.ones(len(known)))[:, 0])
    means = {"nats": mean, "bits": mean / np.log(2), "perplexity": np.exp(mean), "accuracy": right}
    return {name: interval(values) for name, values in means.items()}


def _calibration_gaps(judged: JudgedClasses, draws: Resampling) -> Floats:
    """Sum over the bins of |confidence - correct|, bins open below and closed above."""
    confidence = judged.confidence.astype(np.float64)
    edges = np.linspace(0, 1, ECE_BINS + 1)[1:-1]
    place = np.digitize(confidence, edges, right=True)
    gaps = draws.sums(confidence - judged.correct, place, ECE_BINS)
    total: Floats = np.abs(gaps).sum(axis=1)
    return total


def _macro_f1(judged: JudgedClasses, draws: Resampling) -> Floats:
    """Mean over classes of 2 TP / (true + predicted), a block of classes at a time."""
    total: Floats | float = 0.0
    present: Floats | float = 0.0
    for start in range(0, len(judged.classes), CLASS_BLOCK):
        block = start, min(CLASS_BLOCK, len(judged.classes) - start)
        hits = _class_sums(judged.target, judged.correct, block, draws)
        both = _class_sums(judged.target, judged.known, block, draws)
        both = both + _class_sums(judged.predicted, np.ones_like(judged.correct), block, draws)
        total = total + np.nansum(ratio(2 * hits, both), axis=1)
        present = present + (both > 0).sum(axis=1)
    return ratio(np.asarray(total), np.asarray(present))


def _class_sums(
    classes: NDArray[Any], counted: NDArray[Any], block: tuple[int, int], draws: Resampling
) -> Floats:
    start, width = block
    inside = counted & (classes >= start) & (classes < start + width)
    place = np.where(inside, classes - start, 0)
    sums: Floats = draws.sums(inside, place, width)
    return sums


def _measure_numbers(judged: JudgedNumbers, draws: Resampling) -> dict[str, Score]:
    errors = judged.error_days
    events = draws.sums(np.ones(len(errors)))[:, 0]
    mean = interval(ratio(draws.sums(errors)[:, 0], events))
    return {"mae_days": mean, "median_error_days": _median(errors, draws)}


def _measure_values(judged: JudgedValues, draws: Resampling) -> dict[str, Score]:
    count = draws.sums(np.ones(len(judged.case)))[:, 0]
    means = {name: ratio(draws.sums(each)[:, 0], count) for name, each in judged.values.items()}
    return {
        name: interval(np.sqrt(mean) if name in judged.roots else mean)
        for name, mean in means.items()
    }


def _median(errors: Floats, draws: Resampling) -> Score:
    """Median, exact; its interval to one part in 256 of the events, from counts per quantile."""
    edges = np.unique(np.quantile(errors, np.linspace(0, 1, MEDIAN_BINS + 1)))
    place = np.searchsorted(edges[1:-1], errors, side="left") if len(edges) > 2 else None
    counts = draws.sums(np.ones(len(errors)), place, max(len(edges) - 1, 1))
    share = np.cumsum(counts, axis=1) / counts.sum(axis=1, keepdims=True)
    uppers = edges[1:] if len(edges) > 1 else edges
    middles = uppers[np.argmax(share >= 0.5, axis=1)]
    middles[0] = np.median(errors)
    return interval(middles)


def _scores(value: Mapping[str, Any]) -> dict[str, Score]:
    return {name: Score.from_json(part) for name, part in value.items()}
