"""A small log as text, and other forms of it."""

from __future__ import annotations

import json
from collections.abc import Iterator

NAMES = ("case", "activity", "timestamp", "amount", "channel")


def rows(cases: int = 120) -> Iterator[tuple[str, ...]]:
    """Yield events (case, activity, timestamp, amount, channel) of cases 3 to 5 events long."""
    for case in range(cases):
        middle = ("triage",) * (1 + case % 2) if case % 3 else ("call",)
        path = ("open", *middle, "solve", *(("survey",) if case % 5 == 0 else ()), "close")
        for hour, activity in enumerate(path):
            when = f"2024-{1 + case // 28:02d}-{1 + case % 28:02d}T0{hour}:{case % 50 + 10}:00"
            yield f"c{case}", activity, when, str(case % 7), "mail" if case % 4 else "phone"


def csv(cases: int = 120, delimiter: str = ",", names: tuple[str, ...] = NAMES) -> str:
    """Return the log as CSV with a header."""
    return "".join(delimiter.join(row) + "\n" for row in (names, *rows(cases)))


def json_lines(cases: int = 120) -> str:
    """Return the log as JSON lines."""
    return "".join(json.dumps(dict(zip(NAMES, row, strict=True))) + "\n" for row in rows(cases))
