"""Nested brackets: what may come next, and whether all of it closes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.problems.cases import Cases, Ints, Wanted
from hiddenstate.tasks.problems.problem import (
    Floats,
    Problem,
    Span,
    always,
)

LENGTHS = Span(2, 40)


@dataclass(frozen=True)
class Dyck(Problem):
    """Brackets of `kinds` kinds, never nested deeper than `depth` (Hewitt et al. 2020).

    ask=next: after every symbol, the set of symbols that may follow: any opening bracket below
    the deepest level, the closing bracket of the innermost open one, the end where none is open.
    The set is one class, named by its members, so that a right answer is a whole set.
    Cases are prefixes: an opening and a closing bracket are alike likely where both may come, and
    kinds of opening brackets too.

    ask=whole: whether the case is well-formed. Half of the cases are; in the others one symbol is
    exchanged for another, which always breaks a word. An odd length gives one step less.

    Codes: opening brackets 0 to kinds - 1, then closing ones in the same order.

    Floor, ask=next: the present symbol and the number of steps, no memory. After an opening
    bracket its kind is known, and the more frequent of "may nest" and "deepest" is taken; after a
    closing one either "none open" or one of the kinds, each of them 1/kinds. The frequencies are
    those of the walk of the depth, exactly. Floor, ask=whole: always yes, 1/2.
    """

    name: ClassVar[str] = "dyck"
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({"ask": ("next", "whole")})
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType(
        {"kinds": (1, 100), "depth": (1, 10_000)}
    )

    length: Span = LENGTHS
    kinds: int = 2
    depth: int = 4
    ask: str = "next"

    @property
    def per_step(self) -> bool:
        """Asked at every step for the next symbol, at the end for the whole."""
        return self.ask == "next"

    @property
    def shortest(self) -> int:
        """One pair."""
        return 2

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Opening and closing brackets."""
        return (2 * self.kinds,)

    @property
    def classes(self) -> tuple[str, ...]:
        """Whether well-formed; or none open, k innermost, k innermost and deepest."""
        if self.ask == "whole":
            return ("no", "yes")
        kinds = range(self.kinds)
        return (
            "open or end",
            *(f"open or close {kind}" for kind in kinds),
            *(f"close {kind}" for kind in kinds),
        )

    def steps(self, lengths: Ints) -> Ints:
        """Return the length; for ask=whole the even number at or below it."""
        return lengths if self.ask == "next" else lengths - lengths % 2

    def draw(self, wanted: Wanted) -> Cases:
        """Walk up and down, all cases side by side."""
        rng, steps, cases = wanted.rng, wanted.steps, wanted.cases
        longest = int(steps.max(initial=2))
        each = np.arange(cases)
        stack = np.zeros((cases, self.depth + 1), dtype=np.int64)
        level = np.zeros(cases, dtype=np.int64)
        codes = np.zeros((cases, longest), dtype=np.int32)
        follows = np.zeros((cases, longest), dtype=np.int32)
        for step in range(longest):
            opens = (level == 0) | ((level < self.depth) & (rng.random(cases) < 0.5))
            if self.ask == "whole":
                opens &= level < steps - step
            kind = np.where(opens, rng.integers(0, self.kinds, cases), stack[each, level])
            codes[:, step] = np.where(opens, kind, self.kinds + kind)
            level = np.maximum(level + np.where(opens, 1, -1), 0)
            stack[each[opens], level[opens]] = kind[opens]
            innermost = 1 + stack[each, level] + self.kinds * (level == self.depth)
            follows[:, step] = np.where(level == 0, 0, innermost)
        inside = np.arange(longest) < steps[:, None]
        if self.ask == "next":
            return wanted.whole(codes[inside], None, follows[inside])
        formed = rng.integers(0, 2, cases)
        place = rng.integers(0, steps)
        shift = np.where(formed, 0, rng.integers(1, 2 * self.kinds, cases))
        codes[each, place] = (codes[each, place] + shift) % (2 * self.kinds)
        return wanted.whole(codes[inside], None, formed)

    def guess(self, cases: Cases) -> Floats:
        """Predict from the present symbol and the number of steps."""
        if self.ask == "whole":
            return always(cases, 2, 1)
        symbol, step = cases.codes[:, 0], cases.step
        opened, closed = self._shares(int(cases.lengths.max(initial=2)))
        deepest = opened[:, self.depth] > opened.sum(axis=1) / 2
        after_open = 1 + symbol + self.kinds * deepest[step]
        none_open = closed[:, 0] >= (closed.sum(axis=1) - closed[:, 0]) / self.kinds
        chosen = np.where(symbol < self.kinds, after_open, np.where(none_open[step], 0, 1))
        sure = np.zeros((len(symbol), len(self.classes)))
        sure[np.arange(len(symbol)), chosen] = 1.0
        return sure

    def floor(self, length: int) -> float:
        """Return the share of steps at which the guesser is right."""
        if self.ask == "whole":
            return 0.5
        opened, closed = self._shares(length)
        deepest = opened[:, self.depth]
        nests = opened.sum(axis=1) - deepest
        none = closed[:, 0]
        of_a_kind = (closed.sum(axis=1) - none) / self.kinds
        return float((np.maximum(deepest, nests) + np.maximum(none, of_a_kind)).mean())

    def _shares(self, steps: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the probability of each depth after each step, [T, depth + 1].

        The first are those with an opening bracket at the step, the second with a closing one.
        """
        opened, closed = np.zeros((2, steps, self.depth + 1))
        at = np.eye(1, self.depth + 1)[0]
        up = np.array([1.0, *[0.5] * (self.depth - 1), 0.0])
        for step in range(steps):
            opened[step, 1:] = (at * up)[:-1]
            closed[step, :-1] = (at * (1 - up))[1:]
            at = opened[step] + closed[step]
        return opened, closed
