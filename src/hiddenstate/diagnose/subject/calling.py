"""Calling a user's module again and again, without a mark on it or on the random generators."""

from __future__ import annotations

import copy
import inspect
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.nested import copied, mapped
from hiddenstate.errors import UsageError


class Refused(Skip):
    """The user's module raised on changed arguments."""


@contextmanager
def in_the_loss() -> Iterator[None]:
    """Turn whatever the user's loss raises into a Skip that says so."""
    try:
        yield
    except Exception as error:
        raise Skip(f"the loss raised {type(error).__name__}: {error}") from error


class Caller:
    """A private copy of a module, in eval mode, and how its arguments are given to it.

    module:     the copy; every call runs on a copy of it, so that nothing is carried between calls
    arguments:  by the names of the forward's signature, arrays in *args as args[0], args[1]
    parameters: all names of the signature, without those of flags
    """

    def __init__(self, module: nn.Module, batch: tuple[Any, ...] | Mapping[str, Any]) -> None:
        try:
            self.module = copied(module).eval()
        except Exception as error:
            raise UsageError(
                f"{type(module).__name__} cannot be copied: {_words(error)}.",
                "It is examined on copies, so that nothing is left on it.",
                "Keep what cannot be copied (files, locks, generators) out of the module.",
            ) from error
        self._bound = _bind(module, batch)
        self.parameters = tuple(
            name
            for name, each in self._bound.signature.parameters.items()
            if not isinstance(each.default, bool)
        )
        self.arguments: dict[str, Any] = {}
        for name, value in self._bound.arguments.items():
            kind = self._bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                self.arguments.update({f"{name}[{k}]": each for k, each in enumerate(value)})
            elif kind is inspect.Parameter.VAR_KEYWORD:
                self.arguments.update(value)
            else:
                self.arguments[name] = value

    def with_module(self, module: nn.Module) -> Caller:
        """Return what calls another module of the same signature; its copies are of that one."""
        other = copy.copy(self)
        other.module = module
        return other

    def call(
        self,
        arguments: Mapping[str, Any],
        *,
        module: nn.Module | None = None,
        seed: int = 0,
        training: bool = False,
        gradients: bool = False,
        keep: bool = False,
    ) -> Any:
        """Return what the module gives, as it gives it.

        module:    run this copy, not a fresh one
        gradients: record them
        keep:      give the arrays themselves, not copies of them

        Raises Refused when the module raises.
        """
        module = copied(self.module) if module is None else module
        if training:
            module.train()
        given = arguments if keep else {k: cloned(v) for k, v in arguments.items()}
        args, kwargs = self._as_call(given)
        # cuDNN gives no gradients in eval mode.
        with (
            seeded(seed, self.module),
            torch.set_grad_enabled(gradients),
            torch.backends.cudnn.flags(enabled=not gradients),
        ):
            try:
                return module(*args, **kwargs)
            except Exception as error:
                raise Refused(f"the module raised {_words(error)}") from error

    def _as_call(self, arguments: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        left = dict(arguments)
        bound = inspect.BoundArguments(self._bound.signature, type(self._bound.arguments)())
        for name, parameter in self._bound.signature.parameters.items():
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                own = [key for key in left if key.startswith(f"{name}[")]
                bound.arguments[name] = tuple(left.pop(key) for key in own)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                bound.arguments[name] = left
            elif name in left:
                bound.arguments[name] = left.pop(name)
        return bound.args, bound.kwargs


def cloned(value: Any) -> Any:
    """Return a value whose arrays are copies, detached from any graph."""
    return mapped(_clone, value, "")


@contextmanager
def seeded(seed: int, module: nn.Module | None = None) -> Iterator[None]:
    """Run with all random generators at a seed, no warnings, and the generators put back."""
    devices = set() if module is None else {each.device for each in module.parameters()}
    cuda = [each for each in devices if each.type == "cuda"]
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=cuda), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # torch.manual_seed would also queue a call for every device that may come later.
        torch.default_generator.manual_seed(seed)
        for each in cuda:
            torch.cuda.default_generators[each.index].manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _clone(_: str, leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    if isinstance(leaf, PackedSequence):
        return leaf._replace(data=leaf.data.detach().clone())
    return leaf.copy() if isinstance(leaf, np.ndarray | list) else leaf


def _bind(module: nn.Module, batch: tuple[Any, ...] | Mapping[str, Any]) -> inspect.BoundArguments:
    try:
        signature = inspect.signature(module.forward)
    except (AttributeError, TypeError, ValueError):
        # TorchScript keeps its signatures to itself.
        signature = inspect.signature(lambda *args, **kwargs: None)  # noqa: ARG005
    if isinstance(batch, Tensor | PackedSequence):
        batch = (batch,)
    try:
        if isinstance(batch, Mapping):
            return signature.bind(**batch)
        return signature.bind(*batch)
    except TypeError as error:
        given = ", ".join(batch) if isinstance(batch, Mapping) else f"{len(batch)} values"
        raise UsageError(
            f"The batch ({given}) does not fit {type(module).__name__}.forward: {error}.",
            f"Its arguments are {', '.join(signature.parameters) or 'none'}.",
            "Give a tuple of them in order, or a mapping by their names.",
        ) from error


def _words(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return (
        f"{type(error).__name__}: {first[0][:200].rstrip('.')}" if first else type(error).__name__
    )
