"""What tells one event log from another."""

from __future__ import annotations

import hashlib

import numpy as np

from hiddenstate.schema import EventLog


def digest(log: EventLog) -> str:
    """SHA-256 over a log's cases, times and columns."""
    total = hashlib.sha256("\n".join(map(str, log.case_ids)).encode())
    total.update(np.ascontiguousarray(log.offsets).data)
    for name, column in sorted(log.categorical.items()):
        total.update("\n".join([name, *column.labels]).encode())
        total.update(np.ascontiguousarray(column.codes).data)
    for name, values in sorted(log.numeric.items()):
        total.update(name.encode())
        total.update(np.ascontiguousarray(values).data)
    if log.time_us is not None:
        total.update(np.ascontiguousarray(log.time_us).data)
    return total.hexdigest()
