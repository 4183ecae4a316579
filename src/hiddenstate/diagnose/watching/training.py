"""What was seen of a training: windows of steps, and what became of the parameters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

UNKNOWN = math.nan
GOOD = 0.9
"""A share of a constant answer's loss under which something has been learnt."""


@dataclass(frozen=True)
class Window:
    """Steps of training in a row. A number that is not known is NaN.

    last:          number of its last step, from 1
    steps:         how many it holds
    loss:          mean training loss, `spread` the standard deviation over its steps
    norm:          median of the global gradient norm before clipping, `largest_norm` its largest
    clipped:       share of the steps whose gradient was clipped
    learning_rate: the highest of the parameter groups
    validation:    loss on the held-back part after the last step
    updates:       |change of w| / |w| of one step, by the weight's name
    signal, noise: |G|^2 and tr(S) of the gradient G of the whole data and of the covariance S of
                   one batch's gradient around it, as McCandlish et al. 2018 (arXiv:1812.06162,
                   appendix A.1) estimate them, here from one batch and the mean of several
    size:          |w| / |w at the first step|, median over the weights
    evaluating:    share of the steps that the module was in eval mode
    """

    last: int
    steps: int
    loss: float
    spread: float = UNKNOWN
    norm: float = UNKNOWN
    largest_norm: float = UNKNOWN
    clipped: float = UNKNOWN
    learning_rate: float = UNKNOWN
    validation: float = UNKNOWN
    updates: Mapping[str, float] = field(default_factory=dict)
    signal: float = UNKNOWN
    noise: float = UNKNOWN
    size: float = UNKNOWN
    evaluating: float = UNKNOWN

    @property
    def update(self) -> float:
        """The median over the weights of |change of w| / |w|."""
        return float(np.median(list(self.updates.values()))) if self.updates else UNKNOWN

    def followed_by(self, other: Window) -> Window:
        """Return this window and the next one as one."""
        steps = self.steps + other.steps
        loss = (self.loss * self.steps + other.loss * other.steps) / steps
        pairs = ((self, self.steps / steps), (other, other.steps / steps))
        spread = math.sqrt(sum(share * (w.spread**2 + (w.loss - loss) ** 2) for w, share in pairs))
        known = math.isfinite(other.validation)
        return Window(
            other.last,
            steps,
            loss,
            spread,
            _mean(self.norm, other.norm),
            float(np.fmax(self.largest_norm, other.largest_norm)),
            _mean(self.clipped, other.clipped),
            float(np.fmax(self.learning_rate, other.learning_rate)),
            other.validation if known else self.validation,
            other.updates or self.updates,
            _mean(self.signal, other.signal),
            _mean(self.noise, other.noise),
            other.size if math.isfinite(other.size) else self.size,
            _mean(self.evaluating, other.evaluating),
        )


def _mean(one: float, other: float) -> float:
    """Return the mean of those that are known."""
    known = [each for each in (one, other) if not math.isnan(each)]
    return sum(known) / len(known) if known else UNKNOWN


@dataclass(frozen=True)
class Unfinite:
    """The first step whose loss or gradient was no number.

    what:    "loss" or "gradient"
    names:   parameters whose gradients were not finite, where the loss still was
    typical: median of the gradient norm before, `largest` its largest
    """

    step: int
    what: Literal["loss", "gradient"]
    value: float
    names: tuple[str, ...] = ()
    typical: float = UNKNOWN
    largest: float = UNKNOWN


@dataclass(frozen=True)
class Rows:
    """The rows of an embedding that training has read so far, out of those that it can.

    earlier: how many had been read at half of the steps
    drawn:   whether they were drawn at random, not given
    """

    rows: int
    read: int
    earlier: int
    drawn: bool = True


@dataclass(frozen=True)
class Answered:
    """The loss on a few batches beside that of one constant answer, the best for them.

    looks, positions: how many were looked at in the later half
    loss, constant:   there; `first_loss` and `first_constant` on the very first batch
    weight:           by which the loss was multiplied before it was gone back from
    """

    looks: int
    positions: int
    loss: float
    constant: float
    first_loss: float
    first_constant: float
    weight: float


