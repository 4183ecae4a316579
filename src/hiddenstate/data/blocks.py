"""What every reader yields: some rows of a file as columns, with their row numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from hiddenstate.data.report import Faults
from hiddenstate.schema.log import Int64

# Rows that are made one by one in Python are gathered to blocks of this many.
BLOCK_ROWS = 50_000


class Block(NamedTuple):
    """Rows of one file: columns of any polars type, and their numbers in the file from 1 [n]."""

    columns: Mapping[str, pl.Series]
    rows: Int64


def text(value: object) -> str | None:
    """Return a Python value as the text that a CSV of it would hold."""
    if isinstance(value, str) or value is None:
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def gather(records: Iterable[tuple[int, Mapping[str, Any]]], faults: Faults) -> Iterator[Block]:
    """Turn numbered records into blocks of text columns; nested values are ignored and counted."""
    columns: dict[str, list[str | None]] = {}
    rows: list[int] = []
    for row, record in records:
        for name, value in record.items():
            if isinstance(value, dict | list):
                faults.note("nested", faults.number(np.array([row])), [name])
                continue
            column = columns.get(name)
            if column is None:
                column = columns[name] = []
            column.extend([None] * (len(rows) - len(column)))
            column.append(text(value))
        rows.append(row)
        if len(rows) == BLOCK_ROWS:
            yield _block(columns, rows)
            columns, rows = {}, []
    if rows:
        yield _block(columns, rows)


def _block(columns: dict[str, list[str | None]], rows: list[int]) -> Block:
    for column in columns.values():
        column.extend([None] * (len(rows) - len(column)))
    series = {name: pl.Series(name, column, pl.String) for name, column in columns.items()}
    return Block(series, np.array(rows, dtype=np.int64))
