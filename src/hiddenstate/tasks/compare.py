"""Two predictors on the same events: better, tie or worse, said plainly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import UsageError, nearest
from hiddenstate.tasks.judged import Judged, JudgedNumbers, JudgedSymbols
from hiddenstate.tasks.judged_values import JudgedValues
from hiddenstate.tasks.resampling import RESAMPLES, Resampling, finite, interval, ratio

Metric: TypeAlias = Literal[
    "accuracy",
    "log_loss",
    "nats",
    "mae_days",
    "squared_error",
    "absolute_error",
    "quantile_loss",
    "mse",
    "pinball",
    "nll",
    "nats_per_frame",
    "edit_similarity",
]

HIGHER_IS_BETTER = frozenset({"accuracy", "edit_similarity", "bleu", "chrf"})

# A bootstrap over fewer cases has too narrow an interval to give a verdict.
FEWEST_CASES = 10

_WORDS = {
    "accuracy": ("accuracy", ""),
    "log_loss": ("log loss", " nats"),
    "nats": ("loss", " nats per symbol"),
    "mae_days": ("mean absolute error", " days"),
    "squared_error": ("mean squared error", ""),
    "absolute_error": ("mean absolute error", ""),
    "quantile_loss": ("pinball loss", ""),
    "mse": ("mean squared error", " (scaled)"),
    "pinball": ("pinball loss", " (scaled)"),
    "nll": ("log loss", " nats per value (scaled)"),
    "nats_per_frame": ("log loss", " nats per frame"),
    "edit_similarity": ("edit similarity", ""),
}


@dataclass(frozen=True)
class Verdict:
    """The outcome of a paired bootstrap over cases.

    difference: model - floor in the metric's own unit, with its 95 % interval (low, high)
    verdict:    better or worse if the interval lies on one side of 0, else tie; always tie below
                FEWEST_CASES (10) cases

    drawn:      what the cases are called, such as documents

    All five numbers are None where no event has a known answer, the interval also for one case.
    """

    metric: Metric
    model: float | None
    floor: float | None
    difference: float | None
    low: float | None
    high: float | None
    cases: int
    verdict: Literal["better", "tie", "worse"]
    floor_name: str = "n-gram"
    drawn: str = "cases"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        words, unit = _WORDS[self.metric]
        if self.model is None or self.floor is None or self.difference is None:
            return (
                f"No {words} to compare with the {self.floor_name}: no event with a known answer."
            )
        side = "higher" if self.difference > 0 else "lower"
        pair = f"{words} {self.model:.3f}{unit} against {self.floor:.3f}{unit}"
        if self.low is None or self.high is None or self.cases < FEWEST_CASES:
            few = f"too few {self.drawn} to tell ({self.cases})"
            return f"Tie with the {self.floor_name}: {pair}; {few}."
        span = f"95 % interval {self.low:+.3f} to {self.high:+.3f}, {self.cases} {self.drawn}"
        if self.verdict == "tie":
            return (
                f"Tie with the {self.floor_name}: {pair}; the difference of "
                f"{self.difference:+.3f}{unit} could be chance ({span})."
            )
        than = "Better than" if self.verdict == "better" else "Worse than"
        return (
            f"{than} the {self.floor_name}: {pair}, {side} by {abs(self.difference):.3f}{unit} "
            f"({span})."
        )

    def to_json(self) -> dict[str, Any]:
        """Return the verdict and its sentence as JSON values."""
        return {**asdict(self), "sentence": self.sentence}


def compare(
    model: Judged,
    floor: Judged,
    metric: Metric,
    floor_name: str = "n-gram",
    resamples: int = RESAMPLES,
    seed: int = 0,
    drawn: str = "cases",
) -> Verdict:
    """Compare two predictors of the same events by resampling their cases together.

    drawn: what the cases are called in the verdict's sentence

    Raises UsageError if they were judged on different events or have no such metric.
    """
    values = _per_event(model, metric)
    others = _per_event(floor, metric)
    same = len(values) == len(others) and np.array_equal(model.case, floor.case)
    if not same or not np.array_equal(_target(model), _target(floor)):
        raise UsageError(
            f"The two predictors were judged on different events ({len(values)} and "
            f"{len(others)} of them).",
            "A paired comparison needs the same events with the same truth, in the same order.",
            "Judge both on one log with one task.",
        )
    counted = np.isfinite(values) & np.isfinite(others)
    draws = Resampling(model.case[counted], resamples, seed)
    ones = np.ones(int(counted.sum()))
    events = draws.sums(ones)[:, 0]
    gap = ratio(draws.sums((values - others)[counted])[:, 0], events)
    difference = interval(gap)
    mean, other = (ratio(draws.sums(each[counted])[:, 0], events)[0] for each in (values, others))
    gain = 1 if metric in HIGHER_IS_BETTER else -1
    verdict: Literal["better", "tie", "worse"] = "tie"
    if draws.cases >= FEWEST_CASES and (difference.low > 0 or difference.high < 0):
        verdict = "better" if gain * difference.value > 0 else "worse"
    return Verdict(
        metric,
        finite(float(mean)),
        finite(float(other)),
        finite(difference.value),
        finite(difference.low),
        finite(difference.high),
        draws.cases,
        verdict,
        floor_name,
        drawn,
    )


def _per_event(judged: Judged, metric: str) -> NDArray[np.float64]:
    """Return the metric's value at each event [M], NaN where it has none."""
    if isinstance(judged, JudgedSymbols):
        if metric == "accuracy":
            return judged.correct.astype(np.float64)
        if metric in ("log_loss", "nats"):
            return -judged.log_probability.astype(np.float64)
    if isinstance(judged, JudgedNumbers) and metric == "mae_days":
        return judged.error_days
    if isinstance(judged, JudgedValues) and metric in judged.values:
        return judged.values[metric]
    known = ["accuracy", "log_loss"] if isinstance(judged, JudgedSymbols) else ["mae_days"]
    raise UsageError(
        f"These predictions have no metric {metric!r} to compare.",
        f"They are compared in {' or '.join(known)}.",
        f"Name one of these.{nearest(metric, known)}",
    )


def _target(judged: Judged) -> NDArray[Any]:
    return judged.target if isinstance(judged, JudgedSymbols | JudgedNumbers) else judged.case
