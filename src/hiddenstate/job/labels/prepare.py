"""From labelled sequences and a recipe to everything that training needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.data import Samples, Split
from hiddenstate.data.labelled import Labelled
from hiddenstate.data.labelled_split import split_labelled
from hiddenstate.data.read_labelled import read_labelled
from hiddenstate.errors import UsageError
from hiddenstate.job.labels.encode import Encoded, Schema, cut, encode
from hiddenstate.job.labels.learnt import Target, labels, numbers
from hiddenstate.job.labels.prepared import Parts, PreparedLabels
from hiddenstate.job.labels.task import EVERY_STEP, NUMERIC
from hiddenstate.job.prepared import called
from hiddenstate.schema import Channels, Symbols, Tokens
from hiddenstate.train import Recipe
from hiddenstate.train.recipe.labels import Labels

# Texts of so many words in the middle are read word by word.
WORDS_FROM = 4

Remark = Callable[[str], None]


def prepare(source: Any, recipe: Recipe, observer: Remark) -> PreparedLabels:
    """Read, share out; fit inputs, classes and floors on the training part."""
    remarks: list[str] = []

    def tell(remark: str) -> None:
        remarks.append(remark)
        observer(remark)

    task = recipe.tasks[0]
    every_step, numeric = task in EVERY_STEP, task in NUMERIC
    reading = options(recipe)
    parts, description = _read(
        source, recipe, reading, every_step=every_step, numeric=numeric, tell=tell
    )
    schema = _schema(parts[0], recipe, tell)
    learnt = (numbers if numeric else labels)(parts, schema, recipe, tell)
    first, second = (
        _samples(encode(part, schema), target, whole=not every_step)
        for part, target in zip(parts[:2], learnt.targets)
    )
    kept = {"channels": list(schema.names)} if isinstance(schema, Channels) else {}
    # A text needs no name; what names a step's sequence must be there in later files too.
    needless = ("part", "sequence") if parts[0].texts is not None else ("part",)
    columns = {role: name for role, name in parts[0].columns.items() if role not in needless}
    return PreparedLabels(
        called(source),
        recipe,
        tuple(remarks),
        parts,
        (first, second),
        description,
        schema,
        learnt.floors,
        learnt.head,
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
    source: Any,
    recipe: Recipe,
    reading: Mapping[str, Any],
    *,
    every_step: bool,
    numeric: bool,
    tell: Remark,
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
    found, report = read_labelled(source, every_step=every_step, numeric=numeric, **reading)
    for repair in report.repairs:
        tell(repair.sentence)
    seed = recipe.labels.split_seed
    if split.test_file is None:
        shared = split_labelled(
            found, validation=split.validation, test=split.test, seed=seed, numeric=numeric
        )
        return _select(found, shared), shared.description
    same = {**reading, **{role: found.columns.get(role, reading[role]) for role in reading}}
    if found.channels:
        same["channels"] = found.channels
    same["drop_duplicates"] = False
    test, report = read_labelled(split.test_file, every_step=every_step, numeric=numeric, **same)
    for repair in report.repairs:
        tell(f"Test file: {repair.sentence}")
    known = set(found.pieces())
    shared_inputs = sum(piece in known for piece in test.pieces())
    if shared_inputs:
        tell(f"{shared_inputs} sequences of the test file are also in the training file.")
    shared = split_labelled(
        found, validation=split.validation, test=0.0, seed=seed, numeric=numeric
    )
    train, validation, _ = _select(found, shared)
    name = Path(split.test_file).name
    return (train, validation, test), f"{name} tests; of the rest, {shared.description}"


def _select(found: Labelled, split: Split) -> Parts:
    train, validation, test = (
        found.select(part) for part in (split.train, split.validation, split.test)
    )
    return train, validation, test


def _samples(encoded: Encoded, target: Target, *, whole: bool) -> Samples:
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
