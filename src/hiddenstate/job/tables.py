"""Tables as files, by their endings, all or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hiddenstate.errors import UsageError

if TYPE_CHECKING:
    import polars

WRITERS = {".parquet": "write_parquet", ".csv": "write_csv", ".jsonl": "write_ndjson"}


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise UsageError where a table cannot be written to path."""
    if path.suffix not in WRITERS:
        raise UsageError(
            f"--out {path} has the ending {path.suffix or 'none'!r}.",
            f"A table is written as {', '.join(WRITERS)}.",
            "Give the file one of these endings.",
        )
    if path.exists() and not overwrite:
        raise UsageError(
            f"{path} exists.",
            "Nothing is overwritten unasked.",
            "Choose another name, or add --overwrite.",
        )


def write_table(table: polars.DataFrame, path: Path) -> None:
    """Write a table by its ending, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    getattr(table, WRITERS[path.suffix])(partial)
    partial.replace(path)
