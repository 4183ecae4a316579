"""One head without torch: predictions from what the top layer gives, and what they mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import HeadSpec
from hiddenstate.cells import NUMPY
from hiddenstate.kernels import Linear
from hiddenstate.runtime.weights import Weights
from hiddenstate.schema import LEAST_SCALE

Array = NDArray[Any]


class Head:
    """Computes o = W h + b at every step, or from the pooled states; see `artifact.HeadSpec`."""

    def __init__(
        self, index: int, spec: HeadSpec, given: Weights, width: int, table: Array
    ) -> None:
        """Take the weights of head `index`; `table` [V, E] is the first embedding's."""
        self.spec = spec
        name = f"heads.{index}."
        self._score: tuple[Array, Array, Array] | None = None
        if spec.pool == "attention":
            self._score = (
                given.take(f"{name}pool.score.0.weight", (width, width)),
                given.take(f"{name}pool.score.0.bias", (width,)),
                given.take(f"{name}pool.score.2.weight", (1, width)),
            )
        self._project: Linear | None = None
        if spec.tied:
            inner = table.shape[1]
            if inner != width:
                weight = given.take(f"{name}project.weight", (inner, width))
                self._project = Linear(weight, np.zeros(inner, np.float32))
        else:
            table = given.take(f"{name}weight", (spec.outputs, width))
        self._linear = Linear(table, given.take(f"{name}bias", (spec.outputs,)))

    def __call__(self, h: Array, lengths: Array | None) -> Array:
        """Return o [B, T, V] from h [B, T, P]; [B, V] with a pool."""
        if self.spec.pool is not None:
            h = self._pool(h, lengths)[:, None]
        if self._project is not None:
            h = self._project(h)
        output: Array = self._linear(h)
        return output if self.spec.pool is None else output[:, 0]

    def decode(self, output: Array) -> Array:
        """Turn o [..., V] into what it means, float64.

        classes    log probabilities [..., V]
        number     in the task's unit [...], not below 0 unless it is signed
        numbers    scaled numbers [..., S]
        bernoulli  log odds [..., S]
        quantiles  scaled numbers [..., S, Q], rising with the level
        gaussian   means and standard deviations, scaled [..., 2, S]
        """
        wide = output.astype(np.float64)
        kind = self.spec.output
        if kind == "classes":
            shifted = wide - wide.max(axis=-1, keepdims=True)
            log_p: Array = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
            return log_p
        if kind == "number" and self.spec.scaler is not None:
            number = self.spec.scaler.decode(wide[..., 0])
            return number if self.spec.signed else np.maximum(number, 0.0)
        if kind == "quantiles":
            # Nothing in the loss keeps the levels in order.
            by_level = (*wide.shape[:-1], self.spec.size, len(self.spec.levels))
            return np.sort(wide.reshape(by_level), axis=-1)
        if kind == "gaussian":
            mean, log_scale = np.split(wide, 2, axis=-1)
            return np.stack([mean, LEAST_SCALE + np.exp(log_scale)], axis=-2)
        return wide

    def _pool(self, h: Array, lengths: Array | None) -> Array:
        """Return [B, P] from h [B, T, P], as `nn.Pool` does."""
        batch, time, width = h.shape
        if time == 0:
            return np.zeros((batch, width), np.float32)
        counts = np.full(batch, time) if lengths is None else np.asarray(lengths)
        real = (np.arange(time) < counts[:, None])[..., None]
        h = np.where(real, h, np.float32(0))
        filled = (counts > 0)[:, None]
        if self.spec.pool == "last":
            return np.where(filled, h[np.arange(batch), np.maximum(counts - 1, 0)], np.float32(0))
        if self.spec.pool == "mean":
            mean: Array = h.sum(axis=1) / np.maximum(counts, 1)[:, None].astype(np.float32)
            return mean
        if self._score is None:
            highest = np.where(real, h, -np.inf).max(axis=1)
            return np.where(filled, highest, np.float32(0))
        inner, shift, outer = self._score
        scores = NUMPY.linear(np.tanh(NUMPY.linear(h, inner, shift)), outer)
        scores = np.where(real, scores, np.finfo(np.float32).min)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        average: Array = (weights * h).sum(axis=1)
        return average
