"""Pairs of coded texts as batches of like length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hiddenstate.models.translator import PairBatch
from hiddenstate.train import Feed

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class PairFeed(Feed):
    """Sources and targets [C], each with at least one code."""

    sources: Sequence[Codes]
    targets: Sequence[Codes]

    @cached_property
    def _sizes(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        of_sources, of_targets = (
            np.array([len(each) for each in side], dtype=np.int64)
            for side in (self.sources, self.targets)
        )
        return of_sources, of_targets

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Codes of source and target together [C], which decide what comes into one batch."""
        of_sources, of_targets = self._sizes
        return of_sources + of_targets

    @property
    def events(self) -> int:
        """Symbols to predict: those of the targets, and an end for each."""
        return int(self._sizes[1].sum()) + len(self.targets)

    def batch(self, item: NDArray[np.int64], state: Any | None = None) -> PairBatch:
        """Pad the given pairs; none goes on from another."""
        del state
        return PairBatch(*_padded(self.sources, item), *_padded(self.targets, item))


def _padded(texts: Sequence[Codes], rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = np.array([len(texts[row]) for row in rows], dtype=np.int64)
    # One step at least: of several processes one may have no pair of a batch.
    codes = np.zeros((len(rows), int(lengths.max(initial=1))), dtype=np.int64)
    for place, row in zip(codes, rows):
        place[: len(texts[row])] = texts[row]
    return torch.from_numpy(codes), torch.from_numpy(lengths)
