"""Runs an artifact with NumPy alone: whole histories, or one event for many entities."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import Artifact, LayerSpec
from hiddenstate.cells import NUMPY, Cell, from_json
from hiddenstate.errors import ArtifactError
from hiddenstate.kernels import Zoneout, scan
from hiddenstate.schema import EventLog

Array = NDArray[Any]
State = tuple[Any, ...]

BATCH_EVENTS = 16_384
# A batch holds fewer events where there are many classes: float64 outputs stay below 64 MB.
BATCH_OUTPUTS = 8_000_000
BATCH_CASES = 512


class Layer(NamedTuple):
    """One recurrent layer with its parameters in float32."""

    cell: Cell
    params: Mapping[str, Array]
    norm: tuple[Array, Array] | None
    zoneout: Zoneout | None


class Prediction(NamedTuple):
    """What the model says at some events of a log.

    rows:    rows of the log [n]
    outputs: for each head, log probabilities [n, V] in nats or days [n]
    """

    rows: NDArray[np.int64]
    outputs: tuple[Array, ...]


class Model:
    """An artifact that runs: causal, float32, the same numbers as in torch up to rounding.

    State is a tuple over layers of the cells' States [B, ...]. Raises ArtifactError where the
    weights do not fit the specification.
    """

    def __init__(self, artifact: Artifact) -> None:
        """Take the weights of an artifact, checked against its specification."""
        self.spec = artifact.spec
        self.fingerprint = artifact.fingerprint
        weights = _Weights(artifact.weights)
        self._embeddings = tuple(
            weights.take(f"embeddings.{k}.weight", (rows, width))
            for k, (rows, width) in enumerate(
                zip(self.spec.schema.code_sizes, self.spec.embeddings, strict=True)
            )
        )
        self._layers = tuple(
            _layer(index, layer, weights, normalised=self.spec.layer_norm and index > 0)
            for index, layer in enumerate(self.spec.layers)
        )
        width = self._layers[-1].cell.output_size
        self._heads = tuple(
            (
                weights.take(f"heads.{index}.weight", (head.outputs, width)),
                weights.take(f"heads.{index}.bias", (head.outputs,)),
            )
            for index, head in enumerate(self.spec.heads)
        )
        weights.require_all_taken()

    def initial_state(self, batch: int) -> State:
        """Return the state of entities without events."""
        like = np.zeros(0, dtype=np.float32)
        return tuple(layer.cell.initial_state(NUMPY, batch, like) for layer in self._layers)

    def run(
        self,
        codes: Array,
        numbers: Array,
        lengths: Array | None = None,
        state: State | None = None,
    ) -> tuple[tuple[Array, ...], State]:
        """Run codes [B, T, K] and numbers [B, T, F]; return each head's o [B, T, V] and the state.

        Past a row's length the outputs mean nothing and the state is kept.
        """
        parts = [table[codes[..., k]] for k, table in enumerate(self._embeddings)]
        h = np.concatenate([*parts, numbers.astype(np.float32, copy=False)], axis=-1)
        states = []
        for index, layer in enumerate(self._layers):
            first = None if state is None else state[index]
            read = h if layer.norm is None else NUMPY.layer_norm(h, *layer.norm)
            done = scan(
                NUMPY, layer.cell, layer.params, read, first, lengths, zoneout=layer.zoneout
            )
            skips = self.spec.residual and layer.cell.input_size == layer.cell.output_size
            h = done.output + h if skips else done.output
            states.append(done.state)
        return tuple(NUMPY.linear(h, w, b) for w, b in self._heads), tuple(states)

    def step_many(
        self, codes: Array, numbers: Array, state: State | None = None
    ) -> tuple[tuple[Array, ...], State]:
        """Run one event of each entity, codes [B, K] and numbers [B, F]; o is [B, V]."""
        outputs, state = self.run(codes[:, None], numbers[:, None], None, state)
        return tuple(output[:, 0] for output in outputs), state

    def decode(self, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Turn heads' outputs [..., V] into log probabilities [..., V] or days [...], float64."""
        decoded = []
        for head, output in zip(self.spec.heads, outputs, strict=True):
            wide = output.astype(np.float64)
            if head.scaler is not None:
                decoded.append(np.maximum(head.scaler.decode(wide[..., 0]), 0.0))
            else:
                shifted = wide - wide.max(axis=-1, keepdims=True)
                total = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
                decoded.append(shifted - total)
        return tuple(decoded)

    def predict(self, log: EventLog) -> Iterator[Prediction]:
        """Yield predictions for every event of a log, in batches of cases of similar length."""
        widest = max(head.outputs for head in self.spec.heads)
        for cases in _batches(log.lengths, min(BATCH_EVENTS, BATCH_OUTPUTS // widest)):
            part = log.select(cases)
            inputs = self.spec.schema.encode(part)
            steps = np.arange(int(part.lengths.max()))
            real = steps < part.lengths[:, None]
            rows = np.minimum(part.offsets[:-1, None] + steps, part.events - 1)
            outputs, _ = self.run(inputs.codes[rows], inputs.numbers[rows], part.lengths)
            within = steps + log.offsets[cases][:, None]
            yield Prediction(within[real], self.decode(tuple(o[real] for o in outputs)))


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


def _layer(index: int, spec: LayerSpec, weights: _Weights, *, normalised: bool) -> Layer:
    cell = from_json(spec.cell)
    params = {
        name: weights.take(f"stack.layers.{index}.{name}", shape)
        for name, shape in cell.shapes().items()
    }
    norm = None
    if normalised:
        size = (cell.input_size,)
        norm = (
            weights.take(f"stack.norms.{index - 1}.weight", size),
            weights.take(f"stack.norms.{index - 1}.bias", size),
        )
    zoneout = None
    if spec.zoneout:
        zoneout = Zoneout(dict.fromkeys(cell.state_shapes(), spec.zoneout))
    return Layer(cell, params, norm, zoneout)


class _Weights:
    """Weights by name, each taken once and with the shape that the specification asks for."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._left = dict(arrays)

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        array = self._left.pop(name, None)
        if array is None or array.shape != shape:
            found = "is missing" if array is None else f"has shape {list(array.shape)}"
            raise ArtifactError(
                f"The weight {name} {found}.",
                f"The specification asks for shape {list(shape)}.",
                "The weights belong to another model, or spec.json was edited: restore the "
                "folder from a copy, or fit the model again.",
            )
        return np.ascontiguousarray(array, dtype=np.float32)

    def require_all_taken(self) -> None:
        if self._left:
            raise ArtifactError(
                f"No part of the model uses these weights: {', '.join(sorted(self._left))}.",
                "Every weight has its place in the specification.",
                "The weights belong to another model: restore the folder, or fit again.",
            )
