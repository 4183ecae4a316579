"""A recurrence over one sequence: a for loop."""

from __future__ import annotations

from collections.abc import Callable

from tests.naive.vectors import Vector

Step = Callable[[dict, dict, Vector, dict], tuple[dict, dict]]


def run(
    step: Step, params: dict, options: dict, xs: list[Vector], state: dict
) -> tuple[list[dict], list[dict]]:
    """States and gates after each of the steps."""
    states, gates = [], []
    for x in xs:
        state, gate = step(params, options, x, state)
        states.append(state)
        gates.append(gate)
    return states, gates
