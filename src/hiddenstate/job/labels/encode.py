"""From labelled sequences to model inputs: which description is fitted, and what it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data.labelled import Labelled
from hiddenstate.data.labelled_tables import objects
from hiddenstate.errors import DataError
from hiddenstate.schema import Channels, Symbols, Tokens, words
from hiddenstate.tasks.labels import NO_LABEL, Given
from hiddenstate.tasks.task import UNKNOWN_CLASS

Schema = Channels | Symbols | Tokens


@dataclass(frozen=True, eq=False)
class Encoded:
    """Sequences as inputs: codes int32 [N, K], numbers float32 [N, F], offsets [C + 1].

    pieces: what stands at each step [N], to be shown
    """

    codes: NDArray[np.int32]
    numbers: NDArray[np.float32]
    offsets: NDArray[np.int64]
    pieces: NDArray[np.object_] | None = None


def cut(found: Labelled, unit: str) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """Return the tokens [N] of sequences of texts or tokens, and their offsets [C + 1].

    unit: what texts are cut into, words or characters
    """
    if found.tokens is not None:
        return found.tokens, found.offsets
    if found.texts is None:
        raise AssertionError("series are not cut")
    if unit == "characters":
        pieces = [list(text) for text in found.texts]
    else:
        pieces = [[words.bare(piece) for piece in words.cut(text)] for text in found.texts]
    flat = objects([piece for each in pieces for piece in each])
    return flat, np.cumsum([0, *map(len, pieces)])


def classes_of(found: Labelled, classes: tuple[str, ...]) -> NDArray[np.int32]:
    """Return the class of each sequence [C] or step [N]; UNKNOWN_CLASS or NO_LABEL without one."""
    number = {name: place for place, name in enumerate(classes)}
    table = [number.get(label, UNKNOWN_CLASS) for label in found.labels.labels]
    return np.array([*table, NO_LABEL], dtype=np.int32)[found.labels.codes]


def encode(found: Labelled, schema: Schema) -> Encoded:
    """Encode sequences by a fitted description; raises DataError for another kind of sequence."""
    _require_kind(found, schema)
    if isinstance(schema, Channels) and found.values is not None:
        numbers = schema.encode(found.values, None, found.offsets)
        return Encoded(np.zeros((len(numbers), 0), np.int32), numbers, found.offsets)
    if isinstance(schema, Symbols):
        if found.texts is None:
            raise AssertionError("_require_kind lets only texts pass")
        codes = [schema.encode(text) for text in found.texts]
        offsets = np.cumsum([0, *map(len, codes)])
        flat = np.concatenate([*codes, np.zeros(0, dtype=np.int32)])[:, None]
        return Encoded(flat, np.zeros((len(flat), 0), np.float32), offsets)
    if not isinstance(schema, Tokens):
        raise AssertionError("_require_kind lets only tokens pass")
    pieces, offsets = cut(found, schema.unit)
    codes_of = schema.encode(pieces, offsets)
    return Encoded(codes_of, np.zeros((len(pieces), 0), np.float32), offsets, pieces)


def given(found: Labelled, schema: Schema) -> Given:
    """Return sequences as the floors see them."""
    if isinstance(schema, Channels) and found.values is not None:
        return Given(found.offsets, frames=schema.encode(found.values, None, found.offsets))
    if found.texts is not None:
        return Given.of_texts(found.texts)
    if found.tokens is None:
        raise AssertionError("sequences are texts, tokens or series")
    return Given(found.offsets, np.array([t.lower() for t in found.tokens], dtype=object))


def unknowns(found: Labelled, schema: Schema) -> Mapping[str, int]:
    """Count the words or symbols that training never saw, most first.

    Raises DataError for another kind of sequence than the model reads.
    """
    _require_kind(found, schema)
    if isinstance(schema, Tokens):
        return schema.unknowns(cut(found, schema.unit)[0])
    if isinstance(schema, Symbols) and found.texts is not None:
        return schema.unknowns("".join(found.texts))
    return {}


def _require_kind(found: Labelled, schema: Schema) -> None:
    reads = {Channels: ("series",), Symbols: ("texts",), Tokens: ("texts", "tokens")}[type(schema)]
    if found.of not in reads:
        raise DataError(
            f"The sequences are {found.of}.",
            f"This model reads {' or '.join(reads)}, as it was fitted to.",
            "Give sequences of that kind.",
        )
