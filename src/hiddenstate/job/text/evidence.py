"""What a language model brings to its diagnosis."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.run import Lengths, Unknowns
from hiddenstate.job.evidence import DRAWS, MOST_STEPS, Evidence, Json
from hiddenstate.job.model import part
from hiddenstate.job.text.evaluate import evaluate_text
from hiddenstate.job.text.prepared import PreparedText
from hiddenstate.models import Batch
from hiddenstate.schema import UNKNOWN, Symbols
from hiddenstate.schema.documents import TextCodes
from hiddenstate.train.windows import Window, WindowFeed

# Of the training part so many steps are scored at most.
MOST_TAUGHT = 50_000
SHORTEST_STEPS, LONGEST_STEPS = 8, MOST_STEPS // 2


class Gathered(Evidence):
    """Stretches of the held-back documents, or of a text that is given; each without a past."""

    @cached_property
    def text(self) -> TextCodes:
        """The documents that are looked at."""
        if self.source is not None:
            texts = self.model.read(self.source, self.observer)
            return TextCodes.of(texts.documents, self._symbols, ends=texts.ends)
        training, validation, test, _ = part(self.ready, PreparedText).codes
        return next(each for each in (test, validation, training) if each.steps)

    @cached_property
    def batch(self) -> Batch:
        """Stretches of mixed lengths, evenly spread over the text."""
        lengths = np.linspace(SHORTEST_STEPS, LONGEST_STEPS, self.rows).round().astype(np.int64)
        lengths = np.random.default_rng(self.seed).permutation(lengths)
        starts = np.linspace(0, self.text.steps - 1, self.rows + 1)[:-1].astype(np.int64)
        ends = np.cumsum(self.text.lengths)
        left = ends[np.searchsorted(ends, starts, side="right")] - starts
        nothing = np.zeros(self.rows, dtype=np.int64)
        window = Window(starts, np.minimum(lengths, left), nothing, np.ones(self.rows, np.bool_))
        found = WindowFeed(self.text, LONGEST_STEPS, LONGEST_STEPS).batch(window)
        return replace(found, carries=False)

    def names(self, row: int) -> tuple[str, ...]:
        """Return the symbols of a stretch."""
        codes = self.batch.codes[row, : int(self.batch.lengths[row]), 0].tolist()
        return tuple(self._symbols.shown(code) for code in codes)

    def taught(self) -> Json:
        """Return the scores on the beginning of the training part."""
        text = part(self.ready, PreparedText).codes[0]
        before = np.cumsum(text.lengths) - text.lengths
        kept = before < MOST_TAUGHT
        lengths = np.minimum(text.lengths, MOST_TAUGHT - before)[kept]
        floors = part(self.ready, PreparedText).language_floors
        start = TextCodes(text.codes, text.starts[kept], lengths)
        return evaluate_text(self.model.runtime, floors, start, bootstrap=DRAWS, seed=self.seed)

    def unknowns(self) -> tuple[Unknowns, ...]:
        """Return how many symbols are unknown."""
        count = int((self.text.codes == UNKNOWN).sum())
        trained = None
        if self.ready is not None:
            training, _, _, both = part(self.ready, PreparedText).codes
            trained = int(((both if self.finished else training).codes == UNKNOWN).sum())
        return (Unknowns(self._symbols.unit, self.text.steps, count, trained=trained),)

    def lengths(self) -> Lengths:
        """Say that texts have no greatest length."""
        raise Skip("in training the state is carried on from window to window, without an end")

    @property
    def _symbols(self) -> Symbols:
        return part(self.model.symbols, Symbols)
