"""What a module answers while it trains, beside one constant answer: from outputs and gradients.

The loss is not known, and need not be: of a mean cross entropy dL/dlogits is (p - y) / N, of a mean
squared error 2 (o - y) / N. Where the gradient of an output has one of these forms to the last
digits, the true answers y are read off it; of any other loss nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiddenstate.diagnose.watching.training import Answered

EXACT = 1e-3
MOST_CLASSES = 4096


@dataclass(frozen=True)
class Look:
    """One batch: how often each class was right [C], or sums of the answers and their squares."""

    positions: int
    loss: float
    weight: float
    kind: str
    sums: NDArray[np.float64]


class Answers:
    """The answers of a module at the steps that are looked at.

    Its outputs are kept by a hook on the module itself: where a loop calls parts of it alone
    nothing is seen.
    """

    def __init__(self, module: nn.Module) -> None:
        self._looks: list[Look] = []
        self._armed = False
        self._held: list[tuple[Tensor, list[Tensor]]] = []
        self._hook = module.register_forward_hook(self._keep)

    def arm(self) -> None:
        """Look at the next step."""
        self._armed, self._held = True, []

    @torch.no_grad()
    def take(self, loss: float) -> None:
        """Read the answers of the step whose gradients are there."""
        held, self._armed, self._held = self._held, False, []
        for output, gradients in reversed(held):
            if len(gradients) == 1:
                found = _read(output, gradients[0], loss)
                if found is not None:
                    self._looks.append(found)
                    return

    def answered(self) -> Answered | None:
        """Return what was seen; None where the loss is none of those that can be read."""
        if not self._looks or len({look.kind for look in self._looks}) > 1:
            return None
        half = self._looks[len(self._looks) // 2 :]
        weights = [look.weight for look in self._looks]
        return Answered(
            len(half),
            sum(look.positions for look in half),
            _mean(half),
            _constant(half),
            _mean(self._looks[:1]),
            _constant(self._looks[:1]),
            float(np.median(weights)),
        )

    def close(self) -> None:
        """Take off the hook."""
        self._hook.remove()

    def _keep(self, module: nn.Module, arguments: Any, output: Any) -> None:
        del module, arguments
        if not self._armed or not torch.is_grad_enabled():
            return
        for each in _tensors(output):
            if each.requires_grad and each.is_floating_point() and each.ndim > 1:
                gradients: list[Tensor] = []
                each.register_hook(gradients.append)  # type: ignore[no-untyped-call]
                self._held.append((each.detach(), gradients))
                return


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for each in output.values():
            yield from _tensors(each)
    elif isinstance(output, tuple | list):
        for each in output:
            yield from _tensors(each)


def _read(output: Tensor, gradient: Tensor, loss: float) -> Look | None:
    """Return what an output and its gradient say of the answers; None where they say nothing."""
    if output.shape != gradient.shape or not bool(gradient.isfinite().all()):
        return None
    for axis in dict.fromkeys((output.ndim - 1, 1)):
        pair = (each.movedim(axis, -1).flatten(0, -2).double().cpu() for each in (output, gradient))
        found = _classes(*pair)
        if found is not None:
            return found
    return _numbers(output.double().cpu(), gradient.double().cpu(), loss)


def _classes(logits: Tensor, gradient: Tensor) -> Look | None:
    """Read classes off the gradient [N, C] of a mean cross entropy."""
    if not 2 <= logits.shape[1] <= MOST_CLASSES:
        return None
    # Positions that the loss leaves out have none.
    asked = gradient.abs().amax(1) > 0
    logs, gradient = logits[asked].log_softmax(1), gradient[asked]
    if len(logs) < 2:
        return None
    truth = gradient.argmin(1)
    rows = torch.arange(len(truth))
    p, right = logs.exp(), logs[rows, truth]
    if bool((logits[asked].exp().sum(1) - 1).abs().amax() < EXACT):
        # Logarithms of probabilities, of which the loss takes one.
        scale = -1 / gradient[rows, truth]
        rest = gradient.clone()
        rest[rows, truth] = 0.0
        exact = not bool(rest.any())
    else:
        scale = (p[rows, truth] - 1) / gradient[rows, truth]
        # What is certain already has too small a gradient to tell.
        unsure = 1 - p[rows, truth] > EXACT
        wanted = p - scale[:, None] * gradient
        wanted[rows, truth] -= 1.0
        exact = bool(unsure.any()) and bool((wanted.abs().amax(1)[unsure] < EXACT).all())
        scale = scale[unsure]
    whole = float(scale.median()) if exact else math.nan
    if not exact or whole <= 0 or bool(((scale / whole - 1).abs() > 10 * EXACT).any()):
        return None
    counts = np.bincount(truth.numpy(), minlength=logits.shape[1]).astype(np.float64)
    return Look(len(truth), -float(right.mean()), len(truth) / whole, "classes", counts)


def _numbers(output: Tensor, gradient: Tensor, loss: float) -> Look | None:
    """Read numbers off the gradient of a mean squared error, whose loss is known."""
    asked = gradient != 0
    count, squares = int(asked.sum()), float(gradient.square().sum())
    # Over N numbers: L = N / 4 sum g^2, so N is known twice.
    if count < 2 or not loss > 0 or abs(4 * loss / squares / count - 1) > EXACT:
        return None
    if output.shape[-1] > MOST_CLASSES:
        return None
    wide, there = output.flatten(0, -2), asked.flatten(0, -2)
    truth = torch.where(there, wide - gradient.flatten(0, -2) * count / 2, 0.0)
    sums = torch.stack([there.double().sum(0), truth.sum(0), truth.square().sum(0)])
    return Look(count, loss, 1.0, "numbers", sums.numpy())


def _mean(looks: list[Look]) -> float:
    return sum(look.loss * look.positions for look in looks) / sum(k.positions for k in looks)


def _constant(looks: list[Look]) -> float:
    """Return the loss of the one answer that is best for these batches, were there more of them."""
    if len({look.sums.shape for look in looks}) > 1:
        return math.nan
    sums = np.sum([look.sums for look in looks], axis=0)
    if looks[0].kind == "classes":
        # Each answer by the frequencies of all the others: of few, its own would tell too much.
        count, seen = sums.sum(), sums[sums > 0]
        others = (seen - 0.5) / (count - 1 + 0.5 * len(sums))
        return float(-(seen * np.log(others)).sum() / count)
    count, total, squares = sums
    known = count > 1
    spread = squares[known] - total[known] ** 2 / count[known]
    return float(spread.sum() / np.maximum(count[known] - 1, 1).sum())
