"""A character n-gram for each class: which class would have written the text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.tasks.contexts import FIRST_SYMBOL, UNSEEN, ContextTable, Histories
from hiddenstate.tasks.labels import Floats, Given, Ints, Longs, log_softmax
from hiddenstate.tasks.ngram import NGram
from hiddenstate.tasks.task import Targets

MOST_CHARACTERS = 500


@dataclass(frozen=True, eq=False)
class ClassNGram:
    """log p(c | s) = log p(c) + sum_t log p_c(s_t | the `order` characters before it).

    Each p_c is a Witten-Bell n-gram (`tasks.ngram`) over the texts of its class, in small letters,
    from before the first character to the end. An unknown character is one more symbol.

    characters: the known ones;  cases: training texts of each class [V]
    """

    characters: str
    cases: Longs
    ngrams: tuple[NGram, ...]
    order: int
    temperature: float = 1.0

    @classmethod
    def fit(cls, given: Given, target: NDArray[Any], classes: int, orders: int) -> ClassNGram:
        """Count the texts of known class, target [C], up to an order."""
        if given.texts is None:
            raise AssertionError("characters are those of whole texts")
        counts: Counter[str] = Counter()
        for text in given.texts:
            counts.update(text.lower())
        common = sorted(counts, key=lambda character: (-counts[character], character))
        cases = np.bincount(target[target >= 0], minlength=classes)
        bare = cls("".join(sorted(common[:MOST_CHARACTERS])), cases, (), orders)
        ngrams = []
        for label in range(classes):
            histories, symbols, _ = bare.read_texts(given.texts[target == label])
            truth = Targets(symbols, np.ones(len(symbols), dtype=np.bool_))
            names = [*bare.characters, "start"]
            parts = [(histories, truth)]
            ngrams.append(NGram.fit(names, bare.symbols, parts, orders, knows_start=False))
        return replace(bare, ngrams=tuple(ngrams))

    @property
    def symbols(self) -> int:
        """Number of things that may come next: the characters, an unknown one, the end."""
        return len(self.characters) + 2

    @property
    def description(self) -> str:
        """What it counts, in words."""
        return f"a Witten-Bell n-gram of characters for each class, order {self.order}"

    def read_texts(self, texts: NDArray[np.object_]) -> tuple[Histories, Ints, Longs]:
        """Return what stood before each character and each end, what came, and whose it is."""
        known = len(self.characters)
        rows: list[int] = []
        for text in texts:
            # Before the first character stands a symbol of its own.
            rows += [known, *(self._codes.get(character, -1) for character in text.lower())]
        lengths = np.array([len(text.lower()) + 1 for text in texts], dtype=np.int64)
        codes = np.array(rows, dtype=np.int32)
        ends = np.cumsum(lengths)
        places = np.arange(len(codes)) - np.repeat(ends - lengths, lengths)
        before = np.where(codes < 0, UNSEEN, FIRST_SYMBOL + codes).astype(np.int32)
        follows = np.concatenate((codes[1:], [0]))[: len(codes)]
        follows = np.where(follows < 0, known, follows)
        follows[ends - 1] = known + 1
        histories = Histories(before, places.astype(np.int32))
        return histories, follows.astype(np.int32), np.repeat(np.arange(len(texts)), lengths)

    def scores_by_order(self, given: Given) -> list[Floats]:
        """Return log p(c, s) [C, V] for every order from 0."""
        if given.texts is None:
            raise AssertionError("characters are those of whole texts")
        histories, symbols, of = self.read_texts(given.texts)
        found = [np.zeros((given.cases, len(self.ngrams))) for _ in range(self.order + 1)]
        for label, ngram in enumerate(self.ngrams):
            if self.cases[label] == 0:
                continue
            for rows in ngram.chunks(len(symbols)):
                case, each = of[rows], np.arange(len(rows))
                log_p = np.zeros(len(rows))
                shorter = -1
                for shorter, (_, p) in enumerate(ngram.predictions(histories, rows)):
                    log_p = np.log(p[each, symbols[rows]])
                    found[shorter][:, label] += np.bincount(case, log_p, given.cases)
                for order in range(shorter + 1, self.order + 1):
                    found[order][:, label] += np.bincount(case, log_p, given.cases)
        unseen = np.flatnonzero(self.cases == 0)
        for scores in found:
            scores += np.log(self.cases + 0.5)
            scores[:, unseen] = scores.min(axis=1, keepdims=True)
        return found

    def refit(self, given: Given, target: NDArray[Any]) -> ClassNGram:
        """Count other texts with the same settings."""
        fitted = self.fit(given, target, len(self.cases), self.order)
        return replace(fitted, temperature=self.temperature)

    def log_probabilities(self, given: Given) -> tuple[Floats, Ints]:
        """Return log probabilities [C, V] and the predicted classes [C]."""
        scores = self.scores_by_order(given)[self.order]
        predicted: Ints = scores.argmax(axis=1).astype(np.int32)
        return log_softmax(scores, self.temperature), predicted

    def to_json(self) -> dict[str, Any]:
        """Return characters and settings as JSON values."""
        return {
            "type": "class_ngram",
            "characters": self.characters,
            "order": self.order,
            "temperature": self.temperature,
        }

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the counts of every class."""
        tables = enumerate(ngram.table.to_arrays() for ngram in self.ngrams)
        arrays = {f"{place}.{name}": array for place, own in tables for name, array in own.items()}
        return {"cases": self.cases, **arrays}

    @classmethod
    def read(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ClassNGram:
        """Read what `to_json` and `to_arrays` wrote."""
        characters = str(value["characters"])
        ngrams = []
        for place in range(len(arrays["cases"])):
            prefix = f"{place}."
            own = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
            ngrams.append(NGram((*characters, "start"), ContextTable.from_arrays(own)))
        settings = (value[name] for name in ("order", "temperature"))
        return cls(characters, arrays["cases"], tuple(ngrams), *settings)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {character: place for place, character in enumerate(self.characters)}
