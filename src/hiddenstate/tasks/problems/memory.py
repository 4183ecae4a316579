"""Problems that ask only for holding on: adding, copy, delayed recall."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from hiddenstate.tasks.problems.cases import Cases, Ints, Wanted
from hiddenstate.tasks.problems.problem import (
    Floats,
    Problem,
    ProblemMetric,
    Published,
    Span,
    always,
)
from hiddenstate.tasks.task import Kind

ADDING_LENGTH, COPY_LENGTH, RECALL_LAG = Span(600, 600), Span(500, 500), Span(100, 100)
_BAI = "Bai, Kolter, Koltun 2018, arXiv:1803.01271, table 1"


@dataclass(frozen=True)
class Adding(Problem):
    """The sum of the two marked ones among T numbers from U(0, 1).

    A step has a number and a mark, 1 at two distinct steps and 0 elsewhere; `marks_in=halves` puts
    one mark into each half. Source: Hochreiter, Schmidhuber 1997, section 5.4; as in Bai et al.

    Floor: always 1, the mean of the sum. Its mean squared error is the variance of the sum of two
    independent uniform numbers, 2/12. (The literature prints .1767, a figure of one sample.)
    """

    name: ClassVar[str] = "adding"
    kind: ClassVar[Kind] = "number"
    metric: ClassVar[ProblemMetric] = "squared_error"
    ceiling: ClassVar[float | None] = 0.0
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType(
        {"marks_in": ("anywhere", "halves")}
    )
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(cell, score, "T = 600, about 70,000 parameters", _BAI)
        for cell, score in (("lstm", 0.164), ("gru", 5.3e-5), ("elman", 0.177))
    )

    length: Span = ADDING_LENGTH
    marks_in: str = "anywhere"

    @property
    def shortest(self) -> int:
        """Two, for two marks."""
        return 2

    @property
    def number_names(self) -> tuple[str, ...]:
        """The number and its mark."""
        return ("number", "mark")

    @property
    def classes(self) -> tuple[str, ...]:
        """None: a number is asked for."""
        return ()

    def draw(self, wanted: Wanted) -> Cases:
        """Draw numbers and marks."""
        rng, lengths = wanted.rng, wanted.lengths
        if self.marks_in == "halves":
            first = rng.integers(0, lengths // 2)
            second = rng.integers(lengths // 2, lengths)
        else:
            first = rng.integers(0, lengths)
            second = rng.integers(0, lengths - 1)
            second += second >= first
        numbers = np.zeros((wanted.rows, 2), dtype=np.float32)
        numbers[:, 0] = rng.random(wanted.rows, dtype=np.float32)
        rows = wanted.first + np.stack([first, second], axis=1)
        numbers[rows, 1] = 1.0
        return wanted.whole(None, numbers, numbers[rows, 0].sum(axis=1))

    def guess(self, cases: Cases) -> Floats:
        """Predict 1 always."""
        return np.ones(len(cases.values))

    @property
    def chance(self) -> float:
        """1/6."""
        return 1 / 6


@dataclass(frozen=True)
class Copy(Problem):
    """Symbols to be repeated after a delay of T steps.

    S symbols from 1..A; T - 1 blanks (0); S + 1 markers (A + 1). The answer is blank, and the
    symbols in the last S steps; it is asked for at all T + 2 S steps, in A + 2 classes.
    Source: Hochreiter, Schmidhuber 1997; Arjovsky et al. 2016; sizes of Bai et al. 2018.

    Floor: sure of a blank until the last S steps, and there 1/A for each symbol, without memory:
    S ln A / (T + 2 S) nats.
    """

    name: ClassVar[str] = "copy"
    metric: ClassVar[ProblemMetric] = "log_loss"
    ceiling: ClassVar[float | None] = 0.0
    length_means: ClassVar[str] = "delay in steps"
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType(
        {"symbols": (1, 1000), "alphabet": (2, 1000)}
    )
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(cell, score, "T = 1000, about 16,000 parameters", _BAI)
        for cell, score in (("lstm", 0.0204), ("gru", 0.0197), ("elman", 0.0202))
    )

    length: Span = COPY_LENGTH
    symbols: int = 10
    alphabet: int = 8

    @property
    def per_step(self) -> bool:
        """Asked at every step."""
        return True

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """The blank, the alphabet and the marker."""
        return (self.alphabet + 2,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The same symbols."""
        return tuple(map(str, range(self.alphabet + 2)))

    def steps(self, lengths: Ints) -> Ints:
        """Return T + 2 S."""
        return lengths + 2 * self.symbols

    def draw(self, wanted: Wanted) -> Cases:
        """Draw the symbols."""
        drawn = wanted.rng.integers(1, self.alphabet + 1, (wanted.cases, self.symbols))
        codes, values = np.zeros((2, wanted.rows), dtype=np.int32)
        place, end = np.arange(self.symbols), wanted.offsets[1:, None]
        codes[wanted.first + place] = drawn
        values[end - self.symbols + place] = drawn
        codes[end - np.arange(1, self.symbols + 2)] = self.alphabet + 1
        return wanted.whole(codes, None, values)

    def guess(self, cases: Cases) -> Floats:
        """Predict a blank, and any symbol alike in the last S steps."""
        sure = always(cases, self.alphabet + 2, 0)
        left = np.repeat(cases.offsets[1:], cases.lengths) - np.arange(len(sure))
        sure[left <= self.symbols] = [0.0, *[1 / self.alphabet] * self.alphabet, 0.0]
        return sure

    def floor(self, length: int) -> float:
        """Return S ln A / (T + 2 S)."""
        return self.symbols * log(self.alphabet) / (length + 2 * self.symbols)


@dataclass(frozen=True)
class DelayedRecall(Problem):
    """The first symbol, asked for after a lag full of other symbols.

    The first step shows one of A cues, the steps between show one of A distractors each, and the
    last, `length` steps after the first, asks. Source: Bengio, Simard, Frasconi 1994 (latching).

    Floor: any cue, 1/A.
    """

    name: ClassVar[str] = "delayed_recall"
    length_means: ClassVar[str] = "lag in steps"
    limits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({"alphabet": (2, 1000)})

    length: Span = RECALL_LAG
    alphabet: int = 4

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Cues, distractors, the question."""
        return (2 * self.alphabet + 1,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The cues."""
        return tuple(map(str, range(self.alphabet)))

    def steps(self, lengths: Ints) -> Ints:
        """Return the lag and the step that asks."""
        return lengths + 1

    def draw(self, wanted: Wanted) -> Cases:
        """Draw cues and distractors."""
        codes = wanted.rng.integers(self.alphabet, 2 * self.alphabet, wanted.rows)
        cues = wanted.rng.integers(0, self.alphabet, wanted.cases)
        codes[wanted.offsets[:-1]] = cues
        codes[wanted.offsets[1:] - 1] = 2 * self.alphabet
        return wanted.whole(codes, None, cues)

    def guess(self, cases: Cases) -> Floats:
        """Predict the first cue always."""
        return always(cases, self.alphabet, 0)

    @property
    def chance(self) -> float:
        """1/A."""
        return 1 / self.alphabet
