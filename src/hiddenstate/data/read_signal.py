"""Read a signal from a table, wide or long, or from arrays; what was decided is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hiddenstate.data.names import find
from hiddenstate.data.options import Options
from hiddenstate.data.report import Faults
from hiddenstate.data.signal_files import from_mat, from_npz
from hiddenstate.data.signal_steps import Remark, mended, without_repeats
from hiddenstate.data.signals import Signal
from hiddenstate.data.sources import open_source
from hiddenstate.data.texts import texts
from hiddenstate.data.times import UNREADABLE, Times
from hiddenstate.errors import DataError, nearest
from hiddenstate.schema.log import Floats, Int64

ARRAYS: Mapping[str, Callable[[Path], Signal]] = {".npz": from_npz, ".mat": from_mat}
# Columns that name the series of a long table, where none is given.
SERIES = ("series", "series_id", "unique_id", "item_id")
MOST_BAD_SHARE = 0.05
# A column of text is a channel where more than this share of its values are numbers.
NUMERIC_SHARE = 0.5


def read_signal(
    source: Any, options: Options | None = None, **settings: Any
) -> tuple[Signal, tuple[str, ...]]:
    """Read series from a file or frame; return them and what was decided, a sentence each.

    A table has a column for each channel, and may have one of times and one that names the series
    (`case`; long form). CSV, JSON lines, Parquet and frames are tables; see `signal_files` for
    .npz and .mat. `settings` are fields of Options; `attributes` are the channels wanted.

    Rows are sorted by time. A step missing from a regular series is put in with missing values; a
    row that repeats another is dropped. Raises DataError where a time cannot be read, two rows have
    the same time and other values, or no channel of numbers is there.
    """
    chosen = (options or Options()).change(**settings)
    remarks: list[str] = []
    reader = ARRAYS.get(Path(source).suffix.lower()) if isinstance(source, str | Path) else None
    if reader is None:
        signal = _from_table(source, chosen, remarks.append)
    else:
        signal = reader(Path(source))
        kept = [name for name in signal.channels if name not in chosen.exclude]
        signal = signal.with_channels(kept if chosen.attributes is None else chosen.attributes)
    return mended(signal, remarks.append), tuple(remarks)


def _from_table(source: Any, options: Options, tell: Remark) -> Signal:
    columns, row_of, name = _columns(source, options, tell)
    timed = _time_column(columns, options)
    series = find("case", list(columns), options.case) if options.case else None
    if options.case and series is None:
        raise DataError(
            f"There is no column {options.case!r} to name the series."
            f"{nearest(options.case, columns)}",
            f"The columns are {', '.join(columns)}.",
            "Correct --case, or leave it out where all rows are one series.",
        )
    if options.case is None:
        series = next((each for each in SERIES if each in columns), None)
    rest = {k: v for k, v in columns.items() if k not in (timed, series)}
    names, values = _channels(rest, options, row_of, name, tell)
    ids, codes = _series(None if series is None else columns[series], len(row_of))
    if timed is None:
        tell("The rows are taken in their order: no column of times was found or wanted.")
        order = np.argsort(codes, kind="stable")
        return Signal(ids, _offsets(codes, len(ids)), values[order], names)
    times_us = _times(columns[timed], timed, options, row_of)
    order = np.lexsort((times_us, codes))
    stable = np.argsort(codes, kind="stable")
    moved = int((order != stable).sum())
    if moved:
        tell(f"{moved} rows stood out of the order of time and were sorted.")
    codes, times_us, values = codes[order], times_us[order], values[order]
    kept = without_repeats(codes, times_us, values, row_of[order], series is not None, tell)
    codes, times_us, values = codes[kept], times_us[kept], values[kept]
    return Signal(ids, _offsets(codes, len(ids)), values, names, times_us, time=timed)


def _columns(
    source: Any, options: Options, tell: Remark
) -> tuple[dict[str, pl.Series], Int64, str]:
    """Return whole columns, the number of each row in its file, and the name of the source."""
    sources, form, openers = open_source(source, options)
    faults = Faults(sources)
    blocks = [block for opener in openers for block in opener(faults)]
    shown = ", ".join(sources)
    if not blocks or form == "xes":
        raise DataError(
            f"{shown} has no rows." if form != "xes" else f"{shown} is an event log.",
            "A table was expected with a column for each channel and a row for each step.",
            "Give a CSV, JSON lines or Parquet file, or arrays (.npz, .mat).",
        )
    for repair in faults.repairs():
        tell(repair.sentence)
    rows = np.concatenate([block.rows for block in blocks])
    lost = faults.unread()
    if lost > MOST_BAD_SHARE * (lost + len(rows)) and not options.allow_bad_rows:
        raise DataError(
            f"{lost} of {lost + len(rows)} rows of {shown} cannot be read.",
            f"At most {MOST_BAD_SHARE:.0%} were expected to be bad.",
            "Mend the file, give --delimiter, or go on with --allow-bad-rows.",
        )
    names = dict.fromkeys(name for block in blocks for name in block.columns)
    uneven = [name for name in names if any(name not in block.columns for block in blocks)]
    if uneven:
        raise DataError(
            f"The column {uneven[0]!r} is in some parts of {shown} only.",
            "Every file was expected to have the same columns.",
            "Read the files one by one, or give them the same columns.",
        )
    left_out = set(options.exclude)
    whole = {
        name: pl.concat([block.columns[name] for block in blocks])
        for name in names
        if name not in left_out
    }
    return whole, rows, shown


def _time_column(columns: Mapping[str, pl.Series], options: Options) -> str | None:
    if not options.with_times:
        return None
    found = find("timestamp", list(columns), options.timestamp)
    if found is None and options.timestamp is not None:
        raise DataError(
            f"There is no column {options.timestamp!r} of times."
            f"{nearest(options.timestamp, columns)}",
            f"The columns are {', '.join(columns)}.",
            "Correct --timestamp, or give --no-timestamp where rows stand in order.",
        )
    return found or ("ds" if "ds" in columns else None)


def _channels(
    columns: Mapping[str, pl.Series], options: Options, rows: Int64, source: str, tell: Remark
) -> tuple[tuple[str, ...], Floats]:
    """Return the names [C] and numbers [N, C] of the columns wanted, or of all with numbers."""
    wanted = None if options.attributes is None else list(options.attributes)
    absent = [name for name in wanted or () if name not in columns]
    if absent:
        raise DataError(
            f"{source} lacks {len(absent)} of {len(wanted or ())} channels: {', '.join(absent)}.",
            f"It has the columns {', '.join(columns)}.",
            f"Correct the names, or add the columns.{nearest(absent[0], columns)}",
        )
    found: dict[str, Floats] = {}
    for name in columns if wanted is None else wanted:
        numbers, reason = _numbers(columns[name], name, rows, tell)
        if numbers is not None:
            found[name] = numbers
        elif wanted is not None:
            raise DataError(
                f"The channel {name!r} of {source} {reason}.",
                "A channel holds a number for each step, and at least one in all.",
                "Correct the column, or leave it out.",
            )
        else:
            tell(f"Column {name} is not used: it {reason}.")
    if not found:
        raise DataError(
            f"{source} has no column of numbers besides times and series: "
            f"{', '.join(columns) or 'no other column'}.",
            "A channel is a column of numbers, with a point for decimals.",
            "Check the file and --delimiter, or name the channels with --attributes.",
        )
    return tuple(found), np.stack(list(found.values()), axis=1)


def _numbers(column: pl.Series, name: str, rows: Int64, tell: Remark) -> tuple[Floats | None, str]:
    """Return a column as numbers [N], NaN where missing, or None and why it is no channel."""
    if column.dtype.is_temporal() or column.dtype.is_nested():
        return None, f"holds values of the type {column.dtype}"
    words = texts(column)
    numbers = words.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().copy()
    given = words.is_not_null().to_numpy()
    if not given.any():
        return None, "has no value at all"
    bad = np.flatnonzero(given & np.isnan(numbers))
    if len(bad):
        example = f"{words[int(bad[0])]!r} in row {rows[bad[0]]}"
        if len(bad) >= (1 - NUMERIC_SHARE) * given.sum():
            return None, f"holds text and no numbers, such as {example}"
        tell(f"{len(bad)} values of {name} are no numbers and are taken as missing: {example}.")
    infinite = np.isinf(numbers)
    if infinite.any():
        numbers[infinite] = np.nan
        tell(f"{int(infinite.sum())} infinite values of {name} are taken as missing.")
        if np.isnan(numbers).all():
            return None, "has no finite value"
    return numbers, ""


def _series(column: pl.Series | None, steps: int) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the names of the series and the index of each row's, in the order of the file."""
    if column is None:
        return ("series 1",), np.zeros(steps, dtype=np.int64)
    words = texts(column).fill_null("")
    names = words.unique(maintain_order=True)
    codes = words.replace_strict(names, np.arange(len(names)), return_dtype=pl.Int64)
    return tuple(names.to_list()), codes.to_numpy()


def _times(column: pl.Series, name: str, options: Options, rows: Int64) -> Int64:
    times = Times(name, options.time_format)
    if times.is_undecided(column):
        times.decide([column])
    times_us, _ = times.parse(column)
    bad = np.flatnonzero(times_us == UNREADABLE)
    if len(bad):
        raise DataError(
            f"{len(bad)} of {len(times_us)} times in the column {name!r} are missing or cannot be "
            f"read, such as {column[int(bad[0])]!r} in row {rows[bad[0]]}.",
            "Every step of a series has its time.",
            "Mend these rows, give --time-format, or --no-timestamp where rows stand in order.",
        )
    return times_us


def _offsets(codes: NDArray[np.int64], series: int) -> Int64:
    return np.concatenate(([0], np.cumsum(np.bincount(codes, minlength=series)))).astype(np.int64)
