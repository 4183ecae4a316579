"""What commands print: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

NOTES = Console(stderr=True, highlight=False, soft_wrap=True)
# A file has no edge at which the cells of a table would have to be folded.
RESULTS = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object to stdout, times as ISO 8601."""
    text = json.dumps(
        value, indent=1, ensure_ascii=False, allow_nan=False, default=datetime.isoformat
    )
    sys.stdout.write(text + "\n")


def note(text: str, quiet: bool = False) -> None:
    """Print a remark to stderr unless quiet."""
    if not quiet:
        NOTES.print(text, markup=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout; the first column is text, the others are aligned right."""
    grid = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        pad_edge=False,
        show_header=any(columns),
    )
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*row)
    RESULTS.print(grid)
