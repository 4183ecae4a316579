"""Outputs and layers that choose among the steps: pointers, weights of attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.axes import Output
from hiddenstate.diagnose.subject.calling import seeded
from hiddenstate.diagnose.subject.nested import mapped
from hiddenstate.diagnose.subject.subject import Subject

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

SHUT = -1e3
"""What stands at steps that may not be chosen is below this."""
EXACT = 1e-5
ATTENTION = ("softmax", "scaled_dot_product_attention")


def choices(seen: Examination) -> set[str]:
    """Return the names of the outputs whose numbers stand for a choice among the row's steps.

    What chooses among all steps has to have read them all.
    """
    found: set[str] = seen.known("choices", lambda: set(_choices(seen)))
    return found


def attends(seen: Examination) -> bool:
    """Return whether a softmax over the steps is taken for every step."""
    found: bool = seen.known("attends", lambda: _attends(seen.few))
    return found


def _choices(seen: Examination) -> Iterator[str]:
    subject = seen.subject
    raw = subject.raw(seed=seen.seed)
    for output, array in zip(subject.outputs, subject.known):
        if output.batch_axis is None or output.time_axis is None:
            continue
        if not array.is_floating_point() or output.joined:
            continue
        among = [
            axis
            for axis in range(array.ndim)
            if axis not in (output.batch_axis, output.time_axis)
            and array.shape[axis] == array.shape[output.time_axis]
        ]
        if (
            any(_follows(subject, output, axis) for axis in among)
            or _weighs(subject, output, array)
            or _shifts_freely(seen, output, raw)
        ):
            yield output.name


def _follows(subject: Subject, output: Output, axis: int) -> bool:
    """Return whether this axis of an output shrinks with the steps, as its axis of steps does."""
    if subject.fixed_steps is not None:
        return True
    try:
        after = subject.run(subject.steps(max(1, int(subject.ends.max()) - 1)))
    except Skip:
        return False
    array = after[subject.outputs.index(output)]
    assert output.time_axis is not None
    before = subject.known[subject.outputs.index(output)].shape[axis]
    return array.shape[axis] == array.shape[output.time_axis] < before


def _weighs(subject: Subject, output: Output, array: Tensor) -> bool:
    """Return whether an output holds weights or a mask over the steps.

    Beside a result for the whole row they may have any axes; alone, classes behind the axis of
    steps are rather what was to be weighed.
    """
    assert output.batch_axis is not None
    assert output.time_axis is not None
    pooled = any(
        each.batch_axis is not None and each.time_axis is None and not each.stretches
        for each in subject.outputs
    )
    features = array.numel() // (array.shape[output.batch_axis] * array.shape[output.time_axis])
    if features > 1 and output.time_axis < array.ndim - 1 and not pooled:
        return False
    array = array.movedim((output.batch_axis, output.time_axis), (0, -1))
    array = array.flatten(1, -2) if array.ndim > 2 else array
    own = torch.as_tensor(subject.valid[:, : array.shape[-1]])
    own = own if array.ndim == 2 else own.unsqueeze(1).expand_as(array)
    if bool((~own).any()) and bool((array[~own] < SHUT).all()) and bool((array[own] > SHUT).all()):
        return True
    for values in (array, array.exp()):
        kept = values.double().masked_fill(~own, 0.0)
        if bool((kept >= 0).all()) and bool(((kept.sum(-1) - 1).abs() < 1e-4).all()):
            return True
    return False


def _shifts_freely(seen: Examination, output: Output, raw: Any) -> bool:
    """Return whether the loss stays when one number is added to all steps of a row.

    So does a softmax over the steps, and what follows it.
    """
    if seen.loss is None:
        return False
    generator = torch.Generator().manual_seed(seen.seed)

    values = []
    for alike in (None, True, False):

        def shifted(name: str, leaf: Any, alike: bool | None = alike) -> Any:
            if alike is None or name != output.name or not isinstance(leaf, Tensor):
                return leaf
            shape = list(leaf.shape)
            if alike and output.time_axis is not None:
                shape[output.time_axis] = 1
            return leaf + torch.randn(shape, generator=generator).to(leaf)

        with seeded(seen.seed, seen.subject.module), torch.no_grad():
            try:
                values.append(
                    float(seen.loss(seen.subject.as_given(mapped(shifted, raw, "output"))))
                )
            except Exception:  # a loss of the user's own, at outputs that it never met
                return False
    before, same, other = values
    limit = EXACT * max(abs(before), 1e-6)
    return abs(same - before) <= limit < abs(other - before) / 10


def _attends(few: Subject) -> bool:
    found = False

    class Look(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            nonlocal found
            out = func(*args, **(kwargs or {}))
            if getattr(func, "__name__", "") in ATTENTION:
                pairs = isinstance(out, Tensor) and list(out.shape).count(few.time) > 1
                found = found or pairs or func.__name__ == ATTENTION[1]
            return out

    with Look():
        few.run()
    return found
