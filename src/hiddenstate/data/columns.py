"""Attribute columns while they are read: labels and numbers side by side until the end decides."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from hiddenstate.data.report import Faults
from hiddenstate.schema.log import Floats, Int32, Int64

# A column of text with more labels than this is no category, whatever its length.
MOST_LABELS = 50_000
# Columns are only suspected of being free text or a name of the case above this many labels.
FEW_LABELS = 100
# Share of values that may fail to be numbers in a numeric column.
UNPARSED_SHARE = 0.01
MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")
# Numbers under such a name are labels: their order and distance mean nothing.
_IDENTIFIER = re.compile(
    r"(^|[^a-z])(id|ids|code|user|resource|agent|group|org|zip|fold|type|category)([^a-z]|$)"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def encode_labels(series: pl.Series, known: dict[str, int]) -> Int32:
    """Return codes [n] of a text column, -1 for null; `known` grows by the new labels."""
    fresh = series.drop_nulls().unique(maintain_order=True)
    if not len(fresh):
        return np.full(len(series), -1, dtype=np.int32)
    codes = [known.setdefault(label, len(known)) for label in fresh.to_list()]
    found = series.replace_strict(fresh, codes, default=-1, return_dtype=pl.Int32)
    return np.asarray(found.fill_null(-1).to_numpy(), dtype=np.int32)


class Column:
    """What is known so far of one attribute; after the last block, `kind` says what it is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.labels: dict[str, int] | None = {}
        self.has_numbers = True
        self.filled = 0
        self._unparsed = 0
        self._unparsed_rows: list[int] = []
        self._infinite: list[int] = []
        self._infinites = 0

    def add(self, series: pl.Series, rows: Int64) -> dict[tuple[str, str], Int32 | Floats]:
        """Return the block's codes and numbers, under the keys ('codes', name), ('numbers', name).

        What the column can no longer become is left out.
        """
        text = self._text(series)
        self.filled += text.count()
        found: dict[tuple[str, str], Int32 | Floats] = {}
        if self.labels is not None:
            found["codes", self.name] = encode_labels(text, self.labels)
            if len(self.labels) > MOST_LABELS:
                self.labels = None
                del found["codes", self.name]
        if self.has_numbers:
            found["numbers", self.name] = self._numbers(text, rows)
            if self._unparsed > max(FEW_LABELS, self.filled / 2):
                self.has_numbers = False
        return found

    def kind(self, cases: int, events: int, forced: str | None) -> tuple[str, str]:
        """Return 'categorical' or 'numeric' and '', or 'dropped' and the reason.

        forced: the kind that the caller asked for.
        """
        labels = len(self.labels) if self.labels is not None else None
        if not self.filled and forced is None:
            return "dropped", "it is empty"
        if labels == 1 and self.filled == events and forced is None:
            return "dropped", "it has the same value everywhere"
        numeric = self.has_numbers and self._unparsed <= UNPARSED_SHARE * self.filled
        few = labels is not None and labels <= 2
        if forced == "numeric" and self.has_numbers:
            return "numeric", ""
        named = _IDENTIFIER.search(_CAMEL.sub("_", self.name).lower())
        if numeric and forced is None and not few and not named:
            return "numeric", ""
        if labels is None:
            return "dropped", f"it has more than {MOST_LABELS:,} labels"
        if forced is None and labels > FEW_LABELS and labels > 0.5 * self.filled:
            return "dropped", f"it has {labels:,} labels in {self.filled:,} values: free text"
        if forced is None and labels > FEW_LABELS and labels > 0.5 * cases:
            return "dropped", f"it has {labels:,} labels in {cases:,} cases: it names the case"
        return "categorical", ""

    def report(self, faults: Faults) -> None:
        """Count the values that a numeric column lost."""
        self._note(faults, "bad_number", self._unparsed, self._unparsed_rows)
        self._note(faults, "infinite", self._infinites, self._infinite)

    def _note(self, faults: Faults, code: str, count: int, rows: list[int]) -> None:
        if count:
            padded = np.concatenate((rows, np.full(count - len(rows), rows[-1]))).astype(np.int64)
            faults.note(code, padded, [self.name])

    def _text(self, series: pl.Series) -> pl.Series:
        if series.dtype.is_float() and _is_whole(series):
            series = series.fill_nan(None).cast(pl.Int64)
        text = series.cast(pl.String).str.strip_chars()
        return text.set(text.is_in(MISSING_WORDS).fill_null(False), None)

    def _numbers(self, text: pl.Series, rows: Int64) -> Floats:
        parsed = text.cast(pl.Float64, strict=False)
        failed = (parsed.is_null() & text.is_not_null()).to_numpy()
        numbers = parsed.fill_null(np.nan).to_numpy().copy()
        infinite = np.isinf(numbers)
        numbers[infinite] = np.nan
        self._unparsed += int(failed.sum())
        self._infinites += int(infinite.sum())
        self._unparsed_rows = (self._unparsed_rows + rows[failed][:5].tolist())[:5]
        self._infinite = (self._infinite + rows[infinite][:5].tolist())[:5]
        return numbers


def _is_whole(series: pl.Series) -> bool:
    # pandas and others store whole numbers with gaps as floats; their labels are whole.
    values = series.drop_nulls().drop_nans().to_numpy()
    return bool(np.all((values == np.floor(values)) & (np.abs(values) < 2.0**53)))
