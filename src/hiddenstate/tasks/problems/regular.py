"""Regular languages: a few states are enough at any length, if every step is right.

Definitions of Delétang et al. 2023 (arXiv:2207.02098): learnt at lengths 1 to 40, asked far
beyond. The answer is asked for at the end of the sequence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from hiddenstate.tasks.problems.cases import Cases, Ints, Wanted
from hiddenstate.tasks.problems.problem import (
    Floats,
    Problem,
    always,
)

OPERATORS = ("+", "-", "*")


class _Language(Problem):
    """One code a step and one answer at the end; the floor names one class always."""

    def guess(self, cases: Cases) -> Floats:
        """Predict class 0 always."""
        return always(cases, len(self.classes), 0)


@dataclass(frozen=True)
class Parity(_Language):
    """Whether the number of ones among fair coin tosses is odd.

    Floor: always even, 1/2, since the last toss alone decides it evenly.
    """

    name: ClassVar[str] = "parity"

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Zero and one."""
        return (2,)

    @property
    def classes(self) -> tuple[str, ...]:
        """Even, odd."""
        return ("even", "odd")

    def draw(self, wanted: Wanted) -> Cases:
        """Toss coins."""
        codes = wanted.rng.integers(0, 2, wanted.rows)
        return wanted.whole(codes, None, np.add.reduceat(codes, wanted.offsets[:-1]) % 2)

    @property
    def chance(self) -> float:
        """1/2."""
        return 0.5


@dataclass(frozen=True)
class EvenPairs(_Language):
    """Whether the pairs 01 and 10 among neighbours are even in number.

    That is whether the first symbol equals the last, since every such pair is a change.
    Floor: always even, 1/2, and 1 at length 1, which has no pair.
    """

    name: ClassVar[str] = "even_pairs"

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """The two symbols."""
        return (2,)

    @property
    def classes(self) -> tuple[str, ...]:
        """Even, odd."""
        return ("even", "odd")

    def draw(self, wanted: Wanted) -> Cases:
        """Toss coins."""
        codes = wanted.rng.integers(0, 2, wanted.rows)
        return wanted.whole(
            codes, None, codes[wanted.offsets[:-1]] != codes[wanted.offsets[1:] - 1]
        )

    def floor(self, length: int) -> float:
        """Return 1/2, and 1 at length 1."""
        return 1.0 if length == 1 else 0.5


@dataclass(frozen=True)
class CycleNavigation(_Language):
    """The place on a circle of `places` after steps of 0, +1 or -1, each with probability 1/3.

    Floor: always the start, where the walk is most often: by the circle's Fourier transform
    (1/n) sum_j ((1 + 2 cos(2 pi j / n)) / 3)^T for n places and T steps.
    """

    name: ClassVar[str] = "cycle_navigation"
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({"places": (3, 1000)})

    places: int = 5

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Stay, forward, back."""
        return (3,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The places."""
        return tuple(map(str, range(self.places)))

    def draw(self, wanted: Wanted) -> Cases:
        """Draw the steps."""
        codes = wanted.rng.integers(0, 3, wanted.rows)
        moves = np.array([0, 1, -1])[codes]
        return wanted.whole(codes, None, np.add.reduceat(moves, wanted.offsets[:-1]) % self.places)

    def floor(self, length: int) -> float:
        """Return the probability of being at the start."""
        turns = (2 * pi * j / self.places for j in range(self.places))
        return sum(((1 + 2 * cos(turn)) / 3) ** length for turn in turns) / self.places


@dataclass(frozen=True)
class ModularArithmetic(_Language):
    """The value modulo m of an expression without brackets, products before sums: 1 + 2 * 3.

    Digits 0 to m - 1 and the operators + - * stand in turn, all drawn alike; an even length gives
    an expression one step shorter.

    Floor: always 0, the most frequent value (a zero makes a whole product zero). Its probability
    is that of the walk of (sum of closed terms, open product) over the T // 2 operators, exactly.
    """

    name: ClassVar[str] = "modular_arithmetic"
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({"modulus": (2, 100)})

    modulus: int = 5

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """The digits, then + - *."""
        return (self.modulus + len(OPERATORS),)

    @property
    def classes(self) -> tuple[str, ...]:
        """The residues."""
        return tuple(map(str, range(self.modulus)))

    def steps(self, lengths: Ints) -> Ints:
        """Return the odd number at or below the length."""
        return lengths - 1 + lengths % 2

    def draw(self, wanted: Wanted) -> Cases:
        """Draw digits and operators, and work the expressions out step by step."""
        rng, cases, steps = wanted.rng, wanted.cases, wanted.steps
        longest = int(steps.max(initial=1))
        digits = rng.integers(0, self.modulus, (cases, longest // 2 + 1))
        operators = rng.integers(0, len(OPERATORS), (cases, longest // 2))
        written = np.empty((cases, longest), dtype=np.int32)
        written[:, ::2], written[:, 1::2] = digits, self.modulus + operators
        total, term = np.zeros(cases, dtype=np.int64), digits[:, 0]
        answer = term.copy()
        for step in range(operators.shape[1]):
            operator, digit = operators[:, step], digits[:, step + 1]
            closes = operator != OPERATORS.index("*")
            total = np.where(closes, total + term, total) % self.modulus
            signed = np.where(operator == OPERATORS.index("-"), -digit, digit)
            term = np.where(closes, signed, term * digit) % self.modulus
            ends = steps == 2 * step + 3
            answer[ends] = (total + term)[ends] % self.modulus
        codes = written[np.arange(longest) < steps[:, None]]
        return wanted.whole(codes, None, answer)

    def floor(self, length: int) -> float:
        """Return the probability of 0."""
        return _zero(self.modulus, (length - 1) // 2)


@lru_cache(maxsize=4096)
def _zero(modulus: int, operators: int) -> float:
    """Return the probability that a random expression is 0 modulo m."""
    # at[total, term]: probability of the sum of closed terms and of the open product
    at = np.zeros((modulus, modulus))
    at[0] = 1 / modulus
    residues = np.arange(modulus)
    sums = (residues[:, None] + residues) % modulus
    times_digit = np.zeros((modulus, modulus))
    for digit in range(modulus):
        times_digit[residues, residues * digit % modulus] += 1 / modulus
    for _ in range(operators):
        closed = np.bincount(sums.ravel(), at.ravel(), modulus)
        at = (2 * closed[:, None] / modulus + at @ times_digit) / 3
    return float(np.bincount(sums.ravel(), at.ravel(), modulus)[0])
