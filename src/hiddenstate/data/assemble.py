"""From spooled rows to the log: sorted within cases, cases by start, columns in one piece."""

from __future__ import annotations

import atexit
import mmap
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.report import Faults
from hiddenstate.data.spool import CASE, ROW, TIME, Chunk, Key, Spool
from hiddenstate.schema.log import Int64

ACTIVITY: Key = ("activity", "")


class Assembled(NamedTuple):
    """The codes of the cases in order [C], offsets [C + 1], columns [N], and the global numbers of
    each case's first and last row in the files [C]."""

    order: Int64
    offsets: Int64
    columns: dict[Key, NDArray[Any]]
    first_rows: Int64
    last_rows: Int64


class Shelf:
    """Gives out the log's arrays: plain ones, or memory-mapped files in a folder.

    Without a folder given, the files go to a temporary one that is deleted at the end of the
    process.
    """

    def __init__(self, on_disk: bool, folder: str | Path | None) -> None:
        self._folder: Path | None = None
        self._maps: list[mmap.mmap] = []
        if on_disk:
            self._folder = Path(tempfile.mkdtemp(prefix="hiddenstate-log-", dir=folder))
            if folder is None:
                atexit.register(shutil.rmtree, self._folder, ignore_errors=True)

    def array(self, name: str, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
        """Return an array to be filled [size]."""
        if self._folder is None or size == 0:
            return np.empty(size, dtype)
        with (self._folder / f"{name}.bin").open("w+b") as file:
            file.truncate(size * dtype.itemsize)
            self._maps.append(mmap.mmap(file.fileno(), size * dtype.itemsize))
        return np.frombuffer(self._maps[-1], dtype=dtype)

    def release(self) -> None:
        """Let the system take back the memory behind the mapped files; their content stays."""
        for mapped in self._maps:
            mapped.flush()
            mapped.madvise(mmap.MADV_DONTNEED)


def assemble(
    spool: Spool,
    keys: Mapping[Key, np.dtype[Any]],
    cases: int,
    faults: Faults,
    *,
    drop_duplicates: bool,
    shelf: Shelf,
) -> Assembled:
    """Return the cases in order and their events' columns.

    Equal times keep the order of the file; cases with equal starts stand as in the file. Counts
    what was unordered, equal in time or repeated in `faults`.
    """
    lengths = np.zeros(cases, dtype=np.int64)
    starts = np.zeros(cases, dtype=np.int64)
    first_rows = np.zeros(cases, dtype=np.int64)
    last_rows = np.zeros(cases, dtype=np.int64)
    timed = TIME in keys
    for chunk in spool.partitions(keys):
        chunk = _sorted(chunk, drop_duplicates, faults)
        case = chunk[CASE]
        if not len(case):
            continue
        begins = np.flatnonzero(np.diff(case, prepend=-1))
        lengths[case[begins]] = np.diff(begins, append=len(case))
        first_rows[case[begins]] = np.minimum.reduceat(chunk[ROW], begins)
        last_rows[case[begins]] = np.maximum.reduceat(chunk[ROW], begins)
        if timed:
            starts[case[begins]] = chunk[TIME][begins]
    order = np.lexsort((first_rows, starts))
    offsets = np.concatenate(([0], np.cumsum(lengths[order])))
    place = np.empty(cases, dtype=np.int64)
    place[order] = offsets[:-1]
    kept = {key: dtype for key, dtype in keys.items() if key not in (CASE, ROW)}
    columns = {
        key: shelf.array(f"{number}", dtype, int(offsets[-1]))
        for number, (key, dtype) in enumerate(kept.items())
    }
    for chunk in spool.partitions(keys):
        chunk = _sorted(chunk, drop_duplicates, None)
        case = chunk[CASE]
        if not len(case):
            continue
        begins = np.flatnonzero(np.diff(case, prepend=-1))
        sizes = np.diff(begins, append=len(case))
        rows = np.arange(len(case)) + np.repeat(place[case[begins]] - begins, sizes)
        for key, column in columns.items():
            column[rows] = chunk[key]
        shelf.release()
    return Assembled(order, offsets, columns, first_rows[order], last_rows[order])


def _sorted(chunk: Chunk, drop_duplicates: bool, faults: Faults | None) -> Chunk:
    """Sort rows by case and time, keeping the file's order on ties; count what that mended."""
    timed = TIME in chunk
    by = (chunk[TIME], chunk[CASE]) if timed else (chunk[CASE],)
    order = np.lexsort(by)
    chunk = {key: array[order] for key, array in chunk.items()}
    if not timed or len(order) < 2:
        return chunk
    case, time, row = chunk[CASE], chunk[TIME], chunk[ROW]
    same_case = case[1:] == case[:-1]
    tied = same_case & (time[1:] == time[:-1])
    repeats = _repeats(chunk, tied)
    if faults is not None:
        # Of two rows that change places, the one that stood later in the file was out of order.
        faults.note("unordered", row[:-1][same_case & (row[1:] < row[:-1])])
        faults.note("equal_times", row[1:][tied])
        faults.note("duplicates" if drop_duplicates else "duplicates_kept", row[repeats])
    if drop_duplicates and len(repeats):
        return {key: np.delete(array, repeats) for key, array in chunk.items()}
    return chunk


def _repeats(chunk: Chunk, tied: NDArray[np.bool_]) -> Int64:
    """Return the rows that equal an earlier row of their case and time in every column."""
    in_run = np.flatnonzero(np.concatenate((tied, [False])) | np.concatenate(([False], tied)))
    if not len(in_run):
        return in_run
    run = np.cumsum(np.concatenate(([True], ~tied)))[in_run]
    values = [
        np.unique(array[in_run], return_inverse=True)[1]
        for key, array in chunk.items()
        if key not in (CASE, ROW, TIME)
    ]
    order = np.lexsort((*values, run))
    repeated = run[order][1:] == run[order][:-1]
    for value in values:
        repeated &= value[order][1:] == value[order][:-1]
    return np.sort(in_run[order[1:][repeated]])
