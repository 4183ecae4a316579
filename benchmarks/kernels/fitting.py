"""Item 6: `fit` on bpi13_incident against torch_script.py, to the same validation loss.

Both train by the same recipe on the same batches, fit with its own number of threads, the script
with the number that it is fastest with. The loss to be reached is the worse of the two best ones;
the clock stands while files are read and floors computed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.kernels import torch_script
from benchmarks.kernels.measure import Row
from benchmarks.kernels.plan import Setting
from hiddenstate.data import batches
from hiddenstate.job.events.prepare import prepare
from hiddenstate.job.events.prepared import PreparedLog
from hiddenstate.job.fit import fit
from hiddenstate.schema import EventLog
from hiddenstate.train import Progress, Recipe, read_recipe, recency_weights

OURS, SCRIPT = "hiddenstate fit", "torch.nn script"
LOG = "ppm_chrono_80_20/bpi13_incident"
SEEDS, TARGET = 5, 1.5


class Course(NamedTuple):
    """Seconds since the start and validation loss after every epoch; how many were planned."""

    seconds: list[float]
    losses: list[float]
    epochs: int
    kernels: tuple[str, ...] = ()

    def reach(self, loss: float) -> float:
        """Return the seconds until the loss was reached."""
        return next(s for s, each in zip(self.seconds, self.losses) if each <= loss)


def rows(setting: Setting) -> Iterator[Row]:
    """Yield one row; its samples are seconds to the same loss, one a seed."""
    folder = os.environ.get("HIDDENSTATE_DATA")
    files = [Path(folder or "") / f"{LOG}_{part}.csv" for part in (80, 20)]
    row = Row("bpi13_incident")
    if not folder or not all(file.exists() for file in files):
        row.wrong[OURS] = f"not measured: HIDDENSTATE_DATA holds no {LOG}"
        yield row
        return
    options: dict[str, Any] = {"test_file": str(files[1]), "finish_epochs": 0}
    if setting.quick:
        options["epochs"] = 2
    recipes = [
        read_recipe(None, {**options, "seed": seed})
        for seed in range(1 if setting.quick else SEEDS)
    ]
    prepared = prepare(str(files[0]), recipes[0], lambda _: None)
    threads = _best_threads(prepared, recipes[0], setting)
    ours, script = [], []
    for recipe in recipes:
        ours.append(_fit(str(files[0]), recipe))
        epochs = ours[-1].epochs
        torch.set_num_threads(threads)
        script.append(_script(prepared, recipe, epochs))
        torch.set_num_threads(setting.threads)
    goals = [max(min(a.losses), min(b.losses)) for a, b in zip(ours, script)]
    row.samples = {
        OURS: [course.reach(goal) for course, goal in zip(ours, goals)],
        SCRIPT: [course.reach(goal) for course, goal in zip(script, goals)],
    }
    row.facts = {"kernel": ", ".join(ours[-1].kernels), "script's threads": threads}
    row.compare(OURS, [SCRIPT], "× torch.nn script", TARGET)
    epoch = [[each.seconds[-1] / len(each.seconds) for each in side] for side in (ours, script)]
    row.check("× torch.nn script, seconds of an epoch", [b / a for a, b in zip(*epoch)])
    for name, side in ((OURS, ours), (SCRIPT, script)):
        row.check(f"{name}: best loss", [min(course.losses) for course in side])
    yield row


def _fit(source: str, recipe: Recipe) -> Course:
    told: list[Progress] = []

    def observe(progress: Progress | str) -> None:
        if isinstance(progress, Progress) and progress.epoch_ended:
            told.append(progress)

    fit(source, recipe=recipe, observer=observe)
    losses = [float(each.validation_loss or 0.0) for each in told]
    return Course([each.seconds for each in told], losses, told[0].epochs, told[0].kernels)


def _script(prepared: PreparedLog, recipe: Recipe, epochs: int) -> Course:
    training, validation, _ = prepared.parts
    model, settings = recipe.model, recipe.train
    limits = {"batch_size": settings.batch_size, "batch_events": settings.batch_events}
    order = [
        batches(training.lengths, **limits, seed=settings.seed, epoch=epoch + 1)
        for epoch in range(epochs)
    ]
    reached = torch_script.train(
        torch_script.Recipe(
            codes=prepared.spec.schema.code_sizes[0],
            embedding_size=prepared.spec.embeddings[0],
            hidden_size=model.hidden_size,
            classes=prepared.spec.heads[0].outputs,
            longest=int(training.lengths.max()),
            patience=settings.patience,
            learning_rate=settings.learning_rate,
            warmup=settings.warmup,
            weight_decay=settings.weight_decay,
            clip_norm=settings.clip_norm,
            dropout=settings.dropout,
            input_dropout=settings.input_dropout,
            seed=settings.seed,
        ),
        _histories(prepared, training, settings.recency),
        _histories(prepared, validation, 0.0),
        order,
        batches(validation.lengths, **limits, shuffle=False),
    )
    seconds, losses = zip(*reached)
    return Course([*seconds], [*losses], epochs)


def _histories(prepared: PreparedLog, log: EventLog, recency: float) -> torch_script.Histories:
    """Encode a log, which has no inputs but the activities, once and for all."""
    truth = prepared.tasks[0].targets(log)
    targets = torch.tensor(truth.values.astype("int64"))
    targets[~torch.tensor(truth.learnable)] = torch_script.IGNORED
    codes = torch.tensor(prepared.spec.schema.encode(log).codes[:, 0])
    weights = recency_weights(log, recency)
    lengths = log.lengths.tolist()
    return torch_script.Histories(
        codes.split(lengths),
        targets.split(lengths),
        torch.ones(log.cases) if weights is None else torch.tensor(weights),
    )


def _best_threads(prepared: PreparedLog, recipe: Recipe, setting: Setting) -> int:
    """Return the number of threads with which an epoch of the script takes least time."""
    seconds = {}
    for threads in range(1, setting.threads + 1):
        torch.set_num_threads(threads)
        seconds[threads] = min(_script(prepared, recipe, 1).seconds[0] for _ in range(2))
    torch.set_num_threads(setting.threads)
    return min(seconds, key=lambda threads: seconds[threads])
