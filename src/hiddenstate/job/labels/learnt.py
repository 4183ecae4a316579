"""What is to be learnt of labelled sequences: the head, the targets, and the floors beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import HeadSpec, Output
from hiddenstate.data import labelled_numbers
from hiddenstate.data.labelled import Labelled
from hiddenstate.errors import DataError
from hiddenstate.job.labels.encode import Schema, classes_of, given
from hiddenstate.job.labels.prepared import Parts
from hiddenstate.job.labels.task import EVERY_STEP
from hiddenstate.schema import Scaler
from hiddenstate.tasks.label_floors import LabelFloors
from hiddenstate.tasks.regression_floors import RegressionFloors
from hiddenstate.train import Recipe

LEAST_SEQUENCES = 5
MOST_CLASSES = 10_000
OUTPUTS: dict[str, Output] = {
    "quantiles": "quantiles",
    "gaussian": "gaussian",
    "point": "number",
}

Remark = Callable[[str], None]
Target = tuple[NDArray[Any], NDArray[np.bool_]]


class Learnt(NamedTuple):
    """targets: of training and validation, truths and where they are known, as `Samples` has."""

    head: HeadSpec
    floors: LabelFloors | RegressionFloors
    targets: tuple[Target, Target]


def labels(parts: Parts, schema: Schema, recipe: Recipe, tell: Remark) -> Learnt:
    """Fit classes and floors of labels that are names."""
    training, validation, test = parts
    task = recipe.tasks[0]
    classes = _classes(training, task)
    for part, name in ((validation, "validation"), (test, "test")):
        _tell_unseen(part, name, classes, tell)
    _tell_lost(parts, tell)
    first, second = (classes_of(part, classes) for part in (training, validation))
    every_step = task in EVERY_STEP
    floors = LabelFloors.fit(
        given(training, schema),
        first,
        given(validation, schema),
        second,
        classes,
        every_step=every_step,
    )
    head = HeadSpec({"task": task, "classes": list(classes)})
    known = first >= 0, second >= 0
    targets = (np.where(known[0], first, 0), known[0]), (np.where(known[1], second, 0), known[1])
    return Learnt(head, floors, targets)


def numbers(parts: Parts, schema: Schema, recipe: Recipe, tell: Remark) -> Learnt:
    """Fit scaler and floors of labels that are numbers."""
    training, validation, _ = parts
    section, task = recipe.labels, recipe.tasks[0]
    first, second = (labelled_numbers.numbers(part) for part in (training, validation))
    known = first[np.isfinite(first)]
    if training.cases < LEAST_SEQUENCES or len(np.unique(known)) < 2:
        alike = f", all {known[0]:g}" if len(known) else ""
        raise DataError(
            f"The training part has {training.cases} sequences with {len(known)} numbers{alike}.",
            f"At least {LEAST_SEQUENCES} sequences and two different numbers are needed for "
            f"{task}.",
            "Give more sequences, or name the column of the numbers with --set labels.label=NAME.",
        )
    every_step = task in EVERY_STEP
    levels = () if section.output == "point" else tuple(sorted({*section.levels, 0.5}))
    floors = RegressionFloors.fit(
        given(training, schema),
        first,
        given(validation, schema),
        second,
        levels=levels,
        every_step=every_step,
    )
    # The logarithm of a normal distribution is another one.
    scaler = Scaler.fit(known, log1p=False if section.output == "gaussian" else None)
    if scaler.log1p:
        tell("The numbers are learnt by their logarithm: none is negative, and few are large.")
    head = HeadSpec(
        {"task": task, "classes": [], "signed": True, "levels": list(levels)},
        scaler,
        OUTPUTS[section.output],
        levels=levels if section.output == "quantiles" else (),
    )
    return Learnt(head, floors, (_target(first, head), _target(second, head)))


def _target(numbers: NDArray[np.float64], head: HeadSpec) -> Target:
    """Return scaled numbers and where they are known, [M], or [M, 1] for heads of several."""
    scaled = (head.scaler or Scaler()).encode(numbers)
    if head.output != "number":
        scaled = scaled[:, None]
    known = np.isfinite(scaled)
    return np.where(known, scaled, 0.0).astype(np.float32), known


def _classes(training: Labelled, task: str) -> tuple[str, ...]:
    """Return the labels of the training part, sorted; refuse too few or too many."""
    counts = np.bincount(training.labels.codes + 1, minlength=len(training.labels.labels) + 1)[1:]
    classes = tuple(sorted(training.labels.labels[code] for code in np.flatnonzero(counts)))
    if training.cases < LEAST_SEQUENCES or not 2 <= len(classes) <= MOST_CLASSES:
        raise DataError(
            f"The training part has {training.cases} sequences with {len(classes)} labels"
            + (f": {', '.join(classes[:5])}." if len(classes) < LEAST_SEQUENCES else "."),
            f"At least {LEAST_SEQUENCES} sequences and 2 to {MOST_CLASSES:,} labels are needed for "
            f"{task}.",
            "Give more sequences, or name the column of the labels with --set labels.label=NAME.",
        )
    return classes


def _tell_unseen(part: Labelled, name: str, classes: tuple[str, ...], tell: Remark) -> None:
    known = {None, *classes}
    strange = [label for label in part.labels.names() if label not in known]
    if strange:
        shown = ", ".join(map(repr, dict.fromkeys(strange)))
        tell(
            f"{len(strange)} labels of the {name} part are not in training ({shown[:200]}); they "
            "count as errors."
        )


def _tell_lost(parts: Parts, tell: Remark) -> None:
    """Tell labels of the source that no sequence has any more, for repeated ones were dropped."""
    labels = parts[0].labels.labels
    kept = {code for part in parts for code in np.unique(part.labels.codes).tolist()}
    lost = [label for code, label in enumerate(labels) if code not in kept]
    if parts[0].labels.labels is parts[1].labels.labels and lost:
        tell(
            f"No sequence is left with the label {', '.join(map(repr, lost))}: every one of them "
            "repeats a sequence that has another label more often."
        )
