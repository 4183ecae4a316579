"""What a prediction owes to each step as far as a module is linear there: gradient x input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiddenstate.diagnose.subject.layout import Place
from hiddenstate.diagnose.subject.subject import Subject

Floats = NDArray[np.float64]


def input_gradients(
    subject: Subject, history: dict[str, Any], steps: int, prediction: Callable[[Any], Tensor]
) -> tuple[Floats, Floats] | tuple[None, None]:
    """Return gradient x input and the gradient's length [T], of the first row."""
    module = subject.copy()
    read: list[Tensor] = []
    embedded: dict[nn.Module, list[Tensor]] = {}

    def watched(_: str, x: Tensor) -> Tensor:
        if x.is_floating_point():
            x = x.detach().clone().requires_grad_()
            read.append(x)
        return x

    def looked_up(embedding: nn.Module, _: Any, found: Tensor) -> Tensor:
        leaf = found.detach().requires_grad_()
        embedded.setdefault(embedding, []).append(leaf)
        return leaf

    for each in module.modules():
        if isinstance(each, nn.Embedding):
            each.register_forward_hook(looked_up)
    with torch.enable_grad():
        given = subject.replaced(watched, history)
        value = prediction(subject.call(module, given, gradients=True, keep=True))
    if not value.requires_grad:
        return None, None
    place = subject.layout.places[subject.layout.main]
    rows_first = Place("sequence", 0, 1)
    sources = [([x], rows_first) for x in read]
    sources += [(calls, place) for calls in embedded.values()]
    found = []
    for leaves, axes in sources:
        slopes = torch.autograd.grad(value, leaves, retain_graph=True, allow_unused=True)
        known = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, slopes)]
        x, slope = _by_step(leaves, axes, steps), _by_step(known, axes, steps)
        if x is not None and slope is not None:
            found.append((x, slope))
    if not found:
        return None, None
    x, slope = (torch.cat(each, 1).double().cpu() for each in zip(*found))
    return (x * slope).sum(1).numpy(), slope.norm(dim=1).numpy()


def _by_step(calls: Sequence[Tensor], place: Place, steps: int) -> Tensor | None:
    """Return what the first row has at each step [T, .], None where that cannot be told.

    calls: arrays [B, T, ...] in the order of axes of a place, or one [B, .] for each step
    """
    assert place.batch is not None
    assert place.time is not None
    if all(each.ndim > 1 and each.shape[place.time] == steps for each in calls):
        rows = [each.detach().movedim((place.batch, place.time), (0, 1))[0] for each in calls]
        return torch.cat([each.reshape(steps, -1) for each in rows], 1)
    if len(calls) == steps and all(each.ndim == 2 for each in calls):
        return torch.stack([each.detach()[0] for each in calls])
    return None
