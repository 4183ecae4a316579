"""Noise against overfitting: on inputs, on outputs, on the recurrent weight (SPEC 3.7).

Zoneout changes how a state moves on, so it belongs to the scan.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.errors import SpecError


def check_share(name: str, share: float) -> float:
    """Return `share` if 0 <= share < 1, else raise SpecError."""
    if not 0.0 <= share < 1.0:
        raise SpecError(
            f"{name} is {share};",
            "a share that is dropped lies in 0 <= share < 1.",
            f"Set {name} to 0 to switch it off, or to something like 0.2.",
        )
    return share


class Dropout(nn.Module):
    """Drops features of x [B, T, D] in training and scales the rest by 1 / (1 - share).

    variational=True draws one mask [B, 1, D] for all steps of a row (Gal and Ghahramani 2016,
    arXiv:1512.05287), else every step has its own. Raises SpecError for a share outside [0, 1).
    """

    def __init__(self, share: float, *, variational: bool = False) -> None:
        super().__init__()
        self.share = check_share("dropout", share)
        self.variational = variational

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, T, D] with features dropped; x itself outside training."""
        if not self.training or self.share == 0.0:
            return x
        if not self.variational:
            return functional.dropout(x, self.share)
        kept = torch.rand_like(x[:, :1]) >= self.share
        return x * kept / (1.0 - self.share)

    def extra_repr(self) -> str:
        """Return what print(module) shows."""
        return f"{self.share}, variational={self.variational}"


def drop_connect(params: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return `params` with entries of w_h dropped, once for all steps.

    A transform of the weights, so every kernel runs it unchanged (Wan et al. 2013; on the
    recurrent weight: Merity et al. 2017, arXiv:1708.02182, section 2).
    """
    return {**params, "w_h": functional.dropout(params["w_h"], share)}
