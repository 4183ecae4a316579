"""Columns of any type as text: `schema.raw.label`, for many values at once."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from hiddenstate.errors import DataError
from hiddenstate.schema.raw import MISSING_WORDS, WHOLE, label


def texts(series: pl.Series, missing: Sequence[str] = MISSING_WORDS) -> pl.Series:
    """Return what `label` returns for every value of a column [N].

    Raises DataError naming a column of a type that has no text.
    """
    kind = series.dtype
    if kind.is_float():
        # Python and polars write large and small numbers differently: 1e+16 and 1e16.
        short = series if kind == pl.Float64 else series.cast(pl.String).cast(pl.Float64)
        fresh = short.unique()
        words = [label(value) for value in fresh.to_list()]
        return short.replace_strict(fresh, words, return_dtype=pl.String)
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        raise DataError(
            f"The column {series.name!r} holds values of the type {kind}.",
            "Text, numbers, booleans or times were expected.",
            "Turn the values into text or numbers first, or leave the column out.",
        )
    text = series.cast(pl.String)
    if kind.is_integer() or kind == pl.Boolean:
        return text
    text = text.str.strip_chars()
    text = text.set(text.is_in(missing).fill_null(False), None).str.replace(WHOLE, "$1")
    return text.set((text == "-0").fill_null(False), "0")
