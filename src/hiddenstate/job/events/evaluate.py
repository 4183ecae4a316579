"""Scores of a model on a log, next to its floors and, where it is known, its ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hiddenstate import tasks
from hiddenstate.job.scores import against_floors, result
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import EventLog
from hiddenstate.tasks import Floors, Judged, Task
from hiddenstate.tasks.compare import Metric
from hiddenstate.tasks.task import Kind

Ceiling = Callable[[EventLog, Task], Judged]
Json = dict[str, Any]

METRICS: dict[Kind, tuple[Metric, ...]] = {
    "classes": ("accuracy", "log_loss"),
    "number": ("mae_days",),
}


def evaluate_log(
    runtime: Runtime,
    floors: Mapping[str, Floors],
    log: EventLog,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    ceiling: Ceiling | None = None,
) -> Json:
    """Return the scores of every task, its floors' scores and the verdicts, as JSON values."""
    heads = [tasks.from_json(head.task) for head in runtime.spec.heads]
    judges = [tasks.judge(task, log) for task in heads]
    for rows, outputs in runtime.predict(log):
        for judge, output in zip(judges, outputs, strict=True):
            judge.add(rows, output)
    by_task: dict[str, Json] = {}
    for task, judge in zip(heads, judges, strict=True):
        fitted = floors[task.name]
        by_task[task.name] = against_floors(
            task.kind,
            judge.result(),
            fitted.judge(log, task.targets(log)),
            compared=fitted.compared,
            description=fitted.description,
            metrics=METRICS[task.kind],
            bootstrap=bootstrap,
            seed=seed,
        )
        if ceiling is not None and task is heads[0]:
            best = tasks.score(ceiling(log, task), bootstrap, seed)
            by_task[task.name]["ceiling"] = best.to_json()
    return result(runtime.fingerprint, log.cases, log.events, by_task, METRICS[heads[0].kind])
