"""Read an event log from any supported source, in bounded memory, with a report of every repair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hiddenstate.data.options import Options
from hiddenstate.data.reading import Reading
from hiddenstate.data.report import Faults, ReadReport
from hiddenstate.data.sources import open_source
from hiddenstate.data.split import Split, by_time
from hiddenstate.schema.log import EventLog


def read(
    source: Any, options: Options | None = None, **settings: Any
) -> tuple[EventLog, ReadReport]:
    """Read cases and events from files or a frame; `settings` are fields of Options.

    The source is a path, several paths (one log together), or a polars or pandas frame. Files are
    CSV, JSON lines, Parquet, XES, or one trace a line; those of text may be compressed (.gz).
    Beyond `memory_bytes` the log's arrays are memory-mapped files.

    Raises DataError where the source is no event log, UsageError for options that do not fit.
    """
    reading, log, report = _read(source, options, settings)
    del reading
    return log, report


def read_parts(
    train: str | Path,
    test: str | Path,
    validation: str | Path | None = None,
    options: Options | None = None,
    *,
    validation_share: float = 0.1,
    **settings: Any,
) -> tuple[EventLog, ReadReport, Split]:
    """Read the files of a given split as one log, and return the split with it.

    Without a validation file, the last share of the training cases by start becomes it.
    Raises DataError as `read` does, and where a case stands in two files.
    """
    files = [train, test] if validation is None else [train, test, validation]
    reading, log, report = _read(files, options, settings)
    reading.refuse_straddling(log)
    parts = [np.flatnonzero(reading.case_files == number) for number in range(3)]
    names = ", ".join(Path(file).name for file in files)
    if validation is None:
        inner = by_time(log.select(parts[0]), validation=validation_share, test=0.0)
        parts[2], parts[0] = parts[0][inner.validation], parts[0][inner.train]
    return log, report, Split(parts[0], parts[2], parts[1], f"given files: {names}")


def _read(
    source: Any, options: Options | None, settings: dict[str, Any]
) -> tuple[Reading, EventLog, ReadReport]:
    chosen = (options or Options()).change(**settings)
    names, form, openers = open_source(source, chosen)
    reading = Reading(chosen, Faults(names))
    try:
        for number, opener in enumerate(openers):
            reading.file(number, opener)
        return reading, *reading.finish(form)
    finally:
        reading.spool.close()
