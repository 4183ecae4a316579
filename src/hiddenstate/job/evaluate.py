"""Scores of a model on a log, next to its floors and, where it is known, its ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hiddenstate import tasks
from hiddenstate.job.card import FLOORS
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
    """Return the scores of every task, its floors' scores and the verdicts, as JSON values.

    The scores of the first task stand at the top as well: accuracy, log_loss (or mae_days), each
    with its 95 % interval, and the floors. Verdicts go by floor and metric.
    """
    heads = [tasks.from_json(head.task) for head in runtime.spec.heads]
    judges = [tasks.judge(task, log) for task in heads]
    for rows, outputs in runtime.predict(log):
        for judge, output in zip(judges, outputs, strict=True):
            judge.add(rows, output)
    by_task: dict[str, Json] = {}
    for task, judge in zip(heads, judges, strict=True):
        judged = judge.result()
        by_task[task.name] = _scores(task, log, judged, floors[task.name], bootstrap, seed)
        if ceiling is not None and task is heads[0]:
            best = tasks.score(ceiling(log, task), bootstrap, seed)
            by_task[task.name]["ceiling"] = best.to_json()
    first = by_task[heads[0].name]
    return {
        "fingerprint": runtime.fingerprint,
        "cases": log.cases,
        "events": log.events,
        **_headline(first, METRICS[heads[0].kind]),
        "tasks": by_task,
    }


def _scores(
    task: Task, log: EventLog, judged: Judged, floors: Floors, bootstrap: int, seed: int
) -> Json:
    floored = floors.judge(log, task.targets(log))

    def verdict(floor: str, metric: Metric) -> Json:
        other, name = floored[floor], FLOORS[floor]
        return tasks.compare(judged, other, metric, name, bootstrap, seed).to_json()

    return {
        "kind": task.kind,
        "model": tasks.score(judged, bootstrap, seed).to_json(),
        "floors": {
            name: tasks.score(each, bootstrap, seed).to_json() for name, each in floored.items()
        },
        "floors_description": floors.description,
        "verdicts": {
            floor: {metric: verdict(floor, metric) for metric in METRICS[task.kind]}
            for floor in floors.compared
        },
    }


def _headline(scores: Json, metrics: tuple[str, ...]) -> Json:
    top: Json = {}
    for metric in metrics:
        value = scores["model"]["metrics"][metric]
        top[metric] = value["value"]
        top[f"{metric}_interval"] = [value["low"], value["high"]]
    top["floors"] = {
        name: {metric: floor["metrics"][metric]["value"] for metric in metrics}
        for name, floor in scores["floors"].items()
    }
    top["verdicts"] = {
        floor: {metric: verdict["verdict"] for metric, verdict in by_metric.items()}
        for floor, by_metric in scores["verdicts"].items()
    }
    return top
