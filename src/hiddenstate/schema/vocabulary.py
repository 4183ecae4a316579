"""Labels as small whole numbers, with one class for everything unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from hiddenstate.errors import SpecError
from hiddenstate.schema.fields import Fields
from hiddenstate.schema.log import Categorical, Int64

UNKNOWN = 0


@dataclass(frozen=True)
class Vocabulary:
    """Known labels: the label symbols[i] has id i + 1; id 0 is unknown or missing.

    >>> Vocabulary(("open", "close")).encode("close"), Vocabulary(("open",)).encode("fly")
    (2, 0)
    """

    symbols: tuple[str, ...]
    _ids: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Index the labels; raises SpecError where one stands twice."""
        object.__setattr__(self, "_ids", {name: i for i, name in enumerate(self.symbols, 1)})
        if len(self._ids) != len(self.symbols):
            raise SpecError(
                f"{len(self.symbols) - len(self._ids)} labels of a vocabulary stand twice.",
                "Every label has one id.",
                "Give distinct labels.",
            )

    def __len__(self) -> int:
        """Return the number of ids, the unknown class included."""
        return len(self.symbols) + 1

    def __contains__(self, label: object) -> bool:
        """Return whether a label is known."""
        return label in self._ids

    def encode(self, label: str | None) -> int:
        """Return the id of one label; UNKNOWN for None and for labels never seen."""
        return UNKNOWN if label is None else self._ids.get(label, UNKNOWN)

    def decode(self, code: int) -> str | None:
        """Return the label of an id, None for UNKNOWN."""
        return None if code == UNKNOWN else self.symbols[code - 1]

    def table(self, labels: Iterable[str]) -> Int64:
        """Return ids [V + 1] to gather with a column's codes; the last entry serves code -1."""
        return np.array([*map(self.encode, labels), UNKNOWN], dtype=np.int64)

    @classmethod
    def fit(cls, column: Categorical, *, max_size: int = 10_000, min_count: int = 1) -> Vocabulary:
        """Return the labels seen at least min_count times, most frequent first, at most max_size.

        Equal counts stand in the order of their names, so the ids depend on the counts alone.
        """
        counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.labels))
        kept = np.flatnonzero(counts >= max(min_count, 1)).tolist()
        kept.sort(key=lambda code: (-counts[code], column.labels[code]))
        return cls(tuple(column.labels[code] for code in kept[:max_size]))

    def to_json(self) -> dict[str, object]:
        """Return the symbols as a JSON object."""
        return {"symbols": list(self.symbols)}

    @classmethod
    def from_json(cls, raw: object, where: str = "vocabulary") -> Vocabulary:
        """Read `to_json` back; raises SpecError naming a damaged field."""
        return cls(Fields(raw, where).texts("symbols"))
