"""What a translator has to beat: the nearest known source, and a dictionary word by word."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.schema import words

NAMES = ("nearest_source", "word_by_word")
# Both floors are fitted to so many training pairs at most, evenly spread.
MOST_PAIRS = 100_000
# Words and pairs of words are told apart by their place in a table of this size.
PLACES = 1 << 20


@dataclass(frozen=True)
class PairFloors:
    """Two translators without learning.

    nearest_source: the target of the training source with the greatest cosine of TF-IDF weights
                    over words and pairs of words (Salton, Buckley 1988); of the first one where
                    nothing is shared
    word_by_word:   every word as the target word with the greatest Dice coefficient over the
                    training pairs, 2 n_st / (n_s + n_t); unknown words stay

    features [F] the places that occur, rising; idf [F]; rows and weights [N] of feature k are
    those from offsets[k] to offsets[k + 1]; targets [C]; dictionary by the source word in small
    letters.
    """

    features: NDArray[np.int32]
    idf: NDArray[np.float32]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    targets: tuple[str, ...]
    dictionary: Mapping[str, str]
    pairs: int

    @property
    def names(self) -> tuple[str, ...]:
        """The floors."""
        return NAMES

    @property
    def description(self) -> str:
        """What was fitted, and on what, in words."""
        part = "" if self.pairs == len(self.targets) else f" of {self.pairs:,}"
        return (
            f"target of the nearest training source by TF-IDF, and word by word by a dictionary of "
            f"{len(self.dictionary):,} words, from {len(self.targets):,}{part} training pairs"
        )

    @classmethod
    def fit(cls, sources: Sequence[str], targets: Sequence[str]) -> PairFloors:
        """Fit both floors to training pairs, at least one."""
        chosen = np.unique(np.linspace(0, len(sources) - 1, MOST_PAIRS).astype(np.int64))
        texts = [sources[row] for row in chosen]
        known = tuple(targets[row] for row in chosen)
        counts = [_features(text) for text in texts]
        rows = np.repeat(np.arange(len(texts), dtype=np.int32), [len(each) for each in counts])
        places = np.array([place for each in counts for place in each], dtype=np.int32)
        often = np.array([n for each in counts for n in each.values()], dtype=np.float64)
        features, where, holding = np.unique(places, return_inverse=True, return_counts=True)
        idf = np.log((1 + len(texts)) / (1 + holding)) + 1
        weights = (1 + np.log(often)) * idf[where]
        lengths = np.sqrt(np.bincount(rows, weights**2, len(texts)))
        weights /= np.maximum(lengths, 1e-12)[rows]
        order = np.argsort(where, kind="stable")
        return cls(
            features,
            idf.astype(np.float32),
            np.concatenate([[0], np.cumsum(holding)]).astype(np.int64),
            rows[order],
            weights[order].astype(np.float32),
            known,
            _dictionary(texts, known),
            len(sources),
        )

    def translate(self, sources: Sequence[str]) -> dict[str, list[str]]:
        """Return each floor's translations, by name."""
        return dict(
            zip(
                NAMES, ([each(text) for text in sources] for each in (self._nearest, self._look_up))
            )
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is not an array as JSON values."""
        return {"dictionary": dict(self.dictionary), "pairs": self.pairs}

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        raw = [text.encode() for text in self.targets]
        return {
            "features": self.features,
            "idf": self.idf,
            "offsets": self.offsets,
            "rows": self.rows,
            "weights": self.weights,
            "targets": np.frombuffer(b"".join(raw), dtype=np.uint8),
            "ends": np.cumsum([len(each) for each in raw], dtype=np.int64),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> PairFloors:
        """Rebuild the floors; KeyError, TypeError or ValueError for anything else."""
        raw, ends = arrays["targets"].tobytes(), arrays["ends"].tolist()
        targets = tuple(raw[a:b].decode() for a, b in zip([0, *ends], ends))
        dictionary = {str(word): str(other) for word, other in value["dictionary"].items()}
        return cls(
            arrays["features"],
            arrays["idf"],
            arrays["offsets"],
            arrays["rows"],
            arrays["weights"],
            targets,
            dictionary,
            int(value["pairs"]),
        )

    def _nearest(self, source: str) -> str:
        scores = np.zeros(len(self.targets))
        for place, count in _features(source).items():
            k = int(np.searchsorted(self.features, place))
            if k < len(self.features) and self.features[k] == place:
                inside = slice(self.offsets[k], self.offsets[k + 1])
                weight = (1 + np.log(count)) * self.idf[k]
                scores[self.rows[inside]] += weight * self.weights[inside]
        return self.targets[int(np.argmax(scores))]

    def _look_up(self, source: str) -> str:
        said, before = [], None
        for piece in words.cut(source):
            other = self.dictionary.get(piece.lower(), piece)
            said.append(words.separator(before, other) + words.bare(other))
            before = other
        return "".join(said)


def _features(text: str) -> Counter[int]:
    pieces = [piece.lower() for piece in words.cut(text)]
    pairs = (f"{one} {two}" for one, two in pairwise(pieces))
    return Counter(zlib.crc32(each.encode()) % PLACES for each in (*pieces, *pairs))


def _dictionary(sources: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """Return the target word of every source word."""
    cut = [
        [sorted({piece.lower() if small else piece for piece in words.cut(text)}) for text in texts]
        for texts, small in ((sources, True), (targets, False))
    ]
    codes: list[dict[str, int]] = [{}, {}]
    coded = [
        [np.array([known.setdefault(piece, len(known)) for piece in row]) for row in rows]
        for known, rows in zip(codes, cut)
    ]
    names = [list(known) for known in codes]
    if not all(names):
        return {}
    width = len(names[1])
    together = [(one[:, None] * width + two).ravel() for one, two in zip(*coded)]
    both, counts = np.unique(np.concatenate(together).astype(np.int64), return_counts=True)
    alone = [np.bincount(np.concatenate(rows).astype(np.int64)) for rows in coded]
    source, target = np.divmod(both, width)
    dice = 2 * counts / (alone[0][source] + alone[1][target])
    # The greatest coefficient of every source word; of equal ones, the commoner target word.
    order = np.lexsort((-alone[1][target], -dice, source))
    first = order[np.unique(source[order], return_index=True)[1]]
    return {names[0][source[k]]: names[1][target[k]] for k in first}
