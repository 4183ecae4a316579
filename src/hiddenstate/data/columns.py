"""Attribute columns while they are read: labels and numbers side by side until the end decides."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from hiddenstate.data.report import Faults
from hiddenstate.data.texts import texts
from hiddenstate.schema.log import Floats, Int32, Int64

# A column of text with more labels than this is no category, whatever its length; of one that is
# asked for, labels first met beyond this many are taken as missing.
MOST_LABELS = 50_000
# Columns are only suspected of being free text or a name of the case above this many labels.
FEW_LABELS = 100
# Share of values that may fail to be numbers in a numeric column.
UNPARSED_SHARE = 0.01
# Numbers under such a name are labels: their order and distance mean nothing.
_IDENTIFIER = re.compile(
    r"(^|[^a-z])(id|ids|code|user|resource|agent|group|org|zip|fold|type|category)([^a-z]|$)"
)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def encode_labels(series: pl.Series, known: dict[str, int], most: int | None = None) -> Int32:
    """Return codes [n] of a text column, -1 for null; `known` grows by the new labels.

    most: labels that `known` may hold; further ones are -1 too
    """
    fresh = series.drop_nulls().unique(maintain_order=True)
    if not len(fresh):
        return np.full(len(series), -1, dtype=np.int32)
    codes = []
    for label in fresh.to_list():
        full = most is not None and len(known) >= most
        codes.append(known.get(label, -1) if full else known.setdefault(label, len(known)))
    found = series.replace_strict(fresh, codes, default=-1, return_dtype=pl.Int32)
    return np.asarray(found.fill_null(-1).to_numpy(), dtype=np.int32)


class Column:
    """What is known so far of one attribute; after the last block, `kind` says what it is."""

    def __init__(self, name: str, forced: str | None = None, expected: Sequence[str] = ()) -> None:
        """Begin a column.

        forced: the kind that the caller asked for; expected: labels that are never too many
        """
        self.name = name
        self.forced = forced
        self.labels: dict[str, int] | None = {label: i for i, label in enumerate(expected)}
        self._most = MOST_LABELS + len(self.labels) if forced == "categorical" else None
        self.has_numbers = True
        self.filled = 0
        self._unparsed = 0
        self._unparsed_rows: list[int] = []
        self._infinite: list[int] = []
        self._infinites = 0
        self._beyond = 0
        self._beyond_rows: list[int] = []

    def add(self, series: pl.Series, rows: Int64) -> dict[tuple[str, str], Int32 | Floats]:
        """Return the block's codes and numbers, under the keys ('codes', name), ('numbers', name).

        What the column can no longer become is left out.
        """
        found: dict[tuple[str, str], Int32 | Floats] = {}
        text = series.fill_nan(None) if self._is_measure(series) else texts(series)
        self.filled += text.count()
        if self.labels is not None:
            codes = encode_labels(text, self.labels, self._most)
            found["codes", self.name] = codes
            beyond = (codes < 0) & text.is_not_null().to_numpy()
            self._beyond += int(beyond.sum())
            self._beyond_rows = (self._beyond_rows + rows[beyond][:5].tolist())[:5]
            if self._most is None and len(self.labels) > MOST_LABELS:
                self.labels = None
                del found["codes", self.name]
        if self.has_numbers:
            found["numbers", self.name] = self._numbers(series, text, rows)
            if self._unparsed > max(FEW_LABELS, self.filled / 2):
                self.has_numbers = False
        return found

    def _is_measure(self, series: pl.Series) -> bool:
        # Numbers with too many values for labels need no text, which is slow to write.
        return self.labels is None and series.dtype == pl.Float64

    def kind(self, cases: int, events: int) -> tuple[str, str]:
        """Return 'categorical' or 'numeric' and '', or 'dropped' and the reason."""
        forced = self.forced
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

    def report(self, kind: str, faults: Faults) -> None:
        """Count the values that a column of this kind lost."""
        if kind == "categorical":
            self._note(faults, "many_labels", self._beyond, self._beyond_rows)
            return
        self._note(faults, "bad_number", self._unparsed, self._unparsed_rows)
        self._note(faults, "infinite", self._infinites, self._infinite)

    def _note(self, faults: Faults, code: str, count: int, rows: list[int]) -> None:
        if count:
            padded = np.concatenate((rows, np.full(count - len(rows), rows[-1]))).astype(np.int64)
            faults.note(code, padded, [self.name])

    def _numbers(self, series: pl.Series, text: pl.Series, rows: Int64) -> Floats:
        typed = series.dtype == pl.Float64
        parsed = series if typed else text.cast(pl.Float64, strict=False)
        failed = (parsed.is_null() & text.is_not_null()).to_numpy()
        numbers = parsed.fill_null(np.nan).to_numpy().copy()
        infinite = np.isinf(numbers)
        numbers[infinite] = np.nan
        self._unparsed += int(failed.sum())
        self._infinites += int(infinite.sum())
        self._unparsed_rows = (self._unparsed_rows + rows[failed][:5].tolist())[:5]
        self._infinite = (self._infinite + rows[infinite][:5].tolist())[:5]
        return numbers
