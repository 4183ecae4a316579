"""From codes back to text, one at a time, as a model emits them."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import cache

from hiddenstate.schema import words
from hiddenstate.schema.bpe import bytes_of_letters
from hiddenstate.schema.vocabulary import UNKNOWN

# What is read where a symbol is unknown: the replacement character of Unicode.
REPLACEMENT = "\ufffd"


class Reader:
    """Turns the codes of one text into its characters.

    What `read` returns, put together with `end`, is the text. A character of several bytes comes
    with its last byte; bytes that make none are REPLACEMENT.
    """

    def __init__(self, unit: str, names: Sequence[str], specials: int) -> None:
        """Begin a text of a unit of `Symbols`, with its names."""
        self._unit, self._names, self._specials = unit, names, specials
        self._previous: str | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, code: int) -> str:
        """Return the text that one more code adds, perhaps none yet; specials add none."""
        if UNKNOWN < code <= self._specials:
            return ""
        name = REPLACEMENT if code == UNKNOWN else self._names[code - 1]
        if self._unit == "characters":
            return name
        if self._unit == "words":
            text = words.separator(self._previous, name) + words.bare(name)
            self._previous = name
            return text
        return self._decoder.decode(b"\xff" if code == UNKNOWN else raw_bytes(self._unit, name))

    def end(self) -> str:
        """Return what is left: REPLACEMENT where the text ends within a character."""
        return self._decoder.decode(b"", final=True)


def raw_bytes(unit: str, name: str) -> bytes:
    """Return the bytes that a symbol of the unit bytes or bpe stands for."""
    if unit == "bytes":
        return bytes.fromhex(name)
    letters = _letters()
    return bytes(letters[letter] for letter in name)


@cache
def _letters() -> dict[str, int]:
    return bytes_of_letters()
