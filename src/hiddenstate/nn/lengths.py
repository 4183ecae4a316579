"""Ragged batches: what a row's length says about its steps, in arrays [B, T, ...]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hiddenstate.errors import ShapeError


class Ragged(NamedTuple):
    """The lengths of a batch with what follows from them.

    lengths [B] int64; valid [B, T] bool, True on a row's own steps.
    """

    lengths: Tensor
    valid: Tensor

    @classmethod
    def of(cls, lengths: Tensor, time: int) -> Ragged:
        """Build it from checked lengths [B] of rows of T steps."""
        return cls(lengths, torch.arange(time, device=lengths.device) < lengths[:, None])

    def clear(self, x: Tensor) -> Tensor:
        """Return x [B, T, D] with zeros in the padding; what stood there, NaN too, is gone."""
        return torch.where(self.valid[..., None], x, 0.0)

    def reverse(self, x: Tensor) -> Tensor:
        """Return x [B, T, D] with every row reversed within its own length."""
        batch, time = self.valid.shape
        steps = torch.arange(time, device=x.device)
        lengths = self.lengths[:, None]
        source = torch.where(self.valid, lengths - 1 - steps, steps)
        return _take(x, source + time * torch.arange(batch, device=x.device)[:, None]).view(x.shape)

    def last(self, x: Tensor, otherwise: Tensor) -> Tensor:
        """Return [B, D], x at every row's last step; `otherwise` [B, D] in rows of length 0."""
        batch, time = self.valid.shape
        index = (self.lengths - 1).clamp(0, time - 1) + time * torch.arange(batch, device=x.device)
        return torch.where((self.lengths > 0)[:, None], _take(x, index), otherwise)


def _take(x: Tensor, index: Tensor) -> Tensor:
    # Whole rows by one flat index: 4 times as fast as gather, forward and backward, on a CPU.
    return x.reshape(-1, x.shape[-1]).index_select(0, index.reshape(-1))


def checked_lengths(lengths: Tensor | None, x: Tensor) -> Tensor | None:
    """Return lengths [B] as int64 beside x [B, T, ...]; None if none are given or all are T.

    Lengths on a GPU are not read back, and torch.compile cannot read any: there their range is not
    checked here (the compiled kernels check it again). Raises ShapeError.
    """
    if lengths is None:
        return None
    batch, time = x.shape[:2]
    whole = not lengths.is_floating_point() and lengths.dtype != torch.bool
    if lengths.shape != (batch,) or not whole:
        raise ShapeError(
            f"lengths have shape {list(lengths.shape)} and type {lengths.dtype};",
            f"a batch of shape {list(x.shape)} needs whole numbers of shape [{batch}].",
            "Give the number of real steps of each row.",
        )
    if lengths.device.type == "cpu" and batch and not torch.compiler.is_compiling():
        low, high = (int(edge) for edge in lengths.aminmax())
        if low < 0 or high > time:
            raise ShapeError(
                f"lengths go from {low} to {high};",
                f"rows of shape {list(x.shape)}, read as [B, T, D], hold 0 to {time} steps.",
                "Give the number of real steps of each row.",
            )
        if low == time:
            return None
    return lengths.to(device=x.device, dtype=torch.int64)
