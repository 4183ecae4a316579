"""What a model of labelled sequences brings to its diagnosis."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hiddenstate.artifact import HeadSpec
from hiddenstate.data import Samples
from hiddenstate.data.labelled import Labelled
from hiddenstate.data.labelled_numbers import numbers
from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.run import Lengths, Reliability, Unknowns
from hiddenstate.job.evidence import DRAWS, Evidence, Json, Longs, few, spread
from hiddenstate.job.labels.encode import Encoded, Schema, classes_of, encode, unknowns
from hiddenstate.job.labels.prepared import PreparedLabels
from hiddenstate.job.labels.run import decoded, places
from hiddenstate.job.labels.task import EVERY_STEP
from hiddenstate.job.model import part
from hiddenstate.models import Batch
from hiddenstate.schema import UNKNOWN, Channels, Scaler
from hiddenstate.train import SampleFeed

MOST_SEQUENCES = 5000
SHOWN = 3


class Gathered(Evidence):
    """Sequences of the held-back part, or of a source that is given."""

    @cached_property
    def found(self) -> Labelled:
        """The sequences that are looked at."""
        if self.source is not None:
            return part(self.model.read(self.source, self.observer), Labelled)
        parts = part(self.ready, PreparedLabels).parts
        return next(each for each in parts[::-1] if each.cases)

    def given(self) -> Json:
        """Return the scores on the sequences that were given."""
        return self._score(self.found)

    @cached_property
    def batch(self) -> Batch:
        """Sequences of all lengths."""
        return SampleFeed(self._samples).batch(self._rows)

    def names(self, row: int) -> tuple[str, ...]:
        """Return the tokens of a sequence."""
        pieces, offsets = self._encoded.pieces, self._encoded.offsets
        if pieces is None:
            return ()
        case = self._rows[row]
        return tuple(str(each) for each in pieces[offsets[case] : offsets[case + 1]])

    def taught(self) -> Json:
        """Return the scores on the training sequences, or on some of them where there are many."""
        training = part(self.ready, PreparedLabels).parts[0]
        chosen = few(np.random.default_rng(self.seed), training.cases, MOST_SEQUENCES)
        return self._score(training.select(chosen))

    def unknowns(self) -> tuple[Unknowns, ...]:
        """Return how many words or symbols are unknown."""
        if isinstance(self._schema, Channels):
            raise Skip("its inputs are numbers, of which none is unknown")
        strange = unknowns(self.found, self._schema)
        trained = None
        if self.ready is not None:
            trained = int(sum((each.codes[:, 0] == UNKNOWN).sum() for each in self._trained))
        steps = int(self._encoded.offsets[-1])
        shown = tuple(list(strange)[:SHOWN])
        unit = self._schema.unit
        return (Unknowns(unit, steps, sum(strange.values()), shown, trained),)

    def lengths(self) -> Lengths:
        """Return the steps of each sequence, and of the longest one in training."""
        if self.ready is None:
            raise Skip("the training part is not there")
        longest = max(int(each.lengths.max(initial=0)) for each in self._trained)
        return Lengths(np.diff(self._encoded.offsets), longest)

    def reliability(self) -> Reliability:
        """Return how often the labels that were said were the true ones."""
        if not self._head.classes:
            raise Skip("it says no probabilities of classes")
        every_step = self._head.name in EVERY_STEP
        said = decoded(self.model.runtime, self._encoded, every_step=every_step)
        truth = classes_of(self.found, self._head.classes)
        known = truth >= 0
        _, length = places(self._encoded, every_step=every_step)
        confidence, correct = np.exp(said.max(1)), said.argmax(1) == truth
        return Reliability(confidence[known], correct[known], length[known])

    @property
    def _trained(self) -> tuple[Samples, ...]:
        """All sequences that the weights were trained on."""
        training, validation = part(self.ready, PreparedLabels).samples
        return (training, validation) if self.finished else (training,)

    def _score(self, found: Labelled) -> Json:
        scores: Json = self.model.evaluate(found, bootstrap=DRAWS, seed=self.seed)
        return scores

    @cached_property
    def _encoded(self) -> Encoded:
        return encode(self.found, self._schema)

    @cached_property
    def _rows(self) -> Longs:
        return spread(np.diff(self._encoded.offsets), self.rows)

    @cached_property
    def _samples(self) -> Samples:
        head, every_step = self._head, self._head.name in EVERY_STEP
        if head.classes:
            truth = classes_of(self.found, head.classes)
            known = truth >= 0
            target = np.where(known, truth, 0), known
        else:
            scaled = (head.scaler or Scaler()).encode(numbers(self.found))
            scaled = scaled if head.output == "number" else scaled[:, None]
            known = np.isfinite(scaled)
            target = np.where(known, scaled, 0.0).astype(np.float32), known
        encoded = self._encoded
        return Samples(
            encoded.codes, encoded.numbers, encoded.offsets, (target,), (not every_step,)
        )

    @property
    def _head(self) -> HeadSpec:
        return part(self.model.runtime.spec.heads[0], HeadSpec)

    @property
    def _schema(self) -> Schema:
        schema: Schema = self.model.runtime.spec.schema
        return schema
