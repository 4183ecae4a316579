"""The problems by name, as the command line writes them: problem:adding:length=600."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hiddenstate.errors import UsageError, nearest
from hiddenstate.tasks.problems.brackets import Dyck
from hiddenstate.tasks.problems.digits import SequentialDigits
from hiddenstate.tasks.problems.memory import Adding, Copy, DelayedRecall
from hiddenstate.tasks.problems.problem import (
    Problem,
    Span,
)
from hiddenstate.tasks.problems.recall import Mqar
from hiddenstate.tasks.problems.regular import CycleNavigation, EvenPairs, ModularArithmetic, Parity
from hiddenstate.tasks.problems.signals import MackeyGlass
from hiddenstate.tasks.problems.sorting import BucketSort

PROBLEMS: dict[str, type[Problem]] = {
    problem.name: problem
    for problem in (
        Adding,
        Copy,
        DelayedRecall,
        Parity,
        EvenPairs,
        ModularArithmetic,
        CycleNavigation,
        Dyck,
        BucketSort,
        Mqar,
        MackeyGlass,
        SequentialDigits,
    )
}
PREFIX = "problem:"


def parse_problem(text: str) -> Problem:
    """Return the problem that a text names, as problem:NAME or problem:NAME:KEY=VALUE,...

    Lengths are one number or a span. Raises UsageError, with the nearest name for an unknown one.

    >>> parse_problem("problem:adding:length=200").text
    'problem:adding:length=200'
    """
    name, _, rest = text.strip().removeprefix(PREFIX).partition(":")
    if name not in PROBLEMS:
        raise UsageError(
            f"There is no problem {name!r}.",
            f"The problems are {', '.join(PROBLEMS)}.",
            f"Write {PREFIX}NAME.{nearest(name, PROBLEMS)}",
        )
    known = {field.name: field.default for field in fields(PROBLEMS[name])}
    given: dict[str, Any] = {}
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = pair.partition("=")
        if key not in known or not equals:
            raise UsageError(
                f"The problem {name} has no parameter {pair!r}."
                if equals
                else f"The parameter {pair!r} of the problem {name} has no value.",
                "Its parameters are "
                + ", ".join(f"{key}={_shown(default)}" for key, default in known.items())
                + ".",
                f"Write KEY=VALUE, pairs apart by commas.{nearest(key, known)}",
            )
        given[key] = _read(name, key, value, known[key])
    return PROBLEMS[name](**given)


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def _read(name: str, key: str, text: str, default: object) -> Any:
    """Read a value of the kind of its default."""
    try:
        if isinstance(default, Span):
            low, dash, high = text.partition("-")
            return Span(int(low), int(high if dash else low)).ordered()
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return int(text) if isinstance(default, int) else text
    except (ValueError, KeyError):
        kinds = {Span: "a length, or two as 1-40", bool: "true or false", int: "a whole number"}
        raise UsageError(
            f"The problem {name} got {key}={text}.",
            f"{key} is {kinds[type(default)]}.",
            f"Write it like its usual value, {key}={_shown(default)}.",
        ) from None
