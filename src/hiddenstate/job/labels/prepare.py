"""From labelled sequences and a recipe to everything that training needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.artifact import HeadSpec, ModelSpec
from hiddenstate.data import Samples, Split
from hiddenstate.data.labelled import Labelled
from hiddenstate.data.labelled_split import split_labelled
from hiddenstate.data.read_labelled import read_labelled
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.labels.encode import Encoded, Schema, cut, encode, given
from hiddenstate.job.labels.prepared import Parts, PreparedLabels
from hiddenstate.job.layers import layers_of
from hiddenstate.job.prepared import called
from hiddenstate.schema import Channels, Symbols, Tokens
from hiddenstate.tasks.label_floors import LabelFloors
from hiddenstate.train import Recipe
from hiddenstate.train.recipe.labels import Labels

LEAST_SEQUENCES = 5
MOST_CLASSES = 10_000
# Texts of so many words in the middle are read word by word.
WORDS_FROM = 4

Remark = Callable[[str], None]


def prepare(source: Any, recipe: Recipe, observer: Remark) -> PreparedLabels:
    """Read, share out; fit inputs, classes and floors on the training part; decide the spec."""
    remarks: list[str] = []

    def tell(remark: str) -> None:
        remarks.append(remark)
        observer(remark)

    every_step = recipe.tasks[0] == "label"
    reading = options(recipe)
    parts, description = _read(source, recipe, reading, every_step=every_step, tell=tell)
    training, validation, test = parts
    classes = _classes(training, recipe.tasks[0])
    for part, name in ((validation, "validation"), (test, "test")):
        _tell_unseen(part, name, classes, tell)
    _tell_lost(parts, tell)
    schema = _schema(training, recipe, tell)
    first, second = (encode(part, schema, classes) for part in parts[:2])
    floors = LabelFloors.fit(
        given(training, schema),
        first.target,
        given(validation, schema),
        second.target,
        classes,
        every_step=every_step,
    )
    kept = {"channels": list(schema.names)} if isinstance(schema, Channels) else {}
    # A text needs no name; what names a step's sequence must be there in later files too.
    needless = ("part", "sequence") if training.texts is not None else ("part",)
    columns = {role: name for role, name in training.columns.items() if role not in needless}
    return PreparedLabels(
        called(source),
        parts,
        (_samples(first, whole=not every_step), _samples(second, whole=not every_step)),
        description,
        schema,
        floors,
        _spec(schema, classes, recipe),
        tuple(remarks),
        {**reading, **columns, **kept, "drop_duplicates": False, "part": None},
    )


def options(recipe: Recipe) -> dict[str, Any]:
    """Return the reader's settings for a recipe."""
    section = recipe.labels
    named = ("text", "label", "token", "sequence", "position", "separator", "label_last")
    chosen = {name: getattr(section, name) for name in (*named, "label_ends", "drop_duplicates")}
    read = ("format", "delimiter", "encoding", "time_format", "allow_bad_rows", "exclude")
    return {
        **chosen,
        **{name: getattr(recipe.input, name) for name in read},
        "channels": recipe.input.attributes,
        "part": recipe.split.column,
    }


def _read(
    source: Any, recipe: Recipe, reading: Mapping[str, Any], *, every_step: bool, tell: Remark
) -> tuple[Parts, str]:
    """Read the sequences and share them out."""
    split = recipe.split
    if split.strict or (split.column and split.test_file):
        raise UsageError(
            "split.strict is set." if split.strict else "split.column and split.test_file are set.",
            "Sequences with labels have no common time; they are shared out at random, by a "
            "column, or by files.",
            "Leave it out.",
        )
    found, report = read_labelled(source, every_step=every_step, **reading)
    for repair in report.repairs:
        tell(repair.sentence)
    seed = recipe.labels.split_seed
    if split.test_file is None:
        shared = split_labelled(found, validation=split.validation, test=split.test, seed=seed)
        return _select(found, shared), shared.description
    same = {**reading, **{role: found.columns.get(role, reading[role]) for role in reading}}
    if found.channels:
        same["channels"] = found.channels
    test, report = read_labelled(
        split.test_file, every_step=every_step, **{**same, "drop_duplicates": False}
    )
    for repair in report.repairs:
        tell(f"Test file: {repair.sentence}")
    known = set(found.pieces())
    shared_inputs = sum(piece in known for piece in test.pieces())
    if shared_inputs:
        tell(f"{shared_inputs} sequences of the test file are also in the training file.")
    shared = split_labelled(found, validation=split.validation, test=0.0, seed=seed)
    train, validation, _ = _select(found, shared)
    name = Path(split.test_file).name
    return (train, validation, test), f"{name} tests; of the rest, {shared.description}"


def _select(found: Labelled, split: Split) -> Parts:
    train, validation, test = (
        found.select(part) for part in (split.train, split.validation, split.test)
    )
    return train, validation, test


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


def _samples(encoded: Encoded, *, whole: bool) -> Samples:
    known = encoded.target >= 0
    target = (np.where(known, encoded.target, 0), known)
    return Samples(encoded.codes, encoded.numbers, encoded.offsets, (target,), (whole,))


def _schema(training: Labelled, recipe: Recipe, tell: Remark) -> Schema:
    section: Labels = recipe.labels
    if training.values is not None:
        return Channels.fit(training.channels, training.values)
    most, unit = section.most_symbols, section.unit
    tokens, offsets = cut(training, "words")
    if training.texts is None and unit not in (None, "words"):
        raise UsageError(
            f"labels.unit is {unit!r}, and the sequences came as tokens.",
            "Tokens are read as they are, as words.",
            "Leave labels.unit out.",
        )
    if training.texts is not None and unit is None:
        unit = "words" if np.median(np.diff(offsets)) >= WORDS_FROM else "characters"
        tell(f"Texts are read as {unit}; labels.unit changes that.")
    views = ["word", "beginning", "ending", "shape", "pair"]
    if training.texts is not None and unit == "characters" and section.pairs:
        tokens, offsets = cut(training, unit)
        views = ["word", "shape", "pair"]
    elif training.texts is not None and unit is not None and unit != "words":
        return Symbols.fit(
            training.texts,
            unit,
            size=most if unit == "characters" else None,
            least_count=section.least_count,
            lowercase=section.lowercase,
        )
    left_out = [] if section.pairs else ["pair"]
    left_out += [] if section.spelling else ["beginning", "ending", "shape"]
    return Tokens.fit(
        tokens,
        offsets,
        views=[view for view in views if view not in left_out],
        most=most,
        least_count=section.least_count,
        unit=unit or "words",
    )


def _spec(schema: Schema, classes: tuple[str, ...], recipe: Recipe) -> ModelSpec:
    sizes = schema.code_sizes
    # The word says most; beside it the other views are half as wide.
    widths = [recipe.model.embedding_size, *[max(recipe.model.embedding_size // 2, 1)] * len(sizes)]
    embeddings = tuple(min(width, size) for width, size in zip(widths, sizes))
    layers = layers_of(recipe, sum(embeddings) + len(schema.number_names))
    task = recipe.tasks[0]
    pool = recipe.model.pool if task == "classify" else None
    head = HeadSpec({"task": task, "classes": list(classes)}, pool=pool)
    return ModelSpec(
        schema, embeddings, layers, (head,), recipe.model.residual, recipe.model.layer_norm
    )
