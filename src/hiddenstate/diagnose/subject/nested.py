"""Tensors in nested tuples, mappings and dataclasses, by name: what modules take and give back."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.nn.packed import unpack


def is_leaf(value: Any) -> bool:
    """Return whether a value is an array, a PackedSequence or a list of whole numbers (lengths)."""
    if isinstance(value, Tensor | PackedSequence | np.ndarray):
        return True
    plain = isinstance(value, list | tuple) and not hasattr(value, "_fields")
    return plain and len(value) > 0 and all(type(each) is int for each in value)


def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves inside a value with their names: state[0], batch['x'], output.logits.

    >>> [name for name, _ in leaves((torch.ones(1), {"h": torch.ones(1)}), "output")]
    ['output[0]', "output[1]['h']"]
    """
    if is_leaf(value):
        yield name, value
        return
    for key, each in _children(value):
        yield from leaves(each, name + key)


def mapped(function: Callable[[str, Any], Any], value: Any, name: str) -> Any:
    """Return a value of the same structure with function(name, leaf) for each leaf."""
    if is_leaf(value):
        return function(name, value)
    children = [(key, mapped(function, each, name + key)) for key, each in _children(value)]
    if not children:
        return value
    if isinstance(value, Mapping):
        # A copy keeps the class: tokenisers and models give mappings of their own.
        after: Any = copy.copy(value)
        for key, (_, each) in zip(value, children, strict=True):
            after[key] = each
        return after
    if isinstance(value, list | tuple):
        parts = [each for _, each in children]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    after = copy.copy(value)
    for key, each in children:
        object.__setattr__(after, key.removeprefix("."), each)
    return after


def tensors(value: Any, name: str = "output") -> list[tuple[str, Tensor]]:
    """Return the tensors inside what a module gave, by name; a PackedSequence padded [B, T, ...].

    >>> [name for name, _ in tensors((torch.ones(1), [torch.ones(2)]))]
    ['output[0]', 'output[1][0]']
    """
    return [
        (each, unpack(leaf)[0] if isinstance(leaf, PackedSequence) else leaf)
        for each, leaf in leaves(value, name)
        if isinstance(leaf, Tensor | PackedSequence)
    ]


def copied(module: torch.nn.Module) -> torch.nn.Module:
    """Return a deep copy that shares nothing with the module.

    States that a module kept from a call with gradients are cut from their graph, which torch
    cannot copy.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        for _, leaf in leaves(dict(vars(part)), ""):
            if isinstance(leaf, Tensor) and leaf.grad_fn is not None:
                memo[id(leaf)] = leaf.detach().clone()
    return copy.deepcopy(module, memo)


def _children(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [(f"[{key!r}]", each) for key, each in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(f".{key}", each) for key, each in zip(value._fields, value)]
    if isinstance(value, list | tuple):
        return [(f"[{k}]", each) for k, each in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f".{each.name}", getattr(value, each.name)) for each in dataclasses.fields(value)]
    return []
