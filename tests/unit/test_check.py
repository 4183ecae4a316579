"""What `data check` says: contents, repairs, and columns that give the answer away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hiddenstate.data import check, leaks, read
from hiddenstate.errors import DataError
from hiddenstate.job.events.prepare import prepare
from hiddenstate.schema import Categorical, EventLog
from hiddenstate.tasks import Occurs, parse
from hiddenstate.tasks.simulator.simulate import simulate
from tests.unit.small_fits import small_recipe

CASES = 400


def labelled(values: np.ndarray, kinds: int) -> Categorical:
    return Categorical(values.astype(np.int32), tuple(map(str, range(kinds))))


@pytest.fixture(scope="module")
def plain() -> EventLog:
    """Return cases of random activities whose tier, known at the start, says a little."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 30, CASES)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    events = int(offsets[-1])
    case = np.repeat(np.arange(CASES), lengths)
    tier = rng.integers(0, 3, CASES)
    activity = (rng.integers(0, 4, events) + (rng.random(events) < 0.3) * tier[case]) % 6
    times = np.cumsum(rng.exponential(3.6e9, events)).astype(np.int64)
    return EventLog(
        np.array([f"c{i}" for i in range(CASES)], dtype=object),
        offsets,
        "act",
        {
            "act": Categorical(activity.astype(np.int32), tuple("abcdef")),
            "tier": Categorical(tier[case].astype(np.int32), ("x", "y", "z")),
            "who": Categorical(
                rng.integers(-1, 50, events).astype(np.int32), tuple(map(str, range(50)))
            ),
            "name": labelled(case, CASES),
            "own": Categorical(np.where(activity == 5, 0, -1).astype(np.int32), ("seen",)),
        },
        {
            "age": rng.normal(50, 9, CASES)[case],
            "elapsed": (times - times[offsets[:-1]][case]) / 1e6,
            "lab": np.where(activity == 2, rng.normal(size=events), np.nan),
        },
        times,
    )


def with_column(log: EventLog, values: np.ndarray) -> EventLog:
    categorical, numeric = dict(log.categorical), dict(log.numeric)
    if values.dtype.kind == "f":
        numeric["told"] = values
    else:
        categorical["told"] = labelled(values, int(values.max()) + 1)
    return EventLog(log.case_ids, log.offsets, log.activity, categorical, numeric, log.time_us)


def last(log: EventLog) -> np.ndarray:
    return log.offsets[1:] - 1


def at_the_end(log: EventLog) -> np.ndarray:
    values = np.full(log.events, -1)
    values[last(log)] = np.arange(log.cases) % 3
    return values


def noisy(log: EventLog) -> np.ndarray:
    values = np.append(log.activities.codes[1:], 0)
    wrong = np.random.default_rng(3).random(log.events) < 0.01
    values = np.where(wrong, 0, values)
    values[last(log)] = -1
    return values


LEAKS: dict[str, tuple[Callable[[EventLog], np.ndarray], str]] = {
    "only at the end": (at_the_end, "last event"),
    "outcome from the start": (
        lambda log: log.activities.codes[last(log)][log.case_of_event()] + 1,
        "the last activity",
    ),
    "length from the start": (
        lambda log: log.lengths[log.case_of_event()],
        "the number of events",
    ),
    "length as a number": (
        lambda log: log.lengths[log.case_of_event()].astype(float),
        "the number of events",
    ),
    "duration from the start": (
        lambda log: np.repeat(np.diff(log.time_us[[*log.offsets[:-1], -1]]), log.lengths) / 1e6,
        "how long the case takes",
    ),
    "next activity as it falls": (
        lambda log: np.append(log.activities.codes[1:], 0),
        "the next activity",
    ),
    "a mark at the end": (
        lambda log: np.isin(np.arange(log.events), last(log)).astype(int),
        "whether the case ends here",
    ),
    "next activity": (noisy, "the next activity"),
    "time to next": (
        lambda log: np.append(np.diff(log.time_us), 0) / 1e6,
        "time until the next event",
    ),
    "time left": (
        lambda log: (log.time_us[last(log)][log.case_of_event()] - log.time_us) / 1e6,
        "time that the case has left",
    ),
}


def test_honest_columns_raise_no_alarm(plain: EventLog) -> None:
    assert leaks(plain) == []


def test_the_simulator_s_long_memory_raises_no_alarm() -> None:
    assert leaks(simulate(1000)) == []


@pytest.mark.parametrize("name", LEAKS)
def test_a_column_that_gives_the_answer_away_is_named(plain: EventLog, name: str) -> None:
    make, reason = LEAKS[name]
    found = leaks(with_column(plain, make(plain)))
    assert [leak.column for leak in found] == ["told"]
    assert reason in found[0].reason
    assert found[0].evidence


def test_a_value_of_the_last_activity_alone_is_no_leak(plain: EventLog) -> None:
    codes = plain.activities.codes.copy()
    codes[last(plain)] = 6
    log = EventLog(
        plain.case_ids,
        plain.offsets,
        "act",
        {"act": Categorical(codes, tuple("abcdefg"))},
        {},
        plain.time_us,
    )
    assert leaks(with_column(log, at_the_end(log))) == []


def test_few_cases_prove_nothing(plain: EventLog) -> None:
    log = with_column(plain, at_the_end(plain)).select(range(99))
    assert leaks(log) == []
    assert "few-cases" in [finding.code for finding in check(log).findings]


