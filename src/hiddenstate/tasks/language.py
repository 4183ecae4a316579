"""Language modelling: at every step, the next symbol; scored beside counts of what came before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema import UNKNOWN
from hiddenstate.schema.documents import TextCodes
from hiddenstate.schema.symbols import Unit
from hiddenstate.tasks.contexts import FIRST_SYMBOL, UNSEEN, ContextTable, Histories
from hiddenstate.tasks.judged import LEAST_LOG_PROBABILITY, JudgedSymbols
from hiddenstate.tasks.task import UNKNOWN_CLASS

NAME = "lm"
# Symbols before the one that is predicted, at most: a 5-gram has four.
LONGEST_CONTEXT: dict[Unit, int] = {"characters": 4, "bytes": 4, "words": 2, "bpe": 2}
# The counts of more symbols would need gigabytes; the last ones are the nearest to what comes.
MOST_COUNTED = 20_000_000
# A bootstrap draws documents, or blocks of a text where there are fewer documents than this.
FEWEST_DOCUMENTS = 20
BLOCK_SYMBOLS = 1000

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]


class SymbolJudge:
    """Collects a model's predictions of the next symbols, a stretch of steps at a time."""

    def __init__(self, text: TextCodes) -> None:
        """Prepare for the N steps of some documents."""
        self.target = targets_of(text)
        self._predicted = np.full(text.steps, UNKNOWN_CLASS, dtype=np.int32)
        self._log_probability = np.full(text.steps, np.nan, dtype=np.float32)
        self._case, self._length = blocks_of(text), (text.places + 1).astype(np.int32)

    def add(self, steps: Longs | slice, log_probabilities: NDArray[Any]) -> None:
        """Judge steps [n] by log probabilities [n, V] in nats, a class for each code."""
        truth = self.target[steps]
        each = np.maximum(truth, 0)
        found = np.take_along_axis(log_probabilities, each[:, None], axis=1)[:, 0]
        self._predicted[steps] = log_probabilities.argmax(axis=1)
        self._log_probability[steps] = _bounded(found, truth)

    def result(self) -> JudgedSymbols:
        """Return what was judged."""
        return JudgedSymbols(
            self._case, self._length, self.target, self._predicted, self._log_probability
        )


@dataclass(frozen=True, eq=False)
class LanguageFloors:
    """The most frequent symbol, and a back-off n-gram interpolated over all its orders.

    Probabilities are those of `NGram` (Witten and Bell 1991), of the truth alone, so that large
    vocabularies cost no more than small ones; the class that counts for accuracy is the most
    frequent one behind the longest context seen.

    context: symbols before the predicted one, chosen by loss on validation; an n-gram has n - 1
    """

    table: ContextTable
    context: int

    names = ("most_frequent", "ngram")
    compared = ("ngram",)

    @property
    def description(self) -> str:
        """What was counted and chosen, in words."""
        return (
            f"{self.context + 1}-gram of symbols, its length chosen on the validation part "
            f"(at most {self.table.orders + 1}), interpolated by Witten and Bell"
        )

    @classmethod
    def fit(
        cls,
        training: TextCodes,
        validation: TextCodes | None,
        both: TextCodes,
        unit: Unit,
        size: int,
    ) -> Self:
        """Choose the context on validation by counts of training, then count both.

        size: number of codes V. Without validation the longest context is taken.
        """
        longest = LONGEST_CONTEXT[unit]
        if validation is not None and validation.steps:
            trial = _count(training, size, longest)
            losses = [
                -np.nanmean(_bounded(np.log(p), targets_of(validation)))
                for p, _ in _walk(trial, validation)
            ]
            longest = int(np.argmin(losses))
        table = _count(both, size, longest)
        return cls(table, table.orders)

    def judge(self, text: TextCodes) -> dict[str, JudgedSymbols]:
        """Return each floor's judged predictions of some documents."""
        target, case = targets_of(text), blocks_of(text)
        length = (text.places + 1).astype(np.int32)
        judged = [
            JudgedSymbols(case, length, target, best.copy(), _bounded(np.log(p), target))
            for p, best in _walk(self.table, text)
        ]
        return {"most_frequent": judged[0], "ngram": judged[self.context]}

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""
        return {"kind": NAME, "context": self.context}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts by name."""
        return self.table.to_arrays()

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Read what `to_json` and `to_arrays` wrote."""
        return cls(ContextTable.from_arrays(arrays), int(value["context"]))


