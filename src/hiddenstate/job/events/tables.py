"""Predictions about event histories as a table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars

from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import EventLog


def prediction_table(runtime: Runtime, log: EventLog, *, every_step: bool) -> polars.DataFrame:
    """Return a row for each case's last event, or for every event.

    Columns: case, events (seen so far), activity, time (where the log has times); for a class
    task its name, NAME_probability and one column `p(class)` for each class; for a number task
    NAME_days.
    """
    heads = runtime.spec.heads
    wanted = np.arange(log.events) if every_step else log.offsets[1:][log.lengths > 0] - 1
    place = np.full(log.events, -1, dtype=np.int64)
    place[wanted] = np.arange(len(wanted))
    answers = [np.empty((len(wanted), head.outputs)) for head in heads]
    for rows, outputs in runtime.predict(log):
        chosen = place[rows] >= 0
        for answer, output in zip(answers, outputs, strict=True):
            answer[place[rows][chosen]] = output[chosen].reshape(-1, answer.shape[1])
    columns: dict[str, Any] = {
        "case": log.case_ids[log.case_of_event()[wanted]].astype(str),
        "events": log.position_of_event()[wanted] + 1,
        "activity": log.activities.take(wanted).names().astype(str),
    }
    if log.time_us is not None:
        columns["time"] = [datetime.fromtimestamp(t / 1e6, UTC) for t in log.time_us[wanted]]
    for head, answer in zip(heads, answers, strict=True):
        if not head.classes:
            columns[f"{head.name}_days"] = answer[:, 0]
            continue
        best = answer.argmax(axis=1)
        columns[head.name] = np.array(head.classes)[best]
        columns[f"{head.name}_probability"] = np.exp(answer.max(axis=1))
        prefix = "p" if len(heads) == 1 else head.name
        for index, name in enumerate(head.classes):
            columns[f"{prefix}({name})"] = np.exp(answer[:, index])
    return polars.DataFrame(columns)
