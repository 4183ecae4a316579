"""What a forecaster was fitted to answer, as its artifact keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from hiddenstate.job.series.base import Base
from hiddenstate.schema import Channels
from hiddenstate.tasks.forecast_floors import ForecastFloors

FORECAST, NEXT_FRAME = "forecast", "next_frame"


@dataclass(frozen=True)
class ForecastTask:
    """The next H steps of some channels.

    horizon:   H
    targets:   names of the channels
    recursive: whether one step is predicted and read as the next input
    output:    quantiles, gaussian or point
    levels:    of the quantiles that are reported, rising
    periods:   by name, steps after which the signal is expected to repeat
    context:   steps of a training window
    base:      what the model's outputs are added to: level, period or linear
    history:   steps that come before a forecast that is scored: the floors look so far back
    """

    horizon: int
    targets: tuple[str, ...]
    recursive: bool
    output: str
    levels: tuple[float, ...]
    periods: Mapping[str, int]
    context: int
    base: str
    history: int

    def base_of(self, floors: ForecastFloors) -> Base:
        """Return what the outputs are added to, out of the floors that were fitted with it."""
        period = min(self.periods.values(), default=1)
        return Base(self.base, period, floors.first if self.base == "linear" else None)

    def places(self, schema: Channels) -> tuple[int, ...]:
        """Return where the targets stand among the channels."""
        return tuple(schema.names.index(name) for name in self.targets)

    def to_json(self) -> dict[str, Any]:
        """Return the task as JSON values, with the keys that every head's task has."""
        return {
            "task": FORECAST,
            "classes": [],
            **asdict(self),
            "targets": list(self.targets),
            "levels": list(self.levels),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Read `to_json` back; raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            int(value["horizon"]),
            tuple(str(name) for name in value["targets"]),
            bool(value["recursive"]),
            str(value["output"]),
            tuple(float(level) for level in value["levels"]),
            {str(name): int(steps) for name, steps in value["periods"].items()},
            int(value["context"]),
            str(value["base"]),
            int(value["history"]),
        )
