"""A history again and again, each time without one of its events or with another in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hiddenstate.diagnose.subject.subject import Subject

Places = NDArray[np.int64]

ROWS = 128
"""Rows of one run, where each row leaves out another event."""


def without(
    subject: Subject, history: dict[str, Any], tried: Places, last: int, length: int
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield arguments whose rows lack one event each, and the steps to read them after.

    history: the arguments of one row of `length` events, of which the prediction reads up to `last`
    """
    for some in _groups(subject, tried):
        kept = np.stack([[*range(t), *range(t + 1, length), t] for t in some.tolist()])
        order = torch.as_tensor(kept)

        def moved(_: str, x: Tensor, order: Tensor = order) -> Tensor:
            return x[torch.arange(len(x))[:, None], order]

        rows = subject.replaced(moved, subject.rows([0] * len(some), history))
        # Without an event up to the prediction, the prediction comes a step earlier.
        after = np.where(some <= last, last - 1, last)
        yield subject.steps(length - 1, arguments=rows), after.tolist()


def exchanged(
    subject: Subject,
    history: dict[str, Any],
    tried: Places,
    last: int,
    rng: np.random.Generator,
) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Yield arguments whose rows have another event of the batch in the place of one each."""
    pool = np.argwhere(subject.valid)
    for some in _groups(subject, tried):
        drawn = pool[rng.integers(len(pool), size=len(some))]
        places = torch.as_tensor(np.column_stack([some, drawn]))

        def put(name: str, x: Tensor, places: Tensor = places) -> Tensor:
            at, row, step = places.unbind(1)
            x = x.clone()
            x[torch.arange(len(x)), at] = subject.array(name)[row, step]
            return x

        rows = subject.rows([0] * len(some), history)
        yield subject.replaced(put, rows), [last] * len(some)


def _groups(subject: Subject, tried: Places) -> Iterator[Places]:
    """Yield events for the rows of one run; a fixed number of rows is filled up."""
    size = ROWS if subject.fixed_rows is None else subject.batch
    for first in range(0, len(tried), size):
        some = tried[first : first + size]
        yield some if subject.fixed_rows is None else np.resize(some, size)
