"""What reading a file found and mended: counted, with the first rows, and nothing left silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

SHOWN = 5
# A global row number holds the place of its file above this bit.
FILE_BIT = 44

# What each repair is called and what was done; those in DROPPING lose the row.
REPAIRS: Mapping[str, str] = {
    "bad_fields": "rows with a wrong number of fields were dropped",
    "bad_record": "lines that are no JSON object were dropped",
    "bad_time": "rows with an unreadable timestamp were dropped",
    "no_time": "rows without a timestamp were dropped",
    "no_case": "rows without a case were dropped",
    "no_activity": "rows without an activity were dropped",
    "no_sequence": "rows without a sequence were dropped",
    "no_position": "rows without a readable position were dropped",
    "no_token": "rows without a token were dropped",
    "no_text": "sequences without a text were dropped",
    "no_label": "sequences or steps without a label are neither learnt nor scored",
    "blank": "blank lines were skipped",
    "trimmed": "names of cases or activities lost spaces around them",
    "unordered": "events stood after a later event of their case and were sorted by time",
    "equal_times": "events have the time of the event before them; the file's order was kept",
    "duplicates_kept": "rows repeat another one in every kept column and were kept",
    "duplicates": "rows that repeat another one in every kept column were dropped",
    "bad_number": "values of a numeric column that are no number are taken as missing",
    "many_labels": "values of a column with too many labels are taken as missing",
    "gaps": "values of channels are missing: the last one before stands in, with a flag",
    "infinite": "infinite values of a numeric column are taken as missing",
    "nested": "nested values were ignored",
    "empty_case": "cases without events were dropped",
    "unnamed_case": "traces without a name were numbered",
    "contradicting": "sequences repeat an earlier one with another label",
    "repeated_kept": "sequences repeat an earlier one and were kept, in the same part as it",
    "repeated": "sequences repeat an earlier one and were dropped; one stays, with its usual label",
    "wrong_length": "traces disagree with the length that the file states; the trace was kept",
}
DROPPING = (
    *("bad_fields", "bad_record", "bad_time", "no_time", "no_case", "no_activity"),
    *("no_sequence", "no_position", "no_token"),
)


@dataclass(frozen=True)
class Repair:
    """One kind of fault: how often, and where it was first seen (rows count from 1)."""

    code: str
    count: int
    rows: tuple[str, ...]
    examples: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The repair in words."""
        where = f" ({'; '.join(self.rows)}{'; …' * (self.count > len(self.rows))})"
        seen = f", such as {', '.join(self.examples)}" if self.examples else ""
        return f"{self.count} {REPAIRS[self.code]}{where if self.rows else ''}{seen}."


@dataclass(frozen=True)
class Attribute:
    """A column that became an attribute: 'categorical' or 'numeric'."""

    name: str
    kind: str
    missing: float
    distinct: int | None


@dataclass(frozen=True)
class ReadReport:
    """Everything that reading decided.

    sources:     the files, in the order read
    columns:     role (case, activity, timestamp) to column name
    details:     format, delimiter, encoding, time format, and whether events were spilled to disk
    rows:        records read, good and bad
    attributes:  the columns kept; dropped: the others, with the reason
    """

    sources: tuple[str, ...]
    columns: Mapping[str, str | None]
    details: Mapping[str, str]
    rows: int
    cases: int
    events: int
    repairs: tuple[Repair, ...]
    attributes: tuple[Attribute, ...]
    dropped: Mapping[str, str]

    def repair(self, code: str) -> Repair | None:
        """Return the repair of a code, None where there was none."""
        return next((repair for repair in self.repairs if repair.code == code), None)


@dataclass
class Faults:
    """Collects faults while files are read, row by row numbered over all files."""

    sources: Sequence[str]
    file: int = 0
    _counts: dict[str, int] = field(default_factory=dict)
    _rows: dict[str, list[int]] = field(default_factory=dict)
    _examples: dict[str, list[str]] = field(default_factory=dict)

    def number(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return row numbers over all files for row numbers of the present file."""
        return rows + (self.file << FILE_BIT)

    def note(
        self, code: str, rows: Sequence[int] | NDArray[np.int64], examples: Sequence[object] = ()
    ) -> None:
        """Count a fault at rows numbered over all files."""
        if len(rows):
            self._counts[code] = self._counts.get(code, 0) + len(rows)
            merged = self._rows.get(code, []) + np.sort(np.asarray(rows))[:SHOWN].tolist()
            self._rows[code] = sorted(merged)[:SHOWN]
            shown = self._examples.setdefault(code, [])
            shown.extend(repr(value)[:60] for value in examples[: SHOWN - len(shown)])

    def lost(self) -> int:
        """Return how many rows have been dropped as bad."""
        return sum(self._counts.get(code, 0) for code in DROPPING)

    def unread(self) -> int:
        """Return how many rows never came out of their file."""
        return self._counts.get("bad_fields", 0) + self._counts.get("bad_record", 0)

    def place(self, row: int) -> str:
        """Return a row in words, with its file where there are several."""
        file, line = row >> FILE_BIT, row & ((1 << FILE_BIT) - 1)
        return f"{self.sources[file]} row {line}" if len(self.sources) > 1 else f"row {line}"

    def repairs(self) -> tuple[Repair, ...]:
        """Return all faults, in the order of REPAIRS."""
        return tuple(
            Repair(
                code,
                self._counts[code],
                tuple(map(self.place, self._rows[code])),
                tuple(dict.fromkeys(self._examples[code])),
            )
            for code in REPAIRS
            if code in self._counts
        )
