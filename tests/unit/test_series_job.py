"""Forecasters and next frames: no leak, no truth outside a part, and the same told in any cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from hiddenstate.artifact import Artifact
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.fit import fit
from hiddenstate.job.series import forecaster as forecaster_module
from hiddenstate.job.series.base import Base
from hiddenstate.job.series.forecaster import Forecaster
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.prepare import prepare
from hiddenstate.job.series.prepared import PreparedSeries
from hiddenstate.runtime import Model as Runtime
from hiddenstate.train import Recipe, read_recipe

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2024-01-01T00:00", "us")


def table(steps: int = 600, seed: int = 0, channels: int = 2) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    t = np.arange(steps)[:, None]
    each = np.sin(2 * np.pi * t / 24 + np.arange(channels)) * 3 + 10
    each += 0.2 * rng.standard_normal(each.shape)
    columns = {f"y{place}": each[:, place] for place in range(channels)}
    return pl.DataFrame({"date": START + np.arange(steps) * HOUR, **columns})


def recipe(**settings: Any) -> Recipe:
    small = {"series.horizon": 4, "series.context": 32, "hidden_size": 8, "epochs": 1}
    return read_recipe(None, {"tasks": ["forecast"], **small, **settings})


def prepared(frame: pl.DataFrame, **settings: Any) -> PreparedSeries:
    found = prepare(frame, recipe(**settings), lambda _: None)
    assert isinstance(found, PreparedSeries)
    return found


def small_fit(frame: pl.DataFrame, **settings: Any) -> Any:
    return fit(frame, recipe=recipe(**settings))


CASES: dict[str, dict[str, Any]] = {
    "quantiles": {},
    "gaussian": {"series.output": "gaussian"},
    "together": {"series.shared": False, "series.output": "point", "series.base": "level"},
    "one target": {"series.targets": ["y1"], "cell": "lstm"},
    "raw": {"series.around": 0, "series.calendar": False},
    "last value": {"series.around": 1, "series.output": "point"},
    "from linear": {"series.base": "linear", "series.output": "point"},
    "from period": {"series.base": "period", "series.shared": False},
    "recursive": {"series.mode": "recursive", "series.output": "point"},
    "recursive together": {
        "series.mode": "recursive", "series.output": "point", "series.shared": False,
    },
    "paths": {"series.mode": "recursive", "series.output": "gaussian"},
    "attention": {"cell": "attention", "model.attention_heads": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def models() -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def of(name: str) -> Any:
        if name not in made:
            made[name] = small_fit(table(), **CASES[name])
        return made[name]

    return of


@pytest.mark.parametrize("name", CASES)
def test_a_fit_scores_and_forecasts(name: str, models: Callable[[str], Any]) -> None:
    model = models(name)
    scores = model.metrics["scores"]
    task = scores["tasks"]["forecast"]
    assert scores["part"] == "test"
    assert set(task["floors"]) == {"last_value", "day", "linear"}
    metrics = task["model"]["metrics"]
    assert {"mse", "mae"} <= set(metrics)
    assert ("coverage" in metrics) == (CASES[name].get("series.output") != "point")
    assert ("nll" in metrics) == (name == "gaussian")
    assert np.isfinite(metrics["mse"]["value"])
    targets = CASES[name].get("series.targets", ["y0", "y1"])
    assert list(task["channels"]) == targets
    told = model.predict(table())
    assert told.height == 4
    assert told["step"].to_list() == [1, 2, 3, 4]
    assert told["time"][0].timestamp() == (START + 600 * HOUR).astype(np.int64) / 1e6
    for target in targets:
        assert told[target].is_finite().all()
        if "coverage" in metrics:
            spread = told.select(f"{target} 0.1", f"{target} 0.5", f"{target} 0.9").to_numpy()
            assert (np.diff(spread, axis=1) >= 0).all()
    again = model.evaluate(table(), bootstrap=100)
    assert np.isfinite(again["mse"])


@pytest.mark.parametrize("name", sorted(set(CASES) - {"paths"}))
def test_a_forecast_rests_on_the_steps_before_it_alone(
    name: str, models: Callable[[str], Any]
) -> None:
    model, whole = models(name), table()
    signal = model.read(whole)
    lanes = Lanes.of(signal, model._schema, model._task.places(model._schema))
    rows = np.array([99, 250, 400])
    runner = Forecaster(model.runtime, model._schema, model._task, model._floors)
    points = np.concatenate([each.point for _, each in runner.after(lanes, rows)])
    for place, row in enumerate(rows):
        told = model.predict(whole.head(int(row) + 1))
        own = model._schema.decode(points[place], model._task.places(model._schema))
        target = model._task.targets[0]
        np.testing.assert_allclose(told[target].to_numpy(), own[:, 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["quantiles", "together"])
def test_forecasts_are_the_same_in_chunks(
    name: str, models: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models(name)
    lanes = Lanes.of(model.read(table()), model._schema, model._task.places(model._schema))
    rows = np.array([50, 51, 199, 300, 599])
    runner = Forecaster(model.runtime, model._schema, model._task, model._floors)
    whole = np.concatenate([each.point for _, each in runner.after(lanes, rows)])
    monkeypatch.setattr(forecaster_module, "CHUNK_OUTPUTS", 7 * 24)
    parts = list(runner.after(lanes, rows))
    assert len(parts) > 2
    np.testing.assert_allclose(
        np.concatenate([each.point for _, each in parts]), whole, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ["recursive", "recursive together"])
def test_recursion_is_reading_ones_own_forecasts(name: str, models: Callable[[str], Any]) -> None:
    model, frame = models(name), table().head(200)
    at_once = model.predict(frame)
    for step in range(4):
        told = model.predict(frame).head(1)
        for target in ("y0", "y1"):
            assert told[target][0] == pytest.approx(at_once[target][step], rel=1e-4)
        row = told.select(pl.col("time").dt.replace_time_zone(None).alias("date"), "y0", "y1")
        frame = pl.concat([frame, row.cast(frame.schema)])  # type: ignore[arg-type]


def test_nothing_of_the_test_part_is_known_before_it() -> None:
    frame = table()
    other = frame.with_columns(
        pl.when(pl.int_range(pl.len()) < 480).then(pl.col("y0", "y1")).otherwise(-99.0)
    )
    for settings in ({}, {"series.base": "linear"}, {"series.shared": False}):
        one, two = prepared(frame, **settings), prepared(other, **settings)
        assert one.spec.to_json() == two.spec.to_json()
        assert one.floors()[0] == two.floors()[0]
        for first, second in zip(one.floors()[1].values(), two.floors()[1].values(), strict=True):
            assert np.array_equal(first, second)
        for which in (0, 1):
            feeds = [each.feeds()[which] for each in (one, two)]
            assert feeds[0] is not None
            assert feeds[1] is not None
            for item in feeds[0].order(one.recipe.train, 1):
                batches = [each.batch(item) for each in feeds if each is not None]
                assert batches[0].numbers.equal(batches[1].numbers)
                assert batches[0].masks[0].equal(batches[1].masks[0])
                mask = batches[0].masks[0]
                assert batches[0].targets[0][mask].equal(batches[1].targets[0][mask])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("base", ["level", "period", "linear"])
def test_a_windows_targets_are_what_follows_each_step(shared: bool, base: str) -> None:
    frame = table(400).with_columns(
        pl.when(pl.int_range(pl.len()).is_in([100, 101, 250]))
        .then(None)
        .otherwise(pl.col("y0"))
        .alias("y0")
    )
    settings = {"series.shared": shared, "series.base": base}
    ready = prepared(frame, **settings)
    lanes, count, start = ready.lanes, 0, ready.task.base_of(ready.fitted_floors)
    training = ready.feeds()[0]
    for item in training.order(ready.recipe.train, 3):
        batch = training.batch(item)
        targets, masks = batch.targets[0].numpy(), batch.masks[0].numpy()
        for b, (lane, first, length) in enumerate(item):
            columns = lanes.columns(int(lane))
            for step in (0, int(length) // 2, int(length) - 1):
                row = int(first) + step
                ahead = np.arange(row + 1, row + 5)
                truth = lanes.values[np.minimum(ahead, 399)][:, columns]
                simple = start.at(lanes, np.array([row]), 4)[0][:, columns]
                truth = truth - simple
                known = np.isfinite(truth) & (ahead < ready.bounds.rows[0, 1])[:, None]
                assert np.array_equal(masks[b, step].reshape(known.shape), known)
                np.testing.assert_allclose(
                    targets[b, step].reshape(truth.shape)[known], truth[known], atol=1e-5
                )
                count += int(known.sum())
    assert count > 500


def test_what_each_base_is() -> None:
    ready = prepared(table())
    lanes, row = ready.lanes, np.array([300])
    level = Base("level").at(lanes, row, 3)[0]
    np.testing.assert_allclose(level, np.tile(lanes.filled[277:301].mean(axis=0), (3, 1)))
    period = Base("period", 24).at(lanes, row, 30)[0]
    np.testing.assert_array_equal(period[[0, 23, 24]], lanes.filled[[277, 300, 277]])
    first = ready.fitted_floors.first
    linear = Base("linear", 24, first).at(lanes, row, 4)[0]
    np.testing.assert_allclose(linear, first.predict(lanes.filled, row)[0])
    for base in (Base("level"), Base("period", 24), Base("linear", 24, first)):
        every = base.at(lanes, row, 1)
        recent = lanes.filled[None, 301 - max(base.reach, 24) : 301]
        np.testing.assert_allclose(base.next(recent, lanes.levels[row]), every[:, 0])
        own = base.at(lanes, np.array([[300, 301]]), 4, np.array([[1, 1]]))
        np.testing.assert_allclose(own[0, 0, :, 0], base.at(lanes, row, 4)[0, :, 1])


def test_the_validation_windows_cover_every_step_once() -> None:
    ready = prepared(table())
    judged = ready.feeds()[1]
    assert judged is not None
    begin, end = ready.bounds.part(1)[0]
    scored = np.zeros((2, 600), dtype=int)
    for item in judged.order(ready.recipe.train, None):
        batch = judged.batch(item)
        for b, (lane, first, length) in enumerate(item):
            nearest = batch.masks[0][b, : int(length), 0].numpy()
            scored[lane, int(first) + 1 : int(first) + int(length) + 1] += nearest
    assert (scored[:, begin:end] >= 1).all()
    assert not scored[:, :begin].any()
    assert not scored[:, end:].any()


def test_gaps_are_told_flagged_and_forecast_over() -> None:
    frame = table().with_columns(
        pl.when(pl.int_range(pl.len()) % 7 == 3).then(None).otherwise(pl.col("y0")).alias("y0")
    )
    model = small_fit(frame)
    assert any("values of y0 are missing" in each for each in model.metrics["remarks"])
    assert model._schema.gaps == ("y0",)
    assert model.predict(frame)["y0"].is_finite().all()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"series.horizon": 500}, "horizon of 500"),
        ({"series.targets": ["y9"]}, "not there: y9"),
        ({"input.attributes": ["y0", "z"]}, "lacks 1 of 2 channels: z"),
    ],
)
def test_data_that_do_not_fit(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        prepared(table(), **settings)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"series.mode": "recursive"}, "recursive takes gaussian or point"),
        ({"model.bidirectional": True}, "cannot read what comes later"),
        ({"series.levels": [0.1, 0.9]}, r"level 0\.5 is the forecast"),
        ({"series.levels": [0.9, 0.5]}, "They rise"),
        ({"split.strict": True}, "split in time"),
        ({"series.rows": [500, 200, 100]}, "shortest series has 600 rows"),
    ],
)
def test_recipes_that_contradict_themselves(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        prepared(table(), **settings)


def test_a_channel_without_values_in_training() -> None:
    late = table().with_columns(
        pl.when(pl.int_range(pl.len()) < 500).then(None).otherwise(pl.col("y1")).alias("y1")
    )
    with pytest.raises(DataError, match="no value in the training part: y1"):
        prepared(late)


@pytest.mark.parametrize("name", ["quantiles", "gaussian", "together", "from period"])
def test_a_forecaster_starts_from_its_base(name: str) -> None:
    ready = prepared(table(), **CASES[name])
    model = ready.build()
    batch = ready.feeds()[0].batch(np.array([[0, 0, 32]]))
    (output,), _ = model(batch.codes, batch.numbers, batch.lengths)
    assert not (output - output[:, :1]).any()
    lanes, start = ready.lanes, ready.task.base_of(ready.fitted_floors)
    rows = np.arange(40, 400)
    errors = lanes.values[rows[:, None] + np.arange(1, 5)] - start.at(lanes, rows, 4)
    if lanes.shared:
        errors = np.moveaxis(errors, -1, 1).reshape(-1, 4, 1)
    first = output[0, 0].detach().numpy()
    if ready.task.output == "quantiles":
        below = (errors.reshape(len(errors), -1, 1) <= first.reshape(-1, 3)).mean(axis=0)
        np.testing.assert_allclose(below, [[0.1, 0.5, 0.9]] * len(below), atol=0.05)
    else:
        mean, *scale = first.reshape(1 + (name == "gaussian"), -1)
        np.testing.assert_allclose(mean, errors.mean(axis=0).ravel(), atol=0.05)
        for each in scale:
            np.testing.assert_allclose(np.exp(each), errors.std(axis=0).ravel(), rtol=0.1)


@pytest.mark.parametrize("name", ["quantiles", "gaussian", "together", "from linear", "attention"])
def test_forecasts_are_those_of_the_model_that_was_trained(name: str) -> None:
    ready = prepared(table(300), **CASES[name])
    torch.manual_seed(0)
    model = ready.build().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    weights = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
    runtime = Runtime(Artifact(ready.spec, weights, {}, {}, {}))
    lanes, row = ready.lanes, 60
    runner = Forecaster(runtime, ready.schema, ready.task, ready.fitted_floors)
    [(_, forecast)] = runner.after(lanes, np.array([row]))
    codes, numbers = (
        torch.from_numpy(np.ascontiguousarray(each[:, : row + 1]))
        for each in (lanes.codes, lanes.numbers)
    )
    (output,), _ = model(codes, numbers)
    told = output[:, -1].detach().numpy().astype(float)
    if ready.task.output == "quantiles":
        told = np.sort(told.reshape(len(told), -1, 3))[..., 1]
    told = told.reshape(len(told), -1, 4, 1 if lanes.shared else 2)[:, 0]
    base = ready.task.base_of(ready.fitted_floors).at(lanes, np.array([row]), 4)[0]
    expected = base + (told[..., 0].T if lanes.shared else told[0])
    np.testing.assert_allclose(forecast.point[0], expected, rtol=1e-4, atol=1e-4)
