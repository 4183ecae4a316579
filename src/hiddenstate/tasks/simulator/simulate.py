"""A log of simulated support tickets: activities, times and attributes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import UsageError
from hiddenstate.schema.log import Categorical, EventLog
from hiddenstate.tasks.simulator.tickets import FACTS, revealed, ticket_process

MONDAY_US = 1_704_092_400_000_000  # 2024-01-01T07:00:00Z, when the desk opens
SECOND_US = 1_000_000
DAY_MINUTES, WORK_MINUTES, WORK_DAYS, WEEK_DAYS = 1440, 600, 5, 7
TICKETS_A_DAY = 40
SHOWN_FACTS = ("account", "product")
WAIT_MINUTES = {"received": 900.0, "test ": 500.0, "shipped": 300.0, "closed": 1200.0}
OTHER_WAIT_MINUTES = 45.0
HASTE = {"account: enterprise": 0.5, "account: business": 0.8}


def simulate(tickets: int, seed: int = 0) -> EventLog:
    """Draw a log of support tickets; the same seed gives the same log.

    Columns: activity; timestamp, in working hours; account and product, filled where an activity
    tells them; team, which follows from the activity; desk_load, pure noise. Given the
    activities, times and attributes are drawn without looking at facts or stage, so that they say
    nothing about the next activity that the activities do not. Raises UsageError below 1 ticket.
    """
    if tickets < 1:
        raise UsageError(
            f"A log of {tickets} tickets was asked for.",
            "The simulator makes one ticket or more.",
            "Ask for at least 1 ticket.",
        )
    rng = np.random.default_rng(seed)
    process = ticket_process()
    traces = process.sample(tickets, rng)
    offsets = np.cumsum([0, *(len(trace) for trace in traces)], dtype=np.int64)
    codes = np.concatenate(traces).astype(np.int32)
    names = process.actions[:-1]
    case_ids = np.empty(tickets, dtype=object)
    case_ids[:] = [f"T{number:06d}" for number in range(1, tickets + 1)]
    categorical = {"activity": Categorical(codes, names)}
    for fact in SHOWN_FACTS:
        own = [revealed(fact, value) for value in FACTS[fact]]
        table = [own.index(name) if name in own else -1 for name in names]
        categorical[fact] = Categorical(np.array(table, dtype=np.int32)[codes], FACTS[fact])
    teams = tuple(sorted({_team(name) for name in names}))
    acting = np.array([teams.index(_team(name)) for name in names], dtype=np.int32)
    categorical["team"] = Categorical(acting[codes], teams)
    load = rng.poisson(TICKETS_A_DAY, len(codes)).astype(np.float64)
    times = _times_us(codes, offsets, names, rng)
    return EventLog(
        case_ids, offsets, "activity", categorical, {"desk_load": load}, times, case="ticket"
    )


def table(log: EventLog) -> Iterator[tuple[str, ...]]:
    """Yield a log as rows of text, the header first: case, activity, time (ISO 8601), the rest."""
    names = [log.activity, *(name for name in log.categorical if name != log.activity)]
    yield (log.case, names[0], log.time, *names[1:], *log.numeric)
    cases = np.repeat(log.case_ids, log.lengths)
    labelled = [log.categorical[name] for name in names]
    columns = [np.where(column.codes < 0, "", column.names()) for column in labelled]
    if log.time_us is None:
        stamps = np.full(log.events, "", dtype=object)
    else:
        stamps = np.datetime_as_string(log.time_us.astype("datetime64[us]"), timezone="UTC")
    numbers = [
        ["" if np.isnan(value) else f"{value:.15g}" for value in column]
        for column in log.numeric.values()
    ]
    for case, name, stamp, *rest in zip(cases, columns[0], stamps, *columns[1:], *numbers):
        yield (str(case), str(name), str(stamp), *map(str, rest))


def _team(activity: str) -> str:
    """Return who does an activity, a function of its name."""
    if activity.startswith(("test ", "software ", "part ", "repair ")) or "bench" in activity:
        return "lab"
    if activity.startswith(("approved", "findings")):
        return "management"
    if "received" in activity or activity.startswith("opened"):
        return "customer"
    return "stores" if activity.startswith("shipped") else "desk"


def _times_us(
    codes: NDArray[np.int32],
    offsets: NDArray[np.int64],
    names: tuple[str, ...],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw each event's time: gamma waits by activity and account on an axis of working hours."""
    mean = [
        next((m for word, m in WAIT_MINUTES.items() if word in name), OTHER_WAIT_MINUTES)
        for name in names
    ]
    haste = np.array([HASTE.get(name, 1.0) for name in names])[codes]
    haste = np.repeat(np.minimum.reduceat(haste, offsets[:-1]), np.diff(offsets))
    waits = rng.gamma(2.0, 0.5, len(codes)) * np.array(mean)[codes] * haste
    waits[offsets[:-1]] = 0
    tickets = len(offsets) - 1
    opened = np.sort(rng.uniform(0, tickets / TICKETS_A_DAY * WORK_MINUTES, tickets))
    since = np.cumsum(waits)
    minutes = since + np.repeat(opened - since[offsets[:-1]], np.diff(offsets))
    day, within = np.divmod(minutes, WORK_MINUTES)
    week, weekday = np.divmod(day, WORK_DAYS)
    wall = (week * WEEK_DAYS + weekday) * DAY_MINUTES + within
    seconds = np.floor(wall * 60).astype(np.int64)
    times: NDArray[np.int64] = MONDAY_US + seconds * SECOND_US
    return times
