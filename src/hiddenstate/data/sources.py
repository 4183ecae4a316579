"""Which reader serves a source, by the ending of its name or as given."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl

from hiddenstate.data.blocks import Block
from hiddenstate.data.delimited import read_delimited
from hiddenstate.data.jsonlines import read_jsonlines
from hiddenstate.data.options import Options
from hiddenstate.data.report import Faults
from hiddenstate.data.tables import frame_blocks, from_pandas, read_parquet
from hiddenstate.data.xes import read_xes
from hiddenstate.errors import DataError, UsageError, nearest

Reader: TypeAlias = Callable[[Path, Options, Faults], Iterator[Block]]
Opener: TypeAlias = Callable[[Faults], Iterator[Block]]

READERS: dict[str, Reader] = {
    "csv": read_delimited,
    "parquet": read_parquet,
    "jsonl": read_jsonlines,
    "xes": read_xes,
}
SUFFIXES = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    ".xes": "xes",
}


def open_source(source: Any, options: Options) -> tuple[list[str], str, list[Opener]]:
    """Return the names of the files, their formats, and a function per file that reads it anew.

    Raises DataError for a file of unknown kind, UsageError for an unknown format or no file.
    """
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if not isinstance(source, str | Path | pl.DataFrame) and hasattr(source, "columns"):
        source = from_pandas(source)
    if isinstance(source, pl.DataFrame):
        frame = source
        return ["frame"], "frame", [lambda _: frame_blocks(frame)]
    given = [source] if isinstance(source, str | Path) else source
    if not isinstance(given, list | tuple) or not all(isinstance(p, str | Path) for p in given):
        raise UsageError(
            f"A log cannot be read from {type(source).__name__} {str(source)[:60]!r}.",
            "A path, a list of paths, or a polars or pandas frame was expected.",
            "Give one of them.",
        )
    paths = [Path(path) for path in given]
    if not paths:
        raise UsageError("No file was given.", "At least one was expected.", "Name a file.")
    forms = [_format(path, options.format) for path in paths]

    def opener(path: Path, form: str) -> Opener:
        return lambda faults: READERS[form](path, options, faults)

    openers = [opener(path, form) for path, form in zip(paths, forms, strict=True)]
    return [str(path) for path in paths], ", ".join(dict.fromkeys(forms)), openers


def _format(path: Path, given: str | None) -> str:
    if given is not None and given not in READERS:
        raise UsageError(
            f"There is no format {given!r}.{nearest(given, READERS)}",
            f"Formats are {', '.join(READERS)}.",
            "Correct --format.",
        )
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    found = given or SUFFIXES.get(suffixes[-1] if suffixes else "")
    if found is None and not path.is_file():
        raise DataError(
            f"{path} {'is a folder' if path.is_dir() else 'does not exist'}.",
            "A file with an event log was expected.",
            "Check the path.",
        )
    if found is None:
        raise DataError(
            f"The kind of file of {path} is not known from its name.",
            f"Known endings are {', '.join(SUFFIXES)}, each also with .gz.",
            f"Say what it is with --format {'|'.join(READERS)}.",
        )
    return found
