"""The event log in memory: flat columns over all events, and offsets that cut them into cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError

Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Names: TypeAlias = NDArray[np.object_]

NO_START = int(np.iinfo(np.int64).min)


@dataclass(frozen=True)
class Categorical:
    """A column of labels, stored as codes [N] into `labels`; -1 is missing."""

    codes: Int32
    labels: tuple[str, ...]

    def take(self, rows: slice | Int64) -> Categorical:
        """Return the given rows; the labels stay whole, so codes keep their meaning."""
        return Categorical(np.asarray(self.codes[rows]), self.labels)

    def names(self) -> Names:
        """Return the labels as an object array [N], None where missing."""
        table = np.empty(len(self.labels) + 1, dtype=object)
        table[:-1] = self.labels
        return table[self.codes]


@dataclass(frozen=True, eq=False)
class EventLog:
    """Cases and their events, in columns of N events.

    case_ids:    names of the cases [C], strings
    offsets:     events of case c are rows offsets[c] to offsets[c + 1] [C + 1]
    activity:    the key in `categorical` of what happened; it is never missing
    categorical: labelled columns
    numeric:     float columns [N]; NaN is missing
    time_us:     UTC microseconds since 1970 [N], not decreasing within a case; None without times
    case, time:  what the case and time columns are called where the log came from
    ended:       whether a case's last event is known to be its end [C]; None means every one is.
                 A case that was cut, or is still open, has no known end to learn or score

    Cases stand in order of their first event's time; ties, and logs without times, in order of
    their first row in the file. Arrays may be memory-mapped. Raises DataError where columns
    disagree in length.
    """

    case_ids: Names
    offsets: Int64
    activity: str
    categorical: Mapping[str, Categorical]
    numeric: Mapping[str, Floats]
    time_us: Int64 | None = None
    case: str = "case"
    time: str = "timestamp"
    ended: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Check that the columns fit together."""
        if self.activity not in self.categorical:
            raise DataError(
                f"The log has no categorical column {self.activity!r}.",
                f"Its activity column must be one of {sorted(self.categorical)}.",
                "Name the activity column.",
            )
        rows = int(self.offsets[-1]) if len(self.offsets) else -1
        sizes = {name: len(column.codes) for name, column in self.categorical.items()}
        sizes |= {name: len(column) for name, column in self.numeric.items()}
        if self.time_us is not None:
            sizes[self.time] = len(self.time_us)
        wrong = [f"{name} [{size}]" for name, size in sizes.items() if size != rows]
        endings = self.cases if self.ended is None else len(self.ended)
        if wrong or len(self.offsets) != len(self.case_ids) + 1 or endings != self.cases:
            raise DataError(
                f"Columns disagree: {', '.join(wrong) or 'case_ids, ended'}.",
                f"offsets has {len(self.offsets)} entries and ends at {rows}, so there must be "
                f"{len(self.offsets) - 1} case ids and {rows} rows in each column.",
                "Give every column one value per event.",
            )

    @property
    def cases(self) -> int:
        """Number of cases C."""
        return len(self.case_ids)

    @property
    def events(self) -> int:
        """Number of events N."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Int64:
        """Events of each case [C]."""
        return np.diff(self.offsets)

    @property
    def activities(self) -> Categorical:
        """The activity column."""
        return self.categorical[self.activity]

    @property
    def starts_us(self) -> Int64 | None:
        """Time of each case's first event [C], NO_START for a case without events."""
        if self.time_us is None:
            return None
        starts = np.full(self.cases, NO_START, dtype=np.int64)
        filled = self.lengths > 0
        starts[filled] = self.time_us[self.offsets[:-1][filled]]
        return starts

    def case_of_event(self) -> Int64:
        """Return the case index of each event [N]."""
        return np.repeat(np.arange(self.cases, dtype=np.int64), self.lengths)

    def position_of_event(self) -> Int64:
        """Return the place of each event within its case [N], from 0."""
        return np.arange(self.events, dtype=np.int64) - np.repeat(self.offsets[:-1], self.lengths)

    def select(self, case_indices: Sequence[int] | NDArray[Any]) -> EventLog:
        """Return the named cases in the given order; a run of neighbours is not copied."""
        chosen = np.asarray(case_indices, dtype=np.int64)
        begins = self.offsets[:-1][chosen]
        lengths = self.offsets[1:][chosen] - begins
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        rows: slice | Int64
        if len(chosen) and chosen[0] >= 0 and np.all(np.diff(chosen) == 1):
            rows = slice(int(self.offsets[chosen[0]]), int(self.offsets[chosen[-1] + 1]))
        else:
            rows = np.arange(offsets[-1], dtype=np.int64) + np.repeat(
                begins - offsets[:-1], lengths
            )
        ended = None if self.ended is None else self.ended[chosen]
        return self._rows(rows, self.case_ids[chosen], offsets, ended)

    def keep(self, wanted: NDArray[np.bool_]) -> EventLog:
        """Return the log with only the wanted events [N]; cases left without events go.

        A case that loses its last event has no known end any more.
        """
        kept = np.concatenate(([0], np.cumsum(wanted)))[self.offsets]
        filled = np.diff(kept) > 0
        offsets = np.concatenate(([0], kept[1:][filled])).astype(np.int64)
        ended = wanted[self.offsets[1:][filled] - 1]
        if self.ended is not None:
            ended = ended & self.ended[filled]
        known = None if ended.all() else ended
        return self._rows(np.flatnonzero(wanted), self.case_ids[filled], offsets, known)

    def _rows(
        self,
        rows: slice | Int64,
        case_ids: Names,
        offsets: Int64,
        ended: NDArray[np.bool_] | None,
    ) -> EventLog:
        return replace(
            self,
            case_ids=case_ids,
            offsets=offsets,
            categorical={name: column.take(rows) for name, column in self.categorical.items()},
            numeric={name: np.asarray(column[rows]) for name, column in self.numeric.items()},
            time_us=None if self.time_us is None else np.asarray(self.time_us[rows]),
            ended=ended,
        )

    @classmethod
    def from_traces(
        cls, traces: Sequence[Sequence[str]], case_ids: Sequence[str] | None = None
    ) -> EventLog:
        """Build a log of activities alone from one list of names per case.

        >>> log = EventLog.from_traces([["open", "close"], ["open"]])
        >>> log.cases, log.events, log.activities.labels
        (2, 3, ('open', 'close'))
        """
        code_of: dict[str, int] = {}
        codes = [code_of.setdefault(name, len(code_of)) for trace in traces for name in trace]
        ids = np.empty(len(traces), dtype=object)
        ids[:] = list(case_ids) if case_ids is not None else [str(c) for c in range(len(traces))]
        offsets = np.cumsum([0, *(len(trace) for trace in traces)], dtype=np.int64)
        column = Categorical(np.array(codes, dtype=np.int32), tuple(code_of))
        return cls(ids, offsets, "activity", {"activity": column}, {})
