"""What truncation does to a gradient: measured against the whole graph, on a given batch.

g_k is the gradient of the same loss when it goes back through windows of k steps only, the state
carried on and cut between them (SPEC 3.3); g is that of the whole graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from hiddenstate.errors import UsageError
from hiddenstate.models import Batch, SequenceModel
from hiddenstate.nn import detach

RECURRENT = "w_h"


@dataclass(frozen=True)
class Truncation:
    """How far the gradient through windows of k steps is from the whole one.

    steps:          k
    cosine:         g_k g / (|g_k| |g|); 1 is the same direction
    relative_error: |g_k - g| / |g|
    norm_ratio:     |g_k| / |g|
    recurrent_cosine, recurrent_error: the same for the recurrent weights alone, which learn to
                    remember; None where the model has none, or their gradient is zero
    """

    steps: int
    cosine: float | None
    relative_error: float | None
    norm_ratio: float | None
    recurrent_cosine: float | None
    recurrent_error: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON values."""
        return asdict(self)


def truncation(
    model: SequenceModel,
    batch: Batch,
    lags: Sequence[int],
    stride: int | None = None,
    observer: Callable[[Truncation], None] = lambda _: None,
) -> list[Truncation]:
    """Measure the gradient of the batch's mean loss through windows of each number of steps.

    stride: steps by which windows move on; None is the whole window, as training does usually; with
            1 every loss goes back exactly k steps, which costs k times as much

    The model is read in evaluation mode, without noise. Raises UsageError for a lag or stride
    below 1, and for a model whose state cannot be carried on.
    """
    _check(model, lags, stride)
    model.eval()
    whole = gradient(model, batch, int(batch.lengths.max()))
    found = []
    for lag in lags:
        cut = gradient(model, batch, lag, lag if stride is None else min(stride, lag))
        every = _compare(list(cut.values()), list(whole.values()))
        names = [name for name in whole if name.endswith(RECURRENT)]
        recurrent = _compare([cut[n] for n in names], [whole[n] for n in names])
        found.append(Truncation(lag, *every, *recurrent[:2]))
        observer(found[-1])
    return found


def gradient(
    model: SequenceModel, batch: Batch, steps: int, stride: int | None = None
) -> dict[str, Tensor]:
    """Return the gradient of the batch's mean loss by parameter, through windows of k steps.

    The first window counts all its losses, each later one those of its last `stride` steps.
    """
    stride = steps if stride is None else stride
    time = batch.codes.shape[1]
    total = torch.stack([mask.sum() for mask in batch.masks]).clamp(min=1)
    model.zero_grad()
    state, start, counted = None, 0, 0
    while True:
        window = _window(batch, start, min(start + steps, time), counted)
        moves = stride if stride < steps else None
        lost = model.losses(replace(window, state=state, carries=True, carry_steps=moves))
        loss = (lost.sums / total).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        state, counted = detach(lost.state), start + steps
        if counted >= time:
            break
        start += stride
    return {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        for name, weight in model.named_parameters()
    }


def _window(batch: Batch, start: int, end: int, counted: int) -> Batch:
    """Return the steps from start to end, of which those before `counted` do not count."""
    places = torch.arange(start, end)
    return replace(
        batch,
        codes=batch.codes[:, start:end],
        numbers=batch.numbers[:, start:end],
        lengths=(batch.lengths - start).clamp(0, end - start),
        targets=tuple(target[:, start:end] for target in batch.targets),
        masks=tuple(
            mask[:, start:end] & (places >= counted).view(1, -1, *[1] * (mask.ndim - 2))
            for mask in batch.masks
        ),
    )


def _compare(cut: list[Tensor], whole: list[Tensor]) -> tuple[float | None, ...]:
    """Return cosine, relative error and ratio of norms; None where a norm is zero."""
    if not whole:
        return None, None, None
    one = torch.cat([each.flatten().double() for each in cut])
    other = torch.cat([each.flatten().double() for each in whole])
    size, truth = float(one.norm()), float(other.norm())
    if truth == 0:
        return None, None, None
    cosine = float(one @ other) / (size * truth) if size else None
    return cosine, float((one - other).norm()) / truth, size / truth


def _check(model: SequenceModel, lags: Sequence[int], stride: int | None) -> None:
    if not lags or min(*lags, stride or 1, math.inf) < 1:
        raise UsageError(
            f"Lags {', '.join(map(str, lags)) or 'none'} with stride {stride} were asked for.",
            "A gradient goes back at least 1 step, and windows move on by at least 1.",
            "Give whole numbers from 1 on, such as 1,2,5,10,50.",
        )
    reasons = model.spec.refusals("streaming")
    if reasons:
        raise UsageError(
            f"This model has no state to carry on: {'; '.join(reasons)}.",
            "Truncation cuts the graph between windows and carries the state on.",
            "Measure a model that reads one direction and predicts at every step.",
        )
