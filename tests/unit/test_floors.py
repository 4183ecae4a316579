"""Floors: what is chosen, and on which part of the log."""

from __future__ import annotations

import numpy as np
import pytest

from hiddenstate.schema.log import EventLog
from hiddenstate.tasks import (
    ClassFloors,
    JudgedNumbers,
    NextEvent,
    NumberFloors,
    TimeToNext,
    fit_floors,
    parse,
    score,
)
from hiddenstate.tasks.contexts import Histories
from hiddenstate.tasks.ngram import NGram

HOUR_US = 3_600_000_000


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
    names = floors.ngram.activities
    parts = [(Histories.of(log, names), task.targets(log)) for log in (train, validation)]
    chosen = NGram.fit(names, len(task.classes), parts[:1], 10)
    accuracy, log_loss = chosen.by_order(*parts[1])
    assert floors.accuracy_order == accuracy.argmax() >= 2
    assert floors.log_loss_order == log_loss.argmin() == 2
    assert floors.ngram.table.levels[0].totals[0] == train.events + validation.events


def test_floors_are_ordered_and_named() -> None:
    train = second_order(200, 0)
    task = NextEvent().fit(train)
    test = second_order(100, 2)
    judged = fit_floors(task, train).judge(test, task.targets(test))
    losses = [score(part, 10).metrics["log_loss"].value for part in judged.values()]
    hits = [score(part, 10).metrics["accuracy"].value for part in judged.values()]
    assert list(judged) == ["most_frequent", "last_activity", "ngram"]
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
    np.testing.assert_allclose(floors.medians, expected)
    unknown = EventLog.from_traces([["b", "z", "a"]])
    unknown = EventLog(
        unknown.case_ids, unknown.offsets, "activity", unknown.categorical, {}, np.arange(3)
    )
    judged = floors.judge(unknown, task.targets(unknown))["median_per_activity"]
    assert isinstance(judged, JudgedNumbers)
    np.testing.assert_allclose(judged.predicted, [expected[2], expected[0]])


@pytest.mark.parametrize("cases", [1, 2, 3])
def test_a_tiny_training_part_still_has_floors(cases: int) -> None:
    log = EventLog.from_traces([["a", "b", "a"]] * cases)
    task = NextEvent().fit(log)
    judged = fit_floors(task, log).judge(log, task.targets(log))
    assert len(judged["ngram"].case) == log.events
