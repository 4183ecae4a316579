"""Labelled sequences from lines: label and text, or a file for each label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from hiddenstate.data.jsonlines import numbered_lines
from hiddenstate.data.labelled import Labelled, LabelledOptions
from hiddenstate.data.labelled_tables import objects
from hiddenstate.data.report import FILE_BIT, Faults
from hiddenstate.errors import DataError
from hiddenstate.schema.log import Categorical


class Gathered:
    """Sequences that grow one by one: the inputs and labels of each, then its name and length."""

    def __init__(self, *, every_step: bool) -> None:
        self.every_step = every_step
        self.ids: list[str] = []
        self.rows: list[int] = []
        self.lengths: list[int] = []
        self.inputs: list[str] = []
        self.codes: list[int] = []
        self.known: dict[str, int] = {}

    def label(self, name: str | None) -> None:
        """Add a label, None or blank where there is none."""
        self.codes.append(-1 if not name else self.known.setdefault(name, len(self.known)))

    def sequence(self, name: str, row: int, length: int) -> None:
        """End a sequence that began at a row, numbered over all files."""
        self.ids.append(name)
        self.rows.append(row)
        self.lengths.append(length)

    def result(self, faults: Faults, *, tokens: bool, answers: bool) -> Labelled:
        """Return the sequences; refuse none at all."""
        if not self.ids:
            raise DataError(
                f"{', '.join(faults.sources[:3])}: there is no sequence.",
                "At least one line with something to read was expected.",
                " ".join(repair.sentence for repair in faults.repairs()) or "Check the path.",
            )
        codes = np.array(self.codes, dtype=np.int32)
        rows = np.array(self.rows, dtype=np.int64)
        if answers and not self.every_step:
            faults.note("no_label", rows[codes < 0])
        elif answers:
            faults.note("no_label", np.repeat(rows, self.lengths)[codes < 0])
        return Labelled(
            objects(self.ids),
            rows,
            np.concatenate(([0], np.cumsum(self.lengths))).astype(np.int64),
            Categorical(codes, tuple(self.known)),
            self.every_step,
            texts=None if tokens else objects(self.inputs),
            tokens=objects(self.inputs) if tokens else None,
        )


def from_lines(
    paths: Sequence[Path], options: LabelledOptions, faults: Faults, *, answers: bool
) -> Labelled:
    """Read lines of a label and a text, parted at the first (or last) separator.

    Without answers a line may be a text alone. Lines that cannot be parted are left out and
    counted as rows with a wrong number of fields.
    """
    found = Gathered(every_step=False)
    for path, row, text in _lines(paths, options, faults):
        head, parted, tail = (text.rpartition if options.label_last else text.partition)(
            options.separator
        )
        label, words = (tail, head) if options.label_last else (head, tail)
        if not parted and not answers:
            label, words = "", text
        elif not parted or not label.strip():
            faults.note("bad_fields", [row], [text])
            continue
        if not words.strip():
            faults.note("no_text", [row])
            continue
        if options.label_ends:
            label = label.partition(options.label_ends)[0]
        found.inputs.append(words.strip())
        found.label(label.strip())
        found.sequence(place_of(path, row, paths), row, len(words.strip()))
    return found.result(faults, tokens=False, answers=answers)


def class_files(folder: Path, options: LabelledOptions) -> list[tuple[Path, str]]:
    """Return the files of a folder with the label of each, in order of label and name.

    A file of the folder itself holds sequences of the label that it is named for; the files of a
    folder within it are of the label that that folder is named for. Hidden files are left out, and
    those whose name, with or without its ending, fits an entry of `exclude`. Raises DataError.
    """
    found = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        names = {path.name, path.stem, parts[0]}
        if not path.is_file() or any(part.startswith(".") for part in parts):
            continue
        if not any(fnmatch(name, entry) for name in names for entry in options.exclude):
            found.append((path, path.stem if len(parts) == 1 else parts[0]))
    if len({label for _, label in found}) < 2:
        raise DataError(
            f"The folder {folder} has files of {len({label for _, label in found})} label(s).",
            "It must hold a file for each label with a sequence on each line, or a folder for each "
            "label with files of such lines, and at least two labels.",
            "Check the path, or name a file.",
        )
    return found


def from_class_files(
    files: Sequence[tuple[Path, str]], options: LabelledOptions, faults: Faults
) -> Labelled:
    """Read every line of every file as a text with the file's label."""
    found = Gathered(every_step=False)
    paths = [path for path, _ in files]
    labels = dict(files)
    for path, row, text in _lines(paths, options, faults):
        found.inputs.append(text)
        found.label(labels[path])
        found.sequence(f"{labels[path]} {place_of(path, row, [path])}", row, len(text))
    return found.result(faults, tokens=False, answers=True)


def _lines(
    paths: Sequence[Path], options: LabelledOptions, faults: Faults
) -> Iterator[tuple[Path, int, str]]:
    """Yield file, global row and text of every line that is not blank."""
    for number, path in enumerate(paths):
        for row, line in raw_lines(path, number, options, faults):
            if line.strip():
                yield path, row, line.strip(" \r")
            else:
                faults.note("blank", [row])


def raw_lines(
    path: Path, number: int, options: LabelledOptions, faults: Faults
) -> Iterator[tuple[int, str]]:
    """Yield row, numbered over all files, and text of each line of file `number`."""
    faults.file = number
    for row, line in numbered_lines(path, options):
        yield int(faults.number(np.array([row]))[0]), line.decode().rstrip("\r")


def place_of(path: Path, row: int, paths: Sequence[Path]) -> str:
    """Return what a sequence without a name is called: its row and, among several, its file."""
    return str(line_of(row)) if len(paths) == 1 else f"{path.name} {line_of(row)}"


def line_of(row: int) -> int:
    """Return the number of a row in its own file."""
    return row & ((1 << FILE_BIT) - 1)