@dataclass(frozen=True)
class Added:
    """How gradients come together.

    steps:   looked at
    cleared: those before which the gradients had been cleared
    passes:  backward passes to a step
    thrown:  steps before which a pass came whose gradients were cleared away
    """

    steps: int
    cleared: int
    passes: float
    thrown: int


@dataclass(frozen=True)
class Training:
    """A training as far as it has come.

    first_loss:  loss of the first batch, before any step; NaN where not known
    clip_norm:   the norm to which gradients are clipped; None where they are not, NaN unknown
    unfinite:    the first step that gave no number
    motionless:  why a parameter has not moved, by its name; None where that was not looked at
    embeddings:  by the embedding's name; None where that was not looked at
    keeps_best:  whether the weights of the best validation are those that are kept
    finished:    whether it has come to its end
    answered:    what was said beside a constant; None where the loss does not tell
    added:       how gradients come together; None where that was not looked at
    noisy:       parts that act otherwise in training mode, such as dropout
    shared_by:   why the loss is not this module's alone; "" where it is
    drawn:       whether the weights looked as they were drawn at the first step
    frozen:      embeddings that were drawn at random and are not trained
    dropout:     the largest share of numbers that a part drops
    highest_rate: the highest learning rate of all steps
    decay:       share of a weight that decay takes off in one step, at its highest
    """

    windows: tuple[Window, ...]
    first_loss: float = UNKNOWN
    clip_norm: float | None = UNKNOWN
    unfinite: Unfinite | None = None
    motionless: Mapping[str, str] | None = None
    embeddings: Mapping[str, Rows] | None = None
    keeps_best: bool = False
    finished: bool = False
    answered: Answered | None = None
    added: Added | None = None
    noisy: tuple[str, ...] = ()
    shared_by: str = ""
    drawn: bool = True
    frozen: tuple[str, ...] = ()
    dropout: float = 0.0
    highest_rate: float = UNKNOWN
    decay: float = 0.0

    @property
    def steps(self) -> int:
        """Number of steps seen."""
        return sum(window.steps for window in self.windows)

    def each(self, name: str) -> NDArray[np.float64]:
        """Return one number of every window [W], NaN where it is not known."""
        return np.array([getattr(window, name) for window in self.windows], dtype=np.float64)

    @property
    def was_good(self) -> bool:
        """Whether the module was trained already when this began."""
        seen = self.answered
        if seen is None or not math.isfinite(seen.first_constant):
            return not self.drawn
        return seen.first_loss < GOOD * seen.first_constant

    @property
    def noise_scale(self) -> float:
        """The gradient noise scale of the later half, tr(S) / |G|^2, in batches.

        A gradient is mostly noise where it is far above 1: so many batches would have to be
        averaged until signal and noise are equal. Infinite where no signal is left, NaN unknown.
        """
        half = self.windows[len(self.windows) // 2 :]
        known = [(w.signal, w.noise) for w in half if math.isfinite(w.signal + w.noise)]
        if not known:
            return UNKNOWN
        # A ratio of means: of one window both are rough, and the signal may come out below 0.
        signal, noise = (sum(each) for each in zip(*known))
        return noise / signal if signal > 0 else math.inf


def of_history(epochs: Iterable[Mapping[str, Any]], clip_norm: float) -> Training:
    """Return a training from the reports of its epochs, as `hiddenstate fit` writes them.

    The last epochs, with the validation part as well, are left out: their loss is another one.
    """
    windows: list[Window] = []
    last = 0
    for epoch in epochs:
        if epoch["phase"] != "train":
            continue
        last += int(epoch["step"])
        judged = epoch["validation_loss"]
        windows.append(
            Window(
                last,
                int(epoch["step"]),
                epoch["train_loss"],
                norm=epoch["gradient_norm"],
                largest_norm=epoch["largest_gradient_norm"],
                clipped=epoch["clipped"],
                learning_rate=epoch["learning_rate"],
                validation=UNKNOWN if judged is None else judged,
            )
        )
    return Training(tuple(windows), clip_norm=clip_norm, keeps_best=True, finished=True)
