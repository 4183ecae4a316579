"""Runs an artifact without torch: whole histories, or one event for many entities."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, ModelSpec
from hiddenstate.errors import ArtifactError, SpecError
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime.heads import Head
from hiddenstate.runtime.layer import build
from hiddenstate.runtime.weights import Weights
from hiddenstate.schema import EventLog, Schema

Array = NDArray[Any]
State = tuple[Any, ...]

BATCH_EVENTS = 16_384
# A batch holds fewer events where there are many classes: float64 outputs stay below 64 MB.
BATCH_OUTPUTS = 8_000_000
BATCH_CASES = 512


class Prediction(NamedTuple):
    """What the model says at some events of a log.

    rows:    rows of the log [n]
    outputs: for each head, log probabilities [n, V] in nats or days [n]
    """

    rows: NDArray[np.int64]
    outputs: tuple[Array, ...]


class Model:
    """An artifact that runs: float32, the same numbers as in torch up to rounding.

    State is a tuple over layers of the cells' States [B, ...]; a model with a bidirectional layer
    has none that could be carried on, and raises SpecError where one is asked for. Raises
    ArtifactError where the weights do not fit the specification.

    With the compiled kernels an entity's state and outputs have the same bits alone and in any
    batch; `weights` may then be "bfloat16" or "int8", for recurrent weights in half or a quarter of
    the memory (KernelRefusal where the kernels cannot). What that costs in exactness is measured in
    docs/results/kernels.md.
    """

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Take the weights of an artifact, checked against its specification."""
        if not isinstance(artifact.spec, ModelSpec):
            raise ArtifactError(
                f"The artifact holds a {type(artifact.spec).__name__}.",
                "A ModelSpec was expected: a model that reads one sequence.",
                "Use runtime.Translator, or hiddenstate.load, which knows them all.",
            )
        self.spec = artifact.spec
        self.fingerprint = artifact.fingerprint
        self._unstreamed = artifact.spec.refusals("streaming")
        given = Weights(artifact.weights)
        self._embeddings = tuple(
            given.take(f"embeddings.{k}.weight", (rows, width))
            for k, (rows, width) in enumerate(
                zip(self.spec.schema.code_sizes, self.spec.embeddings, strict=True)
            )
        )
        self._layers = tuple(
            build(
                index,
                layer,
                given,
                weights,
                normalised=self.spec.layer_norm and index > 0,
                residual=self.spec.residual,
            )
            for index, layer in enumerate(self.spec.layers)
        )
        width = self._layers[-1].output_size
        table = self._embeddings[0] if self._embeddings else np.zeros((0, 0), np.float32)
        self._heads = tuple(
            Head(index, head, given, width, table) for index, head in enumerate(self.spec.heads)
        )
        given.require_all_taken()

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernel that ran each layer last; of a bidirectional one, forward and then backward."""
        return tuple(each.kernel for layer in self._layers for each in layer.directions)

    def initial_state(self, batch: int) -> State:
        """Return the state of entities without events."""
        self._require_streaming()
        return tuple(layer.initial_state(batch) for layer in self._layers)

    def run_whole(
        self, codes: Array, numbers: Array, lengths: Array | None = None
    ) -> tuple[Array, ...]:
        """Run whole sequences, codes [B, T, K] and numbers [B, T, F]; return the heads' o.

        o is [B, T, V], or [B, V] of a head with a pool. Past a row's length it means nothing.
        """
        x = self._embed(codes, numbers)
        return self._read_out(self._recur(x, lengths, None, final_state=False)[0], lengths)

    def run(
        self,
        codes: Array,
        numbers: Array,
        lengths: Array | None = None,
        state: State | None = None,
    ) -> tuple[tuple[Array, ...], State]:
        """Run the next T events, codes [B, T, K] and numbers [B, T, F], on from a state.

        Returns each head's o [B, T, V] and the next state; a head that pools the last step gives
        [B, V]. Past a row's length the outputs mean nothing and the state is kept.
        """
        self._require_streaming()
        h, state = self._recur(self._embed(codes, numbers), lengths, state, final_state=True)
        return self._read_out(h, lengths), state

    def step_many(
        self, codes: Array, numbers: Array, state: State | None = None
    ) -> tuple[tuple[Array, ...], State]:
        """Run one event of each entity, codes [B, K] and numbers [B, F]; o is [B, V]."""
        outputs, state = self.run(codes[:, None], numbers[:, None], None, state)
        pooled = [head.pool is not None for head in self.spec.heads]
        return tuple(o if pool else o[:, 0] for o, pool in zip(outputs, pooled)), state

    def decode(self, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Turn heads' outputs [..., V] into what they mean, float64: see `Head.decode`."""
        return tuple(head.decode(o) for head, o in zip(self._heads, outputs, strict=True))

    def predict(self, log: EventLog) -> Iterator[Prediction]:
        """Yield predictions for every event of a log, in batches of cases of similar length.

        They rest on the events so far; with a bidirectional layer, on the whole case. Raises
        SpecError for a model that does not read event logs.
        """
        schema = self.spec.schema
        if not isinstance(schema, Schema):
            raise SpecError(
                f"This model reads {type(schema).__name__}, not event logs.",
                "Event histories are predicted by a model that was fitted to them.",
                "Encode the inputs by its schema and use run_whole.",
            )
        widest = max(head.outputs for head in self.spec.heads)
        for cases in _batches(log.lengths, min(BATCH_EVENTS, BATCH_OUTPUTS // widest)):
            part = log.select(cases)
            inputs = schema.encode(part)
            steps = np.arange(int(part.lengths.max()))
            real = steps < part.lengths[:, None]
            rows = np.minimum(part.offsets[:-1, None] + steps, part.events - 1)
            outputs = self.run_whole(inputs.codes[rows], inputs.numbers[rows], part.lengths)
            within = steps + log.offsets[cases][:, None]
            yield Prediction(within[real], self.decode(tuple(o[real] for o in outputs)))

    def _embed(self, codes: Array, numbers: Array) -> Array:
        """Return x [B, T, D] from codes [B, T, K] and numbers [B, T, F]."""
        parts = [table[codes[..., k]] for k, table in enumerate(self._embeddings)]
        return np.concatenate([*parts, numbers.astype(np.float32, copy=False)], axis=-1)

    def _recur(
        self, h: Array, lengths: Array | None, state: State | None, *, final_state: bool
    ) -> tuple[Array, State]:
        """Run all layers over x [B, T, D]; return the top's output [B, T, P] and their states."""
        states = []
        for index, layer in enumerate(self._layers):
            first = None if state is None else state[index]
            h, last = layer.run(h, lengths, first, final_state)
            states.append(last)
        return h, tuple(states)

    def _read_out(self, h: Array, lengths: Array | None) -> tuple[Array, ...]:
        """Return each head's o from h [B, T, P]."""
        return tuple(head(h, lengths) for head in self._heads)

    def _require_streaming(self) -> None:
        if self._unstreamed:
            raise SpecError(
                f"This model cannot be streamed: {'; '.join(self._unstreamed)}.",
                "A state stands for the events so far, and is carried on to the next.",
                "Run whole sequences (run_whole), or fit a model that reads one direction.",
            )


def _batches(lengths: NDArray[np.int64], events: int) -> Iterator[NDArray[np.int64]]:
    """Cut the cases that have events into batches of similar length and at most so many steps."""
    order = np.argsort(lengths, kind="stable")
    order = order[np.searchsorted(lengths[order], 1) :]
    while len(order):
        # The longest of the batch comes last, so that its padded size is known beforehand.
        sizes = np.arange(1, min(len(order), BATCH_CASES) + 1) * lengths[order[:BATCH_CASES]]
        count = max(1, int(np.searchsorted(sizes, events, side="right")))
        yield order[:count]
        order = order[count:]
