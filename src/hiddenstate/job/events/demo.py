"""The main job on a simulated log, where the best possible score is known."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.job.events.model import Fitted
from hiddenstate.job.fit import Observer, fit
from hiddenstate.job.tables import write_table
from hiddenstate.schema import EventLog
from hiddenstate.tasks import Judged, Task, simulator

TICKETS = 4000
OPEN_TICKETS = 3
OPEN_AFTER = 0.8
# Enough to come near the ceiling, and a little less than the default: this is a first minute.
EPOCHS = 16


@dataclass(frozen=True)
class Step:
    """One event of an open ticket and what is then expected.

    expected: the most probable next actions with the model's probability and the exact one
    """

    number: int
    event: str
    expected: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class Demo:
    """What the demo made."""

    model: Fitted
    tickets: dict[str, list[Step]]
    files: dict[str, Path]


def run(folder: Path, *, seed: int, observer: Observer, **settings: Any) -> Demo:
    """Simulate tickets, fit a model, and follow three open tickets event by event."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "tickets": folder / "tickets.csv",
        "open tickets": folder / "open_tickets.csv",
        "predictions": folder / "predictions.csv",
        "model": folder / "run",
        "model card": folder / "run" / "MODEL_CARD.md",
    }
    log = simulator.simulate(TICKETS, seed)
    write_log(log, files["tickets"])
    model = fit(
        files["tickets"],
        files["model"],
        overwrite=True,
        observer=observer,
        ceiling=ceiling,
        seed=seed,
        **{**settings, "epochs": settings.get("epochs") or EPOCHS},
    )
    still_open = open_tickets(simulator.simulate(OPEN_TICKETS, seed + 1))
    write_log(still_open, files["open tickets"])
    predictions = model.predict(files["open tickets"], every_step=True)
    write_table(predictions, files["predictions"])
    return Demo(model, dict(follow(model, still_open)), files)


def ceiling(log: EventLog, task: Task) -> Judged:
    """Judge the process itself, whose probabilities nothing can better."""
    return simulator.Oracle().judge(log, task.targets(log), task.classes)


def open_tickets(log: EventLog) -> EventLog:
    """Return the first part of every ticket, as if it were still open."""
    wanted = log.position_of_event() < np.repeat(OPEN_AFTER * log.lengths, log.lengths)
    return log.keep(wanted)


def follow(model: Fitted, log: EventLog, shown: int = 3) -> Iterator[tuple[str, list[Step]]]:
    """Yield each ticket with its events and the most probable next actions after each."""
    classes = model.runtime.spec.heads[0].classes
    exact = np.exp(simulator.Oracle().log_probabilities(log, classes))
    model_p = np.empty_like(exact)
    for rows, outputs in model.runtime.predict(log):
        model_p[rows] = np.exp(outputs[0])
    names = log.activities.names()
    for case, start, end in zip(log.case_ids, log.offsets, log.offsets[1:]):
        steps = []
        for row in range(start, end):
            best = np.argsort(-model_p[row])[:shown]
            expected = ((classes[k], float(model_p[row, k]), float(exact[row, k])) for k in best)
            steps.append(Step(row - int(start) + 1, str(names[row]), tuple(expected)))
        yield str(case), steps


def write_log(log: EventLog, path: Path) -> None:
    """Write a simulated log as CSV, all or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(simulator.table(log))
    partial.replace(path)
