"""A recurrent decoder's look at its source without torch; see `nn.attention.Attention`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import TranslatorSpec
from hiddenstate.cells import NUMPY
from hiddenstate.runtime.weights import Weights

Array = NDArray[Any]


class Attention:
    """alpha_t = softmax_j(e_t) over a row's own steps; c_t = sum_j alpha_tj h_j."""

    def __init__(self, spec: TranslatorSpec, given: Weights, query_size: int) -> None:
        """Take the weights called attention.*; raises ArtifactError."""
        self._kind = spec.context
        keys = (query_size, spec.memory_size)
        if self._kind != "dot":
            self._key = given.take("attention.key.weight", keys)
        if self._kind == "additive":
            self._key_bias = given.take("attention.key.bias", (query_size,))
            self._query = given.take("attention.query.weight", (query_size, query_size))
            self._score = given.take("attention.score.weight", (1, query_size))
        self._covered = None
        if spec.coverage:
            self._covered = given.take("attention.coverage.weight", (query_size, 1))

    def keys(self, memory: Array) -> Array:
        """Return what scores are made of [B, S, A] from the source's states [B, S, P]."""
        if self._kind == "dot":
            return memory
        bias = self._key_bias if self._kind == "additive" else None
        keys: Array = NUMPY.linear(memory, self._key, bias)
        return keys

    def __call__(
        self, query: Array, keys: Array, memory: Array, valid: Array, covered: Array | None
    ) -> tuple[Array, Array]:
        """Return contexts [B, T, P] and alpha [B, T, S] for queries [B, T, Q].

        valid [B, S] is True on a row's own steps, at least one; covered [B, T, S] is the sum of the
        weights so far.
        """
        if self._kind == "additive":
            inner = NUMPY.linear(query, self._query)[:, :, None] + keys[:, None]
            if self._covered is not None and covered is not None:
                inner = inner + covered[..., None] * self._covered[:, 0]
            scores = NUMPY.linear(np.tanh(inner), self._score)[..., 0]
        else:
            scores = query @ keys.swapaxes(1, 2)
        scores = np.where(valid[:, None], scores, -np.inf)
        alpha = np.exp(scores - scores.max(axis=-1, keepdims=True))
        alpha /= alpha.sum(axis=-1, keepdims=True)
        return alpha @ memory, alpha
