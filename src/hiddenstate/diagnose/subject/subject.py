"""A module and one batch of its arguments, run again and again under changes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.diagnose.finding import Skip
from hiddenstate.diagnose.subject.axes import find_axes
from hiddenstate.diagnose.subject.calling import Caller, Refused
from hiddenstate.diagnose.subject.facts import Facts, Mask
from hiddenstate.diagnose.subject.layout import (
    STATE,
    Arguments,
    Lengths,
    called,
    every_leaf,
)
from hiddenstate.diagnose.subject.nested import copied, mapped, tensors
from hiddenstate.diagnose.subject.trailing import ends_of
from hiddenstate.errors import UsageError

STIR = 0.1


class Subject(Facts):
    """What is examined. The user's module, its arguments and the random generators stay untouched.

    module:      a private copy in eval mode; every run is on a copy of it
    arguments:   by the names of the forward's signature
    batch, time: sizes B and T
    lengths:     [B] steps of each row, as the batch tells them; None where it does not
    sequences:   names of the arrays [B, T, ...] among the arguments, in any order of axes
    states:      names of the arguments that are first states, given or not
    outputs:     names and axes of the arrays that it gives
    symbols:     those that its embeddings know as padding
    fixed_rows, fixed_steps: why other numbers of rows or steps cannot be run; None where they can
    astray:      layers inside that take the rows of the batch for steps

    batch_first: how the sequences lie, where the shapes leave it open; None finds out
    states:      names of further arguments that are first states

    Raises UsageError where the module does not run on the batch, ShapeError where nothing in it has
    rows and steps.
    """

    def __init__(
        self,
        module: nn.Module,
        batch: tuple[Any, ...] | Mapping[str, Any],
        *,
        batch_first: bool | None = None,
        states: Iterable[str] = (),
    ) -> None:
        self._caller = Caller(module, batch)
        self.arguments: dict[str, Any] = self._caller.arguments
        named = tuple(states)
        try:
            self._axes = find_axes(self._caller, batch_first=batch_first, states=named)
        except Refused as error:
            raise UsageError(
                f"{type(module).__name__} does not run on the batch given: {error}.",
                "It is called as module(*batch), or module(**batch) for a mapping, in eval mode.",
                "Give a batch that it runs on.",
            ) from error
        tables = (each for each in self.module.modules() if isinstance(each, nn.Embedding))
        symbols = [each.padding_idx for each in tables if each.padding_idx is not None]
        self.symbols = symbols
        self._known: tuple[Tensor, ...] | None = None
        self._seen = None
        if self.lengths is None:
            self._seen = ends_of(self.array(self.layout.main), symbols)
        self.states = tuple(
            name for name in self._caller.parameters if name in named or called(name, STATE)
        )

    # --- running it

    def run(
        self,
        arguments: Arguments | None = None,
        *,
        seed: int = 0,
        training: bool = False,
        gradients: bool = False,
    ) -> tuple[Tensor, ...]:
        """Return the arrays that a fresh copy gives, in the order of `outputs`.

        Raises Refused, a Skip, when the module raises.
        """
        return flat(self.raw(arguments, seed=seed, training=training, gradients=gradients))

    @property
    def known(self) -> tuple[Tensor, ...]:
        """What a run on the arguments as they are gives."""
        if self._known is None:
            self._known = self.run()
        return self._known

    def raw(self, arguments: Arguments | None = None, **options: Any) -> Any:
        """Return what a fresh copy gives, as the module gives it; options as `run`.

        Rows and steps that are joined in one axis are split: see `as_given`.
        """
        given = self.arguments if arguments is None else arguments
        return self._split(given, self._caller.call(given, **options))

    def copy(self) -> nn.Module:
        """Return a fresh copy of the module, in eval mode."""
        return copied(self.module)

    def call(self, module: nn.Module, arguments: Arguments | None = None, **options: Any) -> Any:
        """Return what this very copy gives, which may keep something for its next call."""
        given = self.arguments if arguments is None else arguments
        return self._split(given, self._caller.call(given, module=module, **options))

    def as_given(self, raw: Any) -> Any:
        """Return what the module gave with its own shapes, as a loss expects it."""
        joined = {each.name for each in self.outputs if each.joined}
        if not joined:
            return raw
        return mapped(lambda name, x: x.flatten(0, 1) if name in joined else x, raw, "output")

    def _split(self, arguments: Arguments, raw: Any) -> Any:
        joined = {each.name: each for each in self.outputs if each.joined}
        if not joined:
            return raw
        main = self.layout.main
        x = self._padded(main, dict(every_leaf(arguments))[main])
        lengths = self.layout.lengths_of(arguments)
        longest = x.shape[1] if lengths is None else int(lengths.max(initial=0))

        def split(name: str, leaf: Any) -> Any:
            output = joined.get(name)
            if output is None:
                return leaf
            for steps in (x.shape[1], longest):
                if len(leaf) == len(x) * steps:
                    first = output.batch_axis == 0
                    return leaf.unflatten(0, (len(x), steps) if first else (steps, len(x)))
            return leaf

        return mapped(split, raw, "output")

    # --- changing its arguments

    def rows(self, indices: Iterable[int], arguments: Arguments | None = None) -> dict[str, Any]:
        """Return the arguments of some rows, in the order given."""
        return self.layout.rows(self.arguments if arguments is None else arguments, indices)

    def steps(
        self, first: int, end: int | None = None, arguments: Arguments | None = None
    ) -> dict[str, Any]:
        """Return the first steps of every row, or those from `first` to before `end`."""
        return self.layout.steps(self.arguments if arguments is None else arguments, first, end)

    def with_lengths(
        self, lengths: Sequence[int] | Lengths, arguments: Arguments | None = None
    ) -> dict[str, Any]:
        """Return arguments that tell other lengths [B]; raises Skip where none were given.

        Steps that become padding get what stands in this batch's padding, if it is one thing.
        """
        given = self.arguments if arguments is None else arguments
        told = np.asarray(lengths, np.int64)
        freed = self.valid & (np.arange(self.time) >= told[:, None])
        places = torch.as_tensor(freed)

        def blank(name: str, x: Tensor) -> Tensor:
            padding = self._padding_of(name)
            if padding is not None and freed.any():
                x = x.clone()
                x[places] = padding
            return x

        blanked = given if self.packed else self.layout.replaced(given, blank)
        return self.layout.with_lengths(blanked, told)

    def _padding_of(self, name: str) -> Tensor | None:
        """Return what stands at every padded step of a sequence; None where it is not known."""
        x = self.array(name)
        padded = x[torch.as_tensor(~self.valid)]
        if len(padded):
            return padded[0] if bool((padded == padded[0]).all()) else None
        if self.symbols and not x.is_floating_point():
            return torch.full_like(x[0, 0], self.symbols[0])
        return None

    def changed(
        self, where: Mask, rng: np.random.Generator, arguments: Arguments | None = None
    ) -> dict[str, Any]:
        """Return arguments with other content at the steps `where` [B, T].

        Each step becomes another valid step of the batch, so that it stays possible input (one-hot,
        token or number); where all are alike, numbers get noise. Raises Skip for symbols alike.
        """
        if not where.any() or not self.valid.any():
            raise Skip("there is no step to change")
        given = self.arguments if arguments is None else arguments
        places, pool = torch.as_tensor(np.array(where)), np.argwhere(self.valid)
        draws = torch.as_tensor(pool[rng.integers(len(pool), size=(4, int(where.sum())))])
        valid, moved = torch.as_tensor(self.valid), False

        def change(name: str, x: Tensor) -> Tensor:
            nonlocal moved
            source = self.array(name)
            before = x[places]
            after = before.clone()
            for row, step in (draw.unbind(1) for draw in draws):
                same = (after == before).reshape(len(before), -1).all(1)
                after[same] = source[row, step][same]
            own = source[valid]
            if x.is_floating_point() and bool((own == own[0]).all()):
                after = before + torch.as_tensor(rng.normal(size=before.shape)).to(x)
            moved = moved or bool((after != before).any())
            x = x.clone()
            x[places] = after
            return x

        after = self.layout.replaced(given, change)
        if not moved:
            raise Skip("all steps of the batch are alike, so none can be exchanged")
        return after

    def filled(
        self, where: Mask, value: float, arguments: Arguments | None = None
    ) -> dict[str, Any]:
        """Return arguments with one value, NaN say, at the steps `where` [B, T] of float arrays."""
        places = torch.as_tensor(np.array(where))
        if not any(self.array(name).is_floating_point() for name in self.sequences):
            raise Skip("no argument with steps holds floating-point numbers")

        def change(_: str, x: Tensor) -> Tensor:
            if not x.is_floating_point():
                return x
            x = x.clone()
            x[places] = value
            return x

        return self.layout.replaced(self.arguments if arguments is None else arguments, change)

    def replaced(
        self, change: Callable[[str, Tensor], Tensor], arguments: Arguments | None = None
    ) -> dict[str, Any]:
        """Return arguments with change(name, array [B, T, ...]) in the place of each sequence."""
        return self.layout.replaced(self.arguments if arguments is None else arguments, change)

    def few(self, most: int) -> Subject:
        """Return the subject on at most so many rows, the longest and the shortest among them.

        The same subject where the module takes no other number of rows.
        """
        if self.batch <= most or self.fixed_rows is not None:
            return self
        by_length = np.argsort(self.ends, kind="stable")
        chosen = np.sort(by_length[np.linspace(0, self.batch - 1, most).round().astype(int)])
        return self.on(self.rows(chosen), rows=chosen)

    def stirred(self, rng: np.random.Generator) -> Subject:
        """Return the subject with small values in all parameters that are nothing but zeros."""
        zeros = [
            name
            for name, each in self.module.named_parameters()
            if each.requires_grad and each.is_floating_point() and not each.any()
        ]
        if not zeros:
            return self
        other = copy.copy(self)
        other._caller = self._caller.with_module(self.copy())
        other._known = None
        for name in zeros:
            weight = other.module.get_parameter(name)
            with torch.no_grad():
                weight.copy_(torch.as_tensor(rng.uniform(-STIR, STIR, weight.shape)))
        return other

    def on(self, arguments: Arguments, *, rows: Iterable[int], steps: int | None = None) -> Subject:
        """Return a subject of the same axes on these rows' arguments, cropped to so many steps."""
        chosen, time = list(rows), steps or self.time
        other = copy.copy(self)
        other.arguments = dict(arguments)
        lengths, seen = (
            None if each is None else each[chosen].clip(max=time)
            for each in (self.lengths, self._seen)
        )
        layout = replace(self.layout, batch=len(chosen), time=time, lengths=lengths)
        other._axes, other._seen = replace(self._axes, layout=layout), seen
        other._known = None
        return other


def flat(raw: Any) -> tuple[Tensor, ...]:
    """Return the arrays in what a module gave, as `Subject.outputs` lists them."""
    return tuple(each for _, each in tensors(raw))
