"""Channels of a signal: scaled numbers, flags where values are missing, and the calendar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError, ShapeError, SpecError, nearest
from hiddenstate.schema.clock import DAY_US, THURSDAY_US, WEEK_US
from hiddenstate.schema.fields import Fields
from hiddenstate.schema.log import Floats, Int64
from hiddenstate.schema.scaler import Scaler

TYPE = "channels"
# A scaled input beyond this is cut, so that one wild value cannot drown the others.
LIMIT = 10.0
# The least standard deviation, in scaled units, that a Gaussian forecast may have.
LEAST_SCALE = 1e-3
# Period and origin of each calendar input; the week of the inputs begins on Monday.
CALENDAR = {
    "hour_of_day": (DAY_US, 0),
    "day_of_week": (WEEK_US, THURSDAY_US),
    "day_of_year": (round(365.2425 * DAY_US), 0),
}


@dataclass(frozen=True)
class Channels:
    """How frames of a signal become inputs: F numbers a step, and no codes.

    scalers:  one for each of the C channels, by name and in the order of the columns
    gaps:     channels with missing values in training; each also gives a flag, 1 where missing
    calendar: names in CALENDAR; each gives sine and cosine of the time within its period
    around:   steps whose mean is taken off the values: a step's input is its distance from the
              level before it (Kim et al. 2022 do so for whole windows); 0 takes nothing off
    shared:   every channel is a sequence by itself, read by the same weights; its place is a code

    The numbers of a step are the C scaled values, then the flags, then the calendar; of a shared
    one its own value, its flag where any channel has gaps, and the calendar.

    >>> channels = Channels.fit(("load",), np.array([[1.0], [3.0]]))
    >>> channels.encode(np.array([[2.0], [np.nan], [3.0]])).ravel().tolist()
    [0.0, 0.0, 1.0]
    """

    scalers: Mapping[str, Scaler]
    gaps: tuple[str, ...] = ()
    calendar: tuple[str, ...] = ()
    around: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        """Check the names; raises SpecError without channels or for an unknown name."""
        wrong = [name for name in self.gaps if name not in self.scalers]
        wrong += [name for name in self.calendar if name not in CALENDAR]
        if wrong or not self.scalers:
            raise SpecError(
                f"The channels are {', '.join(self.scalers) or 'none'}, with gaps in "
                f"{', '.join(self.gaps) or 'none'} and the calendar inputs "
                f"{', '.join(self.calendar) or 'none'}.",
                "At least one channel was expected, gaps only in these, and calendar inputs out of "
                f"{', '.join(CALENDAR)}.",
                f"Correct {', '.join(wrong) or 'the channels'}."
                + (nearest(wrong[0], CALENDAR) if wrong else ""),
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the channels [C]."""
        return tuple(self.scalers)

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Number of codes of each categorical input: the channel's place, where they are shared."""
        return (len(self.scalers),) if self.shared else ()

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the inputs [F], in the order of `encode`."""
        values = ("value",) if self.shared else self.names
        gaps = values if self.shared and self.gaps else self.gaps
        flags = [f"{name} is missing" for name in gaps]
        waves = [f"{name} {wave}" for name in self.calendar for wave in ("sin", "cos")]
        return (*values, *flags, *waves)

    @classmethod
    def fit(
        cls,
        names: Sequence[str],
        values: NDArray[Any],
        *,
        calendar: Sequence[str] = (),
        around: int = 0,
        shared: bool = False,
        binary: bool = False,
    ) -> Channels:
        """Measure the scalers on the training part, values [N, C]; NaN is missing.

        binary: leave the values as they are, for channels of 0 and 1; the rest as in the class

        Raises DataError for a channel without any value, ShapeError for other than C columns.
        """
        _check_columns(values, len(names))
        known = np.isfinite(values)
        empty = [name for name, any_known in zip(names, known.any(axis=0)) if not any_known]
        if empty:
            raise DataError(
                f"{len(empty)} of {len(names)} channels have no value in the training part: "
                f"{', '.join(empty[:8])}.",
                "A channel's scale is measured there; it needs at least one number.",
                "Leave these channels out, or give a longer training part.",
            )
        scalers = {
            name: Scaler() if binary else Scaler.fit(values[:, place], log1p=False)
            for place, name in enumerate(names)
        }
        gaps = tuple(name for name, full in zip(names, known.all(axis=0)) if not full)
        return cls(scalers, gaps, tuple(calendar), around, shared)

    def encode(
        self,
        values: NDArray[Any],
        times_us: Int64 | None = None,
        offsets: Int64 | None = None,
    ) -> NDArray[np.float32]:
        """Return the inputs [N, F] of frames [N, C] of one series, or of those that offsets cut.

        Shared channels give [C, N, F]. A missing value is the last one before it in its series,
        and the training mean where there is none. Values are cut at 10 deviations. Raises
        ShapeError for other than C columns, DataError where the calendar is an input and times
        are not given.
        """
        cuts = np.array([0, len(values)]) if offsets is None else offsets
        filled = self.fill(values, cuts)
        if self.around:
            before = np.concatenate((filled[:1], level(filled, cuts, self.around)[:-1]))
            firsts = cuts[:-1][np.diff(cuts) > 0]
            before[firsts] = filled[firsts]
            filled = filled - before
        shown = np.clip(filled, -LIMIT, LIMIT)
        flags = ~np.isfinite(np.asarray(values, dtype=np.float64))
        waves = self.waves(times_us, len(values))
        if not self.shared:
            places = [self.names.index(name) for name in self.gaps]
            return _side_by_side(shown, flags[:, places], waves)
        own = slice(None if self.gaps else 0)
        lanes = [
            _side_by_side(shown[:, [place]], flags[:, [place]][:, own], waves)
            for place in range(len(self.scalers))
        ]
        return np.stack(lanes)

    def fill(self, values: NDArray[Any], offsets: Int64) -> Floats:
        """Return scaled frames [N, C] without gaps: what `encode` takes for the missing values."""
        _check_columns(values, len(self.scalers))
        return np.nan_to_num(self.scale(carried(values, offsets)), nan=0.0)

    def scale(self, values: NDArray[Any], channels: Sequence[int] | None = None) -> Floats:
        """Return values [..., C] in scaled units, not cut; NaN stays NaN.

        channels: places of those that stand in the last axis, where it does not hold all
        """
        chosen = self._chosen(channels)
        return np.stack([s.encode(values[..., place]) for place, s in enumerate(chosen)], axis=-1)

    def decode(self, scaled: NDArray[Any], channels: Sequence[int] | None = None) -> Floats:
        """Return scaled values [..., C] in the channels' own units."""
        chosen = self._chosen(channels)
        return np.stack([s.decode(scaled[..., place]) for place, s in enumerate(chosen)], axis=-1)

    def to_json(self) -> dict[str, object]:
        """Return the description as a JSON object."""
        return {
            "type": TYPE,
            "channels": [{"name": name, **each.to_json()} for name, each in self.scalers.items()],
            "gaps": list(self.gaps),
            "calendar": list(self.calendar),
            "around": self.around,
            "shared": self.shared,
        }

    @classmethod
    def from_json(cls, raw: object, where: str = "schema") -> Channels:
        """Read `to_json` back; raises SpecError naming a damaged field."""
        fields = Fields(raw, where)
        each = fields.each("channels")
        scalers = {f.text("name"): Scaler.from_json(f.raw, f.where) for f in each}
        if len(scalers) != len(each):
            raise SpecError(
                f"The field {where} names a channel twice.",
                "Every channel has its own name.",
                "The file is damaged; fit again.",
            )
        return cls(
            scalers,
            fields.texts("gaps"),
            fields.texts("calendar"),
            int(fields.number("around")),
            fields.flag("shared"),
        )

    def _chosen(self, channels: Sequence[int] | None) -> list[Scaler]:
        every = list(self.scalers.values())
        return every if channels is None else [every[place] for place in channels]

    def waves(self, times_us: Int64 | None, steps: int) -> Floats:
        """Return sine and cosine of the calendar inputs [N, 2 * calendar] at N times.

        Raises DataError where the calendar is an input and there are not N times.
        """
        if not self.calendar:
            return np.zeros((steps, 0))
        if times_us is None or len(times_us) != steps:
            given = "no times" if times_us is None else f"{len(times_us)} times"
            raise DataError(
                f"The signal has {steps} steps and {given}.",
                f"{', '.join(self.calendar)}: the calendar is an input of this model.",
                "Give the time of every step, or fit with the calendar left out.",
            )
        waves = []
        for name in self.calendar:
            period, origin = CALENDAR[name]
            angle = ((times_us + origin) % period) * (2 * np.pi / period)
            waves += [np.sin(angle), np.cos(angle)]
        return np.stack(waves, axis=1)


