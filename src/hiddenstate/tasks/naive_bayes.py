"""Words and pairs of words, each counted for itself: what text has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.labels import Floats, Given, Ints, Longs, log_softmax

MOST_WORDS = 100_000


@dataclass(frozen=True, eq=False)
class NaiveBayes:
    """Multinomial naive Bayes over the n-grams of a sequence's pieces, n = 1 or 1 and 2.

    log p(c | s) = log p(c) + sum over its n-grams g of log (n_gc + alpha) / (n_c + alpha M), with M
    n-grams known from training; others are left out. (Manning, Raghavan and Schuetze, Introduction
    to Information Retrieval, 2008, equation 13.7.)

    words:   the known pieces; a number beyond them stands for the start of the sequence
    keys:    the n-grams as numbers, increasing [M]
    starts:  (n-gram, class) pairs of n-gram m are starts[m] to starts[m + 1] [M + 1]
    classes: class of each pair [P];  counts: how often it was seen there [P]
    cases:   training sequences of each class [V]
    """

    words: tuple[str, ...]
    keys: Longs
    starts: Longs
    classes: Ints
    counts: Longs
    cases: Longs
    orders: int
    alpha: float
    temperature: float = 1.0

    @classmethod
    def fit(
        cls, given: Given, target: NDArray[Any], classes: int, orders: int, alpha: float
    ) -> NaiveBayes:
        """Count the sequences of known class, target [C]."""
        if given.pieces is None:
            raise AssertionError("naive Bayes counts pieces")
        words, counts = np.unique(given.pieces.astype(str), return_counts=True)
        kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_WORDS])
        empty = np.zeros(0, dtype=np.int64)
        bare = cls(
            tuple(words[kept].tolist()),
            *(empty, empty, empty.astype(np.int32), empty),
            np.bincount(target[target >= 0], minlength=classes),
            orders,
            alpha,
        )
        case, key = bare.ngrams(given)
        known = target[case] >= 0
        keys, place = np.unique(key[known], return_inverse=True)
        pairs, seen = np.unique(place * classes + target[case][known], return_counts=True)
        return replace(
            bare,
            keys=keys,
            starts=np.searchsorted(pairs // classes, np.arange(len(keys) + 1)),
            classes=(pairs % classes).astype(np.int32),
            counts=seen,
        )

    def ngrams(self, given: Given) -> tuple[Longs, Longs]:
        """Return the sequence and the number of every n-gram of known pieces, both [n]."""
        if given.pieces is None:
            raise AssertionError("naive Bayes counts pieces")
        ids = np.array([self._ids.get(piece, -1) for piece in given.pieces], dtype=np.int64)
        case, first = given.case_of_step, given.place_of_step == 0
        known = ids >= 0
        if self.orders == 1:
            return case[known], ids[known]
        before = np.where(first, len(self.words), np.concatenate(([-1], ids[:-1]))[: len(ids)])
        paired = known & (before >= 0)
        pairs = (before + 1) * (len(self.words) + 1) + ids
        return (
            np.concatenate((case[known], case[paired])),
            np.concatenate((ids[known], pairs[paired])),
        )

    def scores(self, given: Given) -> Floats:
        """Return log p(c, s) [C, V], up to what is the same for all classes."""
        classes = len(self.cases)
        totals = np.bincount(self.classes, self.counts, classes)
        base = np.log(self.alpha) - np.log(totals + self.alpha * max(len(self.keys), 1))
        case, key = self.ngrams(given)
        place = np.minimum(np.searchsorted(self.keys, key), max(len(self.keys) - 1, 0))
        seen = self.keys[place] == key if len(self.keys) else np.zeros(len(key), dtype=np.bool_)
        case, place = case[seen], place[seen]
        found = np.bincount(case, minlength=given.cases)[:, None] * base
        width = np.diff(self.starts)[place]
        within = np.arange(width.sum()) - np.repeat(np.cumsum(width) - width, width)
        pair = np.repeat(self.starts[:-1][place], width) + within
        gain = np.log1p(self.counts[pair] / self.alpha)
        cell = np.repeat(case, width) * classes + self.classes[pair]
        found += np.bincount(cell, gain, given.cases * classes).reshape(-1, classes)
        # A class that training lacks has no prior: it is possible, and least of all.
        scores: Floats = found + np.log(self.cases + 0.5)
        return scores

    def refit(self, given: Given, target: NDArray[Any]) -> NaiveBayes:
        """Count other sequences with the same settings."""
        fitted = self.fit(given, target, len(self.cases), self.orders, self.alpha)
        return replace(fitted, temperature=self.temperature)

    def log_probabilities(self, given: Given) -> tuple[Floats, Ints]:
        """Return log probabilities [C, V] and the predicted classes [C]."""
        scores = self.scores(given)
        predicted: Ints = scores.argmax(axis=1).astype(np.int32)
        return log_softmax(scores, self.temperature), predicted

    def to_json(self) -> dict[str, Any]:
        """Return words and settings as JSON values."""
        return {
            "type": "naive_bayes",
            "words": list(self.words),
            "orders": self.orders,
            "alpha": self.alpha,
            "temperature": self.temperature,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts."""
        names = ("keys", "starts", "classes", "counts", "cases")
        return {name: np.asarray(getattr(self, name)) for name in names}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> NaiveBayes:
        """Read what `to_json` and `to_arrays` wrote."""
        named = ("keys", "starts", "classes", "counts", "cases")
        counted: tuple[Any, ...] = tuple(arrays[name] for name in named)
        settings = (value[name] for name in ("orders", "alpha", "temperature"))
        return cls(tuple(value["words"]), *counted, *settings)

    @property
    def description(self) -> str:
        """What it counts, in words."""
        return f"naive Bayes over words{' and pairs of words' * (self.orders > 1)}"

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}
