"""Bucket sort: counts of a few symbols, kept until they are asked for in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import exp, lgamma, log, log1p
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.problems.cases import Cases, Ints, Wanted
from hiddenstate.tasks.problems.problem import (
    Floats,
    Problem,
)


@dataclass(frozen=True)
class BucketSort(Problem):
    """T symbols from an alphabet of A; then T steps that ask for them in order.

    The steps that ask show the code A. Definition of Delétang et al. 2023 (arXiv:2207.02098).

    Floor: the most frequent value at each place of the answer, without memory. The j-th smallest
    of T draws is at most v with probability P(Bin(T, (v + 1) / A) >= j).
    """

    name: ClassVar[str] = "bucket_sort"
    length_means: ClassVar[str] = "symbols to sort"
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({"alphabet": (2, 100)})

    alphabet: int = 5

    @property
    def per_step(self) -> bool:
        """Asked at the last T steps."""
        return True

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """The alphabet and the question."""
        return (self.alphabet + 1,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The alphabet."""
        return tuple(map(str, range(self.alphabet)))

    def steps(self, lengths: Ints) -> Ints:
        """Return 2 T."""
        return 2 * lengths

    def answers(self, length: int) -> int:
        """Return T."""
        return length

    def draw(self, wanted: Wanted) -> Cases:
        """Draw symbols and sort them case by case, by one sort of (case, symbol)."""
        lengths = wanted.lengths
        symbols = wanted.rng.integers(0, self.alphabet, int(lengths.sum()))
        case = np.repeat(np.arange(wanted.cases), lengths)
        asked = wanted.place >= np.repeat(lengths, wanted.steps)
        codes = np.full(wanted.rows, self.alphabet)
        values = np.zeros(wanted.rows, dtype=np.int32)
        codes[~asked], values[asked] = symbols, symbols[np.lexsort((symbols, case))]
        return wanted.some(codes, None, values, asked)

    def guess(self, cases: Cases) -> Floats:
        """Predict the most frequent value of the place."""
        lengths = cases.lengths // 2
        best = {int(n): _places(int(n), self.alphabet).argmax(axis=1) for n in np.unique(lengths)}
        sure = np.zeros((len(cases.values), self.alphabet))
        rows = np.flatnonzero(cases.mask)
        chosen = [best[int(length)] for length in lengths]
        sure[rows, np.concatenate(chosen) if chosen else []] = 1.0
        return sure

    def floor(self, length: int) -> float:
        """Return the mean over the places of the highest probability."""
        return float(_places(length, self.alphabet).max(axis=1).mean())


@lru_cache(maxsize=4096)
def _places(draws: int, alphabet: int) -> NDArray[np.float64]:
    """Return the probability of each value at each place of the sorted draws [T, A]."""
    below = np.zeros((draws, alphabet + 1))
    for value in range(1, alphabet):
        share = value / alphabet
        # By logarithms: the number of choices alone is beyond a float from a thousand draws on.
        exactly = [
            exp(
                lgamma(draws + 1)
                - lgamma(count + 1)
                - lgamma(draws - count + 1)
                + count * log(share)
                + (draws - count) * log1p(-share)
            )
            for count in range(draws + 1)
        ]
        below[:, value] = 1 - np.cumsum(exactly)[:-1]
    below[:, alphabet] = 1.0
    return np.diff(below, axis=1)
