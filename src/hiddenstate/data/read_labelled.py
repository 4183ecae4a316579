"""Read labelled sequences from any supported source, with a report of every repair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiddenstate.data.labelled import Labelled, LabelledOptions, settle_duplicates
from hiddenstate.data.labelled_lines import class_files, from_class_files, from_lines
from hiddenstate.data.labelled_numbers import require_numbers
from hiddenstate.data.labelled_tables import from_tables
from hiddenstate.data.labelled_tokens import from_lists, from_token_lines, has_lists
from hiddenstate.data.report import DROPPING, Faults, ReadReport
from hiddenstate.data.series_files import from_npz, from_ts, reorder
from hiddenstate.data.sources import SUFFIXES, open_source
from hiddenstate.errors import DataError, UsageError, nearest

FORMATS = ("csv", "jsonl", "parquet", "lines", "conll", "folder", "ts", "npz")
ENDINGS = {
    **{ending: form for ending, form in SUFFIXES.items() if form != "xes"},
    **dict.fromkeys((".txt", ".train", ".test", ".label"), "lines"),
    **dict.fromkeys((".conll", ".conllu", ".iob", ".bio", ".iob2"), "conll"),
    ".ts": "ts",
    ".npz": "npz",
}
MOST_BAD_SHARE = 0.05


def read_labelled(
    source: Any,
    options: LabelledOptions | None = None,
    *,
    every_step: bool = False,
    answers: bool = True,
    numeric: bool = False,
    **settings: Any,
) -> tuple[Labelled, ReadReport]:
    """Read sequences and labels; `settings` are fields of LabelledOptions.

    A source is a path, several, or a polars or pandas frame. What is read, by ending or format:

    csv, jsonl, parquet  a row with a text and its label; or a row for each step, with the sequence
                         it belongs to, its position, a label, and a token or the channels' numbers;
                         JSON lines also with a list of tokens and a list of labels
    lines (.txt)         label, separator, text
    conll                a token and its label on each line, a blank line between sequences
    folder               a file for each label with a sequence on each line, or a folder for each
    ts, npz              series, see `data.series_files`

    every_step: labels are of steps, not of whole sequences
    answers:    labels must be there, and repeated sequences are looked for
    numeric:    labels must be numbers, where they are there

    Raises DataError where the source cannot be read so, UsageError for options that do not fit.
    """
    chosen = (options or LabelledOptions()).change(**settings)
    paths = _paths(source)
    form = _form(paths, chosen) if paths else "frame"
    labels = dict(class_files(paths[0], chosen)) if form == "folder" else {}
    faults = Faults([str(path) for path in labels or paths] or ["frame"])
    kinds = {"every_step": every_step, "answers": answers}
    if form in ("lines", "folder", "ts") and every_step:
        raise DataError(
            f"{paths[0]} has a label for each sequence.",
            "Labels for every step were asked for.",
            "Use --task classify (of numbers, regress), or give a file with a label for each step.",
        )
    if form == "folder":
        found = from_class_files(list(labels.items()), chosen, faults)
    elif form == "lines":
        found = from_lines(paths, chosen, faults, answers=answers)
    elif form == "conll":
        found = from_token_lines(paths, chosen, faults, **kinds)
    elif form == "ts":
        found = from_ts(_only(paths), chosen, faults, answers=answers, numeric=numeric)
    elif form == "npz":
        found = from_npz(_only(paths), faults, **kinds)
    elif form == "jsonl" and has_lists(paths[0], chosen):
        found = from_lists(paths, chosen, faults, **kinds)
    else:
        opened = paths or source
        openers = open_source(opened, chosen.change(format=form if paths else None))[2]
        found = from_tables(openers, chosen, faults, **kinds)
    if form in ("ts", "npz") and chosen.channels is not None:
        found = reorder(found, tuple(chosen.channels), str(paths[0]))
    rows = found.steps if every_step or found.of != "texts" else found.cases
    _refuse_bad(rows, faults, chosen)
    if answers:
        found = require_numbers(found, faults) if numeric else found
        found = settle_duplicates(found, chosen, faults)
    details = {"format": form, "encoding": chosen.encoding}
    return found, ReadReport(
        tuple(faults.sources),
        dict(found.columns),
        details,
        rows + faults.lost(),
        found.cases,
        found.steps,
        faults.repairs(),
        (),
        {},
    )


def _paths(source: Any) -> list[Path]:
    """Return the paths of a source, none for a frame."""
    if isinstance(source, str | Path):
        return [Path(source)]
    if isinstance(source, list | tuple):
        return [Path(path) for path in source]
    return []


def _only(paths: list[Path]) -> Path:
    if len(paths) > 1:
        raise UsageError(
            f"{len(paths)} files were given.",
            "A file of series is read by itself.",
            "Give one file; --test-file names the one with the test part.",
        )
    return paths[0]


def _form(paths: list[Path], options: LabelledOptions) -> str:
    given = options.format
    if given is not None and given not in FORMATS:
        raise UsageError(
            f"There is no format {given!r} of labelled sequences.{nearest(given, FORMATS)}",
            f"Formats are {', '.join(FORMATS)}.",
            "Correct --format.",
        )
    path = paths[0]
    if path.is_dir():
        return "folder"
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    found = given or ENDINGS.get(suffixes[-1] if suffixes else "")
    if found == "folder" or not path.exists():
        raise DataError(
            f"{path} {'is no folder' if path.exists() else 'does not exist'}.",
            "Sequences with labels were expected there.",
            "Check the path.",
        )
    if found is None:
        raise DataError(
            f"The kind of file of {path} is not known from its name.",
            f"Known endings are {', '.join(ENDINGS)}, those of text also with .gz.",
            f"Say what it is with --format {'|'.join(FORMATS)}.",
        )
    return found


def _refuse_bad(rows: int, faults: Faults, options: LabelledOptions) -> None:
    lost = faults.lost()
    if options.allow_bad_rows or lost <= MOST_BAD_SHARE * (rows + lost):
        return
    told = [repair.sentence for repair in faults.repairs() if repair.code in DROPPING]
    raise DataError(
        f"{', '.join(faults.sources[:3])}: {lost} of {rows + lost} rows cannot be used. "
        + " ".join(told),
        f"At most {MOST_BAD_SHARE:.0%} of the rows may be unreadable.",
        "Mend the rows, correct --format, --delimiter or labels.separator, or go on without them "
        "by --allow-bad-rows.",
    )
