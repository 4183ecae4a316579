"""Text as symbols: characters, bytes, words or byte pairs, and one code for all that is unknown."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from hiddenstate.errors import DataError, SpecError, UsageError, nearest
from hiddenstate.schema import bpe, words
from hiddenstate.schema.fields import Fields
from hiddenstate.schema.reader import REPLACEMENT, Reader, raw_bytes
from hiddenstate.schema.vocabulary import UNKNOWN

Unit: TypeAlias = Literal["characters", "bytes", "words", "bpe"]
Codes: TypeAlias = NDArray[np.int32]

UNITS: tuple[str, ...] = get_args(Unit)
TYPE = "symbols"
DEFAULT_SIZE = {"words": 20_000, "bpe": 4_000}


@dataclass(frozen=True)
class Symbols:
    """The known symbols of some texts; the symbol names[i] has code i + 1, code 0 is unknown.

    unit:      what one symbol is: a character, a byte of UTF-8, a word or mark (`words.cut`), or a
               group of bytes (`bpe`). Bytes and bpe know every text
    names:     the specials first, then the symbols [V - 1]
    specials:  how many names stand for themselves and for no text, such as the start of a sentence
    lowercase: texts are read in small letters
    merges:    JSON of the tokenizers library, for bpe alone

    The same face as a `Schema`: one categorical input and no numbers.

    >>> symbols = Symbols.fit(["to be"], "characters")
    >>> symbols.encode("bet!").tolist(), symbols.decode(symbols.encode("bet"))
    ([2, 3, 5, 0], 'bet')
    """

    unit: Unit
    names: tuple[str, ...]
    specials: int = 0
    lowercase: bool = False
    merges: str | None = None
    _codes: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the symbols; raises SpecError for a foreign unit or a name that stands twice."""
        _require_unit(self.unit)
        object.__setattr__(self, "_codes", {name: i for i, name in enumerate(self.names, 1)})
        if len(self._codes) != len(self.names) or (self.merges is None) == (self.unit == "bpe"):
            twice = [name for name, count in Counter(self.names).items() if count > 1]
            raise SpecError(
                f"The symbols name {twice[0]!r} twice." if twice else "The symbols lack a BPE.",
                "Every symbol has one name, and a special is none of the texts' symbols.",
                "Choose other specials." if twice else "The file is damaged; fit again.",
            )

    def __len__(self) -> int:
        """Return the number of codes V, the unknown one included."""
        return len(self.names) + 1

    @property
    def code_sizes(self) -> tuple[int, ...]:
        """Number of codes of the one input."""
        return (len(self),)

    @property
    def number_names(self) -> tuple[str, ...]:
        """No numbers are read."""
        return ()

    @classmethod
    def fit(
        cls,
        texts: Iterable[str],
        unit: Unit = "characters",
        *,
        size: int | None = None,
        least_count: int = 1,
        lowercase: bool = False,
        specials: Sequence[str] = (),
    ) -> Symbols:
        """Find the symbols of training texts and of nothing else.

        size:        most symbols kept, the most frequent ones; None is 20,000 words, 4,000 byte
                     pairs, and all characters. Bytes are always 256
        least_count: symbols seen less often are unknown

        Symbols stand in the order of their names, byte pairs in that of their merging. Raises
        UsageError for another unit, DataError for texts without a symbol.
        """
        _require_unit(unit)
        read = (text.lower() if lowercase else text for text in texts)
        size = size or DEFAULT_SIZE.get(unit)
        merges = None
        if unit == "bytes":
            found = [f"{byte:02x}" for byte in range(256)]
        elif unit == "bpe":
            learnt = json.loads(bpe.train(map(_unicode, read), size or 0, least_count))
            merges = _compact(learnt)
            ids: dict[str, int] = learnt["model"]["vocab"]
            found = sorted(ids, key=ids.__getitem__)
        else:
            counts: Counter[str] = Counter()
            for text in read:
                counts.update(words.cut(text) if unit == "words" else _unicode(text))
            kept = [name for name, count in counts.items() if count >= least_count]
            kept.sort(key=lambda name: (-counts[name], name))
            found = sorted(kept[:size])
            if not found:
                raise DataError(
                    f"The training texts have no {unit} that occur {least_count} times or more.",
                    "A model of symbols needs some to learn from.",
                    "Give texts that are not empty, or a smaller least count.",
                )
        return cls(unit, (*specials, *found), len(specials), lowercase, merges)

    def code(self, name: str) -> int:
        """Return the code of a name, special or not; UNKNOWN where it has none."""
        return self._codes.get(name, UNKNOWN)

    def encode(self, text: str) -> Codes:
        """Return the codes int32 [T] of a text; specials are never among them."""
        text = _unicode(text.lower() if self.lowercase else text)
        if self.unit == "bytes":
            raw = np.frombuffer(text.encode(), dtype=np.uint8)
            return raw.astype(np.int32) + (1 + self.specials)
        if self.unit == "characters":
            points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
            return self._code_points[np.minimum(points, len(self._code_points) - 1)]
        if self.unit == "bpe":
            ids = [self._tokenizer.encode(part).ids for part in bpe.parts(text)]
            return np.concatenate([np.array(part, dtype=np.int32) for part in ids]) + (
                1 + self.specials
            )
        known = self._codes
        codes = np.array([known.get(piece, UNKNOWN) for piece in words.cut(text)], dtype=np.int32)
        codes[codes <= self.specials] = UNKNOWN
        return codes

    def cut(self, text: str) -> list[str]:
        """Return the pieces of text that `encode` gives a code to [T], as `shown` shows them."""
        text = _unicode(text.lower() if self.lowercase else text)
        if self.unit == "characters":
            return list(text)
        if self.unit == "words":
            return [words.bare(piece) for piece in words.cut(text)]
        return [self.shown(int(code)) for code in self.encode(text)]

    def shown(self, code: int) -> str:
        """Return one code as a table shows it: its text, with \\x for bytes of no character."""
        if code == UNKNOWN:
            return REPLACEMENT
        name = self.names[code - 1]
        if code <= self.specials or self.unit == "characters":
            return name
        if self.unit == "words":
            return words.bare(name)
        return raw_bytes(self.unit, name).decode("utf-8", "backslashreplace")

    def decode(self, codes: Iterable[int] | Codes) -> str:
        """Return the text of codes; specials are left out, and unknown is REPLACEMENT.

        The text of `encode` exactly, in the lowercase that was read; of words, all but the kind and
        number of spaces. Bytes that are no whole character of UTF-8 are REPLACEMENT too.
        """
        reader = self.reader()
        return "".join([*(reader.read(int(code)) for code in codes), reader.end()])

    def reader(self) -> Reader:
        """Return what turns codes into text one at a time."""
        return Reader(self.unit, self.names, self.specials)

    def unknowns(self, text: str) -> dict[str, int]:
        """Count the pieces of a text that have no code, most first."""
        strange = np.flatnonzero(self.encode(text) == UNKNOWN)
        if not len(strange):
            return {}
        pieces = self.cut(text)
        return dict(Counter(pieces[place] for place in strange).most_common())

    def to_json(self) -> dict[str, Any]:
        """Return the symbols as a JSON object."""
        return {
            "type": TYPE,
            "unit": self.unit,
            "names": list(self.names),
            "specials": self.specials,
            "lowercase": self.lowercase,
            "merges": None if self.merges is None else json.loads(self.merges),
        }

    @classmethod
    def from_json(cls, raw: object, where: str = "schema") -> Symbols:
        """Read `to_json` back; raises SpecError naming a damaged field."""
        fields = Fields(raw, where)
        merges = fields.optional("merges")
        unit: Any = fields.text("unit")
        return cls(
            unit,
            fields.texts("names"),
            int(fields.number("specials")),
            bool(fields.raw.get("lowercase", False)),
            None if merges is None else _compact(merges.raw),
        )

    @cached_property
    def _code_points(self) -> Codes:
        """The code of each character by its number in Unicode; the last entry is UNKNOWN."""
        points = [ord(name) for name in self.names[self.specials :]]
        table = np.full(max(points) + 2, UNKNOWN, dtype=np.int32)
        table[points] = np.arange(len(points)) + (1 + self.specials)
        return table

    @cached_property
    def _tokenizer(self) -> Any:
        return bpe.load(self.merges or "")


def _require_unit(unit: str) -> None:
    if unit not in UNITS:
        raise UsageError(
            f"There is no unit {unit!r}.{nearest(unit, UNITS)}",
            f"Text is read as {', '.join(UNITS)}.",
            "Name one of them.",
        )


def _compact(merges: object) -> str:
    return json.dumps(merges, ensure_ascii=False, separators=(",", ":"))


def _unicode(text: str) -> str:
    """Return a text that UTF-8 can write; raises DataError for half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise DataError(
            f"The text holds the code {text[problem.start]!a} at character {problem.start + 1}, "
            "which is no character.",
            "Text was expected that UTF-8 can write.",
            "It was read or typed in another encoding: give that encoding, or correct the text.",
        ) from None
    return text
