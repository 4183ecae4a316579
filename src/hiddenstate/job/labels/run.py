"""A model run over labelled sequences, without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data import batches
from hiddenstate.job.labels.encode import Encoded
from hiddenstate.runtime import Model as Runtime

UNITS = ("sequences", "steps")
BATCH_STEPS = 16_384


def decoded(runtime: Runtime, encoded: Encoded, *, every_step: bool) -> NDArray[np.float64]:
    """Return what the model says of every sequence [C, ...] or, with every_step, step [N, ...].

    What stands in the further axes is told in `runtime.heads.Head.decode`. A sequence without steps
    gets what the model says of no evidence.
    """
    head = runtime.spec.heads[0]
    offsets = encoded.offsets
    lengths, last = np.diff(offsets), max(int(offsets[-1]) - 1, 0)
    rows_out = int(offsets[-1]) if every_step else len(lengths)
    found = np.empty((rows_out, head.outputs), dtype=np.float32)
    for chosen in batches(lengths, batch_size=512, batch_events=BATCH_STEPS, shuffle=False):
        time = int(lengths[chosen].max())
        if time == 0:
            empty = np.zeros((len(chosen), 0, encoded.codes.shape[1]), dtype=np.int64)
            numbers = np.zeros((len(chosen), 0, encoded.numbers.shape[1]), dtype=np.float32)
            (outputs,) = runtime.run_whole(empty, numbers, lengths[chosen])
        else:
            rows = np.minimum(offsets[chosen][:, None] + np.arange(time), last)
            codes, numbers = encoded.codes[rows], encoded.numbers[rows]
            (outputs,) = runtime.run_whole(codes, numbers, lengths[chosen])
        if not every_step:
            found[chosen] = outputs
        elif time:
            real = np.arange(time) < lengths[chosen][:, None]
            found[rows[real]] = outputs[real]
    return np.asarray(runtime.decode((found,))[0])


def places(encoded: Encoded, *, every_step: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the sequence and the length (or, of a step, the place from 1) of each label [M]."""
    lengths = np.diff(encoded.offsets)
    cases = np.arange(len(lengths))
    if not every_step:
        return cases, lengths
    start = np.repeat(encoded.offsets[:-1], lengths)
    return np.repeat(cases, lengths), np.arange(int(encoded.offsets[-1])) - start + 1
