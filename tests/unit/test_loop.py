"""The training loop and what it is fed."""

from __future__ import annotations

from itertools import chain, repeat

import numpy as np
import pytest
import torch

from hiddenstate.errors import TrainingError
from hiddenstate.schema import EventLog
from hiddenstate.train import LogFeed, Progress, fit, recency_weights
from hiddenstate.train.loop import learning_rate, validation_loss
from tests.unit.small_fits import feed, model, prepared, small_log, small_recipe

RECIPE = small_recipe()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_the_learning_rate_rises_falls_and_ends_low() -> None:
    recipe = small_recipe(learning_rate=0.1, warmup=0.1).train
    rates = [learning_rate(recipe, done) for done in np.linspace(0, 1, 101)]
    assert rates[0] == pytest.approx(0.005)
    assert max(rates) == rates[10] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
    assert rates[-1] == pytest.approx(0.001)
    assert np.all(np.diff(rates[:11]) > 0)
    assert np.all(np.diff(rates[10:]) < 0)


def test_a_constant_rate_and_no_warm_up() -> None:
    constant = small_recipe(schedule="constant", warmup=0.0, learning_rate=0.1).train
    assert {learning_rate(constant, done) for done in (0, 0.3, 1)} == {0.1}
    assert learning_rate(small_recipe(warmup=0.0, learning_rate=0.1).train, 0) == pytest.approx(0.1)


@pytest.mark.parametrize("half_life", [0.1, 0.25, 2.0])
def test_recency_halves_and_keeps_the_mean_over_events(half_life: float) -> None:
    log = small_log()
    weights = recency_weights(log, half_life)
    assert weights is not None
    assert float((weights * log.lengths).sum()) / log.events == pytest.approx(1)
    apart = round(half_life * log.cases)
    if apart < log.cases:
        np.testing.assert_allclose(weights[:-apart] * 2, weights[apart:], rtol=1e-6)
    assert np.all(np.diff(weights) > 0)


def test_without_recency_or_cases_there_are_no_weights() -> None:
    assert recency_weights(small_log(), 0) is None
    assert recency_weights(EventLog.from_traces([]), 0.5) is None


def test_a_batch_holds_the_cases_asked_for() -> None:
    """Padding is masked out, and every real step has the event after it as its target."""
    ready = prepared(RECIPE)
    weights = np.linspace(0.5, 1.5, ready.parts[0].cases, dtype=np.float32)
    cases = np.array([3, 0, 2])
    batch = feed(ready, weights=weights).batch(cases)
    part = ready.parts[0].select(cases)
    assert batch.lengths.tolist() == part.lengths.tolist() == [1, 3, 4]
    assert batch.codes.shape[:2] == batch.numbers.shape[:2] == (3, 4)
    assert batch.events == 8
    assert batch.weights is not None
    assert batch.weights.tolist() == weights[cases].tolist()
    names = [
        list(part.activities.names()[start:end])
        for start, end in zip(part.offsets, part.offsets[1:])
    ]
    classes = ready.spec.heads[0].classes
    for row, trace in enumerate(names):
        after = [*trace[1:], "<end>"]
        steps = len(trace)
        assert [classes[code] for code in batch.targets[0][row, :steps]] == after
        assert batch.masks[0][row].tolist() == [True] * steps + [False] * (4 - steps)


def test_a_batch_without_events_is_empty() -> None:
    ready = prepared(RECIPE)
    empty = LogFeed(EventLog.from_traces([[]]), ready.schema, ready.tasks, ready.spec.heads)
    batch = empty.batch(np.array([0]))
    assert batch.events == 0
    assert batch.codes.shape[:2] == (1, 0)


def test_training_lowers_the_loss_and_keeps_the_best_epoch() -> None:
    ready = prepared(RECIPE)
    fresh = model(ready)
    recipe = small_recipe(epochs=8, learning_rate=0.03, dropout=0.0, input_dropout=0.0).train
    before = validation_loss(fresh, feed(ready, 1), recipe)
    reports = list(fit(fresh, recipe, feed(ready), feed(ready, 1)))
    ends = [report for report in reports if report.epoch_ended]
    assert [report.epoch for report in ends] == list(range(1, 9))
    losses = [report.validation_loss or 0.0 for report in ends]
    assert ends[-1].best_loss == min(losses) < before
    assert ends[-1].best_epoch == 1 + int(np.argmin(losses))
    assert validation_loss(fresh, feed(ready, 1), recipe) == pytest.approx(min(losses))
    assert not fresh.training


def test_patience_ends_a_fit_that_gets_no_better() -> None:
    ready = prepared(RECIPE)
    # A rate so small that nothing changes in float32 after the first epoch.
    recipe = small_recipe(epochs=50, learning_rate=1e-30, patience=3, weight_decay=0.0).train
    reports = list(fit(model(ready), recipe, feed(ready), feed(ready, 1)))
    assert reports[-1].epoch == 4
    assert reports[-1].best_epoch == 1


def test_a_stopped_fit_gives_up_the_epoch_under_way() -> None:
    ready = prepared(RECIPE)
    fresh = model(ready)
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    reports: list[Progress] = []
    for report in fit(fresh, RECIPE.train, feed(ready), None, stop=lambda: True):
        reports.append(report)
    assert reports == []
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())


def test_a_fit_stopped_later_keeps_its_best_epoch() -> None:
    """The stop comes after the first batch of the second epoch, which is given up."""
    ready = prepared(RECIPE)
    fresh = model(ready)
    ends: list[dict[str, torch.Tensor]] = []
    asked = chain([False], repeat(True))
    for report in fit(
        fresh, RECIPE.train, feed(ready), None, stop=lambda: ends != [] and next(asked)
    ):
        if report.epoch_ended or report.step == report.steps:
            ends.append({name: value.clone() for name, value in fresh.state_dict().items()})
    assert len(ends) == 1
    assert all(torch.equal(ends[0][name], value) for name, value in fresh.state_dict().items())


@pytest.mark.parametrize("part", ["training", "validation"])
def test_a_loss_that_is_no_number_is_explained(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = prepared(RECIPE)
    broken = model(ready)
    if part == "training":
        with torch.no_grad():
            dict(broken.named_parameters())["heads.0.bias"][0] = float("nan")
    else:
        monkeypatch.setattr("hiddenstate.train.loop.validation_loss", lambda *_: float("nan"))
    with pytest.raises(TrainingError) as caught:
        list(fit(broken, RECIPE.train, feed(ready), feed(ready, 1)))
    assert f"The {part} loss" in caught.value.wrong
    assert "nan in epoch 1" in caught.value.wrong
    assert "--learning-rate" in caught.value.remedy


def test_a_task_without_an_answer_in_the_validation_part_loses_nothing() -> None:
    """After its first event nobody asks whether b will occur."""
    ready = prepared(small_recipe(tasks=["occurs:b"]))
    silent = LogFeed(EventLog.from_traces([["b"]]), ready.schema, ready.tasks, ready.spec.heads)
    assert validation_loss(model(ready), silent, RECIPE.train) == 0.0
