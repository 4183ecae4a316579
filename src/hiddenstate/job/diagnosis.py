"""Diagnose a fitted run: its model on its own data or on others, its training, its scores."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.artifact.files import read_json
from hiddenstate.charts import Picture
from hiddenstate.diagnose.examine import examine
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.influence import Influence, influence
from hiddenstate.diagnose.report import Report
from hiddenstate.diagnose.report.score_pictures import by_length, reliability
from hiddenstate.diagnose.subject.subject import Subject
from hiddenstate.diagnose.watching.training import Training, of_history
from hiddenstate.errors import HiddenstateError, UsageError
from hiddenstate.job.evidence import Evidence, Looked
from hiddenstate.job.families import Family, family_of
from hiddenstate.job.folder import HISTORY, RECIPE, SOURCE
from hiddenstate.job.model import Remark, load, silent
from hiddenstate.job.prepared import Prepared
from hiddenstate.train import Recipe, read_recipe

ROWS = 64
TRIED_STEPS = 12
"""Steps of the row shown whose predictions are looked at for what they rest on; one is shown."""


def diagnose(
    run: str | Path,
    source: Any | None = None,
    *,
    rows: int = ROWS,
    only: Iterable[str] = (),
    ignore: Iterable[str] = (),
    seed: int = 0,
    observer: Remark = silent,
) -> Report:
    """Ask a fitted run everything that rules know to ask; return the report.

    source:   what the model is looked at on, as `fit` reads it; None: what the fit held back of its
              own data, which are read again from where they were
    rows:     sequences in the batch, of mixed lengths
    only, ignore: codes of rules, or their beginnings, as `diagnose.examine` takes them
    observer: hears remarks

    Raises UsageError where there are no data to look at.
    """
    folder = Path(run)
    model = load(folder)
    family = family_of(model.artifact.spec.task_names)
    recipe = read_recipe(folder / RECIPE, {}) if (folder / RECIPE).exists() else None
    ready = None if recipe is None else _own_data(folder, family, recipe, observer)
    if source is None and ready is None:
        raise UsageError(
            f"The data of {folder} are not there any more.",
            "A model is looked at on sequences that it was not trained on.",
            "Name data of its kind: hiddenstate diagnose RUN DATA.",
        )
    seen: Evidence = family.evidence(model, source, ready, rows=rows, seed=seed, observer=observer)
    looked = seen.looked
    report = examine(
        looked.module,
        looked.arguments,
        looked.loss,
        causal=looked.causal,
        batch_first=True,
        training=None if recipe is None else _history(folder, recipe),
        run=seen,
        only=only,
        ignore=ignore,
        seed=seed,
        name=f"{folder}: {', '.join(model.artifact.spec.task_names)}",
    )
    return replace(
        report,
        facts={"data": _data(seen), **report.facts},
        pictures=(*report.pictures, *_pictures(seen), *_influence(seen, looked)),
        row=seen.row,
        events=seen.names(seen.row),
    )


def _own_data(folder: Path, family: Family, recipe: Recipe, observer: Remark) -> Prepared | None:
    """Read the fit's own data again; None, and a remark, where they are gone or others."""
    noted = read_json(folder / SOURCE) if (folder / SOURCE).exists() else {}
    source = _named(str(noted.get("source", "")), recipe)
    try:
        ready: Prepared = family.prepare(source, recipe, silent)
    except (HiddenstateError, OSError) as problem:
        reason = problem.wrong if isinstance(problem, HiddenstateError) else str(problem)
        observer(f"The data of the fit cannot be read again: {reason}")
        return None
    if ready.identity() != {name: each for name, each in noted.items() if name != "source"}:
        observer(f"{source} is not what it was when the model was fitted, and is left out.")
        return None
    return ready


def _named(source: str, recipe: Recipe) -> Any:
    """Return what a fit was given, from how the run folder calls it."""
    if recipe.pairs.target is not None:
        return source.removesuffix(f", {recipe.pairs.target}")
    several = source.split(", ")
    if not Path(source).exists() and all(Path(each).exists() for each in several):
        return several
    return source


def _history(folder: Path, recipe: Recipe) -> Training | None:
    path = folder / HISTORY
    if not path.exists():
        return None
    epochs = (json.loads(line) for line in path.read_text().splitlines())
    return of_history(epochs, recipe.train.clip_norm)


def _data(seen: Evidence) -> str:
    if seen.source is not None:
        return str(seen.source)
    return f"the {seen.part} part of {seen.model.metrics['source']}"


def _pictures(seen: Evidence) -> tuple[Picture, ...]:
    """Return the score of every task by length, and how reliable its probabilities are."""
    found: list[Picture] = []
    try:
        found += [by_length(each) for each in seen.scores() if len(each.lengths) > 1]
        found.append(reliability(seen.reliability()))
    except Skip:
        pass
    return tuple(found)


def _influence(seen: Evidence, looked: Looked) -> tuple[Picture, ...]:
    """Return what the first task's prediction rests on, at the step that needs the past most."""
    head = next(iter(getattr(seen.model.artifact.spec, "heads", ())), None)
    classes = head.task["classes"] if head is not None and head.output == "classes" else ()
    subject = Subject(looked.module, looked.arguments, batch_first=True)

    def ask(step: int | None = None) -> Influence:
        return influence(
            subject,
            row=seen.row,
            step=step,
            logits=bool(classes),
            events=seen.names(seen.row),
            answers=classes,
        )

    try:
        found = [ask()]
        if found[0].step is not None:
            steps = np.linspace(1, found[0].step, TRIED_STEPS, endpoint=False, dtype=int)
            found += [ask(int(step)) for step in np.unique(steps)]
    except Skip:
        return ()
    return (max(found, key=lambda each: each.past).picture(),)
