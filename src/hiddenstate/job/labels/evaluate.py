"""Predictions of labels, and their scores beside the floors."""

from __future__ import annotations

from hiddenstate.data.labelled import Labelled
from hiddenstate.errors import DataError
from hiddenstate.job.labels.encode import Schema, classes_of, encode, given
from hiddenstate.job.labels.run import UNITS, decoded, places
from hiddenstate.job.scores import Json, against_floors, result
from hiddenstate.runtime import Model as Runtime
from hiddenstate.tasks.compare import Metric
from hiddenstate.tasks.label_floors import LabelFloors
from hiddenstate.tasks.labels import NO_LABEL, judge_labels

METRICS: tuple[Metric, ...] = ("accuracy", "log_loss")


def evaluate_labelled(
    runtime: Runtime,
    schema: Schema,
    floors: LabelFloors,
    found: Labelled,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Json:
    """Return the scores of the model and its floors on sequences with labels, as JSON values.

    By length: of a whole sequence its steps, of a labelled step its place. A label that training
    never saw is scored as an error and has no log loss.
    """
    encoded = encode(found, schema)
    target = classes_of(found, floors.classes)
    scored = target != NO_LABEL
    if not scored.any():
        raise DataError(
            f"None of the {found.cases} sequences has a label.",
            "Scores need at least one.",
            "Give the labels, or use `hiddenstate predict`.",
        )
    case, length = places(encoded, every_step=found.every_step)
    judged = judge_labels(
        case[scored],
        length[scored],
        target[scored],
        decoded(runtime, encoded, every_step=found.every_step)[scored],
        floors.classes,
    )
    seen = given(found, schema)
    task = against_floors(
        "classes",
        judged,
        floors.judge(seen, case, length, target),
        compared=floors.compared,
        description=floors.description,
        metrics=METRICS,
        bootstrap=bootstrap,
        seed=seed,
    )
    name = runtime.spec.heads[0].name
    steps = int(encoded.offsets[-1])
    return result(runtime.fingerprint, found.cases, steps, {name: task}, METRICS, UNITS)
