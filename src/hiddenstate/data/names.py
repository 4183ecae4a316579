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
    # Sequences with labels.
    "label": (
        *("label", "labels", "class", "class_label", "category", "target", "y", "tag", "ner_tag"),
        *("pos_tag", "sentiment", "intent", "topic", "rating", "stars"),
    ),
    "text": (
        *("text", "sentence", "review", "question", "utterance", "message", "document", "content"),
        *("body", "comment", "description", "title", "phrase", "tweet"),
    ),
    "token": ("token", "word", "form", "symbol"),
    "sequence": (
        *("sequence", "sequence_id", "seq", "seq_id", "series", "series_id", "case", "case_id"),
        *("sentence_id", "sample", "sample_id", "record_id", "episode", "session", "id"),
    ),
    "position": (
        *("position", "pos", "index", "step", "t", "time", "timestamp", "frame", "order"),
        *("date", "datetime", "token_id"),
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
    """Return the column of a role that is not taken, None where it is not there."""
    by_plain = {plain(name): name for name in reversed(columns) if name not in taken}
    if given in by_plain.values():
        return given
    wanted = KNOWN[role] if given is None else (given,)
    return next((by_plain[plain(name)] for name in wanted if plain(name) in by_plain), None)


def roles(
    columns: Sequence[str],
    *,
    case: str | None,
    activity: str | None,
    timestamp: str | None,
    with_times: bool,
) -> Roles:
    """Return the columns of the three roles; raises DataError naming all that were not found."""
    given = {"case": case, "activity": activity, "timestamp": timestamp}
    wanted = ("case", "activity", "timestamp") if with_times else ("case", "activity")
    found: dict[str, str] = {}
    # Roles that were given choose first, so that no guess takes their column.
    for role in sorted(wanted, key=lambda role: given[role] is None):
        name = find(role, columns, given[role], found.values())
        if name is not None:
            found[role] = name
    missing = [role for role in wanted if role not in found]
    if missing:
        flags = " and ".join(f"--{role} NAME" for role in missing)
        by_order = " (or --no-timestamp to take the order of the file)"
        raise DataError(
            " ".join(_missing(role, given[role], columns, found) for role in missing)
            + f" The columns are: {', '.join(columns)}.",
            "".join(
                f"Known names for the {role} are {', '.join(KNOWN[role])}. "
                for role in missing
                if given[role] is None
            )
            + "Case and punctuation do not matter.",
            f"Say which it is with {flags}{by_order * ('timestamp' in missing)}.",
        )
    return Roles(found["case"], found["activity"], found.get("timestamp"))


def _missing(role: str, given: str | None, columns: Sequence[str], found: Mapping[str, str]) -> str:
    """Say that no column was found for a role, and which other role took it."""
    holder = {plain(name): other for other, name in found.items()}
    names = KNOWN[role] if given is None else (given,)
    taken = next((plain(name) for name in names if plain(name) in holder), None)
    if taken is not None:
        name = found[holder[taken]]
        return f"No {role} column was found: {name!r} is already the {holder[taken]}."
    if given is None:
        return f"No {role} column was found."
    return f"There is no column {given!r} for the {role}.{nearest(given, columns)}"