def test_a_check_counts_what_is_there(plain: EventLog) -> None:
    found = check(with_column(plain, at_the_end(plain)))
    assert (found.cases, found.events) == (CASES, plain.events)
    assert sum(found.activities.values()) == plain.events
    assert (found.length_min, found.length_max) == (plain.lengths.min(), plain.lengths.max())
    assert found.first_event is not None
    assert found.first_event.startswith("1970-01-01T")
    told = next(each for each in found.attributes if each.name == "told")
    assert told.distinct == 3
    assert told.missing == pytest.approx(1 - CASES / plain.events)
    assert found.findings[0].code == "gives-answer-away"
    assert found.findings[0].severity == "error"
    assert "--exclude 'told'" in found.findings[0].remedy
    json.dumps(found.to_json())


def codes(log: EventLog) -> dict[str, str]:
    return {finding.code: finding.severity for finding in check(log).findings}


def test_logs_that_hold_no_question_are_found() -> None:
    assert codes(EventLog.from_traces([["a", "a"]] * 200)) == {"one-activity": "error"}
    assert codes(EventLog.from_traces([["a", "b"]])) == {"one-case": "error"}
    assert codes(EventLog.from_traces([["a"], ["b"]] * 60)) == {"single-event-cases": "warning"}
    assert codes(EventLog.from_traces([["a", "b"]] * 99 + [["a"]])) == {
        "single-event-cases": "note"
    }
    assert codes(EventLog.from_traces([["a", "b"]] * 100)) == {}


def test_repairs_and_columns_left_out_are_findings(tmp_path: Path) -> None:
    lines = [f"c{i},a,2024-01-01,1\nc{i},b,2024-01-02,1" for i in range(200)]
    path = tmp_path / "log.csv"
    path.write_text("case,activity,time,always\n" + "\n".join([*lines, "x,y"]))
    found = {f.code: f for f in check(*read(path)).findings}
    assert set(found) == {"bad-fields", "column-left-out"}
    assert found["bad-fields"].severity == "warning"
    assert "row 402" in found["bad-fields"].measured
    assert found["column-left-out"].where == "always"


REAL = {
    "sepsis/Sepsis_Cases_Event_Log.xes.gz": (1050, 15_214, 16),
    "sepsis/sepsis_events.csv.gz": (1050, 15_214, 16),
    "bpi12/BPI_Challenge_2012.csv.gz": (13_087, 262_200, 36),
    "helpdesk_tax/helpdesk.csv": (3804, 13_710, 9),
    "ppm_chrono_80_20/bpi13_incident_80.csv": (6077, 57_031, 4),
}


@pytest.mark.parametrize("name", REAL)
def test_published_logs_have_their_counts_and_no_false_alarm(name: str) -> None:
    folder = os.environ.get("HIDDENSTATE_DATA")
    if not folder:
        pytest.skip("HIDDENSTATE_DATA is unset: the published logs are not here")
    log, report = read(Path(folder) / name)
    assert (log.cases, log.events, len(log.activities.labels)) == REAL[name]
    assert report.rows == log.events
    assert leaks(log) == []
    assert not [finding for finding in check(log, report).findings if finding.severity != "note"]


def ruled(share_right: float) -> EventLog:
    """Cases whose verdict stands at their last event, and a ruling beside every event."""
    rng = np.random.default_rng(0)
    log = EventLog.from_traces(
        [["open", *map(str, rng.choice(["ask", "fix"], 3)), "close"] for _ in range(CASES)]
    )
    verdict = rng.integers(0, 3, CASES)
    ruling = np.where(rng.random(CASES) < share_right, verdict, rng.integers(0, 3, CASES))
    at_end = np.full(log.events, -1)
    at_end[last(log)] = verdict
    categorical = {
        **log.categorical,
        "verdict": labelled(at_end, 3),
        "ruling": labelled(np.repeat(ruling, log.lengths), 3),
    }
    return replace(log, categorical=categorical)


def test_a_copy_of_the_outcome_is_refused_and_a_hint_at_it_is_not() -> None:
    asked = {"tasks": ["outcome:column=verdict"]}
    assert "ruling" not in [leak.column for leak in leaks(ruled(1.0))]
    with pytest.raises(DataError, match=r"ruling .*outcome:column=verdict") as refused:
        prepare(ruled(1.0), small_recipe(**asked), lambda _: None)
    assert "--exclude ruling" in str(refused.value)
    prepare(ruled(1.0), small_recipe(**asked, allow_leaks=True), lambda _: None)
    prepare(ruled(0.8), small_recipe(**asked), lambda _: None)


def test_a_column_that_says_whether_an_activity_will_come_is_refused() -> None:
    log = ruled(0.0)
    asks = np.array(log.activities.labels)[log.activities.codes] == "ask"
    has = np.add.reduceat(asks, log.offsets[:-1]) > 1
    told = with_column(log, np.repeat(has.astype(np.int64), log.lengths))
    ever = np.add.reduceat(asks, log.offsets[:-1]) > 0
    copied = with_column(log, np.repeat(ever.astype(np.int64), log.lengths))
    with pytest.raises(DataError, match=r"told .*occurs:ask"):
        prepare(copied, small_recipe(tasks=["occurs:ask"]), lambda _: None)
    prepare(told, small_recipe(tasks=["occurs:ask"]), lambda _: None)


def test_answers_of_cases_that_are_not_known_are_left_out() -> None:
    log = ruled(1.0)
    task = parse("outcome:column=verdict").fit(log)
    answers = task.case_answers(log)
    assert len(answers) == CASES
    assert [leak.column for leak in leaks(log, [("it", answers)])] == ["ruling"]
    answers[90:] = -1
    assert [leak.column for leak in leaks(log, [("it", answers)])] == []


def test_the_simulator_s_answers_raise_no_alarm() -> None:
    log = simulate(1000)
    happenings = [Occurs(happening=name) for name in log.activities.labels]
    assert leaks(log, [(task.name, task.case_answers(log)) for task in happenings]) == []
