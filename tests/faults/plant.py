"""Planted faults and healthy models: what the checks are measured on.

A fault is one way to be wrong, drawn again and again with other cells, sizes and data. Its remedied
twin is the same draw with the rule's remedy applied: the finding has to go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from hiddenstate.diagnose.examine import examine
from hiddenstate.diagnose.finding import Finding, Severity


@dataclass(frozen=True)
class Planted:
    """What `examine` is given."""

    module: nn.Module
    batch: tuple[Any, ...] | Mapping[str, Any]
    loss: Callable[[Any], torch.Tensor] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def findings(self) -> Iterable[Finding]:
        """Return all that the checks have to say."""
        return examine(self.module, self.batch, self.loss, **self.options).findings


@dataclass(frozen=True)
class Watched:
    """A whole training run or a fitted run folder: `look` returns all that is found in it."""

    look: Callable[[], Iterable[Finding]]

    def findings(self) -> Iterable[Finding]:
        """Return all that the checks have to say."""
        return self.look()


Case = Planted | Watched
Draw = Callable[[np.random.Generator], Case]


def alarms(case: Case) -> list[Finding]:
    """Return the warnings and errors of a case."""
    return [each for each in case.findings() if each.severity is not Severity.NOTE]


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    codes:    rules of which one has to find it
    source:   the real bug behind it, where there is one
    remedied: the same draw with the remedy applied
    """

    name: str
    codes: tuple[str, ...]
    draw: Draw
    remedied: Draw
    source: str | None = None


FAULTS: dict[str, Fault] = {}
HEALTHY: dict[str, Draw] = {}
SETS = {"held_out": "first", "unseen": "second", "rehearsal": "third", "blind": "fourth"}
"""Sets of kinds written by people who had not seen the checks, by how their files begin."""
HELD_OUT: dict[str, str] = {}
"""The kinds of these sets, and which set each is of."""


def fault(
    name: str, *codes: str, source: str | None = None, held_out: bool = False
) -> Callable[[Callable[[np.random.Generator, bool], Case]], Fault]:
    """Enter a function (rng, remedied) -> Planted as a kind of fault."""

    def enter(function: Callable[[np.random.Generator, bool], Case]) -> Fault:
        if name in FAULTS:
            raise ValueError(f"{name!r} is planted already")
        FAULTS[name] = Fault(
            name,
            codes,
            lambda rng: function(rng, False),
            lambda rng: function(rng, True),
            source,
        )
        if held_out:
            HELD_OUT[name] = _set_of(function)
        return FAULTS[name]

    return enter


def healthy(name: str, *, held_out: bool = False) -> Callable[[Draw], Draw]:
    """Enter a function rng -> Planted as a kind of healthy model."""

    def enter(function: Draw) -> Draw:
        if name in HEALTHY:
            raise ValueError(f"{name!r} is there already")
        HEALTHY[name] = function
        if held_out:
            HELD_OUT[name] = _set_of(function)
        return function

    return enter


def _set_of(function: Callable[..., Case]) -> str:
    # A kind may be a partial of one function with some of its sizes fixed.
    file = getattr(function, "func", function).__module__.rpartition(".")[2]
    return next(told for begins, told in SETS.items() if file.startswith(begins))


def drawn(draw: Draw, name: str, instance: int) -> Case:
    """Draw an instance: torch's generator and the given one are seeded alike every time."""
    seed = [*name.encode(), instance]
    torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    return draw(np.random.default_rng(seed))
