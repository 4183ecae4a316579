"""From a source and a recipe to a forecaster that can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hiddenstate.artifact import HeadSpec
from hiddenstate.artifact.spec import Output
from hiddenstate.data.read_signal import read_signal
from hiddenstate.data.signal_steps import Remark, duration
from hiddenstate.data.signals import Bounds, Signal, by_rows, by_series
from hiddenstate.errors import DataError, UsageError
from hiddenstate.job.prepared import called
from hiddenstate.job.reading import options
from hiddenstate.job.series.evaluate import refuse_other_values
from hiddenstate.job.series.frames import PreparedFrames
from hiddenstate.job.series.lanes import Lanes
from hiddenstate.job.series.prepared import PreparedSeries
from hiddenstate.job.series.task import FORECAST, NEXT_FRAME, ForecastTask
from hiddenstate.schema import Channels
from hiddenstate.schema.clock import DAY_US, WEEK_US
from hiddenstate.tasks.forecast_floors import ForecastFloors
from hiddenstate.tasks.forecasts import Origins
from hiddenstate.train.recipe import Recipe

OUTPUTS: Mapping[str, Output] = {
    "quantiles": "quantiles",
    "gaussian": "gaussian",
    "point": "numbers",
}
# History that a forecast is scored after, where the signal has no period.
FEWEST_STEPS = 24


def prepare(source: Any, recipe: Recipe, tell: Remark) -> PreparedSeries | PreparedFrames:
    """Read, check, split; fit channels and floors on the training part."""
    _refuse_contradictions(recipe)
    remarks: list[str] = []

    def told(remark: str) -> None:
        remarks.append(remark)
        tell(remark)

    signal, bounds = _read(source, recipe, told)
    name = called(source)
    if recipe.tasks[0] == NEXT_FRAME:
        return _prepare_frames(name, signal, bounds, recipe, remarks)
    return _prepare_forecast(name, signal, bounds, recipe, told, remarks)


def _reading(signal: Signal, recipe: Recipe) -> dict[str, Any]:
    """Return the fields of `data.Options` with which later files are read."""
    given = recipe.input
    return {
        "timestamp": signal.time,
        "with_times": signal.times_us is not None,
        "case": given.case,
        "encoding": given.encoding,
        "time_format": given.time_format,
    }


def _refuse_contradictions(recipe: Recipe) -> None:
    series, model, given = recipe.series, recipe.model, recipe.input
    of_logs = [name for name in ("activity", "allow_leaks") if getattr(given, name)]
    if of_logs:
        raise UsageError(
            f"input.{of_logs[0]} is set, and the task is {recipe.tasks[0]}.",
            "It is for event logs; a series has times, channels and perhaps a name (--case).",
            f"Leave {of_logs[0]} out.",
        )
    wrong = None
    if recipe.tasks[0] not in (FORECAST, NEXT_FRAME):
        wrong = f"the task is {recipe.tasks[0]!r}", "It is written forecast or next_frame"
    elif model.bidirectional:
        wrong = "model.bidirectional is set", "A forecast cannot read what comes later"
    elif series.mode == "recursive" and series.output == "quantiles":
        wrong = (
            "series.mode is recursive and series.output quantiles",
            "Quantiles of one step do not say how to go on: recursive takes gaussian or point",
        )
    elif series.mode == "recursive" and model.cell == "attention":
        wrong = (
            "series.mode is recursive and model.cell attention",
            "Going on from its own predictions is for recurrent cells",
        )
    elif series.mode == "recursive" and series.targets is not None and not series.shared:
        wrong = (
            "series.mode is recursive and series.targets leave channels out",
            "What is read as the next input must be predicted: all channels, or shared ones",
        )
    elif series.output == "quantiles" and 0.5 not in series.levels:
        wrong = f"series.levels are {list(series.levels)}", "The level 0.5 is the forecast itself"
    elif sorted(set(series.levels)) != list(series.levels):
        wrong = f"series.levels are {list(series.levels)}", "They rise, and none stands twice"
    elif recipe.tasks[0] == "next_frame" and series.rows is not None:
        wrong = "series.rows is set", "next_frame gives whole series to training and test"
    elif recipe.split.strict or recipe.split.column is not None:
        wrong = "split.strict or split.column is set", "Series are split in time or by files"
    if wrong is not None:
        raise UsageError(f"In this recipe {wrong[0]}.", f"{wrong[1]}.", "Change one of them.")


def _read(source: Any, recipe: Recipe, tell: Remark) -> tuple[Signal, Bounds]:
    """Read the series and decide which rows train, validate and test."""
    split = recipe.split
    reading = options(recipe.input).change(attributes=recipe.input.attributes)
    signal, remarks = read_signal(source, reading)
    for remark in remarks:
        tell(remark)
    frames = recipe.tasks[0] == NEXT_FRAME
    several = frames or signal.parts is not None
    if split.test_file is None:
        if several:
            return signal, by_series(signal, validation=split.validation, test=split.test)
        counts = recipe.series.rows
        return signal, by_rows(signal, validation=split.validation, test=split.test, counts=counts)
    last, remarks = read_signal(split.test_file, reading)
    for remark in remarks:
        tell(f"{split.test_file}: {remark}")
    share = split.validation
    first = (by_series if several else by_rows)(signal, validation=share, test=0.0)
    joined = signal.followed_by(last)
    begins, ends = joined.offsets[len(signal.ids) : -1], joined.offsets[len(signal.ids) + 1 :]
    rows = np.concatenate((first.rows, np.stack([begins, begins, begins, ends], axis=1)))
    return joined, Bounds(rows, f"{first.description}; {split.test_file} tests")


def _prepare_frames(
    source: str, signal: Signal, bounds: Bounds, recipe: Recipe, remarks: list[str]
) -> PreparedFrames:
    refuse_other_values(signal)
    schema = Channels.fit(signal.channels, signal.values, binary=True)
    reading = _reading(signal, recipe)
    return PreparedFrames(source, recipe, tuple(remarks), schema, signal, bounds, reading)


def _prepare_forecast(
    source: str,
    signal: Signal,
    bounds: Bounds,
    recipe: Recipe,
    tell: Remark,
    remarks: list[str],
) -> PreparedSeries:
    series = recipe.series
    targets = tuple(series.targets or signal.channels)
    signal.with_channels(targets)
    shared = series.targets is None if series.shared is None else series.shared
    if shared and set(targets) != set(signal.channels):
        tell(
            "Channels that are not forecast are not read either: shared channels do not see each "
            "other."
        )
        signal = signal.with_channels(targets)
    periods = _periods(signal, series.periods)
    if series.base == "period" and not periods:
        raise UsageError(
            "series.base is period, and the signal has no times to measure a day by.",
            "The period is the number of steps after which the signal repeats.",
            "Give it: --set series.periods=[12].",
        )
    around = min(periods.values(), default=1) if series.around is None else series.around
    usual = min(FEWEST_STEPS, max(int(np.diff(bounds.part(0)).max()) // 4, 2))
    history = max([*periods.values(), around, usual])
    task = ForecastTask(
        series.horizon,
        targets,
        series.mode == "recursive",
        series.output,
        () if series.output == "point" else tuple(series.levels),
        periods,
        series.context,
        series.base,
        history,
    )
    training = np.concatenate([signal.values[begin:end] for begin, end in bounds.part(0)])
    _refuse_short(signal, bounds, task)
    schema = Channels.fit(
        signal.channels,
        training,
        calendar=_calendar(signal) if series.calendar else (),
        around=around,
        shared=shared,
    )
    lanes = Lanes.of(signal, schema, task.places(schema))
    parts = tuple(
        Origins.of(
            bounds.part(which), signal.offsets, horizon=task.horizon, history=history,
            period=history,
        )
        for which in (0, 1)
    )  # fmt: skip
    floors = ForecastFloors.fit(
        lanes.values,
        lanes.filled,
        (parts[0], parts[1]),
        periods=periods,
        lags=history,
        levels=task.levels,
        normal=series.output == "gaussian",
    )
    steps = 1 if task.recursive else task.horizon
    head = HeadSpec(
        task.to_json(),
        None,
        OUTPUTS[series.output],
        steps * (1 if shared else len(targets)),
        task.levels if series.output == "quantiles" else (),
    )
    return PreparedSeries(
        source,
        recipe,
        tuple(remarks),
        schema,
        head,
        signal,
        bounds,
        task,
        lanes,
        floors,
        _reading(signal, recipe),
    )


def _periods(signal: Signal, given: list[int] | None) -> dict[str, int]:
    """Return the periods by name: as given, or a day and a week where steps measure them."""
    if given is not None:
        names = ["period", *(f"period_{place}" for place in range(2, len(given) + 1))]
        return dict(zip(names, sorted(set(given))))
    periods = {}
    if signal.step_us:
        for name, length in (("day", DAY_US), ("week", WEEK_US)):
            steps = length // signal.step_us
            if length % signal.step_us == 0 and 2 <= steps <= int(signal.lengths.min()) // 8:
                periods[name] = steps
    return periods


def _calendar(signal: Signal) -> tuple[str, ...]:
    """Return the calendar inputs that the steps are fine enough for."""
    if signal.times_us is None or not signal.step_us:
        return ()
    fine = (("hour_of_day", DAY_US), ("day_of_week", WEEK_US))
    return tuple(name for name, length in fine if 2 * signal.step_us <= length)


def _refuse_short(signal: Signal, bounds: Bounds, task: ForecastTask) -> None:
    """Refuse parts in which no step has a whole forecast to learn or to be scored by."""
    step = "" if not signal.step_us else f" of {duration(signal.step_us)}"
    for which, name in enumerate(("training", "validation", "test")):
        part = bounds.part(which)
        longest = int((part[:, 1] - part[:, 0]).max())
        # What comes before the first origin may lie in the parts before.
        room = int((part[:, 1] - np.maximum(part[:, 0], signal.offsets[:-1] + task.history)).max())
        if (which == 0 or longest) and room < task.horizon:
            raise DataError(
                f"The {name} part has {longest} steps{step} in its longest series, and the "
                f"forecast has a horizon of {task.horizon}.",
                f"At least {task.history} steps of history and {task.horizon} of future are "
                "needed in one series.",
                "Use a shorter series.horizon or shorter series.periods, a larger share for this "
                "part, or a longer file.",
            )
