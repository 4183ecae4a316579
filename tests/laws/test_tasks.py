"""Laws of every registered task."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema.log import Categorical, EventLog
from hiddenstate.tasks import END, TASKS, NextEvent, Targets, fit_floors, floors_from, judge, parse
from hiddenstate.tasks import from_json as task_from_json

HOUR_US = 3_600_000_000
TEXTS = ["next_event", "outcome:column=label", "outcome:column=grade", "occurs:refund"]
TEXTS += ["remaining_time", "time_to_next"]


def a_log(seed: int = 0, cases: int = 60) -> EventLog:
    rng = np.random.default_rng(seed)
    traces = [
        [
            "open",
            *rng.choice(["work", "wait", "refund"], size=rng.integers(0, 6), p=[0.6, 0.3, 0.1]),
        ]
        for _ in range(cases)
    ]
    plain = EventLog.from_traces(traces)
    codes = np.full(plain.events, -1, dtype=np.int32)
    codes[plain.offsets[:-1]] = rng.integers(0, 2, cases)
    grade = np.where(rng.random(plain.events) < 0.7, rng.integers(1, 4, plain.events), np.nan)
    return EventLog(
        plain.case_ids,
        plain.offsets,
        "activity",
        {"activity": plain.activities, "label": Categorical(codes, ("bad", "good"))},
        {"grade": grade},
        np.cumsum(rng.integers(0, 9, plain.events)) * HOUR_US,
    )


def drifting() -> EventLog:
    """Return a log whose last half is of another kind: labels, order and pace."""
    log = a_log()
    assert log.time_us is not None
    late = log.case_of_event() >= 25
    codes, label = log.activities.codes, log.categorical["label"]
    refund = log.activities.labels.index("refund")
    wait = log.activities.labels.index("wait")
    swapped = np.where(codes == wait, refund, np.where(codes == refund, wait, codes))
    turned = np.where(label.codes >= 0, late.astype(np.int32), -1)
    gaps = np.diff(log.time_us, prepend=0)
    return replace(
        log,
        categorical={
            "activity": replace(log.activities, codes=np.where(late, swapped, codes)),
            "label": replace(label, codes=turned.astype(np.int32)),
        },
        numeric={"grade": np.where(late, 3.0, 1.0)},
        time_us=np.cumsum(np.where(late, gaps * 50 + HOUR_US, gaps)),
    )


def by_hand(text: str, log: EventLog) -> tuple[list[object], list[bool]]:
    """The definition of each task as a loop over cases."""
    names = log.activities.names()
    label = log.categorical["label"].names()
    values: list[object] = []
    mask: list[bool] = []
    for case, (start, end) in enumerate(zip(log.offsets[:-1], log.offsets[1:])):
        for t in range(start, end):
            rest = names[t + 1 : end]
            ended = log.ended is None or bool(log.ended[case])
            scored = True
            value: object
            if text == "next_event":
                value, scored = (rest[0] if len(rest) else END), ended or len(rest) > 0
            elif text.startswith("outcome:column=label"):
                filled = [v for v in label[start:end] if v is not None]
                value, scored = (filled[-1] if filled else None), ended and bool(filled)
            elif text.startswith("outcome:column=grade"):
                filled = [v for v in log.numeric["grade"][start:end] if not np.isnan(v)]
                value, scored = (f"{filled[-1]:g}" if filled else None), ended and bool(filled)
            elif text == "occurs:refund":
                value, scored = (
                    ("yes" if "refund" in rest else "no"),
                    "refund" not in names[start : t + 1] and (ended or "refund" in rest),
                )
            else:
                assert log.time_us is not None
                to = end - 1 if text == "remaining_time" else t + 1
                scored = to < end and (ended or text == "time_to_next")
                value = (log.time_us[to] - log.time_us[t]) / 86_400e6 if scored else None
            values.append(value)
            mask.append(scored)
    return values, mask


def test_every_registered_task_is_tested() -> None:
    assert {text.partition(":")[0] for text in TEXTS} == set(TASKS)


@pytest.mark.parametrize("every_end_is_known", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_targets_equal_the_definition(text: str, every_end_is_known: bool) -> None:
    log = a_log()
    if not every_end_is_known:
        log = replace(log, ended=np.random.default_rng(5).random(log.cases) < 0.5)
    task = parse(text).fit(log)
    targets = task.targets(log)
    values, mask = by_hand(text, log)
    assert targets.mask.tolist() == mask
    for found, expected in zip(targets.values[targets.mask], np.array(values, object)[mask]):
        if task.kind == "classes":
            assert task.classes[found] == expected
        else:
            assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("text", TEXTS)
def test_round_trips(text: str) -> None:
    task = parse(text).fit(a_log())
    assert task.name == text
    assert task_from_json(json.loads(json.dumps(task.to_json()))) == task


@pytest.mark.parametrize("text", TEXTS)
def test_a_case_is_judged_alone(text: str) -> None:
    log = a_log()
    task = parse(text).fit(log)
    whole = task.targets(log)
    for case in range(log.cases):
        alone = task.targets(log.select([case]))
        rows = slice(int(log.offsets[case]), int(log.offsets[case + 1]))
        np.testing.assert_array_equal(alone.mask, whole.mask[rows])
        np.testing.assert_array_equal(alone.values[alone.mask], whole.values[rows][alone.mask])


@pytest.mark.parametrize("text", TEXTS)
def test_empty_cases_and_empty_logs_have_no_targets(text: str) -> None:
    log = a_log()
    task = parse(text).fit(log)
    holes = EventLog(
        np.array(["x", *log.case_ids, "y"], dtype=object),
        np.array([0, *log.offsets, log.events]),
        "activity",
        log.categorical,
        log.numeric,
        log.time_us,
    )
    np.testing.assert_array_equal(task.targets(holes).mask, task.targets(log).mask)
    np.testing.assert_array_equal(task.targets(holes).values, task.targets(log).values)
    assert len(task.targets(log.select([])).values) == 0


@pytest.mark.parametrize("drifts", [False, True])
@pytest.mark.parametrize("text", TEXTS)
def test_floors_travel_and_judge_what_is_scored(text: str, drifts: bool) -> None:
    log = drifting() if drifts else a_log()
    task = parse(text).fit(log)
    other = a_log(seed=1)
    targets = task.targets(other)
    floors = fit_floors(task, log.select(range(40)), log.select(range(40, 60)))
    assert (len(floors.compared) == 2) >= drifts
    arrays = {name: array.copy() for name, array in floors.to_arrays().items()}
    read = floors_from(json.loads(json.dumps(floors.to_json())), arrays)
    judged, again = floors.judge(other, targets), read.judge(other, targets)
    assert tuple(judged) == floors.names
    assert set(floors.compared) <= set(floors.names)
    assert read.compared == floors.compared
    assert read.description == floors.description
    for name in floors.names:
        assert len(judged[name].case) == int(targets.mask.sum())
        for field in judged[name].__dataclass_fields__:
            np.testing.assert_array_equal(getattr(judged[name], field), getattr(again[name], field))


@pytest.mark.parametrize("text", TEXTS)
def test_what_comes_after_a_cut_changes_no_target(text: str) -> None:
    """Where a cut case is scored, its answer is the one it has when it is whole."""
    log = a_log()
    task = parse(text).fit(log)
    kept = log.position_of_event() < 3
    cut = log.keep(kept)
    assert cut.ended is not None
    assert 0 < cut.ended.sum() < cut.cases
    found, whole = task.targets(cut), task.targets(log)
    values, mask = whole.values[kept], whole.mask[kept]
    assert not (found.mask & ~mask).any()
    np.testing.assert_array_equal(found.values[found.mask], values[found.mask])
    ended = np.repeat(cut.ended, cut.lengths)
    np.testing.assert_array_equal(found.mask[ended], mask[ended])


@pytest.mark.parametrize("text", TEXTS)
def test_an_outcome_of_an_open_case_is_no_class_to_learn(text: str) -> None:
    log = a_log()
    none = replace(log, ended=np.zeros(log.cases, dtype=bool))
    task = parse(text).fit(log)
    if text.startswith(("outcome", "remaining_time")):
        assert not task.targets(none).mask.any()
        with pytest.raises(DataError):
            parse(text).fit(none)
    else:
        assert task.targets(none).mask.any()


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_masked_changes_nothing(text: str) -> None:
    log = a_log()
    task = parse(text).fit(log)
    clean = task.targets(log)
    dirty = Targets(clean.values.copy(), clean.mask)
    dirty.values[~clean.mask] = 0
    rows = np.arange(log.events)
    results = []
    for targets in (clean, dirty):
        collector = judge(task, log, targets)
        shape = (log.events, len(task.classes)) if task.kind == "classes" else (log.events,)
        given = np.log(np.random.default_rng(3).dirichlet(np.ones(4), size=shape)[..., 0])
        given[~clean.mask] = np.nan
        collector.add(rows, given)
        results.append(collector.result())
    for field in results[0].__dataclass_fields__:
        np.testing.assert_array_equal(getattr(results[0], field), getattr(results[1], field))


def test_outcome_columns_are_forbidden_inputs() -> None:
    assert parse("outcome:column=label").forbidden == ("label",)
    assert parse("next_event").forbidden == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("next_evnt", "Did you mean next_event?"),
        ("outcome:label", "Did you mean outcome:column=label?"),
        ("outcome", "outcome:column=<column>"),
        ("occurs:", "occurs:<activity>"),
        ("remaining_time:x", "It is written remaining_time."),
    ],
)
def test_wrong_texts_name_the_right_one(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert says in str(caught.value)
    assert all((caught.value.wrong, caught.value.expected, caught.value.remedy))


@pytest.mark.parametrize(
    ("text", "log", "says"),
    [
        ("outcome:column=lable", a_log(), "Did you mean label?"),
        ("occurs:refnd", a_log(), "Did you mean refund?"),
        ("occurs:open", a_log(), "no answer at all"),
        ("outcome:column=activity", a_log(), "occurs:<activity>"),
        ("next_event", EventLog.from_traces([["open"], ["open"]]), "only '<end>'"),
        ("next_event", EventLog.from_traces([["open", END]]), "called '<end>'"),
        ("remaining_time", EventLog.from_traces([["open", "close"]]), "no timestamps"),
        ("time_to_next", a_log().select([]), "nothing to learn"),
    ],
)
def test_what_cannot_be_learnt_is_refused(text: str, log: EventLog, says: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(text).fit(log)
    assert says in str(caught.value)
    assert all((caught.value.wrong, caught.value.expected, caught.value.remedy))


def test_an_activity_unknown_to_training_is_an_unknown_truth() -> None:
    task = NextEvent().fit(EventLog.from_traces([["open", "close"], ["open"]]))
    targets = task.targets(EventLog.from_traces([["open", "audit", "close"]]))
    assert targets.values.tolist() == [-1, 0, 2]
    assert targets.mask.all()
    assert targets.learnable.tolist() == [False, True, True]
