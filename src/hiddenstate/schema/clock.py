"""Time as model inputs: since the last event, since the first, of day, of week."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from hiddenstate.errors import DataError
from hiddenstate.schema.log import EventLog, Floats, Int64

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
WEEK_US = 7 * DAY_US
# 1 January 1970 was a Thursday; the week of the inputs begins on Monday.
THURSDAY_US = 3 * DAY_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

NAMES = ("since_previous", "since_start", "is_first", "day_sin", "day_cos", "week_sin", "week_cos")


class Memory(NamedTuple):
    """What an encoder must remember of an entity between its events, in UTC microseconds."""

    first_us: int
    last_us: int


def to_us(moment: object) -> int:
    """Return UTC microseconds of an int (already microseconds) or a datetime (naive means UTC).

    Raises DataError for anything else.
    """
    if isinstance(moment, datetime):
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return (aware - EPOCH) // timedelta(microseconds=1)
    if isinstance(moment, int | np.integer) and not isinstance(moment, bool):
        return int(moment)
    raise DataError(
        f"The time of the event is {moment!r} ({type(moment).__name__}).",
        "The model takes times as inputs: a datetime, or whole UTC microseconds since 1970.",
        "Convert the time first, for example with datetime.fromisoformat.",
    )


def elapsed(log: EventLog, time_us: Int64) -> tuple[Floats, Floats, Floats]:
    """Return since_previous_s, since_start_s and is_first of every event, each [N].

    A late event counts as having followed at once: no duration is below 0.
    """
    first = log.offsets[:-1][log.lengths > 0]
    since_previous = np.diff(time_us, prepend=time_us[:1])
    since_previous[first] = 0
    since_start = time_us - np.repeat(time_us[first], log.lengths[log.lengths > 0])
    is_first = np.zeros(len(time_us))
    is_first[first] = 1.0
    return (
        np.maximum(since_previous, 0) / SECOND_US,
        np.maximum(since_start, 0) / SECOND_US,
        is_first,
    )


def calendar(time_us: Int64) -> tuple[Floats, Floats, Floats, Floats]:
    """Return sine and cosine of the time of day and of the time of week, each [N]."""
    day = (time_us % DAY_US) * (2 * np.pi / DAY_US)
    week = ((time_us + THURSDAY_US) % WEEK_US) * (2 * np.pi / WEEK_US)
    return np.sin(day), np.cos(day), np.sin(week), np.cos(week)
