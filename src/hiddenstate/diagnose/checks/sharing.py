"""Weights: one set for all steps and calls. HS145."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

LEAST = 3
"""Steps that a batch needs for a pattern to show."""


@rule(
    "HS145",
    "weights-per-step",
    Severity.ERROR,
    asks="Do all steps and all calls use the same weights?",
    because="A recurrence is one set of weights for every step. One set a step learns "
    "each position from its own few examples and cannot run on a longer row; weights made during "
    "the call are new at every call and are never learned.",
    remedy="Make one cell in __init__ and call it at every step.",
)
def weights_per_step(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """All modules that a call runs are counted, and again with fewer steps."""
    few = seen.few
    module = few.copy()
    own = set(module.modules())
    names = {each: name for name, each in module.named_modules()}
    before = {name for name, _ in module.named_parameters()}
    with _calls() as calls:
        few.call(module)
    made = [each for each in calls if each not in own and any(True for _ in each.parameters())]
    if made:
        kinds = ", ".join(sorted({type(each).__name__ for each in made}))
        yield rule.finding(
            kinds,
            f"The call made and ran {len(made)} {'module' if len(made) == 1 else 'modules'} with "
            f"weights of their own ({kinds}), which the module did not have before.",
            {"modules made": len(made)},
        )
        return
    added = {name for name, _ in module.named_parameters()} - before
    if added and not any(isinstance(each, nn.modules.lazy.LazyModuleMixin) for each in own):
        yield rule.finding(
            sorted(added)[0],
            f"The call added {len(added)} {'parameter' if len(added) == 1 else 'parameters'} to "
            "the module; an optimiser made before does not know them.",
            {"parameters added": len(added)},
        )
        return
    steps = int(few.ends.max(initial=0))
    groups = _once_a_step(calls, steps)
    if not groups:
        return
    if few.fixed_steps is None and steps - 1 >= LEAST - 1:
        # As many alike modules as steps may be chance; with one step less it is not.
        shorter = few.copy()
        with _calls() as fewer:
            few.call(shorter, few.steps(steps - 1))
        groups = [each for each in groups if each in _once_a_step(fewer, steps - 1, kinds=True)]
    elif few.fixed_steps is None:
        raise Skip("the rows are too short to tell steps from layers")
    for kind, shapes in groups:
        where = sorted(
            names[each] for each in calls if each in names and _kind(each) == (kind, shapes)
        )
        yield rule.finding(
            where[0],
            f"{len(where)} modules alike ({kind}) shared out the {steps} steps of a row: not one "
            "set of weights for all of them.",
            {"sets of weights": len(where)},
        )


@contextmanager
def _calls() -> Iterator[Counter[nn.Module]]:
    """Count the calls of every module, of those too that are made meanwhile."""
    counts: Counter[nn.Module] = Counter()

    def count(module: nn.Module, _: Any) -> None:
        counts[module] += 1

    hook = register_module_forward_pre_hook(count)
    try:
        yield counts
    finally:
        hook.remove()


def _once_a_step(
    calls: Counter[nn.Module], steps: int, *, kinds: bool = False
) -> list[tuple[str, Any]]:
    """Return kinds of modules alike that took the steps one by one: once each, or in turns."""
    alike: dict[tuple[str, Any], list[int]] = defaultdict(list)
    cells = set[tuple[str, Any]]()
    for module, count in calls.items():
        if any(True for _ in module.parameters()):
            alike[_kind(module)].append(count)
            if isinstance(module, nn.RNNCellBase):
                cells.add(_kind(module))
    return [
        kind
        for kind, counts in alike.items()
        if len(counts) > 1
        and sum(counts) == steps
        and (kinds or steps >= LEAST)
        and (kind in cells or set(counts) == {1})
    ]


def _kind(module: nn.Module) -> tuple[str, Any]:
    return type(module).__name__, tuple(tuple(each.shape) for each in module.parameters())
