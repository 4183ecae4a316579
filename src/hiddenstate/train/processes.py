"""Several processes that train one model: each takes its part of every batch (torchrun)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed, nn

from hiddenstate.train.feed import Feed


class Processes:
    """The processes of this fit; alone, every method gives back what it was given.

    A batch is shared out and its gradients are summed, so that any number of processes takes the
    step that one process takes with the whole batch, up to rounding (and to the noise of dropout,
    which each draws for itself).
    """

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.index = distributed.get_rank() if together else 0
        self.count = distributed.get_world_size() if together else 1

    def part(self, feed: Feed, item: Any) -> Any:
        """Return this process's part of a feed's item."""
        return item if self.count == 1 else feed.part(item, self.index, self.count)

    def sum(self, value: Tensor) -> Tensor:
        """Return a tensor summed over the processes."""
        if self.count > 1:
            value = value.detach().clone()
            distributed.all_reduce(value)
        return value

    def number(self, value: float) -> float:
        """Return a number summed over the processes."""
        return value if self.count == 1 else float(self.sum(torch.tensor(value).double()))

    def any(self, value: bool) -> bool:
        """Return whether it holds in any process."""
        return value if self.count == 1 else self.number(float(value)) > 0

    def same(self, value: float) -> float:
        """Return the first process's number."""
        return value if self.count == 1 else self.number(value if self.index == 0 else 0.0)

    def begin(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the first one's tensors."""
        if self.count > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def reseed(self, seed: int, epoch: int) -> None:
        """Let processes draw different noise, the same whenever this epoch is run."""
        if self.index:
            torch.manual_seed(hash((seed, epoch, self.index)) % 2**63)

    def add_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over the processes."""
        if self.count == 1:
            return
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in trained:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        gradients = [weight.grad for weight in trained if weight.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        place = 0
        for gradient in gradients:
            gradient.copy_(flat[place : place + gradient.numel()].view_as(gradient))
            place += gradient.numel()
