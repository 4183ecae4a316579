"""What a training is judged by beside its numbers: modes, dropout, decay, other modules' losses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hiddenstate.nn.dropout import DropConnect, Dropout

MOST_NODES = 50_000
"""Steps of a graph that are followed."""
LEAST_NUMBERS = 32
FLAT = 1.8
"""Largest over standard deviation; of uniform numbers it is 1.73, of trained ones 3 and more."""


def noisy_parts(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the parts that act otherwise in training mode."""
    return tuple(name for name, each in module.named_modules() if _is_noisy(each))


def _is_noisy(part: nn.Module) -> bool:
    if isinstance(part, nn.modules.dropout._DropoutNd):
        return part.p > 0
    if isinstance(part, nn.RNNBase):
        return part.dropout > 0 and part.num_layers > 1
    if isinstance(part, Dropout | DropConnect):
        return part.share > 0
    return isinstance(part, nn.modules.batchnorm._BatchNorm)


def strongest_dropout(module: nn.Module) -> float:
    """Return the largest share that any part drops in training."""
    shares = [0.0]
    for each in module.modules():
        if isinstance(each, nn.modules.dropout._DropoutNd):
            shares.append(each.p)
        elif isinstance(each, nn.RNNBase) and each.num_layers > 1:
            shares.append(each.dropout)
        elif isinstance(each, Dropout | DropConnect):
            shares.append(each.share)
    return float(max(shares))


def leaves(loss: Tensor) -> Iterator[Tensor]:
    """Yield the parameters that a loss was made from, as far as its graph is followed."""
    waiting: list[Any] = [loss.grad_fn]
    known: set[Any] = set()
    while waiting and len(known) < MOST_NODES:
        node = waiting.pop()
        if node is None or node in known:
            continue
        known.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        waiting.extend(each for each, _ in node.next_functions)


def is_shared(
    loss: Tensor | float, module: nn.Module, optimiser: torch.optim.Optimizer | None
) -> bool:
    """Return whether a loss is made from parameters that neither of the two knows."""
    if not isinstance(loss, Tensor) or loss.grad_fn is None:
        return False
    known = {id(each) for each in module.parameters()}
    if optimiser is not None:
        known |= {id(each) for group in optimiser.param_groups for each in group["params"]}
    return any(isinstance(leaf, nn.Parameter) and id(leaf) not in known for leaf in leaves(loss))


def decay_of(optimiser: torch.optim.Optimizer | None) -> float:
    """Return the share of a weight that decay takes off in one step: rate times weight decay.

    0 for optimisers that divide it by the gradient's size, and where nothing is known.
    """
    whole = torch.optim.SGD | torch.optim.AdamW
    if not isinstance(optimiser, whole):
        return 0.0
    return max(float(each["lr"]) * float(each["weight_decay"]) for each in optimiser.param_groups)


@torch.no_grad()
def look_drawn(weights: Iterable[Tensor]) -> bool:
    """Return whether most of the weights look as they were drawn: uniform, orthogonal or constant.

    Trained numbers have tails; of those drawn from a normal distribution nothing can be said.
    """
    judged = [_looks_drawn(each.detach()) for each in weights if each.numel() >= LEAST_NUMBERS]
    return not judged or sum(judged) >= len(judged) / 2


def _looks_drawn(weight: Tensor) -> bool:
    spread = float(weight.float().std())
    if spread == 0.0 or float((weight - weight.mean()).abs().max()) <= FLAT * spread:
        return True
    if weight.ndim != 2:
        return False
    high, wide = weight.shape
    if high < wide or high % wide:
        return False
    # Ours are orthogonal gate by gate.
    parts = weight.float().reshape(high // wide, wide, wide)
    gram = parts.mT @ parts
    scale = gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    return bool((gram / scale - torch.eye(wide, device=gram.device)).abs().amax() < 1e-3)
