"""Any sequences in memory, with what is to be predicted: flat rows, and offsets that cut them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError

Array: TypeAlias = NDArray[Any]
Longs: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Samples:
    """C sequences of N steps together, already encoded.

    codes:    categorical inputs int32 [N, K]
    numbers:  numeric inputs float32 [N, F]
    offsets:  steps of sequence c are rows offsets[c] to offsets[c + 1], int64 [C + 1]
    targets:  for each head the truth and where it is known: values [N, ...] and mask [N, ...] of
              every step, or values [C, ...] and mask [C, ...] of a whole sequence. What stands
              where the mask is false means nothing
    of_whole: for each head, whether its truth is one for the whole sequence; () says no for all

    Raises DataError where the sizes disagree.
    """

    codes: NDArray[np.int32]
    numbers: NDArray[np.float32]
    offsets: Longs
    targets: tuple[tuple[Array, Bools], ...]
    of_whole: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        """Check that the arrays fit together."""
        object.__setattr__(self, "of_whole", self.of_whole or (False,) * len(self.targets))
        sizes = {"codes": (len(self.codes), self.steps), "numbers": (len(self.numbers), self.steps)}
        for head, (truth, whole) in enumerate(zip(self.targets, self.of_whole, strict=True)):
            for name, array in zip(("values", "mask"), truth, strict=True):
                sizes[f"{name} of head {head}"] = (len(array), self.cases if whole else self.steps)
        wrong = [f"{name} [{has}, not {due}]" for name, (has, due) in sizes.items() if has != due]
        if wrong or np.any(self.lengths < 0):
            raise DataError(
                f"The samples disagree in size: {', '.join(wrong) or 'offsets decrease'}.",
                f"There are {self.cases} sequences with {self.steps} steps by their offsets.",
                "Give every array a row for each step, or for each sequence.",
            )

    @property
    def cases(self) -> int:
        """Number of sequences C."""
        return len(self.offsets) - 1

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Longs:
        """Steps of each sequence [C]."""
        return np.diff(self.offsets)

    def select(self, cases: Sequence[int] | Array) -> Samples:
        """Return the given sequences in the given order."""
        chosen = np.asarray(cases, dtype=np.int64)
        begins = self.offsets[:-1][chosen]
        lengths = self.offsets[1:][chosen] - begins
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        rows = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], lengths)
        return replace(
            self,
            codes=self.codes[rows],
            numbers=self.numbers[rows],
            offsets=offsets,
            targets=tuple(
                (values[chosen], mask[chosen]) if whole else (values[rows], mask[rows])
                for (values, mask), whole in zip(self.targets, self.of_whole, strict=True)
            ),
        )
