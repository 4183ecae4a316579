"""From an event log and a recipe to everything that training needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from hiddenstate import data, tasks
from hiddenstate.artifact import HeadSpec
from hiddenstate.errors import DataError, UsageError, nearest
from hiddenstate.job.events.evaluate import Ceiling
from hiddenstate.job.events.prepared import PreparedLog
from hiddenstate.job.prepared import called
from hiddenstate.job.reading import options
from hiddenstate.schema import EventLog, Scaler, Schema
from hiddenstate.tasks import Task
from hiddenstate.train import Recipe
from hiddenstate.train.recipe import Input, Split

LEAST_TRAINING_CASES = 5

Remark = Callable[[str], None]


def prepare(
    source: Any, recipe: Recipe, observer: Remark, ceiling: Ceiling | None = None
) -> PreparedLog:
    """Read, check, split; fit tasks, schema and floors on the training part; decide the heads."""
    _refuse_contradictions(recipe.split)
    wanted = [tasks.parse(text) for text in recipe.tasks]
    _refuse_repeated([task.name for task in wanted])
    remarks: list[str] = []

    def tell(remark: str) -> None:
        remarks.append(remark)
        observer(remark)

    log, split = _read(source, recipe, tell)
    _refuse_unlearnable(log, recipe.input, tell)
    parts = split.parts(log)
    training = parts[0]
    if training.cases < LEAST_TRAINING_CASES:
        raise DataError(
            f"Only {training.cases} of {log.cases} cases are left to train on.",
            f"At least {LEAST_TRAINING_CASES} are needed.",
            "Give a larger log, or smaller shares for validation and test.",
        )
    fitted = tuple(task.fit(training) for task in wanted)
    for task in fitted:
        _require_answers(task, parts[1], parts[2])
    forbidden = {column for task in fitted for column in task.forbidden}
    if split.column is not None:
        forbidden.add(split.column)
    _refuse_leaks(log, recipe.input, forbidden, fitted)
    schema = _schema(training, recipe.input, forbidden)
    floors = tuple(tasks.fit_floors(task, training, parts[1]) for task in fitted)
    heads = tuple(_head(task, training) for task in fitted)
    return PreparedLog(
        called(source),
        recipe,
        tuple(remarks),
        log,
        split,
        parts,
        fitted,
        floors,
        schema,
        heads,
        recipe.input.model_dump(include={"encoding", "time_format"}),
        ceiling,
    )


def _read(source: Any, recipe: Recipe, tell: Remark) -> tuple[EventLog, data.Split]:
    """Read the log and decide which cases train, validate and test."""
    if isinstance(source, EventLog):
        log, report = _as_told(source, recipe), None
    elif recipe.split.test_file is not None:
        log, report, split = data.read_parts(
            source,
            recipe.split.test_file,
            options=options(recipe.input),
            validation_share=recipe.split.validation,
        )
    else:
        log, report = data.read(source, options(recipe.input))
    for repair in report.repairs if report else ():
        tell(repair.sentence)
    for column, reason in (report.dropped if report else {}).items():
        tell(f"Column {column} is not used: {reason}.")
    if isinstance(source, EventLog) or recipe.split.test_file is None:
        split = _split(log, recipe.split)
    if split.dropped[0]:
        tell(f"The strict split dropped {split.dropped[0]} events and {split.dropped[1]} cases.")
    return log, split


def _as_told(log: EventLog, recipe: Recipe) -> EventLog:
    """Apply to a log in memory what the recipe says of reading; refuse what only a file has."""
    of_files = {
        **recipe.input.model_dump(
            include={"case", "activity", "timestamp", "time_format", "format", "delimiter"}
        ),
        "test_file": recipe.split.test_file,
    }
    given = [name for name, value in of_files.items() if value is not None]
    if given:
        raise UsageError(
            f"{', '.join(given)} was set, and the source is an EventLog.",
            "These settings say how a file is read; a log in memory has been read.",
            "Leave them out, or give the file.",
        )
    left_out = set(recipe.input.exclude)
    return replace(
        log,
        categorical={k: v for k, v in log.categorical.items() if k not in left_out},
        numeric={k: v for k, v in log.numeric.items() if k not in left_out},
        time_us=None if recipe.input.no_timestamp else log.time_us,
    )


def _refuse_contradictions(recipe: Split) -> None:
    given = {
        "test_file": recipe.test_file is not None,
        "column": recipe.column is not None,
        "strict": recipe.strict,
    }
    names = [f"split.{name}" for name, is_set in given.items() if is_set]
    if len(names) > 1:
        raise UsageError(
            f"{' and '.join(names)} are set together.",
            "Cases are shared out by time (which strict sharpens), by a column, or by files.",
            "Leave all but one of them out.",
        )


def _refuse_repeated(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"The task {name} is asked for {names.count(name)} times.",
                "A model has one head for each task.",
                "Name it once.",
            )


def _refuse_unlearnable(log: EventLog, recipe: Input, tell: Remark) -> None:
    """Refuse a log without histories, and attributes that it has not; tell of a single activity."""
    if log.cases and int(log.lengths.max()) <= 1:
        raise DataError(
            f"Every one of the {log.cases} cases has a single event.",
            f"Events of one history share the value of the case column, here {log.case!r}.",
            "Name the column that they share with --case.",
        )
    known = {*log.categorical, *log.numeric} - {log.activity}
    for name in recipe.attributes or ():
        if name not in known:
            raise DataError(
                f"There is no usable attribute {name!r}.{nearest(name, known)}",
                f"The attributes are: {', '.join(sorted(known)) or 'none'}.",
                "Correct --attributes; `hiddenstate data check` says why a column is left out.",
            )
    if len(np.unique(log.activities.codes)) == 1:
        tell("All events have the same activity: what can be learnt is when and whether they come.")


def _split(log: EventLog, recipe: Split) -> data.Split:
    if recipe.column is not None:
        return data.by_column(log, recipe.column)
    return data.by_time(log, validation=recipe.validation, test=recipe.test, strict=recipe.strict)


def _require_answers(task: Task, validation: EventLog, test: EventLog) -> None:
    """Refuse parts that have cases and yet no answer, before any training.

    Validation needs answers that training knows, the test part only steps to score.
    """
    wanted = "Use a larger --{0} share, or leave --strict out if it cut the cases short."
    if validation.cases and not task.targets(validation).learnable.any():
        raise DataError(
            f"None of the {validation.cases} validation cases has an answer to {task.name}.",
            "The validation part decides when training stops, so it needs answers known in "
            "training.",
            wanted.format("validation"),
        )
    if test.cases and not task.targets(test).mask.any():
        raise DataError(
            f"None of the {test.cases} test cases has a step that {task.name} scores.",
            "The model is scored on the test part.",
            wanted.format("test"),
        )


def _schema(training: EventLog, recipe: Input, forbidden: set[str]) -> Schema:
    chosen = recipe.attributes
    return Schema.fit(
        training,
        categorical=None if chosen is None else [c for c in chosen if c in training.categorical],
        numeric=None if chosen is None else [c for c in chosen if c in training.numeric],
        exclude=forbidden,
    )


def _refuse_leaks(
    log: EventLog, recipe: Input, forbidden: set[str], asked: tuple[Task, ...]
) -> None:
    used = set(log.categorical) | set(log.numeric)
    if recipe.attributes is not None:
        used &= set(recipe.attributes)
    answers = [(task.name, task.case_answers(log)) for task in asked if task.of_cases]
    leaks = [leak for leak in data.leaks(log, answers) if leak.column in used - forbidden]
    if leaks and not recipe.allow_leaks:
        listed = ", ".join(f"{leak.column} ({leak.reason})" for leak in leaks)
        names = ",".join(leak.column for leak in leaks)
        raise DataError(
            f"These columns seem to give the answer away: {listed}.",
            "An input must be known at the time of its event; a model that reads the future is "
            "right in tests and wrong in use.",
            f"Leave them out with --exclude {names}, or use them all the same with --allow-leaks.",
        )


def _head(task: Task, training: EventLog) -> HeadSpec:
    scaler = None
    if task.kind == "number":
        # In units of the mean and not of a logarithm: the loss is then the error in days itself.
        targets = task.targets(training)
        mean_days = float(targets.values[targets.mask].mean())
        scaler = Scaler(0.0, mean_days or 1.0)
    return HeadSpec(task.to_json(), scaler, "classes" if scaler is None else "number")
