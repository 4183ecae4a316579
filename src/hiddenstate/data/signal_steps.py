"""Steps of a signal in time: repeated ones dropped, missing ones put in, uneven ones told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.signals import Signal
from hiddenstate.errors import DataError
from hiddenstate.schema.log import Floats, Int64

# Values this many interquartile ranges from the median are told: real signals have no such ones.
FAR = 100
# Missing steps are filled in, unless that made the signal this many times as long.
MOST_FILLED = 3

Remark = Callable[[str], None]


def without_repeats(
    codes: NDArray[np.int64],
    times_us: Int64,
    values: Floats,
    rows: Int64,
    has_series: bool,
    tell: Remark,
) -> NDArray[np.bool_]:
    """Return the rows to keep [N]; DataError where two say other things of the same moment."""
    again = np.flatnonzero((np.diff(codes) == 0) & (np.diff(times_us) == 0)) + 1
    kept = np.ones(len(codes), dtype=np.bool_)
    if len(again):
        same = np.isclose(values[again], values[again - 1], rtol=0, atol=0, equal_nan=True)
        other = again[~same.all(axis=1)]
        if len(other):
            raise DataError(
                f"{len(other)} rows have the time of another row and other values, such as rows "
                f"{rows[other[0] - 1]} and {rows[other[0]]}.",
                "A series has one row for each moment.",
                "Remove the rows that are wrong."
                if has_series
                else "Name the column that tells several series apart with --case, or remove the "
                "rows that are wrong.",
            )
        kept[again] = False
        tell(f"{len(again)} rows repeat another one and were dropped.")
    return kept


def mended(signal: Signal, tell: Remark) -> Signal:
    """Put in missing steps, and tell of gaps, of wild values and of steps of unequal length."""
    _tell_of_outliers(signal, tell)
    gaps = np.isnan(signal.values).sum(axis=0)
    for name, count in zip(signal.channels, gaps):
        if count:
            tell(
                f"{count} of {signal.steps} values of {name} are missing: the last one before is "
                "used, and a flag tells the model."
            )
    if signal.times_us is None or signal.steps < 2:
        return signal
    distances = np.diff(signal.times_us)
    inner = np.ones(signal.steps - 1, dtype=np.bool_)
    inner[signal.offsets[1:-1][(signal.offsets[1:-1] > 0)] - 1] = False
    usual, counts = np.unique(distances[inner], return_counts=True)
    if not len(usual):
        return signal
    step_us = int(usual[np.argmax(counts)])
    signal = replace(signal, step_us=step_us)
    uneven = int((usual % step_us != 0) @ counts)
    if uneven:
        tell(
            f"{uneven} of {int(inner.sum())} steps are not a multiple of {duration(step_us)}, the "
            "usual one, in length: the model counts steps, not time."
        )
        return signal
    lacking = int((usual // step_us - 1) @ counts)
    if lacking > MOST_FILLED * signal.steps:
        raise DataError(
            f"{lacking} steps are missing between {signal.steps} rows {duration(step_us)} apart.",
            f"At most {MOST_FILLED} for each row there is are filled in.",
            "Take means over longer steps first, or give --no-timestamp to count rows alone.",
        )
    if lacking:
        tell(f"{lacking} steps were missing and were put in with missing values.")
        signal = _filled(signal, step_us)
    return signal


def _tell_of_outliers(signal: Signal, tell: Remark) -> None:
    for place, name in enumerate(signal.channels):
        known = signal.values[np.isfinite(signal.values[:, place]), place]
        if not len(known):
            continue
        low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
        far = np.abs(known - middle) > FAR * (high - low)
        if high > low and far.any():
            tell(
                f"{int(far.sum())} values of {name} are more than {FAR} times as far from the "
                f"middle as its middle half is wide, such as {known[far][0]:g}: they stretch its "
                "scale. Empty them where they are faults."
            )


def _filled(signal: Signal, step_us: int) -> Signal:
    if signal.times_us is None:
        return signal
    places, offsets = [], [0]
    for begin, end in zip(signal.offsets[:-1], signal.offsets[1:]):
        place = (signal.times_us[begin:end] - signal.times_us[begin : begin + 1].sum()) // step_us
        places.append(offsets[-1] + place)
        offsets.append(offsets[-1] + (int(place[-1]) + 1 if len(place) else 0))
    rows = np.concatenate(places)
    values = np.full((offsets[-1], len(signal.channels)), np.nan)
    values[rows] = signal.values
    cuts = np.array(offsets, dtype=np.int64)
    firsts = signal.times_us[np.minimum(signal.offsets[:-1], signal.steps - 1)]
    within = np.arange(cuts[-1]) - np.repeat(cuts[:-1], np.diff(cuts))
    times_us = np.repeat(firsts, np.diff(cuts)) + within * step_us
    return replace(signal, values=values, offsets=cuts, times_us=times_us)


def duration(step_us: int) -> str:
    """Return a length of time in its largest whole unit.

    >>> duration(5_400_000_000), duration(86_400_000_000)
    ('90 min', '1 d')
    """
    units: Sequence[tuple[int, str]] = (
        (86_400_000_000, "d"),
        (3_600_000_000, "h"),
        (60_000_000, "min"),
        (1_000_000, "s"),
    )
    for size, unit in units:
        if step_us >= size and step_us % size == 0:
            return f"{step_us // size} {unit}"
    return f"{step_us / 1e6:g} s"
