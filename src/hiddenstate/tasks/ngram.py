"""The back-off n-gram: the strongest predictor without a hidden state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.contexts import FIRST_SYMBOL, MOST_ORDERS, ContextTable, Histories
from hiddenstate.tasks.task import Targets

CHUNK_FLOATS = 1 << 22

Floats = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class NGram:
    """Two predictors of every order from one table of counts.

    The class that counts for accuracy is the most frequent one behind the longest context that was
    seen (ties: the more frequent overall). Probabilities are interpolated over all orders,

        p_k(c) = (count_k(c) + distinct_k * p_{k-1}(c)) / (total_k + distinct_k),

    from uniform below order 0 (Witten and Bell, IEEE Trans. Information Theory 37(4), 1991, method
    C); a context that was not seen takes p_{k-1}. They are positive and sum to 1.
    """

    activities: tuple[str, ...]
    table: ContextTable

    @classmethod
    def fit(
        cls,
        activities: Sequence[str],
        classes: int,
        parts: Sequence[tuple[Histories, Targets]],
        most_orders: int = MOST_ORDERS,
        knows_start: bool = True,
    ) -> NGram:
        """Count the learnable steps of one or more logs."""
        histories = Histories.join([history for history, _ in parts])
        values = np.concatenate([targets.values for _, targets in parts])
        learnable = np.concatenate([targets.learnable for _, targets in parts])
        sizes = (FIRST_SYMBOL + len(activities), classes)
        table = ContextTable.count(histories, values, learnable, sizes, knows_start, most_orders)
        return cls(tuple(activities), table)

    @property
    def orders(self) -> int:
        """The longest order counted."""
        return self.table.orders

    @cached_property
    def _favourites(self) -> tuple[Ints, ...]:
        root = self.table.levels[0]
        overall = np.zeros(self.table.classes, dtype=np.int64)
        overall[root.classes] = root.counts
        preference = np.empty(self.table.classes, dtype=np.int32)
        preference[np.argsort(-overall, kind="stable")] = np.arange(self.table.classes)
        return tuple(level.favourites(preference) for level in self.table.levels)

    def chunks(self, events: int) -> Iterator[Longs]:
        """Yield rows 0 to `events` in pieces whose probabilities fit into 32 MiB."""
        size = max(1, CHUNK_FLOATS // self.table.classes)
        for start in range(0, events, size):
            yield np.arange(start, min(start + size, events), dtype=np.int64)

    def predictions(self, histories: Histories, rows: Longs) -> Iterator[tuple[Ints, Floats]]:
        """Yield for orders 0, 1, ... the predicted class [n] and the probabilities [n, V].

        Both arrays are changed in place by the next step.
        """
        predicted = np.zeros(len(rows), dtype=np.int32)
        p = np.full((len(rows), self.table.classes), 1 / self.table.classes)
        for order, (place, context) in enumerate(self.table.walk(histories, rows)):
            level = self.table.levels[order]
            predicted[place] = self._favourites[order][context]
            distinct = level.distinct[context]
            weight = 1 / (level.totals[context] + distinct)
            p[place] *= (distinct * weight)[:, None]
            repeat = np.repeat(np.arange(len(place)), distinct)
            within = np.arange(len(repeat)) - np.repeat(np.cumsum(distinct) - distinct, distinct)
            pair = level.starts[context][repeat] + within
            p[place[repeat], level.classes[pair]] += level.counts[pair] * weight[repeat]
            yield predicted, p

    def by_order(self, histories: Histories, targets: Targets) -> tuple[Floats, Floats]:
        """Return accuracy and log loss in nats of each order [K + 1] on a log."""
        right = np.zeros(self.orders + 1)
        nats = np.zeros(self.orders + 1)
        for rows in self.chunks(len(targets.mask)):
            kept = rows[targets.mask[rows]]
            truth: NDArray[Any] = targets.values[kept]
            known = targets.learnable[kept]
            for order, (predicted, p) in enumerate(self.predictions(histories, kept)):
                right[order] += (predicted == truth).sum()
                nats[order] -= np.log(p[known, truth[known]]).sum()
        scored, known_steps = int(targets.mask.sum()), int(targets.learnable.sum())
        return right / max(scored, 1), nats / max(known_steps, 1)
