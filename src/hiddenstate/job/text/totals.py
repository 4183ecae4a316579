"""What the symbols of a text come to together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiddenstate.job.text.model import Symbol


@dataclass
class Totals:
    """Sums over the symbols that have gone through `count`.

    symbols:         all of them, ends of documents among them
    unknown:         those without a log probability
    log_probability: of all others together, in nats: log p(x) = sum log p(x_t | x_<t)
    """

    documents: int = 0
    symbols: int = 0
    unknown: int = 0
    log_probability: float = 0.0

    def count(self, symbols: Iterable[Symbol]) -> Iterator[Symbol]:
        """Pass symbols on and add them up."""
        for symbol in symbols:
            self.documents = max(self.documents, symbol.document)
            self.symbols += 1
            if symbol.log_probability is None:
                self.unknown += 1
            else:
                self.log_probability += symbol.log_probability
            yield symbol

    def to_json(self) -> dict[str, Any]:
        """Return the sums and the means over known symbols; None where there is none."""
        known = self.symbols - self.unknown
        nats = -self.log_probability / known if known else None
        return {
            "documents": self.documents,
            "symbols": self.symbols,
            "unknown": self.unknown,
            "log_probability": self.log_probability if known else None,
            "nats": nats,
            "bits": None if nats is None else nats / math.log(2),
            "perplexity": None if nats is None else math.exp(min(nats, 700.0)),
        }
