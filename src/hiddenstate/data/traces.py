"""The benchmark splits' form: one trace a line, '<BOS>, a, b, <EOS>'."""

from __future__ import annotations

import numpy as np
import polars as pl

from hiddenstate.data.blocks import Block
from hiddenstate.data.names import plain
from hiddenstate.data.report import Faults

BEGIN, END = "<BOS>", "<EOS>"
ACTIVITY = "activity"


def is_traces(block: Block) -> bool:
    """Return whether the rows of a block are whole traces."""
    name = _trace_column(block)
    if name is None or block.columns[name].dtype != pl.String:
        return False
    values = block.columns[name].drop_nulls()
    return bool(len(values)) and bool(values.head(100).str.starts_with(BEGIN).all())


def expand(block: Block, faults: Faults) -> Block:
    """Return one row per activity; the case column is kept, BEGIN and END go.

    Counted: traces without activities, and lengths that disagree with the `length` column.
    """
    name = _trace_column(block) or ""
    lists = block.columns[name].str.split(",").list.eval(pl.element().str.strip_chars())
    lists = lists.list.eval(pl.element().filter(~pl.element().is_in([BEGIN, END, ""])))
    counts = lists.list.len().fill_null(0).to_numpy()
    faults.note("empty_case", faults.number(block.rows[counts == 0]))
    columns: dict[str, pl.Series] = {}
    for key, column in block.columns.items():
        if plain(key) == "length":
            stated = column.cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
            faults.note("wrong_length", faults.number(block.rows[stated != counts]))
        elif key != name:
            columns[key] = column.gather(np.repeat(np.arange(len(counts)), counts))
    filled = lists.filter(pl.Series(counts > 0))
    columns[ACTIVITY] = filled.explode().rename(ACTIVITY)
    return Block(columns, np.repeat(block.rows, counts))


def _trace_column(block: Block) -> str | None:
    return next((name for name in block.columns if plain(name) in ("trace", "traces")), None)
