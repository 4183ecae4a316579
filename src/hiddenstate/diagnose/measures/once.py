"""Results that several rules ask for are computed once for each traced layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

Thing = TypeVar("Thing")
Result = TypeVar("Result")


def once(function: Callable[[Thing], Result]) -> Callable[[Thing], Result]:
    """Return a function that remembers its result for as long as its argument lives."""
    kept: WeakKeyDictionary[Thing, Result] = WeakKeyDictionary()

    def remembered(thing: Thing) -> Result:
        if thing not in kept:
            kept[thing] = function(thing)
        return kept[thing]

    return remembered