def carried(values: NDArray[Any], offsets: Int64) -> Floats:
    """Return frames [N, C] with gaps filled by the last value of the same series; NaN before it."""
    known = np.isfinite(values)
    if known.all():
        return np.asarray(values, dtype=np.float64)
    starts = np.repeat(offsets[:-1], np.diff(offsets))[:, None]
    rows = np.arange(len(values))[:, None]
    last = np.maximum.accumulate(np.where(known, rows, -1), axis=0)
    filled = np.take_along_axis(np.asarray(values, dtype=np.float64), np.maximum(last, 0), axis=0)
    return np.where(last >= starts, filled, np.nan)


def level(filled: Floats, offsets: Int64, steps: int) -> Floats:
    """Return the mean of the last `steps` steps up to each of frames [N, C], in its own series.

    At the beginning of a series it is the mean of those that there are.
    """
    means = np.empty_like(filled)
    for begin, end in pairwise(offsets):
        sums = np.concatenate((np.zeros((1, filled.shape[1])), filled[begin:end].cumsum(axis=0)))
        place = np.arange(1, end - begin + 1)
        first = np.maximum(place - steps, 0)
        means[begin:end] = (sums[place] - sums[first]) / (place - first)[:, None]
    return means


def _side_by_side(*parts: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(np.concatenate(parts, axis=1), dtype=np.float32)


def _check_columns(values: NDArray[Any], channels: int) -> None:
    if values.ndim != 2 or values.shape[1] != channels:
        raise ShapeError(
            f"The signal has shape {list(values.shape)}, read as [N, C];",
            f"{channels} channels were named.",
            "Give one column for each channel, in their order.",
        )
