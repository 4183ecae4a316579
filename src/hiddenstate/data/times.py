"""Timestamps of any usual form to UTC microseconds; what is ambiguous is asked, not guessed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from hiddenstate.errors import DataError, UsageError
from hiddenstate.schema.clock import DAY_US, EPOCH
from hiddenstate.schema.log import Int64

UNREADABLE = int(np.iinfo(np.int64).min)
SAMPLE = 1000
# The years 1 to 9999, which is what dates are in Python; anything else is unreadable.
FIRST_US, LAST_US = (
    (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    for moment in (datetime.min, datetime.max)
)

_CLOCKS = ("", " %H:%M:%S%.f", " %H:%M", " %I:%M:%S %p", " %I:%M %p")
_ISO = (
    *("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"),
    *("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f %#z"),
    *("%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M", "%Y-%m-%d"),
    *(f"%Y/%m/%d{clock}" for clock in _CLOCKS),
    "%Y%m%dT%H%M%S%.f",
)
_ORDERS = {
    order: tuple(f"{first}{mark}{second}{mark}%Y{clock}" for mark in "/.-" for clock in _CLOCKS)
    for order, first, second in (("day first", "%d", "%m"), ("month first", "%m", "%d"))
}
_DAY_OR_MONTH = r"^\s*(\d{1,2})[/.-](\d{1,2})[/.-]\d{4}"
# Microseconds of one tick, by the greatest plausible number of ticks (year 5138 in each case).
_TICKS = (
    (1e11, 1_000_000.0, "seconds"),
    (1e14, 1_000.0, "milliseconds"),
    (1e17, 1.0, "microseconds"),
    (np.inf, 0.001, "nanoseconds"),
)
_UNITS = {"us": 1, "ms": 1000}


class Times:
    """Parses one time column, block after block; the form is learnt from the first block.

    Offsets are converted to UTC and times without one are taken as UTC. `given` is a format in
    strftime's codes (%.f for a fraction) and switches all guessing off.
    """

    def __init__(self, column: str, given: str | None = None) -> None:
        self.column = column
        self._given = given
        self._order: str | None = None
        self._tick: tuple[float, str] | None = None
        self._used: list[str] = []

    @property
    def description(self) -> str:
        """The forms met so far, most recent first."""
        if self._tick is not None:
            return f"{self._tick[1]} since 1970"
        return ", ".join(self._used) or "native"

    def parse(self, series: pl.Series) -> tuple[Int64, Int64]:
        """Return UTC microseconds [n], UNREADABLE where there is none, and which were missing.

        Raises UsageError where the given format is no format, DataError for a column of a type
        that is no time.
        """
        if isinstance(series.dtype, pl.Categorical | pl.Enum):
            series = series.cast(pl.String)
        if series.dtype == pl.String:
            text = series.str.strip_chars()
            text = text.set(text == "", None)
            missing = text.is_null()
            micros = self._parse_text(text)
        else:
            missing = series.is_null()
            micros = self._parse_native(series)
        micros = micros.set(~micros.is_between(FIRST_US, LAST_US).fill_null(True), None)
        return micros.fill_null(UNREADABLE).to_numpy(), np.flatnonzero(missing.to_numpy())

    def is_undecided(self, series: pl.Series) -> bool:
        """Return whether days and months must be told apart before this block is parsed."""
        if self._given or self._order or series.dtype != pl.String:
            return False
        return bool(series.drop_nulls().head(SAMPLE).str.contains(_DAY_OR_MONTH).any())

    def decide(self, column: Iterable[pl.Series]) -> None:
        """Settle the order of day and month over the whole column.

        Raises DataError where no date decides it, or dates contradict each other.
        """
        day = month = False
        example = ""
        for series in column:
            parts = series.drop_nulls().str.extract_groups(_DAY_OR_MONTH).struct.unnest()
            first, second = (parts[name].cast(pl.Int32) for name in ("1", "2"))
            day |= bool((first > 12).any())
            month |= bool((second > 12).any())
            example = example or str(series.drop_nulls().head(1).item())
        if day == month:
            both = "of both orders" if day else "that fit both orders"
            raise DataError(
                f"The column {self.column!r} has dates {both}, such as {example!r}.",
                "It must be certain whether the day or the month comes first.",
                "Say it with --time-format, for example '%d/%m/%Y %H:%M' for day first.",
            )
        self._order = "day first" if day else "month first"

    def _parse_native(self, series: pl.Series) -> pl.Series:
        kind = series.dtype
        if kind == pl.Date:
            return _times(series.cast(pl.Int64), DAY_US)
        if isinstance(kind, pl.Datetime):
            whole = series.cast(pl.Int64)
            return (
                whole // 1000 if kind.time_unit == "ns" else _times(whole, _UNITS[kind.time_unit])
            )
        if not (kind.is_numeric() or kind == pl.Null):
            raise DataError(
                f"The time column {self.column!r} is of the type {kind}.",
                "Dates, dates with times, text, or ticks since 1970 were expected.",
                "Name another column with --timestamp.",
            )
        return self._parse_ticks(series.cast(pl.Float64, strict=False), series)

    def _parse_text(self, text: pl.Series) -> pl.Series:
        if self._given:
            return self._parse_format(text, self._given)
        numbers = text.cast(pl.Float64, strict=False)
        whole_dates = text.str.contains(r"^(19|20)\d{6}(\d{6})?$")
        filled = max(len(text) - text.null_count(), 1)
        if self._tick or (numbers.count() > filled / 2 and whole_dates.sum() <= filled / 2):
            return self._parse_ticks(numbers, text)
        result = pl.Series(text.name, [None], pl.Int64).new_from_index(0, len(text))
        text = text.str.strip_suffix(" UTC")
        for form in self._candidates():
            open_rows = (result.is_null() & text.is_not_null()).arg_true()
            if not len(open_rows):
                break
            parsed = self._parse_format(text.gather(open_rows), form)
            if parsed.count():
                result = result.scatter(open_rows, parsed)
                if form not in self._used:
                    self._used.insert(0, form)
        return result

    def _candidates(self) -> tuple[str, ...]:
        ordered = _ORDERS[self._order] if self._order else ()
        return tuple(dict.fromkeys((*self._used, *_ISO, *ordered, "%Y%m%d", "%Y%m%d%H%M%S")))

    def _parse_format(self, text: pl.Series, form: str) -> pl.Series:
        try:
            if any(code in form for code in ("%H", "%I", "%T", "%R", "%s", "%c")):
                parsed = text.str.to_datetime(form, time_unit="us", strict=False, exact=True)
            else:
                parsed = text.str.to_date(form, strict=False, exact=True).cast(pl.Datetime("us"))
        except pl.exceptions.PolarsError as error:
            raise UsageError(
                f"The time format {form!r} cannot be used: {str(error).splitlines()[0]}.",
                "strftime's codes were expected, such as %Y-%m-%d %H:%M:%S%.f.",
                "Correct --time-format.",
            ) from None
        return parsed.dt.epoch("us")

    def _parse_ticks(self, numbers: pl.Series, raw: pl.Series) -> pl.Series:
        if self._tick is None:
            size = numbers.abs().median()
            size = float(size) if isinstance(size, int | float) else 0.0
            self._tick = next((tick, name) for most, tick, name in _TICKS if size < most)
        tick = self._tick[0]
        numbers = numbers.set(~numbers.is_finite().fill_null(True), None)
        rounded = (numbers * tick).round().cast(pl.Int64, strict=False)
        if tick < 1 or raw.dtype.is_float():
            return rounded
        # Whole ticks go through integers: float64 has no room for all microseconds.
        whole = raw.cast(pl.Int64, strict=False)
        return _times(whole, int(tick)).zip_with(whole.is_not_null(), rounded)


def shown(series: pl.Series) -> list[object]:
    """Return times as values to show; those outside Python's years as whole numbers."""
    return (series.cast(pl.Int64) if series.dtype.is_temporal() else series).to_list()


def _times(whole: pl.Series, factor: int) -> pl.Series:
    """Return whole numbers [n] times a factor, null where that is no time: int64 would wrap."""
    fits = whole.is_between(FIRST_US // factor, LAST_US // factor)
    return whole.set(~fits.fill_null(True), None) * factor


def looks_like_times(series: pl.Series) -> bool:
    """Return whether a column that is not the time column holds times too."""
    if series.dtype != pl.String:
        return bool(series.dtype.is_temporal())
    sample = series.drop_nulls().str.strip_chars().head(SAMPLE)
    sample = sample.filter(sample != "")
    if not len(sample) or not sample.str.contains(r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}").all():
        return False
    found = sum(
        Times(series.name, form).parse(sample)[0] != UNREADABLE
        for form in (*_ISO, *_ORDERS["day first"], *_ORDERS["month first"])
    )
    return bool(np.all(np.asarray(found) > 0))
