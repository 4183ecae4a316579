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
    del options, faults
    try:
        lazy = pl.scan_parquet(path)
        height = int(lazy.select(pl.len()).collect().item())
        for first in range(0, height, SLICE_ROWS):
            yield from frame_blocks(lazy.slice(first, SLICE_ROWS).collect(), first)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}.",
            "A whole Parquet file was expected.",
            "Write it again, or name its true --format.",
        ) from None


def frame_blocks(frame: pl.DataFrame, first: int = 0) -> Iterator[Block]:
    """Yield a polars frame in slices."""
    for start in range(0, frame.height, SLICE_ROWS):
        piece = frame.slice(start, SLICE_ROWS)
        rows = first + start + 1 + np.arange(piece.height, dtype=np.int64)
        yield Block({series.name: series for series in piece.get_columns()}, rows)


def from_pandas(frame: Any) -> pl.DataFrame:
    """Return a pandas frame as a polars frame, column by column, its index left out.

    Raises DataError where two columns have the same name.
    """
    names = [str(name) for name in frame.columns]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise DataError(
            f"The frame has more than one column {', '.join(map(repr, twice))}.",
            "Every column has its own name.",
            "Rename the columns, or drop those that are not needed.",
        )
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
