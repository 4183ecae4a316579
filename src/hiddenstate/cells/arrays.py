"""The array namespace: the few functions in which every cell and the scan are written.

A cell receives an `ArrayOps` as its first argument, so the same lines run in NumPy (reference,
serving) and in torch (training). The NumPy adapter is here; torch's lives in `hiddenstate.nn`.
Beyond these functions a cell uses only `+ - *`, slices and a leading-axes shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of the namespace at hand: numpy.ndarray or torch.Tensor."""


class ArrayOps(Protocol):
    """What a numerical library must offer to run cells; NaN in gives NaN out everywhere."""

    @property
    def name(self) -> str:
        """Name for messages, such as "numpy"."""

    @property
    def differentiable(self) -> bool:
        """Whether gradients can flow through these functions."""

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """Map x [..., D] by w [G, D] and b [G] to [..., G]."""

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x)) without overflow."""

    def tanh(self, x: Array) -> Array:
        """Hyperbolic tangent."""

    def relu(self, x: Array) -> Array:
        """max(x, 0)."""

    def layer_norm(
        self, x: Array, gain: Array, shift: Array | None = None, eps: float = 1e-5
    ) -> Array:
        """Normalise the last axis to mean 0 and (biased) variance 1, then scale and shift."""

    def split(self, x: Array, parts: int) -> Sequence[Array]:
        """Cut the last axis into equal parts."""

    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array:
        """Join along an axis."""

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        """Join along a new axis."""

    def unstack(self, x: Array, axis: int) -> tuple[Array, ...]:
        """Return the entries along an axis, as views."""

    def where(self, mask: Array, a: Array, b: Array | float) -> Array:
        """Take a where the mask holds and b elsewhere; what is not taken has gradient 0."""

    def zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        """Zeros with the type and device of another array."""

    def live(self, lengths: Sequence[int], time: int, like: Array) -> Array:
        """Boolean [B, T, 1] on the device of `like`: True at [b, t] while t < lengths[b]."""


class NumpyOps:
    """`ArrayOps` in NumPy; keeps the type of its input (float32 stays float32)."""

    name = "numpy"
    differentiable = False

    def linear(self, x: Array, w: Array, b: Array | None = None) -> Array:
        """Map x [..., D] by w [G, D] and b [G] to [..., G], in one matrix product."""
        # Two axes only: with more, NumPy would run one small product per leading index.
        product = (x.reshape(-1, x.shape[-1]) @ w.T).reshape(*x.shape[:-1], w.shape[0])
        return product if b is None else product + b

    def sigmoid(self, x: Array) -> Array:
        """1 / (1 + exp(-x)) without overflow."""
        shrunk = np.exp(-np.abs(x))
        return np.where(x < 0, shrunk, 1.0) / (1.0 + shrunk)

    def tanh(self, x: Array) -> Array:
        """Hyperbolic tangent."""
        return np.tanh(x)

    def relu(self, x: Array) -> Array:
        """max(x, 0)."""
        return np.maximum(x, 0.0)

    def layer_norm(
        self, x: Array, gain: Array, shift: Array | None = None, eps: float = 1e-5
    ) -> Array:
        """Normalise the last axis to mean 0 and (biased) variance 1, then scale and shift."""
        centred = x - x.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
        scaled = centred / spread * gain
        return scaled if shift is None else scaled + shift

    def split(self, x: Array, parts: int) -> Sequence[Array]:
        """Cut the last axis into equal parts."""
        width = x.shape[-1] // parts
        return [x[..., k * width : (k + 1) * width] for k in range(parts)]

    def concat(self, arrays: Sequence[Array], axis: int = -1) -> Array:
        """Join along an axis."""
        return np.concatenate(arrays, axis=axis)

    def stack(self, arrays: Sequence[Array], axis: int) -> Array:
        """Join along a new axis."""
        return np.stack(arrays, axis=axis)

    def unstack(self, x: Array, axis: int) -> tuple[Array, ...]:
        """Return the entries along an axis, as views."""
        return tuple(np.moveaxis(x, axis, 0))

    def where(self, mask: Array, a: Array, b: Array | float) -> Array:
        """Take a where the mask holds and b elsewhere."""
        return np.where(mask, a, b)

    def zeros(self, shape: tuple[int, ...], like: Array) -> Array:
        """Zeros with the type of another array."""
        return np.zeros(shape, dtype=like.dtype)

    def live(self, lengths: Sequence[int], time: int, like: Array) -> Array:  # noqa: ARG002
        """Boolean [B, T, 1]: True at [b, t] while t < lengths[b]."""
        return (np.arange(time) < np.asarray(lengths, dtype=np.int64)[:, None])[..., None]


NUMPY: ArrayOps = NumpyOps()
