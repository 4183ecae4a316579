"""Batches of cases of like length, so that little of a padded batch is padding."""

from __future__ import annotations

import itertools
from bisect import bisect_right

import numpy as np

from hiddenstate.errors import UsageError
from hiddenstate.schema.log import Int64

# Lengths within this share of each other may share a batch, so that batches differ by epoch.
JITTER = 0.1


def batches(
    lengths: Int64,
    *,
    batch_size: int = 64,
    batch_events: int = 8192,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
) -> list[Int64]:
    """Return case indices in batches, every case exactly once.

    A batch holds at most `batch_size` cases and, unless it is one case, at most `batch_events`
    steps with its padding. The same seed and epoch give the same batches; shuffle=False orders
    cases by length alone. A million cases take under a second.
    Raises UsageError where a limit is below 1.

    >>> [batch.tolist() for batch in batches(np.array([2, 9, 2]), batch_size=2, shuffle=False)]
    [[0, 2], [1]]
    """
    if batch_size < 1 or batch_events < 1:
        raise UsageError(
            f"batch_size is {batch_size} and batch_events is {batch_events}.",
            "Both must be at least 1.",
            "Choose larger limits.",
        )
    rng = np.random.default_rng([seed, epoch])
    lengths = np.asarray(lengths, dtype=np.int64)
    if shuffle:
        # Random within equal lengths too, since the jittered lengths are real numbers.
        order = np.argsort(
            lengths * (1 + JITTER * rng.random(len(lengths))) + rng.random(len(lengths))
        )
    else:
        order = np.argsort(lengths, kind="stable")
    longest = np.maximum.accumulate(lengths[order]) if len(order) else lengths
    cuts, start = [0], 0
    while start < len(order):
        start = _end(longest, start, batch_size, batch_events)
        cuts.append(start)
    found = [order[a:b] for a, b in itertools.pairwise(cuts)]
    return [found[place] for place in rng.permutation(len(found))] if shuffle else found


def _end(longest: Int64, start: int, batch_size: int, batch_events: int) -> int:
    """Return where the batch that begins at `start` must end."""
    most = min(start + batch_size, len(longest))
    # `longest` does not decrease, so neither does the number of padded steps.
    fitting = bisect_right(
        range(start + 1, most + 1),
        batch_events,
        key=lambda end: (end - start) * max(int(longest[end - 1]), 1),
    )
    return start + max(fitting, 1)
