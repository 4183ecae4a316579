"""What a model is trained on, and what it gives back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn


class AnyBatch(Protocol):
    """What the loop asks of a batch, whatever its model reads."""

    @property
    def events(self) -> int:
        """Real steps in the batch."""

    def to(self, device: torch.device) -> AnyBatch:
        """Return the batch with its tensors on a device."""


@dataclass(frozen=True)
class Batch:
    """Padded sequences and what should be predicted.

    codes   [B, T, K] and numbers [B, T, F] are the inputs, lengths [B] their steps
    targets for each head: class indices or scaled numbers [B, T]; several numbers [B, T, S]; with a
            pool [B] or [B, S]
    masks   for each head, true where a target exists: of the targets' axes, without S where one
            truth covers all S
    weights [B], how much a sequence counts; None means all alike
    state   from where to go on, as `losses` returned it; None at the start of a sequence
    carries whether a state is wanted, for the batch that goes on from it
    carry_steps after how many steps of every row it is wanted; None means after the last one
    """

    codes: Tensor
    numbers: Tensor
    lengths: Tensor
    targets: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    weights: Tensor | None = None
    state: Any | None = None
    carries: bool = False
    carry_steps: int | None = None

    @property
    def events(self) -> int:
        """Real steps in the batch."""
        return int(self.lengths.sum())

    def to(self, device: torch.device) -> Batch:
        """Return the batch with its tensors on a device; the state is there already."""
        return replace(
            self,
            codes=self.codes.to(device),
            numbers=self.numbers.to(device),
            lengths=self.lengths.to(device),
            targets=tuple(target.to(device) for target in self.targets),
            masks=tuple(mask.to(device) for mask in self.masks),
            weights=None if self.weights is None else self.weights.to(device),
        )


class Losses(NamedTuple):
    """What a batch costs.

    sums:  each head's summed loss [heads]
    steps: how many predictions are behind it [heads]
    state: the state to go on from, for feeds that carry one; None elsewhere
    """

    sums: Tensor
    steps: Tensor
    state: Any | None = None


class Trainable(nn.Module, ABC):
    """What the training loop asks of a model; its state_dict holds the artifact's weights.

    done: share of the training that is over, told by the loop before every step, for schedules
    """

    done = 1.0

    @property
    @abstractmethod
    def kernels(self) -> tuple[str, ...]:
        """Kernel that ran each recurrent layer last."""

    @abstractmethod
    def losses(self, batch: Any, label_smoothing: float = 0.0) -> Losses:
        """Return what a batch of this model's feed costs.

        label_smoothing: probability spread evenly over all classes
        """
