"""Floors: what is chosen, and on which part of the log."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil

import numpy as np
import pytest

from hiddenstate.schema.log import EventLog
from hiddenstate.tasks import (
    ClassFloors,
    JudgedNumbers,
    NextEvent,
    NumberFloors,
    RemainingTime,
    TimeToNext,
    compare,
    fit_floors,
    floors_from,
    parse,
    score,
)
from hiddenstate.tasks.contexts import Histories
from hiddenstate.tasks.ngram import NGram
from hiddenstate.tasks.recency import Past

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US


def second_order(cases: int, seed: int) -> EventLog:
    """Cases in which the next activity is the one before last, with some noise."""
    rng = np.random.default_rng(seed)
    traces = []
    for _ in range(cases):
        trace = list(rng.choice(list("abc"), 2))
        for _ in range(int(rng.integers(4, 20))):
            trace.append(trace[-2] if rng.random() < 0.9 else str(rng.choice(list("abc"))))
        traces.append([str(step) for step in trace])
    return EventLog.from_traces(traces)


def test_the_order_is_the_best_on_validation_and_counts_come_from_both_parts() -> None:
    train, validation = second_order(150, 0), second_order(60, 1)
    task = NextEvent().fit(train)
    floors = fit_floors(task, train, validation)
    assert isinstance(floors, ClassFloors)
    names = floors.ngram.counts.activities
    parts = [(Histories.of(log, names), task.targets(log)) for log in (train, validation)]
    chosen = NGram.fit(names, len(task.classes), parts[:1], 10)
    accuracy, log_loss = chosen.by_order(*parts[1])
    assert floors.ngram.accuracy_order == accuracy.argmax() >= 2
    assert floors.ngram.log_loss_order == log_loss.argmin() == 2
    counted = floors.ngram.counts.table.levels[0].totals[0]
    assert counted == train.events + validation.events


def test_floors_are_ordered_and_named() -> None:
    train = second_order(200, 0)
    task = NextEvent().fit(train)
    test = second_order(100, 2)
    judged = fit_floors(task, train).judge(test, task.targets(test))
    losses = [score(part, 10).metrics["log_loss"].value for part in judged.values()]
    hits = [score(part, 10).metrics["accuracy"].value for part in judged.values()]
    assert list(judged)[:3] == ["most_frequent", "last_activity", "ngram"]
    assert losses[2] < losses[1] < losses[0]
    assert hits[2] > hits[1] >= hits[0]


def test_the_n_gram_serves_outcomes() -> None:
    rng = np.random.default_rng(0)
    traces = [["open", *rng.choice(["x", "y"], 3), "win"] for _ in range(60)]
    traces += [["call", *rng.choice(["x", "y"], 3), "lose"] for _ in range(60)]
    log = EventLog.from_traces([[str(step) for step in traces[i]] for i in rng.permutation(120)])
    task = parse("occurs:win").fit(log)
    judged = fit_floors(task, log).judge(log, task.targets(log))
    assert score(judged["ngram"], 10).metrics["accuracy"].value == 1.0
    assert score(judged["most_frequent"], 10).metrics["accuracy"].value < 0.7


def test_medians_are_per_activity_and_overall_for_an_unknown_one() -> None:
    rng = np.random.default_rng(0)
    log = EventLog.from_traces([list("abab")] * 30)
    gaps = rng.exponential(np.tile([2.0, 9.0], 60)) * 24 * HOUR_US
    times = np.cumsum(gaps).astype(np.int64)
    log = EventLog(log.case_ids, log.offsets, "activity", log.categorical, {}, times)
    task = TimeToNext().fit(log)
    floors = fit_floors(task, log.select(range(20)), log.select(range(20, 30)))
    assert isinstance(floors, NumberFloors)
    targets = task.targets(log)
    after = {name: targets.values[targets.mask & (log.activities.names() == name)] for name in "ab"}
    expected = [np.median(targets.values[targets.mask]), *map(np.median, after.values())]
    np.testing.assert_allclose(floors.medians.days, expected)
    unknown = EventLog.from_traces([["b", "z", "a"]])
    unknown = EventLog(
        unknown.case_ids, unknown.offsets, "activity", unknown.categorical, {}, np.arange(3)
    )
    judged = floors.judge(unknown, task.targets(unknown))["median_per_activity"]
    assert isinstance(judged, JudgedNumbers)
    np.testing.assert_allclose(judged.predicted, [expected[2], expected[0]])


def two_regimes(old: int, new: int, seed: int = 0) -> EventLog:
    """`old` cases of one process, then `new` of another: other orders, and ten times slower."""
    rng = np.random.default_rng(seed)
    traces, gaps = [], []
    for case in range(old + new):
        after = dict(zip("abc", "bca" if case < old else "cab"))
        trace = [str(rng.choice(list("abc")))]
        for _ in range(int(rng.integers(4, 12))):
            last = trace[-1]
            trace.append(after[last] if rng.random() < 0.9 else str(rng.choice(list("abc"))))
        traces.append(trace)
        slow = (1.0 if case < old else 10.0) * HOUR_US
        gaps += [30 * DAY_US, *rng.exponential(slow, len(trace) - 1)]
    times = np.cumsum(np.array(gaps, dtype=np.int64))
    return replace(EventLog.from_traces(traces), time_us=times)


def test_in_a_log_of_two_regimes_the_recent_floors_are_chosen_and_win() -> None:
    log = two_regimes(150, 150)
    train, validation, test = (
        log.select(range(*ends)) for ends in ((0, 200), (200, 220), (220, 300))
    )
    for task, metric, names in (
        (NextEvent().fit(train), "log_loss", ("ngram", "recent_ngram")),
        (
            TimeToNext().fit(train),
            "mae_days",
            ("median_per_activity", "recent_median_per_activity"),
        ),
    ):
        floors = fit_floors(task, train, validation)
        assert floors.compared == names
        assert floors.recent is not None
        # A quarter of the training cases is of the new regime.
        assert floors.recent.share in (1 / 4, 1 / 8)
        said = f"last {Fraction(floors.recent.share)} of the training and validation cases"
        assert said in floors.description
        judged = floors.judge(test, task.targets(test))
        plain, recent = (judged[name] for name in names)
        assert compare(recent, plain, metric).verdict == "better"


def test_a_recent_n_gram_counts_the_newest_cases_of_both_parts() -> None:
    log = two_regimes(150, 150)
    train, validation = log.select(range(200)), log.select(range(200, 220))
    task = NextEvent().fit(train)
    floors = fit_floors(task, train, validation)
    assert isinstance(floors, ClassFloors)
    assert floors.recent is not None
    newest = log.select(range(220 - ceil(220 * floors.recent.share), 220))
    alone = NGram.fit(
        floors.recent.counts.activities,
        len(task.classes),
        [(Histories.of(newest, floors.recent.counts.activities), task.targets(newest))],
        max(floors.recent.accuracy_order, floors.recent.log_loss_order),
    )
    expected = alone.table.to_arrays()
    found = floors.recent.counts.table.to_arrays()
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def test_the_newest_cases_are_those_that_began_last_wherever_they_stand() -> None:
    log = two_regimes(0, 8)
    odd, even = log.select(range(1, 8, 2)), log.select(range(0, 8, 2))
    past = Past.of(TimeToNext(), tuple("abc"), (odd, even))
    kept = np.concatenate([odd.case_of_event(), 4 + even.case_of_event()])
    kept = np.unique(kept[past.recent(1 / 4).mask])
    assert kept.tolist() == [3, 7]
    assert past.recent(1.0).mask.sum() == past.targets.mask.sum()
    untimed = Past.of(NextEvent().fit(odd), tuple("abc"), [replace(odd, time_us=None)] * 2)
    assert untimed.recent(1 / 2).mask.tolist() == [False] * odd.events + [True] * odd.events


def test_cases_without_an_answer_do_not_count_as_recent() -> None:
    log = two_regimes(0, 16)
    log = replace(log, ended=np.arange(16) < 8)
    past = Past.of(RemainingTime(), tuple("abc"), (log,))
    assert np.unique(log.case_of_event()[past.recent(1 / 4).mask]).tolist() == [6, 7]
    task = RemainingTime().fit(log)
    floors = fit_floors(task, log.select(range(12)), log.select(range(12, 16)))
    assert floors.compared == ("median_per_activity",)


def test_in_a_stationary_log_the_plain_floors_stay_alone() -> None:
    log = two_regimes(0, 300)
    log = replace(log, time_us=np.arange(log.events) * HOUR_US)
    train, validation = log.select(range(200)), log.select(range(200, 300))
    for task, names in (
        (NextEvent().fit(train), ("ngram",)),
        (TimeToNext().fit(train), ("median_per_activity",)),
    ):
        floors = fit_floors(task, train, validation)
        assert floors.compared == names
        assert floors.recent is None
        assert "no recent" in floors.description


@pytest.mark.parametrize("cases", [1, 2, 3])
def test_a_tiny_training_part_still_has_floors(cases: int) -> None:
    log = EventLog.from_traces([["a", "b", "a"]] * cases)
    task = NextEvent().fit(log)
    judged = fit_floors(task, log).judge(log, task.targets(log))
    assert len(judged["ngram"].case) == log.events


def test_the_orders_chosen_are_said() -> None:
    train = second_order(150, 0)
    floors = fit_floors(NextEvent().fit(train), train, second_order(60, 1))
    assert isinstance(floors, ClassFloors)
    chosen = replace(floors, ngram=replace(floors.ngram, accuracy_order=4, log_loss_order=5))
    assert chosen.description.startswith("n-gram: order 4 for accuracy, 5 for log loss; no recent")
    assert replace(floors, ngram=floors.ngram.at_order(1)).description.startswith(
        "n-gram: order 1; "
    )


@pytest.mark.parametrize("name", ["next_event", "remaining_time"])
@pytest.mark.parametrize("cases", [40, 300])
def test_the_description_says_on_what_floors_were_chosen(name: str, cases: int) -> None:
    log = two_regimes(cases // 2, cases // 2)
    task = parse(name).fit(log)
    alone, beside = fit_floors(task, log), fit_floors(task, log, log)
    assert "validation" not in alone.description
    if "no recent" in alone.description:
        assert alone.description.endswith(" did better on the last fifth of them")
    else:
        assert " of the training cases" in alone.description
    assert "validation" in beside.description
    read = floors_from(alone.to_json(), alone.to_arrays())
    assert read.description == alone.description
