"""Documents of text as one row of codes, with what stands between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hiddenstate.schema.log import Int64
from hiddenstate.schema.symbols import Codes, Symbols

# Stands before every document and, where documents have an end, behind each of them.
BOUNDARY = "<boundary>"


@dataclass(frozen=True, eq=False)
class TextCodes:
    """Documents in a row: BOUNDARY, document, BOUNDARY, document, ..., BOUNDARY.

    codes:   int32; step t of document c reads codes[starts[c] + t] and predicts the code after it
    starts:  where the BOUNDARY before a document stands [C]
    lengths: steps of each document [C]: one for each symbol, and one that predicts the end where
             documents have an end
    """

    codes: Codes
    starts: Int64
    lengths: Int64

    @property
    def steps(self) -> int:
        """Steps of all documents N; each predicts one symbol."""
        return int(self.lengths.sum())

    @property
    def rows(self) -> Int64:
        """The place in `codes` that each step reads [N]; it predicts the place after."""
        return np.arange(self.steps) + np.repeat(self.starts - self._before, self.lengths)

    @property
    def places(self) -> Int64:
        """Each step's place in its document [N], from 0."""
        return np.arange(self.steps) - np.repeat(self._before, self.lengths)

    @property
    def documents(self) -> Int64:
        """Each step's document [N]."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)

    @property
    def _before(self) -> Int64:
        return np.cumsum(self.lengths) - self.lengths

    @classmethod
    def of(cls, documents: Sequence[str], symbols: Symbols, *, ends: bool) -> TextCodes:
        """Encode documents; `symbols` has BOUNDARY among its specials.

        ends: whether a document's end is one, and so predicted: not of a text that was cut
        """
        boundary = np.array([symbols.code(BOUNDARY)], dtype=np.int32)
        encoded = [symbols.encode(document) for document in documents]
        rows = [part for codes in encoded for part in (boundary, codes)]
        sizes = np.array([len(codes) for codes in encoded], dtype=np.int64)
        starts = np.cumsum(sizes + 1) - (sizes + 1)
        return cls(np.concatenate([*rows, boundary]), starts, sizes + ends)
