"""Judged predictions, scores, intervals and verdicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as oracle

from hiddenstate.errors import DataError, HiddenstateError, ShapeError, UsageError
from hiddenstate.schema.log import EventLog
from hiddenstate.tasks import (
    ClassJudge,
    JudgedClasses,
    JudgedNumbers,
    NumberJudge,
    Scores,
    Targets,
    compare,
    score,
)
from hiddenstate.tasks.resampling import MOST_GROUPS, Resampling, interval

CLASSES = ("a", "b", "c", "d", "e")


def a_log(cases: int = 40, seed: int = 0) -> EventLog:
    rng = np.random.default_rng(seed)
    return EventLog.from_traces([["x"] * int(n) for n in rng.integers(1, 40, cases)])


def probabilities(log: EventLog, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(len(CLASSES)) * 0.5, size=log.events)


def truth(log: EventLog, seed: int = 2) -> Targets:
    rng = np.random.default_rng(seed)
    values = rng.integers(-1, len(CLASSES), log.events).astype(np.int32)
    return Targets(values, rng.random(log.events) < 0.9)


def judged(log: EventLog, p: np.ndarray, targets: Targets) -> JudgedClasses:
    judge = ClassJudge(log, targets, CLASSES)
    for rows in np.array_split(np.random.default_rng(5).permutation(log.events), 7):
        judge.add(rows, np.log(p[rows]))
    return judge.result()


def test_class_scores_equal_scikit_learn() -> None:
    log = a_log()
    p, targets = probabilities(log), truth(log)
    found = {name: s.value for name, s in score(judged(log, p, targets), 10).metrics.items()}
    p, y = p[targets.mask], targets.values[targets.mask]
    known = y >= 0
    labels = np.arange(len(CLASSES))
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(y, p.argmax(1)))
    assert found["log_loss"] == pytest.approx(
        oracle.log_loss(y[known], p[known], labels=labels), rel=1e-6
    )
    assert found["macro_f1"] == pytest.approx(
        oracle.f1_score(y, p.argmax(1), labels=labels, average="macro")
    )
    top = oracle.top_k_accuracy_score(y[known], p[known], k=3, labels=labels) * known.mean()
    assert found["top_3"] == pytest.approx(top)


def test_macro_f1_counts_only_classes_that_occur_or_are_predicted() -> None:
    log = EventLog.from_traces([["x"] * 4])
    p = np.full((4, 5), 0.01)
    p[[0, 1, 2, 3], [0, 0, 1, 1]] = 0.96
    targets = Targets(np.array([0, 1, 1, 1], dtype=np.int32), np.ones(4, dtype=np.bool_))
    expected = oracle.f1_score([0, 1, 1, 1], [0, 0, 1, 1], average="macro")
    assert score(judged(log, p, targets), 5).metrics["macro_f1"].value == pytest.approx(expected)


def test_calibration_error_equals_its_definition() -> None:
    log = a_log()
    p, targets = probabilities(log), truth(log)
    found = score(judged(log, p, targets), 5).metrics["ece"].value
    confidence = p.max(axis=1)[targets.mask]
    correct = (p.argmax(axis=1) == targets.values)[targets.mask]
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = abs(correct[inside].mean() - confidence[inside].mean())
            expected += inside.mean() * gap
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_forecast_that_tells_the_truth_about_itself_is_calibrated() -> None:
    log = EventLog.from_traces([["x"] * 50] * 400)
    p = probabilities(log)
    drawn = (p.cumsum(axis=1) > np.random.default_rng(9).random((log.events, 1))).argmax(axis=1)
    targets = Targets(drawn.astype(np.int32), np.ones(log.events, dtype=np.bool_))
    assert score(judged(log, p, targets), 5).metrics["ece"].value < 0.01


def test_rank_puts_the_prediction_first_and_ties_in_class_order() -> None:
    log = EventLog.from_traces([["x"] * 4])
    p = np.tile([0.3, 0.3, 0.2, 0.1, 0.1], (4, 1))
    targets = Targets(np.array([1, 2, 4, -1], dtype=np.int32), np.ones(4, dtype=np.bool_))
    judge = ClassJudge(log, targets, CLASSES)
    judge.add(np.arange(4), np.log(p))
    assert judge.result().rank.tolist() == [2, 3, 5, 0]
    judge.add(np.arange(4), np.log(p), predicted=np.array([2, 2, 2, 2]))
    again = judge.result()
    assert again.rank.tolist() == [3, 1, 5, 0]
    np.testing.assert_allclose(again.confidence, 0.2, rtol=1e-6)


def test_probability_zero_costs_a_stated_number_of_nats() -> None:
    log = EventLog.from_traces([["x"]])
    judge = ClassJudge(log, Targets(np.zeros(1, np.int32), np.ones(1, np.bool_)), ("a", "b"))
    judge.add(np.array([0]), np.array([[-np.inf, 0.0]]))
    assert score(judge.result(), 2).metrics["log_loss"].value == pytest.approx(87.3, abs=0.05)


def test_day_scores_equal_numpy() -> None:
    log = a_log(cases=200)
    rng = np.random.default_rng(3)
    days, guess = rng.exponential(3, log.events), rng.exponential(3, log.events)
    mask = rng.random(log.events) < 0.8
    judge = NumberJudge(log, Targets(np.where(mask, days, np.nan), mask))
    judge.add(np.arange(log.events), guess)
    found = score(judge.result(), 400).metrics
    error = np.abs(days - guess)[mask]
    assert found["mae_days"].value == pytest.approx(error.mean())
    median = found["median_error_days"]
    assert median.value == pytest.approx(np.median(error))
    width = 2 * 1.96 * 1.2533 * error.std() / np.sqrt(len(error))
    assert 0.3 * width < median.high - median.low < 2 * width
    assert median.low < median.value < median.high


@pytest.mark.parametrize("cases", [300, 3 * MOST_GROUPS])
def test_intervals_have_the_width_of_the_case_to_case_spread(cases: int) -> None:
    rng = np.random.default_rng(0)
    per_case = rng.normal(size=cases)
    case = np.repeat(np.arange(cases), 4)
    draws = Resampling(case, resamples=2000, seed=1)
    sums = draws.sums(np.repeat(per_case, 4))[:, 0] / draws.sums(np.ones(4 * cases))[:, 0]
    found = interval(sums)
    assert found.value == pytest.approx(per_case.mean())
    assert found.high - found.low == pytest.approx(
        2 * 1.96 * per_case.std() / np.sqrt(cases), rel=0.1
    )


def test_seeds_fix_intervals_and_leave_values_alone() -> None:
    log = a_log()
    steps = judged(log, probabilities(log), truth(log))
    first, same, other = score(steps, 50, seed=1), score(steps, 50, seed=1), score(steps, 50, 2)
    assert first.to_json() == same.to_json()
    assert first.metrics["accuracy"].low != other.metrics["accuracy"].low
    assert first.metrics["accuracy"].value == other.metrics["accuracy"].value


def test_buckets_cover_every_step_once() -> None:
    log = a_log()
    scores = score(judged(log, probabilities(log), truth(log)), 20)
    assert sum(bucket.events for bucket in scores.by_length) == scores.events
    assert [bucket.label for bucket in scores.by_length] == [
        "1", "2", "3-4", "5-8", "9-16", "17-32", "33-64",
    ]  # fmt: skip
    whole = sum(b.events * b.metrics["accuracy"].value for b in scores.by_length) / scores.events
    assert whole == pytest.approx(scores.metrics["accuracy"].value)
    assert Scores.from_json(json.loads(json.dumps(scores.to_json()))) == scores


def test_a_hundred_thousand_cases_are_quick() -> None:
    log = EventLog.from_traces([["x"] * 5] * 100_000)
    steps = judged(log, probabilities(log), truth(log))
    assert score(steps).cases == len(np.unique(steps.case))


def test_judging_refuses_wrong_shapes_nan_and_holes() -> None:
    log = EventLog.from_traces([["x", "x"]])
    targets = Targets(np.zeros(2, np.int32), np.ones(2, np.bool_))
    judge = ClassJudge(log, targets, CLASSES)
    with pytest.raises(ShapeError, match=r"\[2, 4\].*\[2, 5\]"):
        judge.add(np.arange(2), np.zeros((2, 4)))
    with pytest.raises(HiddenstateError, match="NaN"):
        judge.add(np.arange(2), np.full((2, 5), np.nan))
    judge.add(np.array([0]), np.zeros((1, 5)))
    with pytest.raises(HiddenstateError, match="1 of 2 scored events"):
        judge.result()
    nothing = ClassJudge(log, Targets(targets.values, ~targets.mask), CLASSES).result()
    with pytest.raises(DataError, match="No event of this log is scored"):
        score(nothing)


def numbers(error: np.ndarray, each: int = 5) -> JudgedNumbers:
    case = np.repeat(np.arange(len(error)), each).astype(np.int32)
    length = np.tile(np.arange(1, each + 1), len(error)).astype(np.int32)
    return JudgedNumbers(case, length, np.zeros(len(case)), np.repeat(error, each))


def test_verdicts_follow_the_interval() -> None:
    rng = np.random.default_rng(0)
    base = rng.exponential(2, 400)
    far = compare(numbers(base), numbers(base + 0.5), "mae_days", "median")
    assert far.verdict == "better"
    assert far.difference == pytest.approx(-0.5)
    assert far.sentence.startswith("Better than the median: mean absolute error ")
    assert compare(numbers(base + 0.5), numbers(base), "mae_days").verdict == "worse"
    near = compare(numbers(base), numbers(rng.permutation(base)), "mae_days")
    assert near.verdict == "tie"
    assert near.low < 0 < near.high
    assert near.sentence.startswith("Tie with the n-gram")
    assert json.loads(json.dumps(near.to_json()))["verdict"] == "tie"


def test_a_pair_is_resampled_together() -> None:
    base = np.random.default_rng(0).exponential(50, 200)
    paired = compare(numbers(base), numbers(base + 0.01), "mae_days")
    assert paired.verdict == "better"
    assert paired.high - paired.low < 1e-6


def test_class_verdicts_point_the_right_way() -> None:
    log = a_log(200)
    targets = truth(log)
    sharp = np.full((log.events, 5), 0.1)
    sharp[np.arange(log.events), np.maximum(targets.values, 0)] = 0.6
    good, bad = judged(log, sharp, targets), judged(log, probabilities(log), targets)
    assert compare(good, bad, "accuracy").verdict == "better"
    assert compare(good, bad, "log_loss").verdict == "better"
    assert compare(bad, good, "log_loss").verdict == "worse"
    assert compare(good, bad, "log_loss").difference < 0 < compare(good, bad, "accuracy").difference


def test_a_comparison_needs_the_same_events_and_a_metric_they_have() -> None:
    one, two = numbers(np.ones(3)), numbers(np.ones(4))
    with pytest.raises(UsageError, match="different events"):
        compare(one, two, "mae_days")
    with pytest.raises(UsageError, match="mae_days"):
        compare(one, one, "accuracy")


@pytest.mark.parametrize("cases", [1, 2, 9, 10])
def test_few_cases_give_no_verdict(cases: int) -> None:
    base = np.random.default_rng(0).exponential(2, cases)
    found = compare(numbers(base), numbers(base + 2.7), "mae_days")
    assert found.difference == pytest.approx(-2.7)
    assert (found.low is None) == (found.high is None) == (cases == 1)
    assert found.verdict == ("tie" if cases < 10 else "better")
    assert (f"too few cases to tell ({cases})" in found.sentence) == (cases < 10)
    alone = score(numbers(base)).metrics["mae_days"]
    assert np.isnan([alone.low, alone.high]).all() == (cases == 1)


def test_nothing_counted_is_null_and_a_sentence() -> None:
    log = a_log(20)
    targets = Targets(np.full(log.events, -1, dtype=np.int32), np.ones(log.events, dtype=bool))
    good, bad = (judged(log, probabilities(log, seed), targets) for seed in (1, 2))
    found = compare(good, bad, "log_loss")
    assert (found.model, found.floor, found.difference, found.low) == (None, None, None, None)
    assert found.verdict == "tie"
    assert found.sentence == (
        "No log loss to compare with the n-gram: no event with a known answer."
    )
    json.dumps(found.to_json(), allow_nan=False)
    whole = score(good, 10)
    text = json.dumps(whole.to_json(), allow_nan=False)
    assert json.loads(text)["metrics"]["log_loss"]["value"] is None
    again = Scores.from_json(json.loads(text))
    assert np.isnan(again.metrics["log_loss"].value)
    assert again.metrics["accuracy"].value == 0
