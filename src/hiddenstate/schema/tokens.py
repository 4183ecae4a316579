"""Tokens as several codes each: the word, how it is spelt, and the word before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError, SpecError
from hiddenstate.schema.fields import Fields
from hiddenstate.schema.log import Int64
from hiddenstate.schema.vocabulary import UNKNOWN, Vocabulary

TYPE = "tokens"
# No token is blank, so nothing else is called so.
START = ""


def _shape(token: str) -> str:
    """Return what kind of character a token begins and ends with: Xx, xx, 00, .."""
    return "".join(map(_kind, (token[:1], token[-1:])))


def _kind(character: str) -> str:
    if character.isdigit():
        return "0"
    return "X" if character.isupper() else "x" if character.isalpha() else "."


# Each view of a token and the one before it, as the label that its vocabulary knows.
VIEWS: Mapping[str, Callable[[str, str], str]] = {
    "word": lambda token, _: token.lower(),
    "beginning": lambda token, _: token[:3].lower(),
    "ending": lambda token, _: token[-3:].lower(),
    "shape": lambda token, _: _shape(token),
    "pair": lambda token, before: f"{before} {token}".lower(),
}


@dataclass(frozen=True)
class Tokens:
    """How tokens become inputs: a code for each of the views, and no numbers.

    A token that training never saw still has a beginning, an ending and a shape. Every view has an
    unknown class of its own, code 0.

    vocabularies: by names in VIEWS, the word first  [K]
    unit:         what whole texts are cut into, words or characters

    >>> tokens = Tokens.fit(["Ann", "ran", "Ann", "sat"], np.array([0, 2, 4]), views=("word",))
    >>> tokens.encode(["ANN", "flew"], np.array([0, 2])).ravel().tolist()
    [1, 0]
    """

    vocabularies: Mapping[str, Vocabulary]
    unit: str = "words"

    number_names = ()

    def __post_init__(self) -> None:
        """Check the views; raises SpecError for an unknown one, or without the word."""
        unknown = set(self.vocabularies) - set(VIEWS) or self.unit not in ("words", "characters")
        if next(iter(self.vocabularies), None) != "word" or unknown:
            raise SpecError(
                f"Tokens are {self.unit}, read as {', '.join(self.vocabularies) or 'nothing'}.",
                f"They are words or characters. Views are {', '.join(VIEWS)}, the word first.",
                "Choose among them.",
            )

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Number of codes of each view [K], the unknown class included."""
        return tuple(len(vocabulary) for vocabulary in self.vocabularies.values())

    @classmethod
    def fit(
        cls,
        tokens: Sequence[str] | NDArray[np.object_],
        offsets: Int64,
        *,
        views: Sequence[str] = tuple(VIEWS),
        most: int = 50_000,
        least_count: int = 1,
        unit: str = "words",
    ) -> Tokens:
        """Find the labels of each view in the training tokens [N] and in nothing else.

        most:        labels kept of each view, the most frequent ones
        least_count: rarer words are unknown; of the other views, labels seen once are, so that
                     their unknown class is trained

        Raises DataError where nothing is left.
        """
        before = _before(tokens, offsets)
        found = {}
        for view in views:
            counts = Counter(map(VIEWS[view], tokens, before))
            least = least_count if view == "word" else 2
            kept = sorted(name for name, count in counts.items() if count >= least)
            kept.sort(key=lambda name: -counts[name])
            found[view] = Vocabulary(tuple(kept[:most]))
        if not len(found["word"].symbols):
            raise DataError(
                f"No token of {len(tokens)} occurs {least_count} times or more in training.",
                "A model of tokens needs some to learn from.",
                "Give more text, or a smaller least count.",
            )
        return cls(found, unit)

    def encode(self, tokens: Sequence[str] | NDArray[np.object_], offsets: Int64) -> Any:
        """Return codes int32 [N, K] of the tokens [N] of sequences that offsets cut."""
        before = _before(tokens, offsets)
        codes = np.empty((len(tokens), len(self.vocabularies)), dtype=np.int32)
        for place, (view, vocabulary) in enumerate(self.vocabularies.items()):
            codes[:, place] = [
                vocabulary.encode(label) for label in map(VIEWS[view], tokens, before)
            ]
        return codes

    def unknowns(self, tokens: Sequence[str] | NDArray[np.object_]) -> dict[str, int]:
        """Count the words that training never saw, most first."""
        word = self.vocabularies["word"]
        counts = Counter(t for t in tokens if word.encode(VIEWS["word"](t, START)) == UNKNOWN)
        return dict(counts.most_common())

    def to_json(self) -> dict[str, Any]:
        """Return the description as a JSON object."""
        views = [{"name": name, **v.to_json()} for name, v in self.vocabularies.items()]
        return {"type": TYPE, "unit": self.unit, "views": views}

    @classmethod
    def from_json(cls, raw: object, where: str = "schema") -> Tokens:
        """Read `to_json` back; raises SpecError naming a damaged field."""
        fields = Fields(raw, where)
        found = {f.text("name"): Vocabulary.from_json(f.raw, f.where) for f in fields.each("views")}
        return cls(found, fields.text("unit"))


def _before(tokens: Sequence[str] | NDArray[np.object_], offsets: Int64) -> list[str]:
    """Return the token before each [N], START for the first of a sequence."""
    shifted = [START, *tokens[:-1]]
    for start in offsets[:-1]:
        if start < len(shifted):
            shifted[start] = START
    return shifted[: len(tokens)]
