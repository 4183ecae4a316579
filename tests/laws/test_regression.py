"""Laws of numbers of sequences and steps: of their floors, their scores, and their head."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_absolute_error, mean_pinball_loss, root_mean_squared_error
from sklearn.preprocessing import StandardScaler

from hiddenstate.artifact import HeadSpec
from hiddenstate.errors import ShapeError
from hiddenstate.job.labels.task import in_own_units
from hiddenstate.runtime.heads import Head
from hiddenstate.runtime.weights import Weights
from hiddenstate.schema import Scaler
from hiddenstate.tasks import score
from hiddenstate.tasks.forecasts import Forecast
from hiddenstate.tasks.labels import Given
from hiddenstate.tasks.regression import judge_numbers
from hiddenstate.tasks.regression_floors import Linear, RegressionFloors

LEVELS = (0.1, 0.5, 0.9)
KINDS = ("texts", "tokens", "series", "frames")
WORDS = np.array(["ann", "ran", "to", "the", "old"], dtype=object)


def some(kind: str, seed: int = 0, cases: int = 80) -> tuple[Given, np.ndarray]:
    """Return sequences and numbers, some of which are not known."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, cases)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    steps = int(offsets[-1])
    if kind in ("series", "frames"):
        given = Given(offsets, frames=rng.normal(0, 1, (steps, 2)).astype(np.float32))
    else:
        given = Given(offsets, rng.choice(WORDS, steps).astype(object))
    rows = steps if every_step(kind) else cases
    target = 1e4 + 30 * seen(given, kind) @ np.array([0.1, 2, -1, 0.5, 0, 3])[: width(kind)]
    target += rng.normal(0, 5, rows)
    target[rng.random(rows) < 0.1] = np.nan
    return given, target


def every_step(kind: str) -> bool:
    return kind in ("tokens", "frames")


def width(kind: str) -> int:
    return {"texts": 6, "tokens": 6, "series": 5, "frames": 3}[kind]


