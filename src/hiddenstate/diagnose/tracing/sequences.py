"""Which noted calls are one sequence: a loop that hands the state on from step to step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hiddenstate.diagnose.tracing.calls import Call

# Open sequences of one module that are compared by value; a loop seldom has more at a time.
MOST_COMPARED = 8
# How many operations may lie between the state that a step gave and the one that the next got.
MOST_BETWEEN = 256


@dataclass
class Run:
    """Calls of one module that are one sequence.

    changed: by step, how much the state that it got differs from the one that was given out
    """

    calls: list[Call]
    changed: dict[int, float] = field(default_factory=dict)


def runs_of(calls: Iterable[Call]) -> list[Run]:
    """Return the sequences in the order of their first calls.

    A call of a single step goes on with the sequence whose last state it got: the very tensors, or
    others with the same values, or what the module made of them on the way.
    """
    runs: list[Run] = []
    stepped: dict[int, list[Run]] = {}
    for call in calls:
        run = None
        if _is_step(call):
            open_runs = stepped.setdefault(id(call.module), [])
            run = _before(call, open_runs)
        if run is None:
            run = Run([])
            runs.append(run)
            if _is_step(call):
                open_runs.append(run)
        elif (changed := _difference(call, run.calls[-1])) > 0:
            run.changed[len(run.calls)] = changed
        run.calls.append(call)
    return runs


def _is_step(call: Call) -> bool:
    both = getattr(call.module, "bidirectional", False) or getattr(call.module, "reverse", False)
    return call.x.shape[1] == 1 and call.lengths is None and call.last is not None and not both


def _before(call: Call, open_runs: list[Run]) -> Run | None:
    """Return the sequence with which a step goes on, or None if it begins one."""
    if call.first is None:
        return None
    alike = [run for run in reversed(open_runs) if run.calls[-1].output.shape == call.output.shape]
    for run in alike:
        if all(one is other for one, other in zip(call.given, run.calls[-1].returned)):
            return run
    for run in alike[:MOST_COMPARED]:
        if _difference(call, run.calls[-1]) == 0:
            return run
    if _begins(call):
        return None
    node = call.given[0].grad_fn
    if node is None:
        return alike[0] if alike else None
    ends = {run.calls[-1].returned[0].grad_fn: run for run in alike}
    return _found_behind(node, ends)


def _begins(call: Call) -> bool:
    """Return whether every row begins alike, in zeros or in a learned state."""
    arrays = (call.first or {}).values()
    if call.x.shape[0] == 1:
        return not any(each.any() for each in arrays)
    return all((each == each[:, :1]).all() for each in arrays)


def _difference(call: Call, before: Call) -> float:
    """Return how much the state that a call got differs from the one that another gave."""
    first, last = call.first or {}, before.last or {}
    return max(float(np.abs(first[name] - last[name]).max(initial=0.0)) for name in first)


def _found_behind(node: Any, ends: dict[Any, Run]) -> Run | None:
    """Return the sequence whose last state is nearest behind a node of the graph."""
    waiting, seen = [node], {node}
    for _ in range(MOST_BETWEEN):
        if not waiting:
            return None
        node = waiting.pop(0)
        if node in ends:
            return ends[node]
        below = {each for each, _ in node.next_functions if each is not None} - seen
        seen |= below
        waiting.extend(below)
    return None
