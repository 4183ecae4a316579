"""How a source is to be read, where that cannot be seen from the source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from hiddenstate.errors import UsageError, nearest


@dataclass(frozen=True)
class Options:
    """Settings of `read`.

    case, activity, timestamp: column names; None finds them by the table in `names`
    with_times:      False takes the order of the file and no times
    attributes:      columns to keep; None keeps all, () none
    exclude:         columns to leave out
    categorical, numeric: attributes whose type is not to be guessed
    labels:          by name of a categorical attribute, labels that it is known to have
    format:          csv, jsonl, parquet or xes; None goes by the name's ending
    delimiter:       of a CSV; None finds it. quote: '' where quotes are ordinary characters
    lone_column:     a CSV may have one column; else that means a delimiter that was not found
    encoding:        of a text file, by Python's names
    time_format:     strftime's codes; naive times are UTC, offsets are converted to UTC
    drop_duplicates: drop rows that equal another in every column kept, instead of counting them
    allow_bad_rows:  go on where more than 5 % of the rows are bad
    memory_bytes:    encoded rows held in memory before they move to disk
    folder:          where files of a large log go; None means a temporary folder, deleted at exit
    """

    case: str | None = None
    activity: str | None = None
    timestamp: str | None = None
    with_times: bool = True
    attributes: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    categorical: Sequence[str] = ()
    numeric: Sequence[str] = ()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    format: str | None = None
    delimiter: str | None = None
    quote: str = '"'
    lone_column: bool = False
    encoding: str = "utf-8"
    time_format: str | None = None
    drop_duplicates: bool = False
    allow_bad_rows: bool = False
    memory_bytes: int = 256 << 20
    folder: str | Path | None = None

    def change(self, **settings: Any) -> Self:
        """Return the options with some changed; raises UsageError for an unknown name."""
        known = [each.name for each in fields(self)]
        for name in settings:
            if name not in known:
                raise UsageError(
                    f"There is no reading option {name!r}.{nearest(name, known)}",
                    f"Options are {', '.join(known)}.",
                    "Correct the name.",
                )
        return replace(self, **settings)
