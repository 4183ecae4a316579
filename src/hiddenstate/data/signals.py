"""Signals in memory: series of the same channels, and the rows that train, validate and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError, UsageError, nearest
from hiddenstate.schema.log import Floats, Int64

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Signal:
    """P series of C channels, N steps together.

    ids:      names of the series [P]
    offsets:  steps of series p are rows offsets[p] to offsets[p + 1] [P + 1]
    values:   float64 [N, C]; NaN is missing
    channels: names of the channels [C]
    times_us: UTC microseconds since 1970 [N], rising within a series; None without times
    step_us:  the usual distance of two steps; None without times
    parts:    which of PARTS each series is in [P], where the file says so
    time:     what the column of times is called; None where there was none
    """

    ids: tuple[str, ...]
    offsets: Int64
    values: Floats
    channels: tuple[str, ...]
    times_us: Int64 | None = None
    step_us: int | None = None
    parts: tuple[str, ...] | None = None
    time: str | None = None

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> Int64:
        """Steps of each series [P]."""
        return np.diff(self.offsets)

    def with_channels(self, channels: Sequence[str]) -> Signal:
        """Return the signal with these channels in this order; DataError where some are absent."""
        absent = [name for name in channels if name not in self.channels]
        if absent:
            raise DataError(
                f"{len(absent)} of {len(channels)} channels are not there: {', '.join(absent)}.",
                f"The source has the channels {', '.join(self.channels)}.",
                f"Correct the names, or add the columns.{nearest(absent[0], self.channels)}",
            )
        if tuple(channels) == self.channels:
            return self
        places = [self.channels.index(name) for name in channels]
        return replace(self, values=self.values[:, places], channels=tuple(channels))

    def followed_by(self, other: Signal) -> Signal:
        """Return the series of both, those of `other` last and with the channels of this one."""
        second = other.with_channels(self.channels)
        times_us = None
        if self.times_us is not None and second.times_us is not None:
            times_us = np.concatenate((self.times_us, second.times_us))
        return replace(
            self,
            ids=(*self.ids, *second.ids),
            offsets=np.concatenate((self.offsets, second.offsets[1:] + self.steps)),
            values=np.concatenate((self.values, second.values)),
            times_us=times_us,
            step_us=None if times_us is None else self.step_us,
            parts=None,
        )


@dataclass(frozen=True, eq=False)
class Bounds:
    """The rows of each part: of series p, part k is rows[p, k] to rows[p, k + 1]; rows [P, 4]."""

    rows: Int64
    description: str

    def part(self, which: int) -> NDArray[np.int64]:
        """Return first row and end of a part in every series [P, 2]."""
        return self.rows[:, which : which + 2]

    def steps(self, which: int) -> int:
        """Return how many steps a part has in all series."""
        return int(np.diff(self.part(which)).sum())


def by_rows(
    signal: Signal,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    counts: Sequence[int] | None = None,
) -> Bounds:
    """Cut every series in time: its first rows train, the next ones validate, the last ones test.

    counts: how many rows train, validate and test in each series, in place of shares; rows after
            them are left out

    With several series that have times, all are cut at the same two moments, so that no series
    tells what was going to happen in another. Raises UsageError for shares or counts that do not
    fit.
    """
    begins, ends = signal.offsets[:-1], signal.offsets[1:]
    if counts is not None:
        if len(counts) != 3 or min(counts) < 0 or sum(counts) > int(signal.lengths.min()):
            raise UsageError(
                f"The rows are to be shared out as {', '.join(map(str, counts))}; the shortest "
                f"series has {int(signal.lengths.min())} rows.",
                "Three counts were expected, for training, validation and test, not more together "
                "than there are rows.",
                "Correct series.rows, or leave it out and give --validation and --test.",
            )
        cuts = np.concatenate(([0], np.cumsum(counts)))
        shown = " / ".join(f"{count:,}" for count in counts)
        return Bounds(begins[:, None] + cuts, f"in time: {shown} rows train / validate / test")
    check_shares(validation, test)
    until, late = 1 - validation - test, 1 - test
    if signal.times_us is not None and len(signal.ids) > 1:
        order = np.sort(signal.times_us)
        moments = [order[min(round(len(order) * s), len(order) - 1)] for s in (until, late)]
        cuts = np.array(
            [
                begin + np.searchsorted(signal.times_us[begin:end], moments)
                for begin, end in zip(begins, ends)
            ]
        ).reshape(-1, 2)
    else:
        lengths = signal.lengths[:, None]
        cuts = begins[:, None] + np.round(lengths * np.array([until, late])).astype(np.int64)
    rows = np.concatenate((begins[:, None], cuts, ends[:, None]), axis=1)
    sizes = np.diff(rows, axis=1).sum(axis=0)
    shown = " / ".join(f"{size:,}" for size in sizes)
    return Bounds(rows, f"in time: {shown} rows train / validate / test")


def by_series(signal: Signal, *, validation: float = 0.1, test: float = 0.2) -> Bounds:
    """Give whole series to the parts: as the file says, else the first train and the last test."""
    count = len(signal.ids)
    if signal.parts is not None:
        which = np.array([PARTS.index(part) for part in signal.parts])
        origin = "as the file says"
    else:
        check_shares(validation, test)
        tested, validated = (max(round(count * s), 1) if s else 0 for s in (test, validation))
        which = np.zeros(count, dtype=np.int64)
        which[count - tested - validated :] = 1
        which[count - tested :] = 2
        origin = "in the order of the file"
    if not (which == 0).any():
        raise DataError(
            f"{count} series, {origin}, leave none to train on.",
            "At least one series must train; validation and test take whole series too.",
            "Give more series, or --validation 0 and --test 0.",
        )
    # A series in part k begins there, and every later part of it is empty.
    places = np.arange(4)[None, :] > which[:, None]
    rows = np.where(places, signal.offsets[1:, None], signal.offsets[:-1, None])
    sizes = " / ".join(str(int((which == part).sum())) for part in range(3))
    return Bounds(rows, f"{origin}: {sizes} series train / validate / test")


def check_shares(validation: float, test: float) -> None:
    """Raise UsageError for shares that leave nothing to train on."""
    if min(validation, test) < 0 or validation + test >= 1:
        raise UsageError(
            f"The shares are {validation} for validation and {test} for test.",
            "They must not be negative, and must leave steps to train on (sum below 1).",
            "Choose others, such as 0.1 and 0.2.",
        )
