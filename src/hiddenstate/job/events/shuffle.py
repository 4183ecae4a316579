"""How much the order of the past matters to a model: the shuffle ablation (SPEC 1.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hiddenstate import tasks
from hiddenstate.errors import DataError
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Categorical, EventLog
from hiddenstate.tasks import Judged, Targets, Task
from hiddenstate.tasks.compare import Metric

# Fewer events than these have no order to lose: the last one stays where it is.
LEAST_EVENTS = 3


def shuffle_ablation(
    runtime: Runtime, log: EventLog, metrics: tuple[Metric, ...], bootstrap: int, seed: int
) -> dict[str, Any]:
    """Score the first task at a random event of each case, with its past in order and shuffled.

    The event itself stays last and the times stay in place, so that only the order of what happened
    before is lost. Returns for each metric both values and their paired difference.
    Raises DataError where no case has three events.
    """
    task = tasks.from_json(runtime.spec.heads[0].task)
    rng = np.random.default_rng(seed)
    histories, answers = _random_histories(task, log, rng)
    in_order = _judge(runtime, task, histories, answers)
    shuffled = _judge(runtime, task, _shuffled(histories, rng), answers)
    result: dict[str, Any] = {"histories": histories.cases}
    for metric in metrics:
        compared = tasks.compare(shuffled, in_order, metric, "order kept", bootstrap, seed)
        result[metric] = {
            "in_order": compared.floor,
            "shuffled": compared.model,
            "difference": compared.difference,
            "interval": [compared.low, compared.high],
        }
    return result


def _random_histories(
    task: Task, log: EventLog, rng: np.random.Generator
) -> tuple[EventLog, Targets]:
    """Cut each case after a random event that has an answer; the targets are those of the cuts."""
    truth = task.targets(log)
    place = log.position_of_event()
    possible = np.flatnonzero(truth.mask & (place >= LEAST_EVENTS - 1))
    if not len(possible):
        raise DataError(
            f"None of the {log.cases} cases has a scored step after {LEAST_EVENTS} events.",
            "A past of one event has no order.",
            "Leave out --shuffle, or give longer cases.",
        )
    drawn = possible[np.argsort(rng.random(len(possible)))]
    case, first = np.unique(log.case_of_event()[drawn], return_index=True)
    ends = drawn[first]
    chosen = log.select(case)
    histories = chosen.keep(chosen.position_of_event() <= np.repeat(place[ends], chosen.lengths))
    last = histories.offsets[1:] - 1
    values = np.zeros(histories.events, dtype=truth.values.dtype)
    values[last] = truth.values[ends]
    mask = np.zeros(histories.events, dtype=np.bool_)
    mask[last] = True
    return histories, Targets(values, mask)


def _shuffled(log: EventLog, rng: np.random.Generator) -> EventLog:
    """Return a log whose events stand in random order within each case, the last one excepted."""
    key = rng.random(log.events)
    key[log.offsets[1:] - 1] = 1.0
    rows = np.lexsort((key, log.case_of_event()))
    return replace(
        log,
        categorical={
            name: Categorical(column.codes[rows], column.labels)
            for name, column in log.categorical.items()
        },
        numeric={name: column[rows] for name, column in log.numeric.items()},
    )


def _judge(runtime: Runtime, task: Task, log: EventLog, targets: Targets) -> Judged:
    judge = tasks.judge(task, log, targets)
    for rows, outputs in runtime.predict(log):
        judge.add(rows, outputs[0])
    return judge.result()
