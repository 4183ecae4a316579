"""A loss in which every row's output meets every row's answer: shapes that broadcast unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.measures.asked import slopes

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

Shape = tuple[int, ...]


class Crossing(NamedTuple):
    """An operation of the loss, and the shapes of what it joins."""

    operation: str
    outputs: Shape
    answers: Shape
    result: Shape


def crossing(seen: Examination) -> Crossing | None:
    """Return where outputs such as [B, 1] meet answers [B] as [B, B]; None where they do not.

    Only arrays of unlike numbers of axes count: who wants all pairs of rows gives both their axes.
    """
    try:
        found: Crossing | None = seen.known("crossing", lambda: _crossing(seen))
    except Skip:
        return None
    return found


def _crossing(seen: Examination) -> Crossing | None:
    found: list[Crossing] = []
    rows = seen.subject.batch

    class Look(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            given = [each for each in (*args, *(kwargs or {}).values()) if isinstance(each, Tensor)]
            if len(given) > 1:
                met = _met(given[0], given[1], rows)
                out = func(*args, **(kwargs or {}))
                name = str(getattr(func, "__name__", func)).strip("_")
                whole = isinstance(out, Tensor) and met is not None and tuple(out.shape) == met[2]
                if met is not None and (whole or name.endswith("_loss")):
                    found.append(Crossing(name, *met))
                return out
            return func(*args, **(kwargs or {}))

    if rows < 2:
        return None
    raw = seen.subject.raw(seed=seen.seed)
    with Look():
        slopes(seen, raw)
    return found[0] if found else None


def _met(one: Tensor, other: Tensor, rows: int) -> tuple[Shape, Shape, Shape] | None:
    """Return the shapes of outputs, answers and what they broadcast to, with the rows twice."""
    if one.requires_grad == other.requires_grad or one.ndim == other.ndim:
        return None
    outputs, answers = (one, other) if one.requires_grad else (other, one)
    if not one.ndim or not other.ndim:
        return None
    shapes = tuple(outputs.shape), tuple(answers.shape)
    try:
        result = np.broadcast_shapes(*shapes)
    except ValueError:
        return None
    crossed = result.count(rows) > max(each.count(rows) for each in shapes)
    return (*shapes, result) if crossed and rows in shapes[0] and rows in shapes[1] else None
