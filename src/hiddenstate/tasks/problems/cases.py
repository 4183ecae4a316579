"""The cases of a problem: what is to be drawn, and what was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Part: TypeAlias = Literal["train", "validation", "test"]
Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Cases:
    """C cases laid end to end, N steps in all.

    codes:   int32 [N, K], each below its entry of the problem's `code_sizes`
    numbers: float32 [N, F]
    offsets: int64 [C + 1], where each case begins
    values:  what is asked: class indices int32 or numbers float32, [N] for a problem `per_step`,
             otherwise [C], one for the whole case
    mask:    bool like values, False where nothing is asked
    """

    codes: NDArray[np.int32]
    numbers: NDArray[np.float32]
    offsets: Ints
    values: NDArray[Any]
    mask: NDArray[np.bool_]

    @property
    def lengths(self) -> Ints:
        """Steps of each case [C]."""
        return np.diff(self.offsets)

    @property
    def step(self) -> Ints:
        """Place of each step within its case [N], from 0."""
        return np.arange(self.offsets[-1]) - np.repeat(self.offsets[:-1], self.lengths)

    @property
    def case(self) -> Ints:
        """Case of each value: of each step [N], or [C]."""
        cases = np.arange(len(self.lengths))
        return np.repeat(cases, self.lengths) if len(self.values) == self.offsets[-1] else cases


@dataclass(frozen=True, eq=False)
class Wanted:
    """What `Problem.draw` is to fill: C cases, N steps in all.

    lengths: on the problem's length axis [C]
    offsets: where the steps of each case begin [C + 1]
    part:    train, validation or test; problems made from a file give each its own cases
    """

    rng: np.random.Generator
    lengths: Ints
    offsets: Ints
    part: Part

    @property
    def cases(self) -> int:
        """C."""
        return len(self.lengths)

    @property
    def rows(self) -> int:
        """N."""
        return int(self.offsets[-1])

    @property
    def steps(self) -> Ints:
        """Steps of each case [C]."""
        return np.diff(self.offsets)

    @property
    def first(self) -> Ints:
        """Row of each case's first step [C, 1], to add places to."""
        return self.offsets[:-1, None]

    @property
    def place(self) -> Ints:
        """Place of each step in its case [N], from 0."""
        return np.arange(self.rows) - np.repeat(self.offsets[:-1], self.steps)

    def whole(self, codes: NDArray[Any] | None, numbers: NDArray[Any] | None, values: Any) -> Cases:
        """Return cases with codes [N], numbers [N, F] and everything in values asked for."""
        return self.some(codes, numbers, values, np.ones(len(values), dtype=np.bool_))

    def some(
        self,
        codes: NDArray[Any] | None,
        numbers: NDArray[Any] | None,
        values: NDArray[Any],
        mask: NDArray[np.bool_],
    ) -> Cases:
        """Return cases with codes [N], numbers [N, F] and values asked for where the mask says."""
        kept = values.astype(np.float32 if values.dtype.kind == "f" else np.int32)
        if numbers is None:
            numbers = np.zeros((self.rows, 0), dtype=np.float32)
        symbols = np.zeros((self.rows, 0)) if codes is None else codes[:, None]
        return Cases(symbols.astype(np.int32), numbers, self.offsets, kept, mask)
