"""Scores of forecasts and of next frames beside their floors, as JSON values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.signals import Signal
from hiddenstate.errors import DataError
from hiddenstate.job.scores import Json, against_floors, result
from hiddenstate.job.series.forecaster import Forecaster
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.task import FORECAST, NEXT_FRAME, ForecastTask
from hiddenstate.runtime import Model as Runtime
from hiddenstate.schema import Channels
from hiddenstate.tasks.compare import Metric
from hiddenstate.tasks.forecast_floors import ForecastFloors
from hiddenstate.tasks.forecasts import ForecastJudge, Origins
from hiddenstate.tasks.frames import FrameFloors, judge_frames

Longs = NDArray[np.int64]

# Forecasts of one step that is read as the next input are scored after this many origins at most.
MOST_RECURSIVE = 500
FORECAST_UNITS = ("stretches", "steps ahead")
FRAME_UNITS = ("series", "frames")
BATCH_STEPS = 16_384


def evaluate_forecasts(
    runtime: Runtime,
    schema: Channels,
    task: ForecastTask,
    floors: ForecastFloors,
    lanes: Lanes,
    part: Longs,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Json:
    """Score the forecasts after every step whose future lies in a part, rows part [P, 2].

    Errors are in scaled units; `channels` holds them in each channel's own. By the number of steps
    ahead where other scores go by events seen. The bootstrap draws stretches of the series.
    """
    origins = Origins.of(
        part,
        lanes.offsets,
        horizon=task.horizon,
        history=task.history,
        period=max(task.periods.values(), default=1),
    )
    if task.recursive and len(origins.rows) > MOST_RECURSIVE:
        origins = origins.every(-(-len(origins.rows) // MOST_RECURSIVE))
    judge = ForecastJudge(origins, lanes.values, task.levels)
    forecaster = Forecaster(runtime, schema, task, floors)
    for chosen, forecast in forecaster.after(lanes, origins.rows):
        judge.add(chosen, forecast)
    judged = judge.result()
    wholes: tuple[Metric, ...] = ("nll", "pinball")
    metrics: tuple[Metric, ...] = ("mse", *[each for each in wholes if each in judged.values][:1])
    scores = against_floors(
        FORECAST,
        judged,
        floors.judge(lanes.values, lanes.filled, origins),
        compared=floors.compared,
        description=floors.description,
        metrics=metrics,
        bootstrap=bootstrap,
        seed=seed,
    )
    places = task.places(schema)
    scalers = [list(schema.scalers.values())[place] for place in places]
    squares, sizes = judge.by_channel
    scores["channels"] = {
        name: {"rmse": float(square * scaler.scale), "mae": float(size * scaler.scale)}
        for name, scaler, square, size in zip(task.targets, scalers, squares, sizes, strict=True)
    }
    scores["origins"] = len(origins.rows)
    # What the scores "by length" go by.
    scores["by"] = "steps ahead"
    return result(
        runtime.fingerprint,
        scores["model"]["cases"],
        scores["model"]["events"],
        {FORECAST: scores},
        metrics,
        FORECAST_UNITS,
    )


def evaluate_frames(
    runtime: Runtime,
    schema: Channels,
    floors: FrameFloors,
    signal: Signal,
    part: Longs,
    *,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Json:
    """Score the prediction of every frame of a part but the first of each series."""
    rows = predicted_rows(part, signal.offsets)
    odds = frame_odds(runtime, schema, signal, part)[rows - 1]
    judged = judge_frames(signal.values[rows], odds, signal.offsets, rows)
    scores = against_floors(
        NEXT_FRAME,
        judged,
        floors.judge(signal.values, signal.offsets, rows),
        compared=floors.compared,
        description=floors.description,
        metrics=("nats_per_frame",),
        bootstrap=bootstrap,
        seed=seed,
    )
    return result(
        runtime.fingerprint,
        scores["model"]["cases"],
        scores["model"]["events"],
        {NEXT_FRAME: scores},
        ("nats_per_frame",),
        FRAME_UNITS,
    )


def predicted_rows(part: Longs, offsets: Longs) -> Longs:
    """Return the rows of a part that have a frame before them in their series."""
    ranges = [
        np.arange(max(int(begin), int(first) + 1), int(end))
        for (begin, end), first in zip(part, offsets[:-1], strict=True)
    ]
    return np.concatenate(ranges).astype(np.int64)


def frame_odds(runtime: Runtime, schema: Channels, signal: Signal, part: Longs) -> NDArray[Any]:
    """Return the log odds [N, C] of the frame after each one, for the series of a part."""
    numbers = schema.encode(signal.values, signal.times_us, signal.offsets)
    odds = np.zeros(signal.values.shape)
    for first, (begin, end) in zip(signal.offsets[:-1], part, strict=True):
        if begin == end:
            continue
        inputs = numbers[None, int(first) : int(end)]
        codes = np.zeros((*inputs.shape[:2], 0), dtype=np.int64)
        (decoded,) = runtime.decode(runtime.run_whole(codes, inputs))
        odds[int(first) : int(end)] = decoded[0]
    return odds


def refuse_other_values(signal: Signal) -> None:
    """Raise DataError where a frame holds anything but 0 and 1, or no series has two frames."""
    wrong = np.argwhere((signal.values != 0) & (signal.values != 1))
    if len(wrong):
        row, channel = wrong[0]
        value = signal.values[row, channel]
        shown = "a missing value" if np.isnan(value) else f"{value:g}"
        raise DataError(
            f"{len(wrong)} values are not 0 or 1, such as {shown} in step {row + 1} of "
            f"{signal.channels[channel]}.",
            "The task next_frame is about channels that are on or off.",
            "Choose the channels with --attributes, or use --task forecast for numbers.",
        )
    if int(signal.lengths.max()) < 2:
        raise DataError(
            f"The longest of {len(signal.ids)} series has {int(signal.lengths.max())} frames.",
            "A series needs two frames: one to predict from, one to predict.",
            "Give longer series, or name with --case the column that tells them apart.",
        )
