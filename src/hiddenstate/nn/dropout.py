"""Noise against overfitting: on inputs, on outputs, on the recurrent weight (SPEC 3.7).

Zoneout changes how a state moves on, so it belongs to the scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

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


class Noise(nn.Module):
    """Drops a share in training; SpecError outside [0, 1).

    What is the same at all steps is drawn at every call, within `drawn_once` at the first one.
    """

    def __init__(self, name: str, share: float) -> None:
        super().__init__()
        self.share = check_share(name, share)
        self._drawn: list[Tensor] | None = None

    def once(self, draw: Callable[[], Tensor]) -> Tensor:
        """Return what `draw` gives, within `drawn_once` what it gave the first time."""
        if self._drawn is None:
            return draw()
        if not self._drawn:
            self._drawn.append(draw())
        return self._drawn[0]


@contextmanager
def drawn_once(module: nn.Module) -> Iterator[None]:
    """Let all calls in this context share their noise, as the steps of one call do.

    For modules that are called step by step: one mask for all steps (Gal and Ghahramani 2016) is
    then one for all calls. What each step draws for itself, it still does.
    """
    sources = [each for each in module.modules() if isinstance(each, Noise)]
    for each in sources:
        each._drawn = []
    try:
        yield
    finally:
        for each in sources:
            each._drawn = None


class Dropout(Noise):
    """Drops features of x [B, T, D] in training and scales the rest by 1 / (1 - share).

    variational=True draws one mask [B, 1, D] for all steps of a row (Gal and Ghahramani 2016,
    arXiv:1512.05287), else every step has its own. Raises SpecError for a share outside [0, 1).
    """

    def __init__(self, share: float, *, variational: bool = False) -> None:
        super().__init__("dropout", share)
        self.variational = variational

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B, T, D] with features dropped; x itself outside training."""
        if not self.training or self.share == 0.0:
            return x
        if not self.variational:
            return functional.dropout(x, self.share)
        kept = self.once(lambda: torch.rand_like(x[:, :1]) >= self.share)
        return x * kept / (1.0 - self.share)

    def extra_repr(self) -> str:
        """Return what print(module) shows."""
        return f"{self.share}, variational={self.variational}"


class DropConnect(Noise):
    """Drops entries of w_h in training, once for all steps, and scales the rest.

    A transform of the weights, so every kernel runs it unchanged (Wan et al. 2013; on the
    recurrent weight: Merity et al. 2017, arXiv:1708.02182, section 2).
    """

    def __init__(self, share: float) -> None:
        super().__init__("dropconnect", share)

    def forward(self, params: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return a cell's parameters with another w_h; `params` themselves outside training."""
        if not self.training or self.share == 0.0:
            return params
        w_h = self.once(lambda: functional.dropout(params["w_h"], self.share))
        return {**params, "w_h": w_h}
