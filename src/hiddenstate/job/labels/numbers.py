"""Predictions of numbers for sequences or steps, and their scores beside the floors."""

from __future__ import annotations

import numpy as np

from hiddenstate.data.labelled import Labelled
from hiddenstate.data.labelled_numbers import numbers
from hiddenstate.errors import DataError
from hiddenstate.job.labels.encode import Schema, encode, given
from hiddenstate.job.labels.run import UNITS, decoded, places
from hiddenstate.job.labels.task import in_own_units, levels_of
from hiddenstate.job.scores import Json, against_floors, result
from hiddenstate.runtime import Model as Runtime
from hiddenstate.tasks.compare import Metric
from hiddenstate.tasks.regression import judge_numbers
from hiddenstate.tasks.regression_floors import RegressionFloors

METRICS = ("absolute_error", "rmse")


def evaluate_numbers(
    runtime: Runtime,
    schema: Schema,
    floors: RegressionFloors,
    found: Labelled,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Json:
    """Return the scores of the model and its floors on sequences with numbers, as JSON values.

    By length: of a whole sequence its steps, of a step its place.
    """
    head, encoded, target = runtime.spec.heads[0], encode(found, schema), numbers(found)
    scored = np.isfinite(target)
    if not scored.any():
        raise DataError(
            f"None of the {found.cases} sequences has a number to compare with.",
            "Scores need at least one.",
            "Give the numbers, or use `hiddenstate predict`.",
        )
    case, length = places(encoded, every_step=found.every_step)
    said = decoded(runtime, encoded, every_step=found.every_step)[scored]
    levels = levels_of(head)
    judged = judge_numbers(
        case[scored], length[scored], target[scored], in_own_units(head, said), levels
    )
    metrics: tuple[Metric, ...] = ("absolute_error", "quantile_loss")
    task = against_floors(
        "numbers",
        judged,
        floors.judge(given(found, schema), case, length, target),
        compared=floors.compared,
        description=floors.description,
        metrics=metrics if levels else metrics[:1],
        bootstrap=bootstrap,
        seed=seed,
        drawn=UNITS[0],
    )
    steps = int(encoded.offsets[-1])
    return result(runtime.fingerprint, found.cases, steps, {head.name: task}, METRICS, UNITS)
