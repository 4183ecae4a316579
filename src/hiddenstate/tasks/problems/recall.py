"""Associative recall: which value came with this key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from hiddenstate.tasks.problems.cases import Cases, Ints, Wanted
from hiddenstate.tasks.problems.problem import (
    Floats,
    Problem,
    Span,
    always,
)

POWER, LENGTH = 0.01, Span(64, 64)


@dataclass(frozen=True)
class Mqar(Problem):
    """Multi-query associative recall (Arora et al. 2023, arXiv:2312.04927, Zoology).

    A case begins with P pairs of a key (1 to V/2 - 1) and a value (V/2 to V - 1), all different.
    Each key comes once more, at a place whose distance from the pairs follows a power law with
    exponent .01 - 1; there its value is the answer. All other steps hold symbols at random. An odd
    length gives one step less. The source has V = 8192 and (T, P) = (64, 4), (128, 8), (256, 16),
    (512, 64).

    Floor: one value always, 1 / (V/2). Who remembers the P values but not their keys reaches 1/P.
    """

    name: ClassVar[str] = "mqar"
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType(
        {"pairs": (1, 1000), "vocabulary": (4, 1_000_000)}
    )

    length: Span = LENGTH
    pairs: int = 4
    vocabulary: int = 64

    def __post_init__(self) -> None:
        """Refuse a vocabulary too small for the pairs as well."""
        super().__post_init__()
        self.require("vocabulary", 2 * self.pairs + 2, 1_000_000)

    @property
    def per_step(self) -> bool:
        """Asked where a key comes again."""
        return True

    @property
    def shortest(self) -> int:
        """Four steps for a pair: the pair, and two among which its question can lie."""
        return 4 * self.pairs

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """The vocabulary."""
        return (self.vocabulary,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The values."""
        return tuple(map(str, range(self.vocabulary // 2, self.vocabulary)))

    def steps(self, lengths: Ints) -> Ints:
        """Return the even number at or below the length."""
        return lengths - lengths % 2

    def answers(self, length: int) -> int:  # noqa: ARG002
        """Return P."""
        return self.pairs

    def draw(self, wanted: Wanted) -> Cases:
        """Draw pairs and places; what is drawn without putting back comes by the largest keys.

        Sorting log p + Gumbel noise draws without replacement with probabilities p.
        """
        rng, cases, half = wanted.rng, wanted.cases, self.vocabulary // 2
        codes = rng.integers(0, self.vocabulary, wanted.rows)
        keys = 1 + _distinct(rng, cases, half - 1, self.pairs)
        chosen = _distinct(rng, cases, self.vocabulary - half, self.pairs)
        pair = wanted.first + 2 * np.arange(self.pairs)
        codes[pair], codes[pair + 1] = keys, half + chosen
        space = wanted.steps // 2 - self.pairs
        gaps = np.arange(1, int(space.max(initial=1)) + 1)
        weight = (POWER - 1) * np.log(gaps) + rng.gumbel(size=(cases, len(gaps)))
        weight[gaps > space[:, None]] = -np.inf
        place = np.argsort(-weight, axis=1)[:, : self.pairs]
        rows = wanted.first + 2 * self.pairs + 2 * place
        values, asked = np.zeros(wanted.rows, dtype=np.int32), np.zeros(wanted.rows, dtype=np.bool_)
        codes[rows], values[rows], asked[rows] = keys, chosen, True
        return wanted.some(codes, None, values, asked)

    def guess(self, cases: Cases) -> Floats:
        """Predict the first value always."""
        return always(cases, len(self.classes), 0)

    @property
    def chance(self) -> float:
        """One over the number of values."""
        return 1 / (self.vocabulary - self.vocabulary // 2)


def _distinct(rng: np.random.Generator, cases: int, among: int, count: int) -> Ints:
    """Draw `count` different numbers below `among` for each case, in random order."""
    if among > 16 * count:  # few collide: draw again where they do
        drawn = rng.integers(0, among, (cases, count))
        while True:
            ordered = np.sort(drawn, axis=1)
            again = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
            if not len(again):
                return drawn
            drawn[again] = rng.integers(0, among, (len(again), count))
    return np.argsort(rng.random((cases, among)), axis=1)[:, :count]
