"""Which column is the case, which the activity, which the time: by name, or as given."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from hiddenstate.errors import DataError, nearest

# Compared without case and punctuation; an earlier name wins over a later one.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "case": (
        *("case:concept:name", "case", "case_id", "case_number", "entity", "entity_id"),
        *("trace_id", "ticket", "ticket_id", "incident", "incident_id", "process_instance"),
    ),
    "activity": (
        *("concept:name", "activity", "activity_id", "activity_name", "event", "event_name"),
        *("event_type", "task", "task_name", "action", "operation", "step", "status"),
    ),
    "timestamp": (
        *("time:timestamp", "timestamp", "complete_timestamp", "completion_time"),
        *("end_timestamp", "end_time", "event_time", "event_timestamp", "datetime", "date_time"),
        *("time", "date", "ts", "created_at", "start_timestamp", "start_time"),
    ),
}


@dataclass(frozen=True)
class Roles:
    """Names of the three columns that make a log; timestamp None means order in the file."""

    case: str
    activity: str
    timestamp: str | None

    @property
    def taken(self) -> set[str]:
        """The columns that are no attributes."""
        return {self.case, self.activity, *([self.timestamp] if self.timestamp else [])}


def plain(name: str) -> str:
    """Return a column name without case and punctuation."""
    return re.sub(r"[\W_]+", "", name).lower()


def find(
    role: str, columns: Sequence[str], given: str | None, taken: Container[str] = ()
) -> str | None:
    """Return the column of a role that is not taken, None where no known name is there.

    Raises DataError where a given name is not there.
    """
    by_plain = {plain(name): name for name in reversed(columns) if name not in taken}
    if given is None:
        hits = (by_plain.get(plain(name)) for name in KNOWN[role])
        return next((name for name in hits if name is not None), None)
    if given in by_plain.values():
        return given
    if plain(given) in by_plain:
        return by_plain[plain(given)]
    raise DataError(
        f"There is no column {given!r} for the {role}.{nearest(given, columns)}",
        f"The columns are: {', '.join(columns)}.",
        f"Give one of them with --{role}.",
    )


def roles(
    columns: Sequence[str],
    *,
    case: str | None,
    activity: str | None,
    timestamp: str | None,
    with_times: bool,
) -> Roles:
    """Return the columns of the three roles; raises DataError naming what was not found."""
    given = {"case": case, "activity": activity, "timestamp": timestamp}
    wanted = ("case", "activity", "timestamp") if with_times else ("case", "activity")
    found: dict[str, str] = {}
    for role in wanted:
        name = find(role, columns, given[role], found.values())
        if name is None:
            by_order = " (or --no-timestamp to take the order of the file)"
            raise DataError(
                f"No {role} column was found. The columns are: {', '.join(columns)}.",
                f"Known names are {', '.join(KNOWN[role])}; case and punctuation do not matter.",
                f"Say which column it is with --{role} NAME{by_order * (role == 'timestamp')}.",
            )
        found[role] = name
    return Roles(found["case"], found["activity"], found.get("timestamp"))
