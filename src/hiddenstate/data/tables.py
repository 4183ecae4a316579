"""Tables that have types already: Parquet files, polars and pandas frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hiddenstate.data.blocks import Block
from hiddenstate.data.options import Options
from hiddenstate.data.report import Faults
from hiddenstate.errors import DataError

SLICE_ROWS = 500_000


def read_parquet(path: Path, options: Options, faults: Faults) -> Iterator[Block]:
    """Yield a Parquet file in slices; row 1 is the first record. Raises DataError if damaged."""
    del options
    try:
        lazy = pl.scan_parquet(path)
        height = int(lazy.select(pl.len()).collect().item())
        for first in range(0, height, SLICE_ROWS):
            yield from frame_blocks(lazy.slice(first, SLICE_ROWS).collect(), faults, first)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.",
            "A whole Parquet file was expected.",
            "Write it again, or name its true --format.",
        ) from None


def frame_blocks(frame: pl.DataFrame, faults: Faults, first: int = 0) -> Iterator[Block]:
    """Yield a polars frame in slices; nested columns are ignored and counted."""
    nested = [name for name, kind in frame.schema.items() if kind.is_nested()]
    for start in range(0, frame.height, SLICE_ROWS):
        piece = frame.slice(start, SLICE_ROWS)
        rows = first + start + 1 + np.arange(piece.height, dtype=np.int64)
        for name in nested:
            faults.note("nested", faults.number(rows), [name])
        yield Block({s.name: s for s in piece.get_columns() if s.name not in nested}, rows)


def from_pandas(frame: Any) -> pl.DataFrame:
    """Return a pandas frame as a polars frame, column by column, its index left out."""
    columns = {}
    for name in frame.columns:
        values = frame[name]
        missing = values.isna().to_numpy()
        zoned = getattr(values.dtype, "tz", None) is not None
        array = (values.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else values).to_numpy()
        if array.dtype.kind in "biufM":
            series = pl.Series(str(name), np.ascontiguousarray(array), nan_to_null=True)
        else:
            cells = [None if gone else cell for gone, cell in zip(missing, array, strict=True)]
            series = pl.Series(str(name), cells, strict=False)
        columns[str(name)] = series
    return pl.DataFrame(columns)
