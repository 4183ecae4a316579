"""Vocabulary, scaler, log and schema: what is not a law."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from hiddenstate.errors import DataError, SpecError
from hiddenstate.schema import Categorical, EventLog, Scaler, Schema, Vocabulary
from hiddenstate.schema.clock import DAY_US, WEEK_US, calendar, elapsed


def small_log(**changes: object) -> EventLog:
    parts: dict = {
        "case_ids": np.array(["x", "y", "z"], dtype=object),
        "offsets": np.array([0, 2, 2, 5]),
        "activity": "act",
        "categorical": {
            "act": Categorical(np.array([0, 1, 0, 0, 2], np.int32), ("a", "b", "c")),
            "tier": Categorical(np.array([-1, 0, 0, 1, -1], np.int32), ("gold", "tin")),
        },
        "numeric": {"cost": np.array([1.0, np.nan, 3.0, 5.0, np.nan])},
        "time_us": np.array([0, 5, 10, 10, 20]) * 1_000_000,
    }
    return EventLog(**(parts | changes))


def test_a_log_knows_its_cases() -> None:
    log = small_log()
    assert (log.cases, log.events, log.lengths.tolist()) == (3, 5, [2, 0, 3])
    assert log.case_of_event().tolist() == [0, 0, 2, 2, 2]
    assert log.position_of_event().tolist() == [0, 1, 0, 1, 2]
    assert log.starts_us is not None
    assert log.starts_us[[0, 2]].tolist() == [0, 10_000_000]


def test_selecting_keeps_order_and_labels() -> None:
    part = small_log().select([2, 0])
    assert part.case_ids.tolist() == ["z", "x"]
    assert part.activities.names().tolist() == ["a", "a", "c", "a", "b"]
    assert part.categorical["tier"].names().tolist() == ["gold", "tin", None, None, "gold"]
    assert part.offsets.tolist() == [0, 3, 5]


def test_selecting_neighbours_copies_nothing() -> None:
    log = small_log()
    part = log.select([0, 1])
    assert np.shares_memory(part.numeric["cost"], log.numeric["cost"])
    assert part.events == 2


def test_keeping_events_drops_emptied_cases_and_marks_cut_ones() -> None:
    log = small_log()
    kept = log.keep(np.array([False, False, True, True, False]))
    assert kept.case_ids.tolist() == ["z"]
    assert kept.ended is not None
    assert kept.ended.tolist() == [False]
    assert log.keep(np.array([False, True, True, True, True])).ended is None
    assert log.keep(np.array([1, 0, 1, 1, 1], bool)).select([1]).ended.tolist() == [True]


@pytest.mark.parametrize(
    "changes",
    [
        {"numeric": {"cost": np.zeros(4)}},
        {"offsets": np.array([0, 2, 5])},
        {"activity": "cost"},
        {"time_us": np.zeros(2, np.int64)},
        {"ended": np.ones(2, bool)},
    ],
)
def test_columns_that_disagree_are_refused(changes: dict) -> None:
    with pytest.raises(DataError):
        small_log(**changes)


def test_a_vocabulary_is_ordered_by_count_and_cut() -> None:
    column = Categorical(np.array([2, 2, 2, 0, 0, 1, -1, 3, 3], np.int32), ("b", "rare", "c", "a"))
    assert Vocabulary.fit(column).symbols == ("c", "a", "b", "rare")
    assert Vocabulary.fit(column, min_count=2, max_size=2).symbols == ("c", "a")
    vocabulary = Vocabulary(("c", "a"))
    assert vocabulary.table(("a", "x")).tolist() == [2, 0, 0]
    assert [vocabulary.decode(code) for code in (0, 1)] == [None, "c"]
    assert len(vocabulary) == 3
    with pytest.raises(SpecError):
        Vocabulary(("c", "c"))


def test_a_scaler_ignores_what_is_missing_and_undoes_itself() -> None:
    values = np.array([0.0, 1.0, 1000.0, np.nan, np.inf])
    scaler = Scaler.fit(values)
    assert scaler.log1p
    scaled = scaler.encode(values[:3])
    assert scaled.mean() == pytest.approx(0, abs=1e-12)
    assert scaled.std() == pytest.approx(1)
    assert scaler.decode(scaled) == pytest.approx(values[:3])
    assert Scaler.fit(np.full(7, 0.5)) == Scaler(0.5, 1.0, False)
    assert Scaler.fit(np.full(7, 0.1)).scale == 1.0
    assert Scaler.fit(np.array([np.nan])) == Scaler()
    assert not Scaler.fit(np.array([-1.0, 2.0])).log1p


def test_durations_restart_with_each_case() -> None:
    log = small_log()
    assert log.time_us is not None
    since_previous, since_start, is_first = elapsed(log, log.time_us)
    assert since_previous.tolist() == [0, 5, 0, 0, 10]
    assert since_start.tolist() == [0, 5, 0, 0, 10]
    assert is_first.tolist() == [1, 0, 1, 0, 0]


def test_the_calendar_turns_once_a_day_and_once_a_week_from_monday() -> None:
    monday_us = 4 * DAY_US
    at = np.array([monday_us, monday_us + DAY_US // 4, monday_us + WEEK_US // 4])
    day_sin, day_cos, week_sin, week_cos = calendar(at)
    assert (day_sin[0], day_cos[0], week_sin[0], week_cos[0]) == (0, 1, 0, 1)
    assert day_sin[1] == pytest.approx(1)
    assert week_sin[2] == pytest.approx(1)


def test_the_schema_flags_what_is_missing_and_counts_what_is_unknown() -> None:
    log = small_log()
    schema = Schema.fit(log, min_count=1)
    inputs = schema.encode(log)
    assert schema.number_names[:2] == ("cost", "cost is missing")
    assert inputs.numbers[:, 1].tolist() == [0, 1, 0, 0, 1]
    assert inputs.numbers[[1, 4], 0].tolist() == [0, 0]
    assert schema.code_sizes == (4, 3)
    strange = small_log(
        categorical={
            "act": Categorical(np.array([0, 1, 1, 1, 0], np.int32), ("new", "a")),
            "tier": Categorical(np.full(5, -1, np.int32), ()),
        }
    )
    assert schema.unknowns(strange) == {"act": {"new": 2}}
    assert schema.encode(strange).codes[:, 0].tolist() == [0, 1, 1, 1, 0]
    assert schema.unknowns(log) == {}


def test_wild_values_are_cut_and_late_events_have_no_negative_age() -> None:
    schema = Schema.fit(small_log())
    event = {"act": "a", "cost": 1e30, "timestamp": 10_000_000}
    _, numbers, memory = schema.encode_event(event)
    assert numbers[0] == 10
    late = event | {"timestamp": datetime(1970, 1, 1, 0, 0, 4)}
    _, again, memory = schema.encode_event(late, memory)
    at_once = schema.encode_event(event, memory)[1]
    assert memory == (10_000_000, 10_000_000)
    assert again[2] == at_once[2]
    assert again[4] == 0


def test_columns_can_be_chosen_and_left_out() -> None:
    log = small_log()
    schema = Schema.fit(log, categorical=(), exclude=("cost",), time=False)
    assert list(schema.vocabularies) == ["act"]
    assert schema.number_names == ()
    assert schema.encode(log).numbers.shape == (5, 0)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda _: Schema.fit(small_log(), numeric=["csot"]), "Did you mean cost?"),
        (lambda _: Schema.fit(EventLog.from_traces([["a"]]), time=True), "no times"),
        (lambda s: s.encode(EventLog.from_traces([["a"]])), "cost, tier"),
        (lambda s: s.encode(small_log(time_us=None)), "no times"),
        (lambda s: s.encode_event({"act": " ", "timestamp": 1}), "has no 'act'"),
        (lambda s: s.encode_event({"act": "a", "timestamp": "noon"}), "'noon'"),
        (lambda s: s.encode_event({"act": "a", "timestamp": 1, "cost": "x"}), "'cost' is 'x'"),
    ],
)
def test_what_cannot_be_encoded_is_refused(call: object, named: str) -> None:
    with pytest.raises(DataError, match=named):
        call(Schema.fit(small_log()))
