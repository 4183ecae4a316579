"""What is measured of a module while it trains, each probe on its own and cheap.

None of them changes what is computed: they read weights, gradients and the arguments of layers,
draw no random numbers and leave every mode as it was.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hiddenstate.diagnose.measures.drawn import drawn_at_random, is_default, thinned
from hiddenstate.diagnose.watching.training import Added, Rows


class EmbeddingRows:
    """Which rows of the trainable embeddings have been read in training mode.

    A row with a gradient counts as read: a table may be the last layer's weight as well. A table of
    which several looks have found nothing new is no longer followed. `spent_s` is the time that it
    took within the module's own steps.
    """

    QUIET_LOOKS = 3

    def __init__(self, module: nn.Module) -> None:
        """Follow every embedding whose weight is trained."""
        self._module = module
        self.spent_s = 0.0
        self._tables: dict[str, nn.Embedding | nn.EmbeddingBag] = {}
        self._read: dict[str, Tensor] = {}
        self._hooks: dict[str, RemovableHandle] = {}
        self._counts: dict[str, list[int]] = {}
        self._drawn: dict[str, bool] = {}
        self._frozen: list[str] = []
        for name, each in module.named_modules():
            if not isinstance(each, nn.Embedding | nn.EmbeddingBag):
                continue
            self._drawn[name] = is_default(each) or drawn_at_random(thinned(each.weight))
            if not each.weight.requires_grad and is_default(each):
                self._frozen.append(name)
            if each.weight.requires_grad:
                read = torch.zeros(each.num_embeddings, dtype=torch.bool, device=each.weight.device)
                self._tables[name], self._read[name], self._counts[name] = each, read, []
                self._hooks[name] = each.register_forward_hook(self._noter(read))

    def frozen(self) -> tuple[str, ...]:
        """Return the embeddings that were drawn at random and alone are not trained.

        Where more is held, a body that was trained before, say, they belong to it.
        """
        held = [n for n, p in self._module.named_parameters() if not p.requires_grad]
        tables = {f"{name}.weight".lstrip(".") for name in self._drawn}
        return tuple(self._frozen) if tables.issuperset(held) else ()

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
                earlier = counts[(len(counts) - 1) // 2]
                found[name] = Rows(size, counts[-1], earlier, self._drawn[name])
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
        self._module, self._optimiser = module, optimiser
        self._parameters: dict[str, nn.Parameter] = {}
        self._before: dict[str, Tensor] = {}
        self._first: dict[str, float] = {}
        self._last: dict[str, float] = {}
        self._still: set[str] = set()
        self._with_gradient: set[str] = set()
        self._reached: set[str] = set()
        self._steps = 0
        self._add_new()

    @torch.no_grad()
    def begin(self) -> None:
        """Keep the weights as they are before a step of the optimiser, and note their gradients."""
        self._add_new()
        for name, weight in self._parameters.items():
            before = self._before.get(name)
            if before is None:
                self._before[name] = weight.detach().clone()
                continue
            # Of parts that take turns one may move at other steps than those looked at.
            if name in self._still and not torch.equal(before, weight):
                self._still.discard(name)
            before.copy_(weight)
        for name in self._still - self._with_gradient:
            gradient = self._parameters[name].grad
            if gradient is not None:
                self._reached.add(name)
                if bool((_values(gradient) != 0).any()):
                    self._with_gradient.add(name)

    @torch.no_grad()
    def end(self) -> dict[str, float]:
        """Return |change of w| / |w| since `begin`, of every weight (biases are left out)."""
        moved = {
            n: torch.stack([(p - self._before[n]).norm(), self._before[n].norm()])
            for n, p in self._parameters.items()
            if n in self._before
        }
        if not moved:
            return {}
        self._steps += 1
        found = {}
        for name, pair in zip(moved, torch.stack(list(moved.values())).tolist() if moved else ()):
            change, size = pair
            if change != 0:
                self._still.discard(name)
            if self._parameters[name].ndim > 1 and size > 0 and math.isfinite(change):
                found[name] = change / size
                self._first.setdefault(name, size)
                self._last[name] = size
        return found

    @property
    def size(self) -> float:
        """|w| / |w at first|, the median over the weights; NaN where none was measured."""
        shares = [size / self._first[name] for name, size in self._last.items()]
        return float(torch.tensor(shares).median()) if shares else math.nan

    def motionless(self) -> dict[str, str]:
        """Return why each parameter that never moved has not, by its name."""
        still = (n for n, p in self._parameters.items() if n in self._still and p.requires_grad)
        return {n: self._reason(n) for n in still if self._steps}

    def elsewhere(self) -> bool:
        """Return whether something moves that the optimiser was not given."""
        given = self._given()
        return given is not None and any(
            id(p) not in given for n, p in self._parameters.items() if n not in self._still
        )

    def _add_new(self) -> None:
        """Follow parameters that were made or exchanged since the last look."""
        for name, each in self._module.named_parameters():
            if each.requires_grad and self._parameters.get(name) is not each:
                self._parameters[name] = each
                self._still.add(name)
                for known in (self._before, self._first, self._last):
                    known.pop(name, None)

    def _given(self) -> set[int] | None:
        if self._optimiser is None:
            return None
        groups = (group["params"] for group in self._optimiser.param_groups)
        return {id(each) for group in groups for each in group}

    def _reason(self, name: str) -> str:
        given = self._given()
        if given is not None and id(self._parameters[name]) not in given:
            return "the optimiser was not given it"
        if name not in self._reached:
            return "no gradient ever reached it, so the loss does not depend on it"
        if name not in self._with_gradient:
            return "its gradient was exactly 0 whenever it was looked at"
        return "it has a gradient, and the optimiser does not change it"


class Clearing:
    """Whether gradients are cleared between steps, and how many batches are added up in one.

    Seen by hooks on a few small parameters: what is there before a backward pass adds to it.
    """

    FEW = 4

    def __init__(self, module: nn.Module, optimiser: torch.optim.Optimizer | None) -> None:
        trained = [each for each in module.parameters() if each.requires_grad]
        if optimiser is not None:
            given = {id(p) for group in optimiser.param_groups for p in group["params"]}
            trained = [each for each in trained if id(each) in given]
        few = sorted(trained, key=lambda each: each.numel())[: self.FEW]
        self._armed = False
        self._stale: list[list[Tensor]] = [[] for _ in few]
        self._steps: list[list[Tensor]] = [[] for _ in few]
        self._sums = [Added(0, 0, math.nan, 0) for _ in few]
        self._hooks = [
            each.register_hook(self._noter(k, each))  # type: ignore[no-untyped-call]
            for k, each in enumerate(few)
        ]

    def arm(self, on: bool) -> None:
        """Look at the steps from the next one on, or no more."""
        self._armed = on

    def end(self) -> None:
        """Close a step: its gradients are there."""
        for steps, stale in zip(self._steps, self._stale):
            if stale:
                steps.append(torch.stack(stale))
            stale.clear()

    def added(self) -> Added | None:
        """Return what was seen; None where no gradient came."""
        for k, steps in enumerate(self._steps):
            if steps:
                old, stale = self._sums[k], [each.tolist() for each in steps]
                self._sums[k] = Added(
                    old.steps + len(stale),
                    old.cleared + sum(not all(each) for each in stale),
                    float(np.median([len(each) for each in stale])),
                    old.thrown + sum(not all(each[1:]) for each in stale),
                )
                steps.clear()
        found = [each for each in self._sums if each.steps]
        return max(found, key=lambda each: (each.cleared / each.steps, each.steps), default=None)

    def close(self) -> None:
        """Take off every hook."""
        for hook in self._hooks:
            hook.remove()

    def _noter(self, k: int, parameter: Tensor) -> Callable[[Tensor], None]:
        def note(gradient: Tensor) -> None:
            del gradient
            if self._armed:
                old = parameter.grad
                self._stale[k].append(torch.tensor(False) if old is None else _values(old).any())

        return note


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
        if count < 2 or not self._sums:
            self._sums, self._squares = {}, []
            return math.nan, math.nan
        total = torch.stack([each.double().square().sum() for each in self._sums.values()]).sum()
        mean = float(total) / count**2
        each = float(torch.stack(self._squares).mean())
        self._sums, self._squares = {}, []
        return (count * mean - each) / (count - 1), (each - mean) / (1 - 1 / count)


def _values(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
