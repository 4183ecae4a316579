"""What a translator brings to its diagnosis."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hiddenstate.artifact import TranslatorSpec
from hiddenstate.data.pairs import Pairs, read_pairs
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.run import Difference, Lengths, Unknowns
from hiddenstate.job.evidence import DRAWS, Evidence, Json, Longs, Looked, few, spread, tensors
from hiddenstate.job.model import part
from hiddenstate.job.pairs.evaluate import evaluate_pairs
from hiddenstate.job.pairs.feed import PairFeed
from hiddenstate.job.pairs.prepare import PreparedPairs
from hiddenstate.models.translator import PairBatch, Translator
from hiddenstate.nn.losses import cross_entropy
from hiddenstate.schema import UNKNOWN

# A translation is searched for symbol by symbol: of the training part so many pairs are scored.
MOST_TAUGHT = 300


class Gathered(Evidence):
    """Pairs of the held-back part, or pairs that are given; the decoder reads the true target."""

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs that are looked at."""
        if self.source is not None:
            encoding = self.model.artifact.metrics["reading"]["encoding"]
            return read_pairs(self.source, None, encoding=encoding, tell=self.observer)
        parts = part(self.ready, PreparedPairs).parts
        return next(each for each in parts[::-1] if len(each))

    @cached_property
    def batch(self) -> PairBatch:
        """Pairs with sources of all lengths."""
        return self._feed.batch(self._rows)

    @cached_property
    def looked(self) -> Looked:
        """Encoder and decoder, which reads the symbols before the one it says."""
        spec, batch = self._spec, self.batch
        module = _ScoringTranslator(spec)
        module.load_state_dict(tensors(self.model.artifact.weights))
        inputs = functional.pad(batch.target, (1, 0), value=spec.boundary)
        steps, lengths = torch.arange(inputs.shape[1]), batch.target_lengths[:, None]
        truth = functional.pad(batch.target, (0, 1)).masked_fill(steps == lengths, spec.boundary)
        real = steps <= lengths

        def loss(said: Tensor) -> Tensor:
            return cross_entropy(said[real], truth[real])

        arguments = {
            "source": batch.source,
            "source_lengths": batch.source_lengths,
            "inputs": inputs,
        }
        # What is said may rest on all of the source, and not on later steps of the target.
        return Looked(module.eval(), arguments, loss, None)

    @property
    def row(self) -> int:
        """The row with the longest source."""
        return int(self.batch.source_lengths.argmax())

    def names(self, row: int) -> tuple[str, ...]:
        """Return the symbols of a source."""
        codes = self.batch.source[row, : int(self.batch.source_lengths[row])].tolist()
        return tuple(self._spec.source.shown(code) for code in codes)

    def taught(self) -> Json:
        """Return the scores on some of the training pairs."""
        training = part(self.ready, PreparedPairs).parts[0]
        chosen = few(np.random.default_rng(self.seed), len(training), MOST_TAUGHT)
        taken = training.select(chosen.tolist())
        model = self.model
        return evaluate_pairs(
            model.runtime,
            model._floors,
            taken,
            model.decoding,
            bootstrap=DRAWS,
            seed=self.seed,
        )

    def unknowns(self) -> tuple[Unknowns, ...]:
        """Return how many symbols of the sources and targets are unknown."""
        feed, trained = self._feed, None
        if self.ready is not None:
            trained = part(self.ready, PreparedPairs)._coded[0]
        sides = (("source", feed.sources, 0), ("target", feed.targets, 1))
        return tuple(
            Unknowns(
                name,
                sum(map(len, texts)),
                sum(int((codes == UNKNOWN).sum()) for codes in texts),
                trained=None
                if trained is None
                else sum(
                    int((codes == UNKNOWN).sum())
                    for codes in (trained.sources, trained.targets)[side]
                ),
            )
            for name, texts, side in sides
        )

    def lengths(self) -> Lengths:
        """Return the symbols of each source, and of the longest training source."""
        if self.ready is None:
            raise Skip("the training part is not there")
        coded = part(self.ready, PreparedPairs)._coded[0].sources
        return Lengths(_lengths(self._feed.sources), max(map(len, coded)))

    def difference(self) -> Difference:
        """Return how far the runtime's log probabilities of the targets are from torch's."""
        looked, batch = self.looked, self.batch
        with torch.no_grad():
            said = looked.module(**looked.arguments)
        said = functional.log_softmax(said.double(), -1).numpy()
        sources, targets = (
            [codes[: int(count)].numpy() for codes, count in zip(*side)]
            for side in (
                (batch.source, batch.source_lengths),
                (batch.target, batch.target_lengths),
            )
        )
        ends = [np.append(target, self._spec.boundary) for target in targets]
        mine = np.concatenate([row[np.arange(len(t)), t] for row, t in zip(said, ends)])
        found = np.concatenate(self.model.runtime.log_probabilities(sources, targets))
        largest, scale = float(np.abs(found - mine).max()), float(np.abs(mine).max())
        return Difference(largest, scale, "the log probabilities of the targets")

    @cached_property
    def _feed(self) -> PairFeed:
        spec = self._spec
        return PairFeed(
            [spec.source.encode(text) for text in self.pairs.sources],
            [spec.target.encode(text) for text in self.pairs.targets],
        )

    @cached_property
    def _rows(self) -> Longs:
        return spread(_lengths(self._feed.sources), self.rows)

    @property
    def _spec(self) -> TranslatorSpec:
        return part(self.model.artifact.spec, TranslatorSpec)


class _ScoringTranslator(Translator):
    """The translator up to o_t, so that the last matrix is looked at as well."""

    def forward(self, source: Tensor, source_lengths: Tensor, inputs: Tensor) -> Tensor:
        """Return o_t [B, T, V + 1] of the symbol after each of the inputs [B, T]."""
        return self.scores(super().forward(source, source_lengths, inputs))


def _lengths(texts: Any) -> Longs:
    return np.array([len(each) for each in texts], dtype=np.int64)
