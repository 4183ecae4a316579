"""First states: nothing may be left of another call, and nothing drawn at random. HS133, HS136."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.diagnose.finding import Finding, Rule, Severity, Skip, rule
from hiddenstate.diagnose.measures.compare import (
    Base,
    Difference,
    differences,
    steady,
    unset,
    worst,
)
from hiddenstate.diagnose.subject.calling import Refused, cloned, seeded
from hiddenstate.diagnose.subject.nested import tensors
from hiddenstate.diagnose.subject.subject import flat
from hiddenstate.diagnose.tracing.capture import trace

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination

BRIEF = 2
"""Steps of rows in which a first state weighs most."""
RESET = re.compile(
    r"(reset|clear)(_(the_)?(states?|hidden|memory|carry|caches?))?|init_(states?|hidden)"
)
"""Methods that forget a state; not reset_parameters."""


@rule(
    "HS133",
    "state-kept",
    Severity.ERROR,
    asks="Does a call give the same whatever was called before it?",
    because="A state that stays in the module goes on into the next call, which is about other "
    "rows: one case's history leaks into another's result, and the order of the calls decides.",
    remedy="Begin every call from zeros or a learned state and give the state out instead of "
    "keeping it; or reset all of it between sequences, and let nobody call without.",
    limits={"share of the output": 1e-4},
)
def state_kept(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """Other rows are run first, on the same copy; then these."""
    few, known = seen.few, steady(seen)
    try:
        found = keeps(seen)
    except Refused as error:
        yield rule.finding("module", f"Called a second time, {error}.")
        return
    if found is None:
        return
    measured = (
        f"After a call with other rows the same rows give another {found.output.name}: "
        f"{found.largest:.3g} apart, {found.share:.2%} of its largest value."
    )
    values = {"difference": found.largest, "share": found.share}
    resets = _resets(few.module)
    if not resets:
        where = ", ".join(_changed_by_a_call(seen)) or found.output.name
        yield rule.finding(where, measured, values)
        return
    fresh, used = few.copy(), few.copy()
    few.call(used, _other(seen))
    for module in (fresh, used):
        _reset(module, resets, few.batch)
    try:
        begun = Base(flat(few.call(fresh)), known.limits, known.scales)
        again = worst(differences(few, begun, flat(few.call(used))))
    except Refused as error:
        raise Skip(f"after {resets[0]}() {error}") from error
    called = " and ".join(f"{each}()" for each in resets)
    if again is None:
        yield rule.finding(
            found.output.name,
            f"{measured} It keeps its state until {called}; after that nothing of it is left.",
            values,
            severity=Severity.NOTE,
        )
        return
    yield rule.finding(
        again.output.name,
        f"After {called} something of the call before is left: {again.output.name} is "
        f"{again.largest:.3g} apart, {again.share:.2%} of its largest value.",
        {"difference": again.largest, "share": again.share},
    )


@rule(
    "HS136",
    "first-state-random",
    Severity.ERROR,
    asks="Does every row begin in a state that is set?",
    because="A first state drawn at random, or read from memory that nobody wrote, is noise in "
    "every early step. The same row gives another result each time, worst for short rows.",
    remedy="Begin from zeros (give no state), or learn the first state as a parameter.",
)
def first_state_random(seen: Examination, rule: Rule) -> Iterator[Finding]:
    """The first states of all traced layers are compared over two seeds."""
    if unset(seen) is not None:
        raise Skip("it reads memory that nobody wrote (HS154)")
    layers = random_first(seen)
    if layers is None:
        raise Skip("no layer could be traced")
    for name, gap in layers.items():
        yield rule.finding(
            name,
            f"With another seed {name} begins in another state: {gap:.3g} apart, in eval mode.",
            {"difference": gap},
        )


def keeps(seen: Examination) -> Difference | None:
    """Return what a call with other rows changes in the next call on the same copy."""
    return seen.known("kept", lambda: _keeps(seen))


def _keeps(seen: Examination) -> Difference | None:
    few, module = seen.few, seen.few.copy()
    known = steady(seen)
    few.call(module, _other(seen))
    found = worst(differences(few, known, flat(few.call(module))))
    if found is not None or few.fixed_steps is not None or few.time <= BRIEF:
        return found
    # Over a long row what was kept may fade before the result is made.
    module, brief = few.copy(), few.steps(BRIEF)
    try:
        begun = Base(few.run(brief), known.limits, known.scales)
        few.call(module, _other(seen))
        return worst(differences(few, begun, flat(few.call(module, brief))))
    except Skip:
        # So few steps may be none once a layer has halved them.
        return None


def _other(seen: Examination) -> dict[str, Any]:
    return seen.few.changed(seen.few.valid, seen.rng("other rows"))


def random_first(seen: Examination) -> dict[str, float] | None:
    """Return the layers whose first state differs between seeds; None where none can be traced."""
    return seen.known("random first states", lambda: _first_by_seed(seen))


def _first_by_seed(seen: Examination) -> dict[str, float] | None:
    few, traces = seen.few, []
    for seed in (0, 1):
        with seeded(seed, few.module):
            try:
                traces.append(trace(few.copy(), cloned(few.arguments)))
            except Exception:  # a module that cannot be traced is asked by its outputs alone
                return None
    found = {}
    for one, other in zip(traces[0].layers, traces[1].layers):
        gap = _gap(one.first, other.first)
        if gap:
            found[one.name] = gap
        elif _gap(one.states, other.states):
            # What comes after it may differ by what this layer gives.
            break
    return found


def _gap(one: Any, other: Any) -> float:
    """Return the largest difference of two States; that of equal infinities is none."""
    largest = 0.0
    for a, b in zip(one, other):
        if a.shape == b.shape:
            apart = ~((a == b) | (np.isnan(a) & np.isnan(b)))
            largest = max(largest, float(np.abs(a[apart] - b[apart]).max(initial=0.0)))
    return largest


def _resets(module: nn.Module) -> list[str]:
    """Return the dotted names of the methods that forget a state, the outermost ones."""
    found: list[tuple[str, list[str]]] = []
    for name, part in module.named_modules():
        own = [each for each in dir(type(part)) if RESET.fullmatch(each)]
        if own and not any(f"{name}.".startswith(f"{above}.") for above, _ in found if above):
            found.append((name, own))
        if found and not name:
            break
    return [f"{name}.{each}".lstrip(".") for name, own in found for each in own]


def _reset(module: nn.Module, names: list[str], batch: int) -> None:
    for name in names:
        owner, _, method = name.rpartition(".")
        forget: Callable[..., Any] = getattr(module.get_submodule(owner), method)
        try:
            forget()
        except TypeError:
            try:
                forget(batch)
            except Exception as error:
                raise Skip(f"{name} cannot be called: {error}") from error


def _changed_by_a_call(seen: Examination) -> list[str]:
    """Return the names of the arrays that a call leaves changed in the module."""
    few = seen.few
    module = few.copy()
    before = {name: each.clone() for name, each in _held(module)}
    few.call(module)
    return [
        name for name, each in _held(module) if name not in before or not _alike(before[name], each)
    ]


def _held(module: nn.Module) -> list[tuple[str, Tensor]]:
    found = []
    for owner, part in module.named_modules():
        own = {key: each for key, each in vars(part).items() if not key.startswith("_")}
        own.update(part._buffers)
        for name, each in tensors(own, ""):
            found.append((f"{owner}.{name.strip('[]').replace(chr(39), '')}".lstrip("."), each))
    return found


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool(torch.equal(one, other))
