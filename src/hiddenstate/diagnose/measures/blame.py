"""Which recurrent layer a difference begins in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hiddenstate.diagnose.subject.calling import cloned, seeded
from hiddenstate.diagnose.subject.facts import Mask
from hiddenstate.diagnose.tracing.capture import trace
from hiddenstate.diagnose.tracing.record import LayerTrace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

LEAST = 1e-5
"""Smallest difference between two states that counts; they lie within 1, or near it."""


def differing_layer(
    seen: Examination, before: Mapping[str, Any], after: Mapping[str, Any], where: Mask
) -> str:
    """Return a sentence on the first layer whose states differ at the steps `where` [B, T].

    "" where the layers cannot be traced or do not run over the batch's rows and steps.
    """
    pairs = _traced_twice(seen, before, after)
    fitting = [(a, b) for a, b in pairs if len(a.lengths) == len(b.lengths) == len(where)]
    if not fitting:
        return ""
    for one, other in fitting:
        steps = min(one.x.shape[1], other.x.shape[1], where.shape[1])
        gaps = np.abs(one.states.h[:, :steps] - other.states.h[:, :steps]).max(-1)
        if gaps[where[:, :steps]].max(initial=0.0) > LEAST:
            if one.reverse:
                return (
                    f" It begins in {one.name}: the backward direction reads the padding before "
                    "the row."
                )
            return f" It begins in {one.name}, or in what that layer reads."
    return (
        " The recurrent layers' states at the rows' own steps are the same: it is what is made of "
        "them (the last step, a final state, a mean, an attention) that reads past the rows' ends."
    )


def _traced_twice(
    seen: Examination, before: Mapping[str, Any], after: Mapping[str, Any]
) -> list[tuple[LayerTrace, LayerTrace]]:
    found = []
    for arguments in (before, after):
        with seeded(seen.seed, seen.subject.module):
            try:
                found.append(trace(seen.few.copy(), cloned(arguments)).layers)
            except Exception:
                # The finding stands without it.
                return []
    return list(zip(*found))