def targets_of(text: TextCodes) -> Ints:
    """Return the symbol that each step predicts [N]; UNKNOWN_CLASS where it is unknown."""
    codes = text.codes[text.rows + 1]
    return np.where(codes == UNKNOWN, np.int32(UNKNOWN_CLASS), codes)


def draws_documents(text: TextCodes) -> bool:
    """Whether a bootstrap draws documents, or else blocks of them."""
    return len(text.lengths) >= FEWEST_DOCUMENTS


def blocks_of(text: TextCodes) -> Ints:
    """Return the block of each step [N] that a bootstrap draws as one.

    Documents, where there are many; else stretches of about BLOCK_SYMBOLS steps, FEWEST_DOCUMENTS
    of them at least. Neighbouring symbols hang together, so they are drawn together.
    """
    if draws_documents(text):
        return text.documents.astype(np.int32)
    count = max(text.steps // BLOCK_SYMBOLS, min(FEWEST_DOCUMENTS, text.steps))
    return (np.arange(text.steps) * count // max(text.steps, 1)).astype(np.int32)


def _histories(text: TextCodes) -> Histories:
    codes = text.codes[text.rows]
    symbols = np.where(codes == UNKNOWN, UNSEEN, codes + (FIRST_SYMBOL - 1))
    return Histories(symbols.astype(np.int32), text.places.astype(np.int32))


def _count(text: TextCodes, size: int, longest: int) -> ContextTable:
    target = targets_of(text)
    learnable = target != UNKNOWN_CLASS
    learnable[: max(text.steps - MOST_COUNTED, 0)] = False
    # The BOUNDARY is a symbol of its own, so contexts know the start of a document by it.
    return ContextTable.count(
        _histories(text),
        target,
        learnable,
        (size + FIRST_SYMBOL - 1, size),
        knows_start=False,
        most_orders=longest,
    )


def _walk(table: ContextTable, text: TextCodes) -> Any:
    """Yield for contexts of 0, 1, ... symbols the truth's probability [N] and the best class [N].

    Both arrays are changed in place by the next step.
    """
    target = np.maximum(targets_of(text), 0)
    p = np.full(text.steps, 1 / table.classes)
    best = np.zeros(text.steps, dtype=np.int32)
    preference = _preference(table)
    rows = np.arange(text.steps, dtype=np.int64)
    for level, (place, context) in zip(table.levels, table.walk(_histories(text), rows)):
        pairs = np.repeat(np.arange(len(level.keys)), level.distinct) * table.classes
        pairs += level.classes
        wanted = context * table.classes + target[place]
        found = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
        counted = np.where(pairs[found] == wanted, level.counts[found], 0)
        distinct = level.distinct[context]
        p[place] = (counted + distinct * p[place]) / (level.totals[context] + distinct)
        best[place] = level.favourites(preference)[context]
        yield p, best


def _preference(table: ContextTable) -> Ints:
    """Return each class's place by how often it occurs [V]."""
    overall = np.zeros(table.classes, dtype=np.int64)
    overall[table.levels[0].classes] = table.levels[0].counts
    preference = np.empty(table.classes, dtype=np.int32)
    preference[np.argsort(-overall, kind="stable")] = np.arange(table.classes)
    return preference


def _bounded(log_probability: NDArray[Any], target: Ints) -> NDArray[np.float32]:
    """Return log probabilities of the truth [N], NaN where it is unknown."""
    kept = np.maximum(log_probability, LEAST_LOG_PROBABILITY)
    return np.where(target == UNKNOWN_CLASS, np.nan, kept).astype(np.float32)
