"""Counts of what followed each recent history: the table under the back-off n-gram.

A context of order k is the last k activities of the case so far. Where `knows_start`, a case with
fewer has one more context: all its activities, and that there were none before. A context is a
number: order by order, (number of the context one shorter, the activity before it) is sorted and
numbered, so nothing collides and nothing is a string.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema.log import EventLog

BEFORE, UNSEEN, FIRST_SYMBOL = 0, 1, 2
MOST_ORDERS = 10
MOST_ENTRIES = 10_000_000

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Histories:
    """The activities of a log as symbols [N], and each event's place in its case [N]."""

    symbols: Ints
    places: Ints

    @classmethod
    def of(cls, log: EventLog, activities: Sequence[str]) -> Histories:
        """Number the activities of a log; one that is not listed is UNSEEN."""
        number = {name: FIRST_SYMBOL + i for i, name in enumerate(activities)}
        table = [number.get(label, UNSEEN) for label in log.activities.labels]
        symbols = np.array([*table, UNSEEN], dtype=np.int32)[log.activities.codes]
        return cls(symbols, log.position_of_event().astype(np.int32))

    @classmethod
    def join(cls, parts: Sequence[Histories]) -> Histories:
        """Put several logs behind one another; contexts never reach over a case's first event."""
        symbols = np.concatenate([part.symbols for part in parts])
        return cls(symbols, np.concatenate([part.places for part in parts]))

    def lengthen(
        self, rows: Longs, order: int, knows_start: bool
    ) -> tuple[NDArray[np.bool_], Longs]:
        """Return which of the rows have a longer context at this order, and its new symbol."""
        lag = order - 1
        places = self.places[rows]
        can = places >= (lag - 1 if knows_start else lag)
        new = np.where(places >= lag, self.symbols[np.maximum(rows - lag, 0)], BEFORE)
        return can, new[can].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Level:
    """The contexts of one order, M of them with P (context, class) pairs.

    keys:    parent * symbols + symbol, increasing int64 [M]; a context's number is its place here
    starts:  pairs of context m are starts[m] to starts[m + 1] [M + 1]
    classes: class of each pair [P];  counts: how often it followed [P]
    """

    keys: Longs
    starts: Longs
    classes: Ints
    counts: Longs

    @cached_property
    def totals(self) -> Longs:
        """How often each context was seen [M]."""
        sums: Longs = np.add.reduceat(self.counts, self.starts[:-1])
        return sums

    @cached_property
    def distinct(self) -> Longs:
        """How many classes followed each context [M]."""
        return np.diff(self.starts)

    def favourites(self, preference: Ints) -> Ints:
        """Return each context's most frequent class [M], ties by least `preference` [V]."""
        context = np.repeat(np.arange(len(self.keys)), self.distinct)
        best_first = np.lexsort((preference[self.classes], -self.counts, context))
        return self.classes[best_first[self.starts[:-1]]]


@dataclass(frozen=True, eq=False)
class ContextTable:
    """The contexts of orders 0 to K.

    symbols, classes: sizes of the two alphabets
    knows_start:      whether the start of the case is part of a context

    A context that was seen once is not made longer: the longer one would be the same event again.
    """

    symbols: int
    classes: int
    knows_start: bool
    levels: tuple[Level, ...]

    @property
    def orders(self) -> int:
        """The longest order K."""
        return len(self.levels) - 1

    @classmethod
    def count(
        cls,
        histories: Histories,
        targets: NDArray[Any],
        learnable: NDArray[np.bool_],
        sizes: tuple[int, int],
        knows_start: bool = True,
        most_orders: int = MOST_ORDERS,
        most_entries: int = MOST_ENTRIES,
    ) -> ContextTable:
        """Count classes [N] behind contexts where `learnable` [N]; sizes = (symbols, classes).

        Orders stop early where the table would pass `most_entries` pairs (24 bytes each).
        """
        symbols, classes = sizes
        rows = np.flatnonzero(learnable).astype(np.int64)
        context = np.zeros(len(rows), dtype=np.int64)
        levels: list[Level] = []
        entries = 0
        for order in range(most_orders + 1):
            if order:
                again = levels[-1].totals[context] > 1
                rows, context = rows[again], context[again]
                can, symbol = histories.lengthen(rows, order, knows_start)
                rows, context = rows[can], context[can] * symbols + symbol
            keys, context = np.unique(context, return_inverse=True)
            pairs, counts = np.unique(context * classes + targets[rows], return_counts=True)
            entries += len(pairs)
            if len(rows) == 0 or (order and entries > most_entries):
                break
            starts = np.searchsorted(pairs // classes, np.arange(len(keys) + 1))
            following = (pairs % classes).astype(np.int32)
            levels.append(Level(keys, starts.astype(np.int64), following, counts.astype(np.int64)))
        return cls(symbols, classes, knows_start, tuple(levels))

    def walk(self, histories: Histories, rows: Longs) -> Iterator[tuple[Longs, Longs]]:
        """Yield, order by order, which of the rows have a known context, and its number."""
        place = np.arange(len(rows), dtype=np.int64)
        context = np.zeros(len(rows), dtype=np.int64)
        for order, level in enumerate(self.levels):
            if order:
                can, symbol = histories.lengthen(rows[place], order, self.knows_start)
                keys = context[can] * self.symbols + symbol
                found = np.searchsorted(level.keys, keys)
                found[found == len(level.keys)] = 0
                seen = level.keys[found] == keys
                place, context = place[can][seen], found[seen]
            yield place, context

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the table as arrays by name."""
        arrays: dict[str, NDArray[Any]] = {
            "sizes": np.array([self.symbols, self.classes, self.knows_start], dtype=np.int64)
        }
        for order, level in enumerate(self.levels):
            for part in ("keys", "starts", "classes", "counts"):
                arrays[f"{order}.{part}"] = getattr(level, part)
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> ContextTable:
        """Read what `to_arrays` wrote."""
        symbols, classes, knows_start = (int(size) for size in arrays["sizes"])
        levels: list[Level] = []
        while f"{len(levels)}.keys" in arrays:
            order = len(levels)
            parts = (arrays[f"{order}.{p}"] for p in ("keys", "starts", "classes", "counts"))
            levels.append(Level(*parts))
        return cls(symbols, classes, bool(knows_start), tuple(levels))
