"""Predictions for labelled sequences, and their scores beside the floors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data import batches
from hiddenstate.data.labelled import Labelled
from hiddenstate.errors import DataError
from hiddenstate.job.labels.encode import Encoded, Schema, encode, given
from hiddenstate.job.scores import Json, against_floors, result
from hiddenstate.runtime import Model as Runtime
from hiddenstate.tasks.compare import Metric
from hiddenstate.tasks.label_floors import LabelFloors
from hiddenstate.tasks.labels import NO_LABEL, judge_labels

METRICS: tuple[Metric, ...] = ("accuracy", "log_loss")
UNITS = ("sequences", "steps")
BATCH_STEPS = 16_384


def log_probabilities(
    runtime: Runtime, encoded: Encoded, *, every_step: bool
) -> NDArray[np.float64]:
    """Return log probabilities [C, V] of every sequence or, with every_step, [N, V] of the steps.

    A sequence without steps gets what the model says of no evidence.
    """
    head = runtime.spec.heads[0]
    offsets = encoded.offsets
    lengths, last = np.diff(offsets), max(int(offsets[-1]) - 1, 0)
    found = np.empty((int(offsets[-1]) if every_step else len(lengths), head.outputs))
    for chosen in batches(lengths, batch_size=512, batch_events=BATCH_STEPS, shuffle=False):
        time = int(lengths[chosen].max())
        if time == 0:
            empty = np.zeros((len(chosen), 0, encoded.codes.shape[1]), dtype=np.int64)
            numbers = np.zeros((len(chosen), 0, encoded.numbers.shape[1]), dtype=np.float32)
            (outputs,) = runtime.decode(runtime.run_whole(empty, numbers, lengths[chosen]))
        else:
            rows = np.minimum(offsets[chosen][:, None] + np.arange(time), last)
            codes, numbers = encoded.codes[rows], encoded.numbers[rows]
            (outputs,) = runtime.decode(runtime.run_whole(codes, numbers, lengths[chosen]))
        if not every_step:
            found[chosen] = outputs
        elif time:
            real = np.arange(time) < lengths[chosen][:, None]
            found[rows[real]] = outputs[real]
    return found


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
    encoded = encode(found, schema, floors.classes)
    scored = encoded.target != NO_LABEL
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
        encoded.target[scored],
        log_probabilities(runtime, encoded, every_step=found.every_step)[scored],
        floors.classes,
    )
    seen = given(found, schema)
    task = against_floors(
        "classes",
        judged,
        floors.judge(seen, case, length, encoded.target),
        compared=floors.compared,
        description=floors.description,
        metrics=METRICS,
        bootstrap=bootstrap,
        seed=seed,
    )
    name = runtime.spec.heads[0].name
    steps = int(encoded.offsets[-1])
    return result(runtime.fingerprint, found.cases, steps, {name: task}, METRICS, UNITS)


def places(encoded: Encoded, *, every_step: bool) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the sequence and the length (or, of a step, the place from 1) of each label [M]."""
    lengths = np.diff(encoded.offsets)
    cases = np.arange(len(lengths))
    if not every_step:
        return cases, lengths
    start = np.repeat(encoded.offsets[:-1], lengths)
    return np.repeat(cases, lengths), np.arange(int(encoded.offsets[-1])) - start + 1
