"""Sequential digits: a picture read pixel by pixel."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError
from hiddenstate.tasks.problems.cases import Cases, Ints, Part, Wanted
from hiddenstate.tasks.problems.problem import (
    Floats,
    Problem,
    Published,
    Span,
    always,
)

FILE = Path("mnist10k") / "mnist_train10k_test10k.npz"
SIDE = 28
SQUARES = (1, 2, 4, 7)
HELD_BACK = 1000
NOTHING = Span(0, 0)


@dataclass(frozen=True)
class SequentialDigits(Problem):
    """Which digit it was, after its pixels row by row (or in one random order for all).

    After the pixels come `length` zeros. `coarse` joins squares of so many pixels a side, 1, 2, 4
    or 7 of 28: 784, 196, 49 or 16 steps. The digits are those of the folder
    mnist10k under HIDDENSTATE_DATA, 10,000 to train (the last 1,000 of them to validate) and
    10,000 to test. Source: Le, Jaitly, Hinton 2015 (arXiv:1504.00941).

    Floor: always the most frequent digit of the test part, by its count. The published figures are
    of all 60,000 training digits.
    """

    name: ClassVar[str] = "sequential_digits"
    ceiling: ClassVar[float | None] = None
    length_means: ClassVar[str] = "empty steps after the pixels"
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({"coarse": SQUARES})
    published: ClassVar[tuple[Published, ...]] = tuple(
        Published(
            cell,
            score,
            f"{order}784 steps, 60,000 training digits, about 70,000 parameters",
            "Bai, Kolter, Koltun 2018, arXiv:1803.01271, table 1",
        )
        for order, figures in (("", (0.872, 0.962, 0.215)), ("permuted, ", (0.857, 0.873, 0.253)))
        for cell, score in zip(("lstm", "gru", "elman"), figures)
    )

    length: Span = NOTHING
    permuted: bool = False
    coarse: int = 1

    @property
    def shortest(self) -> int:
        """The pixels alone."""
        return 0

    @property
    def pixels(self) -> int:
        """How many pixels a digit has."""
        return (SIDE // self.coarse) ** 2

    def steps(self, lengths: Ints) -> Ints:
        """Return the pixels and what follows them."""
        return self.pixels + lengths

    @property
    def number_names(self) -> tuple[str, ...]:
        """The pixel."""
        return ("pixel",)

    @property
    def classes(self) -> tuple[str, ...]:
        """The digits."""
        return tuple("0123456789")

    def draw(self, wanted: Wanted) -> Cases:
        """Draw digits of a part, each once while there are enough."""
        pixels, labels = _digits(wanted.part)
        cases = wanted.cases
        chosen = wanted.rng.choice(len(labels), cases, replace=cases > len(labels))
        side = SIDE // self.coarse
        squares = pixels[chosen].reshape(cases, side, self.coarse, side, self.coarse)
        read = squares.mean(axis=(2, 4), dtype=np.float32).reshape(cases, self.pixels) / 255
        if self.permuted:
            read = read[:, np.random.default_rng(0).permutation(self.pixels)]
        numbers = np.zeros((wanted.rows, 1), dtype=np.float32)
        numbers[wanted.first + np.arange(self.pixels), 0] = read
        return wanted.whole(None, numbers, labels[chosen])

    def guess(self, cases: Cases) -> Floats:
        """Predict the most frequent digit always."""
        return always(cases, 10, int(_counts().argmax()))

    @property
    def chance(self) -> float:
        """Return the share of the most frequent digit in the test part."""
        return float(_counts().max() / _counts().sum())


def _counts() -> NDArray[np.int64]:
    return np.bincount(_digits("test")[1], minlength=10)


@lru_cache(maxsize=3)
def _digits(part: Part) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return pixels [C, 28, 28] and digits [C] of a part; DataError where the file is not there."""
    folder = os.environ.get("HIDDENSTATE_DATA")
    path = Path(folder or ".") / FILE
    if not folder or not path.is_file():
        raise DataError(
            f"The digits are not there ({path if folder else 'HIDDENSTATE_DATA is not set'}).",
            f"The problem sequential_digits reads {FILE} in the folder named by HIDDENSTATE_DATA.",
            "Set HIDDENSTATE_DATA to the folder that holds mnist10k.",
        )
    with np.load(path) as arrays:
        kept = "test" if part == "test" else "train"
        pixels, labels = arrays[f"x_{kept}"], arrays[f"y_{kept}"].astype(np.int32)
    if part == "train":
        pixels, labels = pixels[:-HELD_BACK], labels[:-HELD_BACK]
    if part == "validation":
        pixels, labels = pixels[-HELD_BACK:], labels[-HELD_BACK:]
    return pixels.reshape(-1, SIDE, SIDE), labels