def seen(given: Given, kind: str) -> np.ndarray:
    """Return what the linear model sees, sequence by sequence, step by step."""
    rows: list[list[float]] = []
    words = sorted(WORDS)
    for start, end in zip(given.offsets, given.offsets[1:]):
        steps = range(start, end)
        if kind == "frames":
            rows += [[step - start, *given.frames[step]] for step in steps]
        elif kind == "tokens":
            rows += [
                [step - start, *(given.pieces[step] == word for word in words)] for step in steps
            ]
        elif kind == "series":
            frames = given.frames[start:end].astype(np.float64)
            moments = [*frames.mean(0), *frames.std(0)] if len(frames) else [0.0] * 4
            rows.append([end - start, *moments])
        else:
            own = given.pieces[start:end]
            rows.append(
                [end - start, *((own == word).sum() / max(end - start, 1) for word in words)]
            )
    return np.array(rows, dtype=np.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ridge", [0.1, 100.0])
def test_the_linear_floor_is_the_ridge_of_scikit_learn(kind: str, ridge: float) -> None:
    (given, target), (other, _) = some(kind), some(kind, 1)
    (linear,) = Linear.fit(given, target, (ridge,), every_step=every_step(kind))
    known = np.isfinite(target)
    x = seen(given, kind)
    scaler = StandardScaler().fit(x[known])
    oracle = Ridge(ridge).fit(scaler.transform(x[known]), target[known])
    said = oracle.predict(scaler.transform(seen(other, kind)))
    within = target[known].min(), target[known].max()
    np.testing.assert_allclose(linear.predict(other), np.clip(said, *within), rtol=1e-7)
    assert linear.predict(other).max() <= within[1]


@pytest.mark.parametrize("kind", KINDS)
def test_floors_are_read_back_and_know_no_order(kind: str) -> None:
    (given, target), (valid, truth), (other, asked) = (some(kind, seed) for seed in range(3))
    floors = RegressionFloors.fit(
        given, target, valid, truth, levels=LEVELS, every_step=every_step(kind)
    )
    case = np.arange(len(asked))
    length = np.ones(len(asked), dtype=int)
    value, arrays = json.loads(json.dumps(floors.to_json())), floors.to_arrays()
    again = RegressionFloors.read(value, arrays)
    judged = floors.judge(other, case, length, asked)
    assert tuple(judged) == floors.names
    for name, read in again.judge(other, case, length, asked).items():
        assert len(read.case) == np.isfinite(asked).sum()
        for metric, values in read.values.items():
            np.testing.assert_array_equal(values, judged[name].values[metric])
    both = np.concatenate((target, truth))
    assert floors.mean == pytest.approx(np.nanmean(both))
    assert floors.median == np.nanmedian(both)
    # On what they were fitted to, the median errs least and the mean by the least squares.
    own = floors.judge(given.followed_by(valid), *([np.arange(len(both))] * 2), both)
    means = {name: {m: v.mean() for m, v in each.values.items()} for name, each in own.items()}
    assert means["median"]["absolute_error"] <= means["mean"]["absolute_error"]
    assert means["mean"]["rmse"] <= means["median"]["rmse"]
    assert means["linear"]["rmse"] < means["mean"]["rmse"]
    assert 0.7 < means["median"]["coverage"] < 0.9


def test_scores_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    case, length = np.repeat(np.arange(40), 5), np.tile(np.arange(1, 6), 40)
    target, point = rng.normal(0, 3, (2, 200))
    spread = np.sort(rng.normal(0, 3, (200, 3)), axis=1)
    judged = judge_numbers(case, length, target, Forecast(point, spread), LEVELS)
    found = score(judged, 200)
    value = {name: each.value for name, each in found.metrics.items()}
    pinball = [mean_pinball_loss(target, q, alpha=a) for a, q in zip(LEVELS, spread.T)]
    inside = (spread[:, 0] <= target) & (target <= spread[:, 2])
    assert value["absolute_error"] == pytest.approx(mean_absolute_error(target, point))
    assert value["rmse"] == pytest.approx(root_mean_squared_error(target, point))
    assert value["quantile_loss"] == pytest.approx(np.mean(pinball))
    assert value["coverage"] == pytest.approx(inside.mean())
    assert found.metrics["rmse"].low < value["rmse"] < found.metrics["rmse"].high
    first = found.by_length[0]
    assert first.metrics["rmse"].value == pytest.approx(
        root_mean_squared_error(target[length == 1], point[length == 1])
    )
    with pytest.raises(ShapeError, match="200 numbers"):
        judge_numbers(case, length, target, Forecast(point, spread[:, :2]), LEVELS)


def test_a_signed_number_may_be_below_zero_and_a_duration_never_is() -> None:
    scaler = Scaler(-5.0, 2.0)
    weights = {
        "heads.0.weight": np.zeros((1, 3), np.float32),
        "heads.0.bias": np.zeros(1, np.float32),
    }
    for extra, expected in (({}, 0.0), ({"signed": True}, -5.0)):
        spec = HeadSpec({"task": "t", "classes": [], **extra}, scaler, "number")
        assert HeadSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
        head = Head(0, spec, Weights(weights), 3, np.zeros((0, 0), np.float32))
        assert head.decode(np.zeros((4, 1), np.float32)).tolist() == [expected] * 4


def test_what_a_head_says_is_told_in_the_numbers_own_unit() -> None:
    task = {"task": "regress", "classes": [], "signed": True, "levels": [0.1, 0.5, 0.9]}
    scaler = Scaler(10.0, 3.0)
    normal = HeadSpec(task, scaler, "gaussian")
    told = in_own_units(normal, np.array([[[1.0], [2.0]]]))
    assert told.point.tolist() == [13.0]
    assert told.quantiles is not None
    np.testing.assert_allclose(told.quantiles, [norm(13.0, 6.0).ppf(LEVELS)])
    spread = HeadSpec(task, Scaler(0.5, 2.0, log1p=True), "quantiles", 1, LEVELS)
    told = in_own_units(spread, np.array([[[-1.0, 0.0, 1.0]]]))
    assert told.quantiles is not None
    np.testing.assert_allclose(told.quantiles, [[-np.expm1(1.5), *np.expm1([0.5, 2.5])]])
    np.testing.assert_allclose(told.point, [np.expm1(0.5)])
    assert in_own_units(HeadSpec(task, scaler, "number"), np.array([-4.0])).point.tolist() == [-4.0]
