"""torch's adapter of the array namespace: the cells' own lines, differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hiddenstate.cells import ArrayOps


class TorchOps:
    """`ArrayOps` in torch: gradients of every order, vmap and any device pass through."""

    name = "torch"
    differentiable = True

    def linear(self, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        """Map x [..., D] by w [G, D] and b [G] to [..., G]."""
        return functional.linear(x, w, b)

    def sigmoid(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x)) without overflow."""
        return torch.sigmoid(x)

    def tanh(self, x: Tensor) -> Tensor:
        """Hyperbolic tangent."""
        return torch.tanh(x)

    def relu(self, x: Tensor) -> Tensor:
        """max(x, 0)."""
        return torch.relu(x)

    def layer_norm(
        self, x: Tensor, gain: Tensor, shift: Tensor | None = None, eps: float = 1e-5
    ) -> Tensor:
        """Normalise the last axis to mean 0 and (biased) variance 1, then scale and shift."""
        return functional.layer_norm(x, x.shape[-1:], gain, shift, eps)

    def split(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        """Cut the last axis into equal parts."""
        return x.chunk(parts, dim=-1)

    def concat(self, arrays: Sequence[Tensor], axis: int = -1) -> Tensor:
        """Join along an axis."""
        return torch.cat(list(arrays), dim=axis)

    def stack(self, arrays: Sequence[Tensor], axis: int) -> Tensor:
        """Join along a new axis."""
        return torch.stack(list(arrays), dim=axis)

    def unstack(self, x: Tensor, axis: int) -> tuple[Tensor, ...]:
        """Return the entries along an axis, as views."""
        return x.unbind(axis)

    def where(self, mask: Tensor, a: Tensor, b: Tensor | float) -> Tensor:
        """Take a where the mask holds and b elsewhere; what is not taken has gradient 0."""
        return torch.where(mask, a, b)

    def zeros(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Zeros with the type and device of another array."""
        return like.new_zeros(shape)

    def live(self, lengths: Tensor | Sequence[int], time: int, like: Tensor) -> Tensor:
        """Boolean [B, T, 1] on the device of `like`: True at [b, t] while t < lengths[b]."""
        ends = torch.as_tensor(lengths, device=like.device)
        return (torch.arange(time, device=like.device) < ends[:, None])[..., None]


TORCH: ArrayOps = TorchOps()
