"""A module that takes a state and gives one back: which of its outputs goes into which argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.calling import Refused
from hiddenstate.diagnose.subject.layout import STATE, called
from hiddenstate.diagnose.subject.nested import mapped, tensors

if TYPE_CHECKING:
    from hiddenstate.diagnose.examine import Examination
    from hiddenstate.diagnose.subject.subject import Subject

PARTS = 8
"""Parts of a state that are exchanged one by one."""


@dataclass(frozen=True)
class Carried:
    """How a state goes round: `take` finds the state arguments in what the module gave."""

    names: tuple[str, ...]
    take: Callable[[Any], dict[str, Any]]


def carried(seen: Examination) -> Carried:
    """Return how the module's state goes round; raises Skip where it takes or gives none."""
    return seen.known("carried", lambda: _carried(seen.few))


def held_states(seen: Examination) -> frozenset[str]:
    """Return the names of the outputs that are parts of a state."""
    try:
        way, raw = carried(seen), seen.few.raw()
    except Skip:
        return frozenset()
    held = {id(leaf) for value in way.take(raw).values() for _, leaf in tensors(value)}
    return frozenset(name for name, each in tensors(raw) if id(each) in held)


@dataclass(frozen=True)
class Part:
    """What of a state is exchanged by itself: an array by its name, or one layer of it."""

    name: str
    layer: int | None = None

    @property
    def told(self) -> str:
        """The part in words."""
        return self.name if self.layer is None else f"layer {self.layer} of {self.name}"


def parts(state: Mapping[str, Any], batch: int) -> list[Part]:
    """Return the parts of a state, at most PARTS."""
    found: list[Part] = []
    for top, value in state.items():
        for name, leaf in tensors(value, top):
            if not leaf.is_floating_point():
                continue
            if leaf.ndim == 3 and leaf.shape[1] == batch and leaf.shape[0] > 1:
                found += [Part(name, layer) for layer in range(leaf.shape[0])]
            else:
                found.append(Part(name))
    return found[:PARTS]


def exchanged(state: Mapping[str, Any], part: Part) -> dict[str, Any]:
    """Return the state with other values in this part: 0.5 less its own."""

    def turn(name: str, leaf: Any) -> Any:
        if name != part.name or not isinstance(leaf, Tensor):
            return leaf
        leaf = leaf.clone()
        own = leaf if part.layer is None else leaf[part.layer]
        own.copy_(0.5 - own)
        return leaf

    return {name: mapped(turn, value, name) for name, value in state.items()}


def _carried(subject: Subject) -> Carried:
    names = subject.states
    if not names:
        raise Skip("the module takes no state")
    raw = subject.raw()
    for take in _ways(raw, names):
        found = Carried(names, take)
        try:
            state = take(raw)
            if not any(tensors(each) for each in state.values()):
                continue
            subject.run({**subject.arguments, **state})
        except (Refused, LookupError, TypeError, ValueError):
            continue
        return found
    raise Skip(f"nothing that it gives can be given back as {' and '.join(names)}")


def _ways(raw: Any, names: tuple[str, ...]) -> list[Callable[[Any], dict[str, Any]]]:
    """Return ways to take the states out of what a module gives, likeliest first."""
    keys = _keys(raw)
    ways: list[Callable[[Any], dict[str, Any]]] = []

    def at(key: Any) -> Callable[[Any], dict[str, Any]]:
        return lambda out: {names[0]: _get(out, key)}

    def spread(key: Any) -> Callable[[Any], dict[str, Any]]:
        return lambda out: dict(zip(names, _get(out, key), strict=True))

    if all(name in keys for name in names):
        ways.append(lambda out: {name: _get(out, name) for name in names})
    if len(names) == 1:
        likely = [key for key in keys if isinstance(key, str) and called(key, STATE)]
        return [*ways, *map(at, [*likely, *reversed(keys)])]
    if len(keys) > len(names):
        last = keys[-len(names) :]
        ways.append(lambda out: {name: _get(out, key) for name, key in zip(names, last)})
    # As torch's LSTM does it: the states are together in one of what it gives.
    return [*ways, *map(spread, reversed(keys))]


def _keys(raw: Any) -> list[Any]:
    if isinstance(raw, Mapping):
        return list(raw)
    if isinstance(raw, tuple) and hasattr(raw, "_fields"):
        return list(raw._fields)
    return list(range(len(raw))) if isinstance(raw, tuple | list) else []


def _get(raw: Any, key: Any) -> Any:
    if isinstance(key, str) and not isinstance(raw, Mapping):
        return getattr(raw, key)
    return raw[key]
