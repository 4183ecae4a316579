"""Losses over ragged batches, each written once: L = sum_t m_t l_t / sum_t m_t (SPEC 3.1).

Every loss takes a prediction, a target and a mask (None = all count) of the same leading axes,
usually [B, T]. A mask may be true/false or a weight. What stands where the mask is zero changes
nothing, NaN included, neither in the value nor in a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from hiddenstate.errors import ShapeError
from hiddenstate.schema.channels import LEAST_SCALE

Reduction = Literal["mean", "sum", "none"]


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return sum(m * values) / sum(m) over all axes, a scalar; 0 where no step counts.

    >>> masked_mean(torch.tensor([1.0, 3.0, 9.0]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    return _reduce(values, mask, "mean")


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -log softmax(logits [..., V])[target [...]], in nats.

    label_smoothing: share of the probability spread evenly over all classes (Szegedy et al. 2016).
    """
    _agree(logits.shape[:-1], target, mask)
    if mask is not None:
        counts = mask != 0
        logits = torch.where(counts[..., None], logits, 0.0)
        target = torch.where(counts, target, 0)
    values = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]),
        target.reshape(-1),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return _reduce(values.view(target.shape), mask, reduction)


def l1(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return |prediction - target|, both [...]."""
    return _reduce(_error(prediction, target, mask).abs(), mask, reduction)


def huber(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return e^2 / 2 for an error |e| <= delta, delta (|e| - delta / 2) beyond (Huber 1964)."""
    error = _error(prediction, target, mask)
    values = functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)
    return _reduce(values, mask, reduction)


def squared(
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return (prediction - target)^2, both [...]."""
    return _reduce(_error(prediction, target, mask).square(), mask, reduction)


def pinball(
    quantiles: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    levels: Sequence[float],
    reduction: Reduction = "mean",
) -> Tensor:
    """Return the mean over the Q levels q of max(q e, (q - 1) e), e = target - quantiles[..., q].

    quantiles [..., Q], target [...]. The expected value is least where each quantile is the
    target's own (Koenker and Bassett 1978, Econometrica 46(1), equation 2.2).
    """
    _agree(quantiles.shape[:-1], target, mask)
    spread = None if mask is None else mask[..., None].expand_as(quantiles)
    errors = -_error(quantiles, target[..., None].expand_as(quantiles), spread)
    given = torch.as_tensor(levels, dtype=errors.dtype, device=errors.device)
    values = torch.maximum(given * errors, (given - 1) * errors).mean(dim=-1)
    return _reduce(values, mask, reduction)


def gaussian(
    mean: Tensor,
    log_scale: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -log N(target; mean, s^2), all [...], in nats, with s = LEAST_SCALE + e^log_scale.

    The least scale keeps a channel that stands still from an infinite density.
    """
    error = _error(mean, target, mask)
    if mask is not None:
        log_scale = torch.where(mask != 0, log_scale, 0.0)
    scale = LEAST_SCALE + log_scale.exp()
    values = 0.5 * (error / scale).square() + scale.log() + 0.5 * math.log(2 * math.pi)
    return _reduce(values, mask, reduction)


def bernoulli(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -sum_s log p(target_s), in nats, of S yes-or-no answers with log odds logits [..., S].

    target is 0 or 1, [..., S]; the mask [...] speaks for all S.
    """
    _agree(logits.shape, target, None)
    _agree(logits.shape[:-1], logits[..., 0], mask)
    if mask is not None:
        counts = (mask != 0)[..., None]
        logits, target = torch.where(counts, logits, 0.0), torch.where(counts, target, 0.0)
    values = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return _reduce(values.sum(dim=-1), mask, reduction)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "l1": l1,
    "huber": huber,
    "squared": squared,
    "pinball": pinball,
    "gaussian": gaussian,
    "bernoulli": bernoulli,
}


def _error(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    _agree(prediction.shape, target, mask)
    error = prediction - target
    return error if mask is None else torch.where(mask != 0, error, 0.0)


def _reduce(values: Tensor, mask: Tensor | None, reduction: Reduction) -> Tensor:
    if mask is None:
        weighted, total = values, values.new_tensor(values.numel())
    else:
        weighted = torch.where(mask != 0, values, 0.0) * mask
        total = mask.sum().to(values.dtype)
    if reduction == "none":
        return weighted
    if reduction == "sum":
        return weighted.sum()
    return weighted.sum() / torch.where(total > 0, total, 1.0)


def _agree(leading: torch.Size, target: Tensor, mask: Tensor | None) -> None:
    if target.shape != leading or (mask is not None and mask.shape != leading):
        masked = "" if mask is None else f" and the mask {list(mask.shape)}"
        raise ShapeError(
            f"The target has shape {list(target.shape)}{masked};",
            f"the prediction asks for {list(leading)}, one number for each step.",
            "Give all of them the same leading axes, usually [B, T].",
        )
