"""Sequences drawn while a model trains: new ones in every epoch, and longer ones if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.data import Samples
from hiddenstate.models import Batch
from hiddenstate.tasks.problems import Cases, Part, Problem, Span
from hiddenstate.tasks.problems.streams import stream
from hiddenstate.train import Feed, SampleFeed
from hiddenstate.train.recipe import Train
from hiddenstate.train.recipe.problems import Problems


class Drawn(NamedTuple):
    """A batch: sequences of an epoch."""

    epoch: int
    cases: NDArray[np.int64]


@dataclass
class ProblemFeed(Feed):
    """A problem's sequences, drawn anew from the seed for every epoch.

    Sequences of all lengths stand in every batch: a batch of long ones alone would have to be
    learnt without the short ones that lead up to it.
    """

    problem: Problem
    settings: Problems
    seed: int
    epochs: int
    _last: tuple[int, SampleFeed] | None = field(default=None, repr=False)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of every sequence [C] of the epoch that was drawn last; at first the last one's."""
        drawn = self._drawn(self.epochs) if self._last is None else self._last[1]
        return drawn.lengths

    def span(self, epoch: int) -> Span:
        """Return the lengths of an epoch, from 1."""
        low, high = self.problem.length
        if self.settings.grow == 0 or epoch <= 0:
            return self.problem.length
        share = min((epoch - 1) / (self.settings.grow * self.epochs), 1.0)
        return Span(low, round(max(low, 1) * (high / max(low, 1)) ** share))

    def order(self, recipe: Train, epoch: int | None) -> Sequence[Drawn]:
        """Return batches in random order; None for the order of the last epoch."""
        number = self.epochs if epoch is None else epoch
        count = self.settings.sequences
        mixed = stream("order", self.seed, number).permutation(count)
        longest = max(int(self._drawn(number).lengths.max()), 1)
        size = max(1, min(recipe.batch_size, recipe.batch_events // longest))
        return [Drawn(number, mixed[first : first + size]) for first in range(0, count, size)]

    def part(self, item: Drawn, index: int, count: int) -> Drawn:
        """Return every `count`-th sequence of a batch."""
        return Drawn(item.epoch, item.cases[index::count])

    def batch(self, item: Drawn, state: Any | None = None) -> Batch:
        """Pad the given sequences."""
        return self._drawn(item.epoch).batch(item.cases, state)

    def _drawn(self, epoch: int) -> SampleFeed:
        if self._last is None or self._last[0] != epoch:
            rng = stream("training", self.seed, epoch if self.settings.fresh else 0)
            lengths = self.span(epoch).draw(rng, self.settings.sequences)
            self._last = epoch, SampleFeed(samples(self.problem, rng, lengths, "train"))
        return self._last[1]


def samples(
    problem: Problem, rng: np.random.Generator, lengths: NDArray[np.int64], part: Part
) -> Samples:
    """Draw sequences of these lengths and return them as what a model is trained on."""
    cases: Cases = problem.sample(rng, lengths, part)
    truth = cases.values, cases.mask
    if not problem.classes:  # one number of several, as far as the head knows
        truth = cases.values[:, None], cases.mask[:, None]
    return Samples(cases.codes, cases.numbers, cases.offsets, (truth,), (not problem.per_step,))
