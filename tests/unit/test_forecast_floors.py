"""Floors of forecasts and frames: against the figures of public data, and against plain loops."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hiddenstate import tasks
from hiddenstate.data.read_signal import read_signal
from hiddenstate.data.signals import by_rows, by_series
from hiddenstate.errors import DataError
from hiddenstate.schema import Channels
from hiddenstate.schema.channels import carried
from hiddenstate.tasks.forecast_floors import ForecastFloors
from hiddenstate.tasks.forecasts import Forecast, ForecastJudge, Origins
from hiddenstate.tasks.frames import FrameFloors, frame_costs
from hiddenstate.tasks.judged_values import stretches

DATA = os.environ.get("HIDDENSTATE_DATA")
# Mean squared error of "repeat yesterday", all 7 channels scaled by the training part, with the
# 8,640 / 2,880 / 2,880 rows of Zhou et al. 2021 (Informer).
REPEAT_YESTERDAY = {24: 0.424, 48: 0.465, 168: 0.571, 336: 0.650, 720: 0.655}


def public(*parts: str) -> Path:
    if DATA is None:
        pytest.skip("HIDDENSTATE_DATA is not set")
    return Path(DATA, *parts)


def waves(steps: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(steps)[:, None]
    each = np.sin(2 * np.pi * t / 12 + np.array([0.0, 1.0]))
    return each + 0.1 * rng.standard_normal((steps, 2))


def fitted(values: np.ndarray, horizon: int = 6, **options: object) -> ForecastFloors:
    offsets = np.array([0, len(values)])
    cut = int(0.7 * len(values))
    parts = [
        Origins.of(np.array([part]), offsets, horizon=horizon, history=24)
        for part in ((0, cut), (cut, len(values)))
    ]
    filled = np.nan_to_num(carried(values, offsets))
    return ForecastFloors.fit(
        values, filled, (parts[0], parts[1]), periods={"period": 12}, lags=24, **options
    )


@pytest.fixture(scope="module")
def etth1() -> tuple[np.ndarray, np.ndarray]:
    signal, remarks = read_signal(public("etth1", "ETTh1.csv"))
    assert remarks == ()
    bounds = by_rows(signal, counts=(8640, 2880, 2880))
    train = signal.values[slice(*bounds.part(0)[0])]
    assert len(train) == bounds.steps(0) == 8640
    return Channels.fit(signal.channels, train).scale(signal.values), bounds.part(2)


@pytest.mark.parametrize("horizon", REPEAT_YESTERDAY)
def test_repeat_yesterday_on_etth1(horizon: int, etth1: tuple[np.ndarray, np.ndarray]) -> None:
    values, part = etth1
    origins = Origins.of(part, np.array([0, len(values)]), horizon=horizon, history=168, period=168)
    assert len(origins.rows) == 2880 - horizon + 1
    bare = ForecastFloors({"day": 24}, None, None, (), {}, {}, "")  # type: ignore[arg-type]
    judge = ForecastJudge(origins, values)
    for chosen in origins.chunks(7):
        judge.add(chosen, Forecast(bare.point("day", values, origins.rows[chosen], horizon)))
    found = float(judge.result().values["mse"].mean())
    assert found == pytest.approx(REPEAT_YESTERDAY[horizon], abs=5e-4)


def test_markov_of_the_chorales() -> None:
    pytest.importorskip("scipy")
    signal, _ = read_signal(public("jsb", "JSB_Chorales.mat"))
    bounds = by_series(signal)
    assert bounds.description == "as the file says: 229 / 76 / 77 series train / validate / test"

    def predicted(which: int) -> np.ndarray:
        begin_end = bounds.part(which)
        return np.concatenate(
            [np.arange(begin + 1, end) for begin, end in begin_end if end > begin]
        )

    floors = FrameFloors.fit(signal.values, predicted(0))
    judged = floors.judge(signal.values, signal.offsets, predicted(2))
    nats = {name: each.values["nats_per_frame"].mean() for name, each in judged.items()}
    assert nats["markov"] == pytest.approx(10.49, abs=0.05)
    assert nats["independent"] == pytest.approx(11.09, abs=0.05)


def test_each_floor_is_what_it_says() -> None:
    values = waves()
    floors = fitted(values)
    rows = np.array([100, 250])
    ahead = floors.point("period", values, rows, 30)
    for place, row in enumerate(rows):
        for k in range(1, 31):
            back = row + k
            while back > row:
                back -= 12
            assert np.array_equal(ahead[place, k - 1], values[back])
    assert np.array_equal(floors.point("last_value", values, rows, 3)[1, 2], values[250])
    lags = values[250 - 23 : 251]
    level = lags[-1] if floors.linear.centred else 0.0
    by_hand = (lags - level).T @ floors.linear.weights + np.reshape(level, (-1, 1))
    np.testing.assert_allclose(floors.point("linear", values, rows, 6)[1], by_hand.T)


def test_a_linear_signal_is_forecast_by_the_linear_floor() -> None:
    values = waves()
    judged = fitted(values).judge(
        values,
        values,
        Origins.of(np.array([[280, 400]]), np.array([0, 400]), horizon=6, history=24),
    )
    errors = {name: float(each.values["mse"].mean()) for name, each in judged.items()}
    assert errors["linear"] < 0.02
    assert errors["linear"] < errors["period"] < errors["last_value"]


@pytest.mark.parametrize("normal", [False, True])
def test_intervals_of_the_floors_hold_what_they_promise(normal: bool) -> None:
    values = waves(3000)
    floors = fitted(values, levels=(0.1, 0.5, 0.9), normal=normal)
    read = ForecastFloors.read(floors.to_json(), floors.to_arrays())
    origins = Origins.of(np.array([[2100, 3000]]), np.array([0, 3000]), horizon=6, history=24)
    for name, judged in read.judge(values, values, origins).items():
        assert judged.values["coverage"].mean() == pytest.approx(0.8, abs=0.04), name
        assert ("nll" in judged.values) == normal


def test_gaps_in_the_truth_are_left_out() -> None:
    values = waves()
    values[300:310, 0] = np.nan
    values[320:330] = np.nan
    origins = Origins.of(np.array([[280, 400]]), np.array([0, 400]), horizon=6, history=24)
    judge = ForecastJudge(origins, values, (0.1, 0.9))
    for chosen in origins.chunks(2):
        count = len(origins.rows[chosen])
        point = np.zeros((count, 6, 2))
        judge.add(chosen, Forecast.normal(point, point + 1, (0.1, 0.9)))
    judged = judge.result()
    truth = np.stack([values[row + 1 : row + 7] for row in origins.rows])
    known = np.isfinite(truth).any(axis=-1)
    assert len(judged.case) == known.sum()
    by_step = [np.nanmean(step**2) for step, is_known in zip(truth[known], known[known])]
    assert judged.values["mse"].mean() == pytest.approx(np.mean(by_step))
    assert all(np.isfinite(each).all() for each in judged.values.values())
    rmse, _ = judge.by_channel
    np.testing.assert_allclose(rmse, np.sqrt(np.nanmean(truth**2, axis=(0, 1))))
    with pytest.raises(DataError, match="No value is known"):
        ForecastJudge(origins, values * np.nan).result()


def test_no_origin_looks_beyond_its_part() -> None:
    offsets = np.array([0, 50, 80])
    part = np.array([[30, 50], [50, 80]])
    origins = Origins.of(part, offsets, horizon=5, history=10)
    assert origins.rows.tolist() == [*range(29, 45), *range(59, 75)]
    assert origins.series.tolist() == [0] * 16 + [1] * 16
    # The last steps that are seen as truth are the last of each part.
    assert {int(row) + 5 for row in origins.rows[[15, 31]]} == {49, 79}


def test_a_stretch_stays_within_its_series() -> None:
    rows = np.array([3, 4, 5, 6, 20, 21, 22])
    series = np.array([0, 0, 0, 0, 1, 1, 1])
    assert stretches(rows, series, 2).tolist() == [0, 0, 1, 1, 2, 2, 3]


def test_scores_and_verdicts_of_forecasts_come_by_step_ahead() -> None:
    values = waves(2000)
    floors = fitted(values)
    origins = Origins.of(np.array([[1400, 2000]]), np.array([0, 2000]), horizon=6, history=24)
    judged = floors.judge(values, values, origins)
    scores = tasks.score(judged["linear"], 200)
    assert scores.events == len(origins.rows) * 6
    assert [bucket.label for bucket in scores.by_length] == ["1", "2", "3-4", "5-8"]
    assert scores.metrics["mse"].value == pytest.approx(judged["linear"].values["mse"].mean())
    verdict = tasks.compare(judged["linear"], judged["last_value"], "mse", "last value", 200)
    assert verdict.verdict == "better"
    assert "mean squared error" in verdict.sentence


def test_frame_costs_by_hand() -> None:
    truth = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    odds = np.array([[2.0, 1.0, -1.0], [-1.0, -40.0, -2000.0]])
    p = 1 / (1 + np.exp(-odds[0]))
    costs = frame_costs(truth, odds)
    by_hand = -np.log(p[0]) - np.log(1 - p[1]) - np.log(p[2])
    assert costs["nats_per_frame"][0] == pytest.approx(by_hand)
    assert costs["nats_per_frame"][1] == pytest.approx(np.log1p(np.exp(-1.0)))
    assert costs["wrong"].tolist() == [2 / 3, 0.0]


def test_frame_floors_survive_their_json() -> None:
    rng = np.random.default_rng(0)
    values = (rng.random((60, 4)) < 0.3).astype(float)
    floors = FrameFloors.fit(values, np.arange(1, 60))
    again = FrameFloors.read(floors.to_json(), floors.to_arrays())
    rows, offsets = np.arange(1, 60), np.array([0, 60])
    for one, other in zip(
        floors.judge(values, offsets, rows).values(), again.judge(values, offsets, rows).values()
    ):
        assert np.array_equal(one.values["nats_per_frame"], other.values["nats_per_frame"])
