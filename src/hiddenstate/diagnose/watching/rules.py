"""How rules about a training are entered, and what several of them measure and show."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from hiddenstate.charts import Picture
from hiddenstate.diagnose.finding import Finding, Nothing, Rule, Severity, Skip, rule
from hiddenstate.diagnose.watching.training import Training

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

Ask = Callable[[Training, Rule], Iterable[Finding]]

WATCHED: dict[str, Ask] = {}
"""What a training alone can be asked, by the rule's code."""

SHOWN = 4


def of_training(
    code: str,
    name: str,
    severity: Severity,
    *,
    asks: str,
    because: str,
    remedy: str,
    limits: Mapping[str, float] = Nothing,
) -> Callable[[Ask], Rule]:
    """Enter a rule that is asked of a Training, by `examine` or while it goes on."""

    def enter(ask: Ask) -> Rule:
        def check(seen: Examination, rule: Rule) -> Iterable[Finding]:
            if seen.training is None:
                raise Skip("no training was watched")
            return ask(seen.training, rule)

        WATCHED[code] = ask
        words = {"asks": asks, "because": because, "remedy": remedy}
        return rule(code, name, severity, **words, limits=limits)(check)

    return enter


def require_steps(training: Training, steps: float) -> None:
    """Raise Skip for a training of fewer steps, or of one window."""
    if training.steps < steps or len(training.windows) < 2:
        raise Skip(f"fewer than {steps:.0f} steps were seen")


def later(count: int) -> slice:
    """Return the later half of so many windows."""
    return slice(count // 2, None)


def share_fallen(training: Training, part: Literal["all", "later"] = "all") -> float:
    """Return the share of the first loss that is gone at the best window; NaN if not known.

    part: of the windows; the later half says what is left of it at the end
    """
    first, losses = training.first_loss, training.each("loss")
    losses = losses[later(len(losses))] if part == "later" else losses
    if not math.isfinite(first) or not np.isfinite(losses).any() or first == 0:
        return math.nan
    return float(first - np.nanmin(losses)) / abs(first)


def listed(names: Iterable[str]) -> str:
    """Return names in a row, the first few of many."""
    known = list(names)
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def batches(scale: float) -> str:
    """Return a noise scale in words."""
    return "beyond what could be measured" if math.isinf(scale) else f"{scale:.3g} batches"


def rate(training: Training) -> str:
    """Return the highest learning rate in brackets, "" where it is not known."""
    rates = training.each("learning_rate")
    if not np.isfinite(rates).any():
        return ""
    return f" (learning rate {np.nanmax(rates):.3g})"


def _places(training: Training) -> NDArray[np.float64]:
    return training.each("last")


def norms_picture(training: Training) -> Picture:
    """Return the gradient norms of all windows, beside the limit."""
    series = {"median": training.each("norm"), "largest": training.each("largest_norm")}
    if training.clip_norm is not None and math.isfinite(training.clip_norm):
        series["limit"] = np.full(len(training.windows), training.clip_norm)
    return Picture(
        "lines",
        "Gradient norm before clipping",
        "step",
        "global norm",
        series,
        _places(training),
        log_y=True,
    )


def losses_picture(training: Training) -> Picture:
    """Return the losses of all windows."""
    series = {"training": training.each("loss")}
    if np.isfinite(held := training.each("validation")).any():
        series["validation"] = held
    return Picture("lines", "Loss", "step", "loss", series, _places(training))


def updates_picture(training: Training) -> Picture:
    """Return how far the weights moved in one step, in all windows."""
    names = sorted({name for window in training.windows for name in window.updates})
    series = {
        name: np.array([window.updates.get(name, np.nan) for window in training.windows])
        for name in names
    }
    title = "Change of the weights in one step, over their norm"
    places = _places(training)
    return Picture("lines", title, "step", "share", series, places, log_y=True)
