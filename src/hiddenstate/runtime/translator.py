"""Runs a translator without torch: reads sources, then goes from target symbol to symbol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, TranslatorSpec
from hiddenstate.cells.state import select
from hiddenstate.errors import ArtifactError, DataError, SpecError
from hiddenstate.kernels import Linear
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime.attention import Attention
from hiddenstate.runtime.decoding import Hypothesis, beam_search
from hiddenstate.runtime.layer import Layer, build
from hiddenstate.runtime.weights import Weights
from hiddenstate.schema import UNKNOWN

Array = NDArray[Any]

BATCH_ROWS = 320
"""Hypotheses that are computed side by side: their memories stay in the tens of megabytes."""


class Place(NamedTuple):
    """Where the decoder stands in R targets; every array has R rows.

    layers: the decoder's states
    end     [R, P] of the source, where it is seen at every step
    memory  [R, S, P], keys [R, S, A] and valid [R, S]: what attention looks at
    said    [R, 1, E], a of the step before, where it is fed back
    covered [R, 1, S], the sum of the weights so far, where scores see it
    """

    layers: tuple[Any, ...]
    end: Array | None = None
    memory: Array | None = None
    keys: Array | None = None
    valid: Array | None = None
    said: Array | None = None
    covered: Array | None = None


class Translator:
    """A TranslatorSpec that runs in float32; a `Stepper` of target codes.

    Raises ArtifactError where the weights do not fit the specification, KernelRefusal where they
    cannot be held as `weights` says (see `runtime.Model`).
    """

    def __init__(self, artifact: Artifact, weights: Storage = "float32") -> None:
        """Take the weights of an artifact, checked against its specification."""
        spec = artifact.spec
        if not isinstance(spec, TranslatorSpec):
            raise ArtifactError(
                f"The artifact holds a {type(spec).__name__}.",
                "A TranslatorSpec was expected.",
                "Use runtime.Model, or hiddenstate.load, which knows them all.",
            )
        self.spec, self.fingerprint = spec, artifact.fingerprint
        given = Weights(artifact.weights)
        width, classes = spec.embeddings[1], spec.embedding_rows[1]
        self._source_embedding, self._target_embedding = (
            given.take(f"{side}_embedding.weight", shape)
            for side, shape in zip(
                ("source", "target"), zip(spec.embedding_rows, spec.embeddings), strict=True
            )
        )
        self._encoder, self._decoder = (
            tuple(
                build(k, layer, _Part(given, part), weights, normalised=False, residual=False)
                for k, layer in enumerate(layers)
            )
            for part, layers in (("encoder", spec.encoder), ("decoder", spec.decoder))
        )
        top = self._decoder[-1].output_size
        if spec.cells:
            self._bridge = _linear(given, "bridge", sum(spec.first_state_sizes), spec.memory_size)
        if spec.attends:
            self._attention = Attention(spec, given, top)
        self._readout = _linear(given, "readout", width, top + spec.context_size)
        table = self._target_embedding
        if not spec.tied:
            table = given.take("output_weight", (classes, width))
        self._output = Linear(table, given.take("output_bias", (classes,)))
        given.require_all_taken()

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernel that ran each layer last, the encoder's before the decoder's."""
        layers = (*self._encoder, *self._decoder)
        return tuple(each.kernel for layer in layers for each in layer.directions)

    def read(self, codes: Array, lengths: Array) -> Place:
        """Read source codes [B, S] of lengths [B], each at least 1; return where targets begin."""
        spec = self.spec
        steps, rows = np.arange(codes.shape[1]), np.arange(len(codes))
        valid = steps < lengths[:, None]
        if spec.reverse_source:
            codes = codes[rows[:, None], np.where(valid, lengths[:, None] - 1 - steps, steps)]
        memory = _recur(self._encoder, self._source_embedding[codes], lengths)
        # What stands in the padding is multiplied by weights of 0.
        memory = np.where(valid[..., None], memory, np.float32(0))
        ahead = spec.forward_size
        end = np.concatenate([memory[rows, lengths - 1, :ahead], memory[:, 0, ahead:]], axis=-1)
        if not spec.cells:
            transformer: Any = self._decoder[0].directions[0]
            return Place((transformer.initial_state(len(codes), memory, lengths),))
        ends = np.cumsum(spec.first_state_sizes)[:-1]
        arrays = iter(np.split(np.tanh(self._bridge(end)), ends, axis=-1))
        first = tuple(
            cell.State(*(np.ascontiguousarray(next(arrays)) for _ in cell.state_shapes()))
            for cell in spec.cells
        )
        place = Place(first, end if spec.context == "every_step" else None)
        if not spec.attends:
            return place
        empty = np.zeros((len(codes), 1, spec.embeddings[1]), np.float32)
        return place._replace(
            memory=memory,
            keys=self._attention.keys(memory),
            valid=valid,
            said=empty if spec.input_feeding else None,
            covered=np.zeros((len(codes), 1, codes.shape[1]), np.float32)
            if spec.coverage
            else None,
        )

    def step(self, codes: Array, state: Place) -> tuple[Array, Place]:
        """Read one target code of each row [R]; return log p of the next [R, V + 1], and state."""
        log_p, _, state = self.run(codes[:, None], state)
        return log_p[:, 0], state

    def select(self, state: Place, rows: Array) -> Place:
        """Return the state of some rows; a row may be named several times."""
        chosen: Place = select(state, rows)
        return chosen

    def run(self, codes: Array, state: Place) -> tuple[Array, Array | None, Place]:
        """Read the decoder's next inputs [R, T]; return log p [R, T, V + 1], alpha and state.

        alpha [R, T, S] are the weights of attention over the source's steps as the encoder read
        them, None where the decoder has none of its own.
        """
        if not self.spec.stepwise:
            return self._run(codes, state)
        each = []
        for t in range(codes.shape[1]):
            each.append(self._run(codes[:, t : t + 1], state))
            state = each[-1][2]
        log_p, alpha = (np.concatenate([one[part] for one in each], axis=1) for part in (0, 1))
        return log_p, alpha, state

    def _run(self, codes: Array, state: Place) -> tuple[Array, Array | None, Place]:
        """Compute `run` of steps that need no more of each other than the decoder's state."""
        spec, context, alpha = self.spec, None, None
        parts = [self._target_embedding[codes]]
        if state.said is not None:
            parts.append(state.said)
        if spec.context == "additive":
            asked = spec.cells[-1].read(state.layers[-1])
            context, alpha = self._attend(asked[:, None], state)
            parts.append(context)
        if state.end is not None:
            context = np.repeat(state.end[:, None], codes.shape[1], axis=1)
            parts.append(context)
        h, layers = np.concatenate(parts, axis=-1), []
        for layer, first in zip(self._decoder, state.layers, strict=True):
            h, last = layer.run(h, None, first, True)
            layers.append(last)
        if spec.attends and context is None:
            context, alpha = self._attend(h, state)
        both = h if context is None else np.concatenate([h, context], axis=-1)
        said = np.tanh(self._readout(both))
        state = state._replace(layers=tuple(layers))
        if state.said is not None:
            state = state._replace(said=said)
        if state.covered is not None:
            state = state._replace(covered=state.covered + alpha)
        return _log_softmax(self._output(said)), alpha, state

    def _attend(self, query: Array, state: Place) -> tuple[Array, Array]:
        assert state.keys is not None
        assert state.memory is not None
        assert state.valid is not None
        return self._attention(query, state.keys, state.memory, state.valid, state.covered)

    def log_probabilities(
        self, sources: Sequence[Array], targets: Sequence[Array]
    ) -> list[NDArray[np.float64]]:
        """Return log p of every symbol and of the end [M + 1] of given targets, in nats.

        Raises DataError for a source without symbols.
        """
        _require_symbols(sources)
        found: list[NDArray[np.float64]] = []
        for start in range(0, len(sources), BATCH_ROWS):
            part = targets[start : start + BATCH_ROWS]
            log_p, _ = self._force(sources[start : start + BATCH_ROWS], part)
            for row, target in zip(log_p, part, strict=True):
                wanted = [*target, self.spec.boundary]
                found.append(row[np.arange(len(wanted)), wanted])
        return found

    def alignment(self, source: Array, target: Array) -> Array:
        """Return alpha [M + 1, S]: where the decoder looks for each target symbol and the end.

        The mean over all heads; raises as `looks` does.
        """
        alpha: Array = self.looks(source, target).mean(axis=0)
        return alpha

    def looks(self, source: Array, target: Array) -> Array:
        """Return alpha [H, M + 1, S] of each head: those of a transformer's last block, else one.

        Raises SpecError for a decoder that does not look at the source's steps, DataError for a
        source without symbols.
        """
        _require_symbols([source])
        if self.spec.attends:
            _, alpha = self._force([source], [target])
        elif self.spec.context == "cross":
            alpha = self._transformer_looks(source, target)
        else:
            raise SpecError(
                f"The context of this translator is {self.spec.context!r}.",
                "Only attention has one weight for each source symbol.",
                "Fit with --set pairs.context=general, or with --cell attention.",
            )
        assert alpha is not None
        return alpha[..., ::-1] if self.spec.reverse_source else alpha

    def _transformer_looks(self, source: Array, target: Array) -> Array:
        transformer: Any = self._decoder[0].directions[0]
        (state,) = self.read(*_padded([source])).layers
        begun = np.append(self.spec.boundary, target)[None]
        blocks: list[Array] = []
        transformer.run(self._target_embedding[begun], None, state, False, blocks)
        alpha: Array = blocks[-1][0]
        return alpha

    def translate(
        self,
        sources: Sequence[Array],
        *,
        width: int = 5,
        length_penalty: float = 1.0,
        unknown: bool = False,
    ) -> list[list[Hypothesis]]:
        """Return the translations found for each source's codes [S], the best first.

        width and length_penalty are those of `beam_search`; a translation has at most 10 symbols
        more than twice its source's. unknown: whether the unknown symbol may be emitted. Raises
        DataError for a source without symbols.
        """
        _require_symbols(sources)
        found: list[list[Hypothesis]] = [[]] * len(sources)
        order = np.argsort([len(source) for source in sources], kind="stable")
        count = max(BATCH_ROWS // max(width, 1), 1)
        for start in range(0, len(order), count):
            rows = order[start : start + count]
            codes, lengths = _padded([sources[row] for row in rows])
            each = beam_search(
                self,
                np.full(len(rows), self.spec.boundary),
                self.read(codes, lengths),
                end=self.spec.boundary,
                longest=2 * lengths + 10,
                width=width,
                length_penalty=length_penalty,
                forbidden=() if unknown else (UNKNOWN,),
            )
            for row, hypotheses in zip(rows, each, strict=True):
                found[row] = hypotheses
        return found

    def _force(
        self, sources: Sequence[Array], targets: Sequence[Array]
    ) -> tuple[Array, Array | None]:
        """Run given targets; return log p [B, M + 1, V + 1] and alpha [B, M + 1, S]."""
        codes, lengths = _padded(sources)
        begun = [np.append(self.spec.boundary, target) for target in targets]
        log_p, alpha, _ = self.run(_padded(begun)[0], self.read(codes, lengths))
        return log_p, alpha


class _Part(Weights):
    """The weights of the encoder or the decoder, which `build` asks for as those of a stack."""

    def __init__(self, whole: Weights, part: str) -> None:
        self._whole, self._part = whole, part

    def take(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._whole.take(name.replace("stack", self._part, 1), shape)


def _linear(given: Weights, name: str, outputs: int, inputs: int) -> Linear:
    weight = given.take(f"{name}.weight", (outputs, inputs))
    return Linear(weight, given.take(f"{name}.bias", (outputs,)))


def _recur(layers: tuple[Layer, ...], h: Array, lengths: Array) -> Array:
    for layer in layers:
        h, _ = layer.run(h, lengths, None, False)
    return h


def _log_softmax(scores: Array) -> NDArray[np.float64]:
    wide = scores.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


def _require_symbols(sources: Sequence[Array]) -> None:
    for place, source in enumerate(sources, start=1):
        if len(source) == 0:
            raise DataError(
                f"Source {place} of {len(sources)} has no symbols.",
                "A source has at least one.",
                "Leave empty sources out.",
            )


def _padded(sequences: Sequence[Array]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return codes [B, S], padded by 0, and lengths [B]."""
    lengths = np.array([len(each) for each in sequences], dtype=np.int64)
    codes = np.zeros((len(lengths), int(lengths.max(initial=0))), np.int64)
    for row, each in zip(codes, sequences):
        row[: len(each)] = each
    return codes, lengths
