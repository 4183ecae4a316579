"""One read under way: dictionaries, columns and counts that grow block after block."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import polars as pl

from hiddenstate.data.assemble import ACTIVITY, Shelf, assemble
from hiddenstate.data.blocks import Block
from hiddenstate.data.columns import Column, encode_labels
from hiddenstate.data.names import Roles, find, roles
from hiddenstate.data.options import Options
from hiddenstate.data.report import DROPPING, FILE_BIT, Attribute, Faults, ReadReport
from hiddenstate.data.sources import Opener
from hiddenstate.data.spool import CASE, ROW, TIME, Key, Spool
from hiddenstate.data.texts import texts
from hiddenstate.data.times import UNREADABLE, Times, looks_like_times, shown
from hiddenstate.data.traces import expand, is_traces
from hiddenstate.errors import DataError, nearest
from hiddenstate.schema.log import Categorical, EventLog, Int64
from hiddenstate.schema.raw import BLANK

MOST_BAD_SHARE = 0.05
# Flags that, set wrong, make good rows look bad.
CAUSES = {
    "bad_fields": ("--delimiter",),
    "bad_record": ("--format",),
    "bad_time": ("--timestamp", "--time-format"),
    "no_time": ("--timestamp",),
    "no_case": ("--case",),
    "no_activity": ("--activity",),
}


class Reading:
    """The state of one read: dictionaries, columns and counts, block after block."""

    def __init__(self, options: Options, faults: Faults) -> None:
        self.options, self.faults = options, faults
        self.spool = Spool(options.memory_bytes, options.folder)
        self.roles: Roles | None = None
        self.columns: dict[str, Column] = {}
        self.dropped: dict[str, str] = {}
        self.cases: dict[str, int] = {}
        self.activities: dict[str, int] = {}
        self.time_forms: dict[str, None] = {}
        self.rows = 0
        self.events = 0
        self.case_files: Int64 = np.empty(0, dtype=np.int64)
        self._straddling: Int64 = np.empty(0, dtype=np.int64)

    def file(self, number: int, opener: Opener) -> None:
        """Read one file to its end."""
        self.faults.file = number
        blocks = opener(self.faults)
        first = next(blocks, None)
        if first is None:
            self._refuse_bad(0.0)
            raise DataError(
                f"{self.faults.sources[number]} has no events.",
                "A header and at least one event were expected.",
                "Check the export.",
            )
        traces = is_traces(first) and find("activity", list(first.columns), None) is None
        blocks = chain([first], blocks)
        if traces:
            blocks = (expand(block, self.faults) for block in blocks)
            first = next(blocks)
            blocks = chain([first], blocks)
        found = self._roles(first, traces)
        times = None
        if found.timestamp is not None:
            times = self._times(found.timestamp, first, opener)
        for block in blocks:
            self._block(block, found, times)
            self._refuse_bad(0.5)
        if times:
            self.time_forms[times.description] = None

    def finish(self, form: str) -> tuple[EventLog, ReadReport]:
        """Decide the columns' types, sort, and build the log and its report."""
        self._refuse_bad(MOST_BAD_SHARE)
        if self.roles is None or not self.events:
            raise DataError(
                f"{', '.join(self.faults.sources)}: no event is left of "
                f"{self.rows + self.faults.unread()} rows.",
                "At least one row with a case and an activity was expected.",
                " ".join(repair.sentence for repair in self.faults.repairs()) or "Check the file.",
            )
        keys: dict[Key, np.dtype[Any]] = {CASE: np.dtype(np.int32), ROW: np.dtype(np.int64)}
        keys[ACTIVITY] = np.dtype(np.int32)
        if self.roles.timestamp:
            keys[TIME] = np.dtype(np.int64)
        kinds = self._kinds()
        for name, kind in kinds.items():
            key = ("codes", name) if kind == "categorical" else ("numbers", name)
            keys[key] = np.dtype(np.int32 if kind == "categorical" else np.float64)
        assembled = assemble(
            self.spool,
            keys,
            len(self.cases),
            self.faults,
            drop_duplicates=self.options.drop_duplicates,
            shelf=Shelf(self.spool.is_on_disk, self.options.folder),
        )
        ids = np.array(list(self.cases), dtype=object)[assembled.order]
        log = self._log(ids, assembled.offsets, assembled.columns, kinds)
        self.case_files = assembled.first_rows >> FILE_BIT
        self._straddling = np.flatnonzero(self.case_files != assembled.last_rows >> FILE_BIT)
        return log, self._report(log, form, kinds)

    def refuse_straddling(self, log: EventLog) -> None:
        """Raise DataError where a case has events in several of the files."""
        if len(self._straddling):
            shown = ", ".join(map(str, log.case_ids[self._straddling[:5]]))
            raise DataError(
                f"{len(self._straddling)} cases stand in more than one file, such as {shown}.",
                "The files are the parts of a split, so each case belongs to one of them.",
                "Remove the cases from one of the files, or give a single file to be split.",
            )

    def _roles(self, block: Block, traces: bool) -> Roles:
        options = self.options
        found = roles(
            list(block.columns),
            case=options.case,
            activity=None if traces else options.activity,
            timestamp=options.timestamp,
            with_times=options.with_times and not traces,
        )
        if self.roles is None:
            self.roles = found
        elif (self.roles.timestamp is None) != (found.timestamp is None):
            raise DataError(
                f"{self.faults.sources[self.faults.file]} has "
                f"{'no' if found.timestamp is None else 'a'} time column, unlike the files before.",
                "Files read as one log must all have times, or none.",
                "Read them apart, or give --no-timestamp.",
            )
        return found

    def _times(self, name: str, first: Block, opener: Opener) -> Times:
        times = Times(name, self.options.time_format)
        if times.is_undecided(first.columns[name]):
            again = opener(Faults(self.faults.sources))
            times.decide(block.columns[name] for block in again)
        return times

    def _block(self, block: Block, found: Roles, times: Times | None) -> None:
        self.rows += len(block.rows)
        faults, rows = self.faults, self.faults.number(block.rows)
        good = np.ones(len(rows), dtype=bool)
        labels = {}
        for role, name in (("no_case", found.case), ("no_activity", found.activity)):
            labels[name] = self._names(block, name, rows)
            gone = labels[name].is_null().to_numpy() & good
            faults.note(role, rows[gone])
            good &= ~gone
        chunk: dict[Key, Any] = {}
        if times and found.timestamp:
            raw = self._column(block, found.timestamp)
            micros, missing = times.parse(raw)
            absent = np.zeros(len(rows), dtype=bool)
            absent[missing] = True
            faults.note("no_time", rows[absent & good])
            bad = (micros == UNREADABLE) & ~absent & good
            faults.note("bad_time", rows[bad], shown(raw.gather(np.flatnonzero(bad)[:5])))
            good &= micros != UNREADABLE
            chunk[TIME] = micros[good]
        mask = pl.Series(good)
        rows = rows[good]
        chunk[CASE] = encode_labels(labels[found.case].filter(mask), self.cases)
        chunk[ROW] = rows
        chunk[ACTIVITY] = encode_labels(labels[found.activity].filter(mask), self.activities)
        for name, series in block.columns.items():
            if name in found.taken:
                continue
            if series.dtype.is_nested():
                faults.note("nested", faults.number(block.rows), [name])
                continue
            column = self._attribute(name, series, found)
            if column is not None:
                chunk.update(column.add(series.filter(mask), rows))
        self.events += len(rows)
        self.spool.add(chunk)

    def _column(self, block: Block, name: str) -> pl.Series:
        empty = pl.Series(name, [None], pl.String).new_from_index(0, len(block.rows))
        return block.columns.get(name, empty)

    def _names(self, block: Block, name: str, rows: Int64) -> pl.Series:
        raw = self._column(block, name)
        text = texts(raw, BLANK)
        if raw.dtype == pl.String:
            spaced = raw.str.contains(r"^\s|\s$") & text.is_not_null()
            self.faults.note("trimmed", rows[spaced.fill_null(False).to_numpy()])
        return text

    def _attribute(self, name: str, series: pl.Series, found: Roles) -> Column | None:
        if name not in self.columns and name not in self.dropped:
            options = self.options
            asked = name in (*options.categorical, *options.numeric)
            if name in options.exclude or (
                options.attributes is not None and name not in options.attributes
            ):
                self.dropped[name] = "it was left out as asked"
            elif name.startswith("unnamed column"):
                self.dropped[name] = "it has no name"
            elif not asked and looks_like_times(series):
                used = found.timestamp or "none"
                self.dropped[name] = f"it holds times; the log's time column is {used}"
            else:
                forced = "numeric" if name in options.numeric else None
                forced = "categorical" if name in options.categorical else forced
                self.columns[name] = Column(name, forced, options.labels.get(name, ()))
        return self.columns.get(name)

    def _kinds(self) -> dict[str, str]:
        options = self.options
        known = [*self.columns, *self.dropped]
        asked = (options.attributes or (), options.exclude, options.categorical, options.numeric)
        absent = [name for name in dict.fromkeys(chain(*asked)) if name not in known]
        if absent:
            raise DataError(
                f"{', '.join(self.faults.sources)} has no column {', '.join(absent)}."
                + nearest(absent[0], known),
                "It was asked for, or the model was fitted with it; besides the case, activity "
                f"and time there are: {', '.join(known) or 'none'}.",
                "Add the column to the file, or correct its name.",
            )
        kinds = {}
        for name, column in self.columns.items():
            kind, reason = column.kind(len(self.cases), self.events)
            if kind == "dropped":
                self.dropped[name] = reason
            else:
                kinds[name] = kind
                column.report(kind, self.faults)
        return kinds

    def _log(
        self, ids: Any, offsets: Int64, arrays: dict[Key, Any], kinds: dict[str, str]
    ) -> EventLog:
        found = self.roles
        if found is None:
            raise AssertionError("finish refuses a reading without roles")
        categorical = {found.activity: Categorical(arrays[ACTIVITY], tuple(self.activities))}
        for name, kind in kinds.items():
            if kind == "categorical":
                labels = tuple(self.columns[name].labels or ())
                categorical[name] = Categorical(arrays["codes", name], labels)
        numeric = {n: arrays["numbers", n] for n, kind in kinds.items() if kind == "numeric"}
        return EventLog(
            ids,
            offsets,
            found.activity,
            categorical,
            numeric,
            arrays.get(TIME),
            found.case,
            found.timestamp or "timestamp",
        )

    def _report(self, log: EventLog, form: str, kinds: dict[str, str]) -> ReadReport:
        details = {"format": form, "encoding": self.options.encoding}
        details["times"] = ", ".join(self.time_forms) or "none: order of the file"
        details["held"] = "memory-mapped files" if self.spool.is_on_disk else "memory"
        found = []
        for name, kind in kinds.items():
            labels = self.columns[name].labels if kind == "categorical" else None
            missing = 1 - self.columns[name].filled / self.events
            found.append(Attribute(name, kind, missing, len(labels) if labels else None))
        return ReadReport(
            tuple(self.faults.sources),
            {
                "case": log.case,
                "activity": log.activity,
                "timestamp": log.time if log.time_us is not None else None,
            },
            details,
            self.rows + self.faults.unread(),
            log.cases,
            log.events,
            self.faults.repairs(),
            tuple(found),
            self.dropped,
        )

    def _refuse_bad(self, share: float) -> None:
        lost, rows = self.faults.lost(), self.rows + self.faults.unread()
        if self.options.allow_bad_rows or lost <= share * rows:
            return
        repairs = [repair for repair in self.faults.repairs() if repair.code in DROPPING]
        flags = list(dict.fromkeys(flag for repair in repairs for flag in CAUSES[repair.code]))
        form = self.options.time_format
        raise DataError(
            f"{', '.join(self.faults.sources)}: {lost} of {rows} rows cannot be used. "
            + " ".join(repair.sentence for repair in repairs),
            f"At most {MOST_BAD_SHARE:.0%} of the rows may be unreadable"
            + (f"; times were read by --time-format {form!r}." if form else "."),
            f"Mend the rows, correct {' and '.join(flags)}, or go on without them by "
            "--allow-bad-rows.",
        )
