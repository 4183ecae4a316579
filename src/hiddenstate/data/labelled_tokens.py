"""Sequences that come cut into tokens: a token and its label on each line, or lists of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.data.jsonlines import json_objects
from hiddenstate.data.labelled import Labelled, LabelledOptions
from hiddenstate.data.labelled_lines import Gathered, line_of, place_of, raw_lines
from hiddenstate.data.names import KNOWN
from hiddenstate.data.report import Faults
from hiddenstate.errors import DataError, UsageError

DOCUMENT = "-DOCSTART-"
TOKENS = ("tokens", "words")
LABELS = ("labels", "tags", "ner_tags", "pos_tags")


def from_token_lines(
    paths: Sequence[Path],
    options: LabelledOptions,
    faults: Faults,
    *,
    every_step: bool,
    answers: bool,
) -> Labelled:
    """Read a token and its label on each line, and a blank line between sequences (CoNLL).

    Fields are parted by tabs where a line has one, else by spaces. Token and label are the first
    and the last field unless given; the label _ is none. A line of "# " and more than a label is
    a remark. Raises DataError where a line has too few fields: a token left out would shift the
    others.
    """
    if not every_step:
        raise DataError(
            f"{paths[0]} has a label on each line.",
            "A whole sequence has one label.",
            "Use --task label (of numbers, regress_steps).",
        )
    token, label = _number(options.token, 1, "token"), _number(options.label, -1, "label")
    found = Gathered(every_step=True)
    first, count = 0, 0
    for number, path in enumerate(paths):
        for row, line in raw_lines(path, number, options, faults):
            if not line.strip() or line.startswith(DOCUMENT):
                if count:
                    found.sequence(place_of(path, first, paths), first, count)
                count = 0
                continue
            fields = line.split("\t") if "\t" in line else line.split()
            if line.startswith("# ") and "\t" not in line and len(fields) != 2:
                continue
            if len(fields) < (2 if answers else 1):
                raise DataError(
                    f"{path}, row {line_of(row)} has {len(fields)} field: {line[:40]!r}.",
                    "A token and its label were expected on each line, a blank line between "
                    "sequences.",
                    "Mend the line, or say with --format what kind of file it is.",
                )
            first, count = (row, 1) if not count else (first, count + 1)
            found.inputs.append(_field(fields, token, path, row))
            name = _field(fields, label, path, row) if answers or len(fields) > 1 else ""
            found.label(name if name != "_" else None)
        if count:
            found.sequence(place_of(path, first, paths), first, count)
            count = 0
    return found.result(faults, tokens=True, answers=answers)


def has_lists(path: Path, options: LabelledOptions) -> bool:
    """Return whether the first object of a JSON lines file has a list of tokens."""
    for _, record in json_objects(path, options, Faults([str(path)])):
        return isinstance(record.get(_named(record, options.token, TOKENS) or ""), list)
    return False


def from_lists(
    paths: Sequence[Path],
    options: LabelledOptions,
    faults: Faults,
    *,
    every_step: bool,
    answers: bool,
) -> Labelled:
    """Read JSON lines with a list of tokens and a list of labels (or one label) each.

    Raises DataError where the two lists of a line differ in length.
    """
    found = Gathered(every_step=every_step)
    for number, path in enumerate(paths):
        faults.file = number
        for line, record in json_objects(path, options, faults):
            row = int(faults.number(np.array([line]))[0])
            tokens = _tokens(record, options.token, path, line)
            if not tokens:
                faults.note("no_text", [row])
                continue
            answer = _answer(record, options.label, path, line) if answers else None
            wanted = len(tokens) if every_step else None
            given = len(answer) if isinstance(answer, list) else None
            if answers and given != wanted:
                raise DataError(
                    f"{path}, row {line} has {len(tokens)} tokens and "
                    f"{'one label' if given is None else f'{given} labels'}.",
                    f"{wanted} labels were expected, one for each token."
                    if every_step
                    else "One label for the whole sequence was expected.",
                    "Mend the line, or choose between --task label and --task classify (of "
                    "numbers, regress_steps and regress).",
                )
            found.inputs += tokens
            named = answer if isinstance(answer, list) else [answer]
            for name in named if not every_step or answers else [None] * len(tokens):
                found.label(None if name is None else str(name))
            found.sequence(place_of(path, row, paths), row, len(tokens))
    return found.result(faults, tokens=True, answers=answers)


def _named(record: Mapping[str, Any], given: str | None, known: Sequence[str]) -> str | None:
    return given or next((key for key in record if key.lower() in known), None)


def _tokens(record: Mapping[str, Any], given: str | None, path: Path, line: int) -> list[str]:
    value = record.get(_named(record, given, TOKENS) or "")
    if not isinstance(value, list):
        raise DataError(
            f"{path}, row {line} has no list of tokens; it has {', '.join(record)}.",
            f"A list under {' or '.join(TOKENS)} was expected, as in the first line.",
            "Mend the line, or name the list with --set labels.token=NAME.",
        )
    return [str(token) for token in value]


def _answer(record: Mapping[str, Any], given: str | None, path: Path, line: int) -> Any:
    name = _named(record, given, (*LABELS, *KNOWN["label"]))
    if name is None or name not in record:
        raise DataError(
            f"{path}, row {line} has no label; it has {', '.join(record)}.",
            f"Known names are {', '.join((*LABELS, *KNOWN['label']))}.",
            "Say which it is with --set labels.label=NAME.",
        )
    return record[name]


def _field(fields: list[str], place: int, path: Path, row: int) -> str:
    index = place - 1 if place > 0 else place
    if not -len(fields) <= index < len(fields):
        raise DataError(
            f"{path}, row {line_of(row)} has {len(fields)} fields and none number {place}.",
            "Every line was expected to have that field, as labels.token and labels.label say.",
            "Mend the line, or name other fields.",
        )
    return fields[index].strip()


def _number(given: str | None, usual: int, role: str) -> int:
    """Return the number of a field; UsageError where it is none."""
    text = given or str(usual)
    if text.removeprefix("-").isdecimal() and int(text):
        return int(text)
    raise UsageError(
        f"labels.{role} is {given!r}, and the file has a token and its label on each line.",
        "Its fields have no names; they are numbered from 1 or, from the end, -1.",
        f"Give the number of the field with --set labels.{role}={usual}.",
    )
