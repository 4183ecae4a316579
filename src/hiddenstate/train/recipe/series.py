"""The section for signals, and what is usual there."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from hiddenstate.train.recipe.sections import Section

Level = Annotated[float, Field(gt=0, lt=1)]
Period = Annotated[int, Field(ge=2)]


class Series(Section):
    """What is forecast from a series, for forecast and next_frame.

    Beside it stand input.timestamp, case (the column that names the series), attributes (the
    channels that are read) and exclude.
    """

    horizon: Annotated[int, Field(ge=1, le=10_000)] = 24
    """Steps ahead that are forecast."""
    context: Annotated[int, Field(ge=2, le=100_000)] = 168
    """Steps of a training window: what the model can learn to remember."""
    targets: list[str] | None = None
    """Channels that are forecast; all when not given. The others are inputs only."""
    output: Literal["quantiles", "gaussian", "point"] = "quantiles"
    """What is forecast: quantiles, a normal distribution, or the mean alone."""
    levels: Annotated[tuple[Level, ...], Field(min_length=1)] = (0.1, 0.5, 0.9)
    """Levels of the quantiles; the outermost two make the interval that is shown."""
    mode: Literal["direct", "recursive"] = "direct"
    """Forecast all steps at once, or one step that is read as the next input."""
    base: Literal["linear", "level", "period"] = "linear"
    """What the network's outputs are added to, so that it learns what is left open: a linear model
    of the last steps (fitted on the training part), the mean that `around` speaks of, or the values
    one period before."""
    shared: bool | None = None
    """Read every channel by itself with the same weights (yes) or all together (no); when not
    given, by itself where all channels are forecast, together where some are inputs only."""
    around: Annotated[int, Field(ge=0)] | None = None
    """Steps whose mean is taken off the inputs, so that a drift of the level is no surprise; 1 is
    the last value, 0 nothing. When not given, the shortest period."""
    periods: Annotated[list[Period], Field(max_length=3)] | None = None
    """Steps after which the signal is expected to repeat, three at most, for the floors; a day and
    a week of them when not given, where there are times."""
    calendar: bool = True
    """Let the hour of the day and the day of the week be inputs, where there are times."""
    rows: list[Annotated[int, Field(ge=0)]] | None = None
    """Rows of each series that train, validate and test, in place of shares."""
    overlap: Annotated[int, Field(ge=1, le=1000)] = 4
    """Training windows that hold each step: a new one begins every context/overlap steps."""


# What differs from the recipe's defaults for these tasks; a setting that is given goes first.
DEFAULTS: dict[str, Any] = {
    "model.hidden_size": 96,
    "model.init": "orthogonal",
    "train.learning_rate": 4e-3,
    "train.batch_size": 64,
    "train.batch_events": 32_768,
    "train.dropout": 0.4,
    "train.input_dropout": 0.0,
    "train.recency": 0.0,
}
# Series of binary frames are few and wide: nearly all that helps is noise in training.
FRAME_DEFAULTS: dict[str, Any] = {
    "model.hidden_size": 200,
    "model.init": "orthogonal",
    "train.epochs": 120,
    "train.patience": 40,
    "train.learning_rate": 4e-3,
    "train.batch_size": 16,
    "train.batch_events": 32_768,
    "train.dropout": 0.5,
    "train.input_dropout": 0.2,
    "train.variational": True,
    "train.dropconnect": 0.4,
    "train.recency": 0.0,
}
