"""Symbols that a model does not know, said in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hiddenstate.schema import Symbols

SHOWN = 5


def unknowns_in_words(documents: Iterable[str], symbols: Symbols) -> str:
    """Say how many symbols are unknown, and which; "" where none is."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(symbols.unknowns(document))
    shown = ", ".join(f"{piece!r} ({count})" for piece, count in counts.most_common(SHOWN))
    more = ", ..." if len(counts) > SHOWN else ""
    total = counts.total()
    return f"{total} symbols that the model does not know: {shown}{more}." if total else ""
