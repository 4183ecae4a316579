"""What is measured of a module while it trains, each probe on its own and cheap.

None of them changes what is computed: they read weights, gradients and the arguments of layers,
draw no random numbers and leave every mode as it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hiddenstate.diagnose.watching.training import Rows


class EmbeddingRows:
    """Which rows of the trainable embeddings have been read in training mode.

    A row with a gradient counts as read: a table may be the last layer's weight as well. A table of
    which several looks have found nothing new is no longer followed. `spent_s` is the time that it
    took within the module's own steps.
    """

    QUIET_LOOKS = 3

    def __init__(self, module: nn.Module) -> None:
        """Follow every embedding whose weight is trained."""
        self.spent_s = 0.0
        self._tables: dict[str, nn.Embedding | nn.EmbeddingBag] = {}
        self._read: dict[str, Tensor] = {}
        self._hooks: dict[str, RemovableHandle] = {}
        self._counts: dict[str, list[int]] = {}
        for name, each in module.named_modules():
            if isinstance(each, nn.Embedding | nn.EmbeddingBag) and each.weight.requires_grad:
                read = torch.zeros(each.num_embeddings, dtype=torch.bool, device=each.weight.device)
                self._tables[name], self._read[name], self._counts[name] = each, read, []
                self._hooks[name] = each.register_forward_hook(self._noter(read))

    def look(self) -> None:
        """Take the rows that have a gradient as read too, and count."""
        for name in list(self._hooks):
            table, read, counts = self._tables[name], self._read[name], self._counts[name]
            gradient = table.weight.grad
            if gradient is not None and not gradient.is_sparse:
                read |= (gradient != 0).any(1)
            if table.padding_idx is not None:
                read[table.padding_idx] = False
            counts.append(int(read.sum()))
            if len(counts) > self.QUIET_LOOKS and counts[-1] == counts[-1 - self.QUIET_LOOKS]:
                self._hooks.pop(name).remove()

    def rows(self) -> dict[str, Rows]:
        """Return how many rows were read, at the last look and at half of the looks."""
        found = {}
        for name, table in self._tables.items():
            if counts := self._counts[name]:
                size = table.num_embeddings - (table.padding_idx is not None)
                found[name] = Rows(size, counts[-1], counts[(len(counts) - 1) // 2])
        return found

    def close(self) -> None:
        """Take off every hook."""
        for hook in self._hooks.values():
            hook.remove()

    def _noter(self, read: Tensor) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, arguments: Any, output: Any) -> None:
            del output
            if module.training and torch.is_grad_enabled() and arguments:
                began = time.perf_counter()
                read[arguments[0].detach()] = True
                self.spent_s += time.perf_counter() - began

        return note


class Movement:
    """How far each weight moves in one step, and which parameters never do.

    optimiser: where it is known, a parameter that it was not given is told as such
    """

    def __init__(self, module: nn.Module, optimiser: torch.optim.Optimizer | None = None) -> None:
        self._parameters = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._before: dict[str, Tensor] | None = None
        self._still = set(self._parameters)
        self._with_gradient: set[str] = set()
        self._reached: set[str] = set()
        self._steps = 0
        self._optimised = None
        if optimiser is not None:
            groups = (group["params"] for group in optimiser.param_groups)
            self._optimised = {id(each) for group in groups for each in group}

    @torch.no_grad()
    def begin(self) -> None:
        """Keep the weights as they are before a step of the optimiser, and note their gradients."""
        if self._before is None:
            self._before = {n: p.detach().clone() for n, p in self._parameters.items()}
        else:
            for name, weight in self._parameters.items():
                self._before[name].copy_(weight)
        for name in self._still - self._with_gradient:
            gradient = self._parameters[name].grad
            if gradient is not None:
                self._reached.add(name)
                if bool((_values(gradient) != 0).any()):
                    self._with_gradient.add(name)

    @torch.no_grad()
    def end(self) -> dict[str, float]:
        """Return |change of w| / |w| since `begin`, of every weight (biases are left out)."""
        if self._before is None:
            return {}
        moved = {
            n: torch.stack([(p - self._before[n]).norm(), self._before[n].norm()])
            for n, p in self._parameters.items()
        }
        self._steps += 1
        found = {}
        for name, pair in zip(moved, torch.stack(list(moved.values())).tolist() if moved else ()):
            change, size = pair
            if change != 0:
                self._still.discard(name)
            if self._parameters[name].ndim > 1 and size > 0 and math.isfinite(change):
                found[name] = change / size
        return found

    def motionless(self) -> dict[str, str]:
        """Return why each parameter that never moved has not, by its name."""
        return {n: self._reason(n) for n in self._parameters if n in self._still and self._steps}

    def _reason(self, name: str) -> str:
        if self._optimised is not None and id(self._parameters[name]) not in self._optimised:
            return "the optimiser was not given it"
        if name not in self._reached:
            return "no gradient ever reached it, so the loss does not depend on it"
        if name not in self._with_gradient:
            return "its gradient was exactly 0 whenever it was looked at"
        return "it has a gradient, and the optimiser does not change it"


class GradientNoise:
    """|G|^2 and tr(S) from the gradients of several steps in a row.

    From the mean square norm of one batch's gradient and the square norm of their mean over K
    steps, as for batches of 1 and K (McCandlish et al. 2018, arXiv:1812.06162, equations A.2, A.3).
    What the weights move in those steps counts as noise.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._squares: list[Tensor] = []

    def add(self, gradients: Mapping[str, Tensor], norm: Tensor) -> None:
        """Add one step's gradients by name, whose global norm is known."""
        for name, gradient in gradients.items():
            whole = gradient.detach().to_dense()
            if name in self._sums:
                self._sums[name].add_(whole)
            else:
                self._sums[name] = whole.clone()
        self._squares.append(norm.detach().double() ** 2)

    def take(self) -> tuple[float, float]:
        """Return (|G|^2, tr(S)) of what was added and begin anew; NaN from fewer than two."""
        count = len(self._squares)
        if count < 2:
            self._sums, self._squares = {}, []
            return math.nan, math.nan
        total = torch.stack([each.double().square().sum() for each in self._sums.values()]).sum()
        mean = float(total) / count**2
        each = float(torch.stack(self._squares).mean())
        self._sums, self._squares = {}, []
        return (count * mean - each) / (count - 1), (each - mean) / (1 - 1 / count)


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
