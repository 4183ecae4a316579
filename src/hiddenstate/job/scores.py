"""Scores of a model beside its floors, as JSON values: the same form for every family."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from hiddenstate import tasks
from hiddenstate.job.card import FLOORS
from hiddenstate.tasks import Judged
from hiddenstate.tasks.compare import Metric

Json = dict[str, Any]
UNITS = ("cases", "events")


def against_floors(
    kind: str,
    judged: Judged,
    floors: Mapping[str, Judged],
    *,
    compared: Iterable[str],
    description: str,
    metrics: Iterable[Metric],
    bootstrap: int,
    seed: int,
    drawn: str = UNITS[0],
) -> Json:
    """Return the scores of one task, of its floors, and the verdicts by floor and metric.

    compared:    floors with which the model is compared in words
    description: how the floors were fitted
    drawn:       what a bootstrap draws
    """
    return {
        "kind": kind,
        "model": tasks.score(judged, bootstrap, seed).to_json(),
        "floors": {
            name: tasks.score(each, bootstrap, seed).to_json() for name, each in floors.items()
        },
        "floors_description": description,
        "verdicts": {
            floor: {
                metric: tasks.compare(
                    judged, floors[floor], metric, FLOORS[floor], bootstrap, seed, drawn
                ).to_json()
                for metric in metrics
            }
            for floor in compared
        },
    }


def result(
    fingerprint: str,
    cases: int,
    events: int,
    by_task: Mapping[str, Json],
    metrics: Iterable[str],
    units: tuple[str, str] = UNITS,
) -> Json:
    """Return the scores of all tasks; those of the first one stand at the top as well.

    At the top: each metric of the first task with its 95 % interval, and the floors.
    units: what cases and events are called in this family, for example documents and characters
    """
    first = next(iter(by_task.values()))
    return {
        "fingerprint": fingerprint,
        "cases": cases,
        "events": events,
        "units": list(units),
        **_headline(first, tuple(metrics)),
        "tasks": dict(by_task),
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
