"""Gradients kept within bounds, with their norms recorded (SPEC 3.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Norms(NamedTuple):
    """The global norm |g| of all gradients before and after clipping, scalars."""

    before: Tensor
    after: Tensor


def clip_by_norm(parameters: Iterable[Tensor], limit: float) -> Norms:
    """Scale all gradients in place by min(1, limit / |g|), |g| their common Euclidean norm.

    A norm that is not finite leaves NaN behind and is for the caller to see in `before`.
    Source: Pascanu, Mikolov, Bengio 2013, arXiv:1211.5063, algorithm 1.
    """
    gradients = _gradients(parameters)
    before = _norm(gradients)
    scale = (limit / before).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.to(gradient.device))
    return Norms(before, before * scale)


def clip_by_value(parameters: Iterable[Tensor], limit: float) -> Norms:
    """Bring every entry of all gradients into [-limit, limit], in place."""
    gradients = _gradients(parameters)
    before = _norm(gradients)
    for gradient in gradients:
        gradient.clamp_(-limit, limit)
    return Norms(before, _norm(gradients))


def _gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _norm(gradients: list[Tensor]) -> Tensor:
    return torch.nn.utils.get_total_norm(gradients)
