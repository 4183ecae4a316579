"""Mackey-Glass: a chaotic signal whose next value rests on one a delay ago."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.problems.cases import Cases, Wanted
from hiddenstate.tasks.problems.problem import (
    Floats,
    Problem,
    ProblemMetric,
    Span,
)
from hiddenstate.tasks.task import Kind

RISE, DECAY, POWER = 0.2, 0.1, 10
STEPS_PER_UNIT = 10
WASHED_OUT = 300
LEAST, MOST = 0.5, 1.3
FURTHEST = 500
LENGTH = Span(200, 200)


@dataclass(frozen=True)
class MackeyGlass(Problem):
    """The value `horizon` steps ahead of dx/dt = .2 x(t - d) / (1 + x(t - d)^10) - .1 x.

    d is the delay, 17 (mildly chaotic) unless given; one step is one unit of time. Solved by
    fourth-order Runge-Kutta at a tenth of a step; the delayed value between grid points is the
    cubic through four of them. Each case starts from its own constant past and is read after 300
    units and more. Values have mean 0 and variance 1 over time, so that the error is a share of
    the variance. Answers are asked for from the step on at which the delay has been seen. Source:
    Mackey, Glass 1977 (Science 197).

    Floor: the last value, or 0, whichever is better: min(1, 2 (1 - r)), r being the
    autocorrelation at the horizon (over 128 runs of 500 units).
    """

    name: ClassVar[str] = "mackey_glass"
    kind: ClassVar[Kind] = "number"
    metric: ClassVar[ProblemMetric] = "squared_error"
    ceiling: ClassVar[float | None] = 0.0
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType(
        {"delay": (1, 200), "horizon": (1, FURTHEST)}
    )

    length: Span = LENGTH
    delay: int = 17
    horizon: int = 20

    @property
    def per_step(self) -> bool:
        """Asked at every step once the delay has been seen."""
        return True

    @property
    def shortest(self) -> int:
        """The delay and a step."""
        return self.delay + 1

    @property
    def number_names(self) -> tuple[str, ...]:
        """The signal."""
        return ("x",)

    @property
    def classes(self) -> tuple[str, ...]:
        """None: a number is asked for."""
        return ()

    def answers(self, length: int) -> int:
        """Return the steps after the delay."""
        return length - self.delay

    def draw(self, wanted: Wanted) -> Cases:
        """Solve the equation for all cases side by side."""
        mean, deviation, _ = attractor(self.delay)
        late = WASHED_OUT + wanted.rng.integers(0, 100, wanted.cases)
        units = int((late + wanted.lengths).max(initial=0)) + self.horizon
        past = wanted.rng.uniform(LEAST, MOST, wanted.cases)
        solved = (solve(past, self.delay, units) - mean) / deviation
        place, case = wanted.place, np.repeat(np.arange(wanted.cases), wanted.lengths)
        now = late[case] + place
        numbers = solved[case, now].astype(np.float32)[:, None]
        return wanted.some(None, numbers, solved[case, now + self.horizon], place >= self.delay)

    def guess(self, cases: Cases) -> Floats:
        """Predict the last value, or 0 where that is better."""
        last = cases.numbers[:, 0].astype(np.float64)
        return last if self.chance < 1 else np.zeros_like(last)

    @property
    def chance(self) -> float:
        """Min(1, 2 (1 - r))."""
        _, _, correlation = attractor(self.delay)
        return min(1.0, 2 * (1 - correlation(self.horizon)))


def solve(past: NDArray[np.float64], delay: int, units: int) -> NDArray[np.float64]:
    """Return x at whole units of time [C, units] from constant pasts [C]."""
    h, lag = 1 / STEPS_PER_UNIT, delay * STEPS_PER_UNIT
    x = np.empty((lag + 1 + units * STEPS_PER_UNIT, len(past)))
    x[: lag + 1] = past

    def slope(now: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
        return RISE * before / (1 + before**POWER) - DECAY * now

    for step in range(lag, len(x) - 1):
        now, first = x[step], step - lag
        before, after = x[first], x[first + 1]
        outer = x[max(first - 1, 0)] + x[first + 2]
        middle = (9 * (before + after) - outer) / 16
        k1 = slope(now, before)
        k2 = slope(now + h / 2 * k1, middle)
        k3 = slope(now + h / 2 * k2, middle)
        k4 = slope(now + h * k3, after)
        x[step + 1] = now + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x[lag + STEPS_PER_UNIT :: STEPS_PER_UNIT].T


@lru_cache(maxsize=16)
def attractor(delay: int) -> tuple[float, float, Callable[[int], float]]:
    """Return mean, standard deviation and the autocorrelation at a lag, over long runs."""
    units = 500
    past = np.random.default_rng(0).uniform(LEAST, MOST, 128)
    runs = solve(past, delay, WASHED_OUT + units + FURTHEST)
    settled = runs[:, WASHED_OUT:]
    mean, deviation = float(settled.mean()), float(settled.std())
    scaled = (settled - mean) / deviation

    def correlation(lag: int) -> float:
        return 1 - float(((scaled[:, :units] - scaled[:, lag : units + lag]) ** 2).mean()) / 2

    return mean, deviation, correlation
