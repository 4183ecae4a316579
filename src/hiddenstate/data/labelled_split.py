"""Labelled sequences shared out to training, validation and test."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.labelled import Labelled
from hiddenstate.data.split import Split
from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema.log import Floats


def split_labelled(
    found: Labelled,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
    numeric: bool = False,
) -> Split:
    """Share sequences out at random, each label in the same proportion, by the seed alone.

    numeric: the labels are numbers, of which there is no proportion

    Sequences with equal inputs are in one part: what was learnt by heart is not scored. Where a
    column says the part of each sequence it stands. Raises UsageError for shares that do not fit.
    """
    if found.parts is not None:
        train, valid, last = (np.flatnonzero(found.parts == part) for part in range(3))
        return Split(train, valid, last, f"by the column {found.columns['part']!r}")
    if min(validation, test) < 0 or validation + test >= 1:
        raise UsageError(
            f"The shares are {validation} for validation and {test} for test.",
            "They must not be negative, and must leave sequences to train on (sum below 1).",
            "Choose others, such as 0.1 and 0.2.",
        )
    first = found.first_equal()
    heads = np.unique(first)
    mixed = found.every_step or numeric
    kinds = np.zeros(len(heads)) if mixed else found.labels.codes[heads]
    share = _share_within(kinds, np.random.default_rng(seed))
    part = np.zeros(found.cases, dtype=np.int64)
    part[heads] = np.where(share < test, 2, np.where(share < test + validation, 1, 0))
    part = part[first]
    train, valid, last = (np.flatnonzero(part == number) for number in range(3))
    if min(len(train), len(valid) or not validation, len(last) or not test) == 0:
        raise DataError(
            f"{found.cases} sequences give {len(train)} for training, {len(valid)} for validation "
            f"and {len(last)} for test.",
            "Training, validation and test each need at least one.",
            "Give more sequences, or other shares.",
        )
    alike = "" if mixed else ", each label in proportion"
    description = (
        f"at random (seed {seed}){alike}: {len(train)} sequences train, {len(valid)} validate, "
        f"{len(last)} test"
    )
    return Split(train, valid, last, description)


def _share_within(kinds: NDArray[Any], rng: np.random.Generator) -> Floats:
    """Return random places in [0, 1), evenly spaced among those of the same kind."""
    order = np.lexsort((rng.random(len(kinds)), kinds))
    kinds = kinds[order]
    starts = np.flatnonzero(np.concatenate(([True], kinds[1:] != kinds[:-1])))
    counts = np.diff(np.append(starts, len(kinds)))
    share = np.empty(len(kinds))
    # The spacing begins at random, or the few of a rare label would always train.
    begin = np.repeat(rng.random(len(starts)), counts)
    place = np.arange(len(kinds)) - np.repeat(starts, counts)
    share[order] = ((place + begin) / np.repeat(counts, counts)) % 1
    return share
