"""What is in a log, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import numpy as np

from hiddenstate.data.leaks import FEWEST_CASES, leaks
from hiddenstate.data.report import DROPPING, ReadReport
from hiddenstate.schema.clock import EPOCH
from hiddenstate.schema.log import EventLog

# Share of cases with one event only from which a log teaches little about what comes next.
MANY_SINGLE = 0.5


@dataclass(frozen=True)
class Finding:
    """Something to know about a log; severity is 'error', 'warning' or 'note'."""

    code: str
    severity: str
    where: str
    measured: str
    because: str
    remedy: str


@dataclass(frozen=True)
class Contents:
    """One attribute: its kind, the share of events without it, its distinct labels if it has."""

    name: str
    kind: str
    missing: float
    distinct: int | None


@dataclass(frozen=True)
class Check:
    """A log's contents in figures, and its findings, the gravest first."""

    cases: int
    events: int
    activities: dict[str, int]
    length_min: int
    length_median: float
    length_max: int
    first_event: str | None
    last_event: str | None
    attributes: tuple[Contents, ...]
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the check as a JSON object."""
        return asdict(self)


def check(log: EventLog, report: ReadReport | None = None) -> Check:
    """Look a log over: contents, what reading mended, and what would spoil a model."""
    lengths = log.lengths
    counts = np.bincount(log.activities.codes, minlength=len(log.activities.labels))
    span: tuple[str | None, str | None] = (None, None)
    if log.time_us is not None and log.events:
        span = _moment(int(log.time_us.min())), _moment(int(log.time_us.max()))
    findings = sorted(
        (*_of_log(log), *_of_leaks(log), *(_of_report(report) if report else ())),
        key=lambda finding: ("error", "warning", "note").index(finding.severity),
    )
    return Check(
        log.cases,
        log.events,
        {log.activities.labels[code]: int(counts[code]) for code in np.argsort(-counts)},
        int(lengths.min()) if len(lengths) else 0,
        float(np.median(lengths)) if len(lengths) else 0.0,
        int(lengths.max(initial=0)),
        *span,
        tuple(_attributes(log)),
        tuple(findings),
    )


def _attributes(log: EventLog) -> Iterator[Contents]:
    events = max(log.events, 1)
    for name, column in log.categorical.items():
        if name != log.activity:
            missing = float((column.codes < 0).sum()) / events
            distinct = len(np.unique(column.codes[column.codes >= 0]))
            yield Contents(name, "categorical", missing, distinct)
    for name, values in log.numeric.items():
        yield Contents(name, "numeric", float(np.isnan(values).sum()) / events, None)


def _of_log(log: EventLog) -> Iterator[Finding]:
    kinds = len(np.unique(log.activities.codes))
    if kinds < 2:
        yield Finding(
            "one-activity",
            "error",
            log.activity,
            f"{kinds} activity in {log.events} events",
            "with one activity the next event holds no question but when the case ends",
            "name another column with --activity",
        )
    single = int((log.lengths == 1).sum())
    if single:
        many = single > MANY_SINGLE * log.cases
        yield Finding(
            "single-event-cases",
            "warning" if many else "note",
            log.case,
            f"{single} of {log.cases} cases have one event",
            "a case of one event has no past to learn from" if many else "these have no past",
            "check that --case names the case, not the event" if many else "nothing need be done",
        )
    if log.cases == 1:
        yield Finding(
            "one-case",
            "error",
            log.case,
            f"all {log.events} events belong to one case",
            "cases are divided into training, validation and test",
            "name another column with --case",
        )
    if 1 < log.cases < FEWEST_CASES:
        yield Finding(
            "few-cases",
            "warning",
            log.case,
            f"{log.cases} cases",
            f"scores of so few cases are uncertain, and below {FEWEST_CASES} no column can be "
            "judged as giving the answer away",
            "add cases if there are any",
        )


def _of_leaks(log: EventLog) -> Iterator[Finding]:
    for leak in leaks(log):
        yield Finding(
            "gives-answer-away",
            "error",
            leak.column,
            leak.evidence,
            f"{leak.reason}, so it was probably written down afterwards",
            f"leave it out with --exclude {leak.column!r}, or keep it knowingly with --allow-leaks",
        )


def _of_report(report: ReadReport) -> Iterator[Finding]:
    for repair in report.repairs:
        lost = repair.code in (*DROPPING, "empty_case", "bad_number", "many_labels", "infinite")
        yield Finding(
            repair.code.replace("_", "-"),
            "warning" if lost else "note",
            ", ".join(report.sources),
            repair.sentence,
            "rows or values were lost" if lost else "reading mended or noticed it",
            "mend them at the source if they matter" if lost else "nothing need be done",
        )
    for name, reason in report.dropped.items():
        yield Finding(
            "column-left-out",
            "note",
            name,
            f"the column is no input: {reason}",
            "such a column cannot help a model, or would mislead it",
            "in Python, categorical= and numeric= name columns that are to be inputs all the same",
        )


def _moment(time_us: int) -> str:
    return (EPOCH + timedelta(microseconds=time_us)).isoformat()
