"""What is known of a module and a batch once their axes are found."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.diagnose.subject.axes import Axes, Output
from hiddenstate.diagnose.subject.calling import Caller
from hiddenstate.diagnose.subject.layout import Layout, Lengths, every_leaf, steps_first
from hiddenstate.diagnose.subject.nested import tensors
from hiddenstate.nn import Bidirectional, Recurrent

Mask = NDArray[np.bool_]


class Facts:
    """The facts about a `Subject`: sizes, lengths, names, axes."""

    arguments: dict[str, Any]
    _caller: Caller
    _axes: Axes
    _seen: Lengths | None

    @property
    def module(self) -> nn.Module:
        """The private copy, in eval mode."""
        return self._caller.module

    @property
    def layout(self) -> Layout:
        """Where rows and steps lie in the arguments."""
        return self._axes.layout

    @property
    def batch(self) -> int:
        """B, the number of rows."""
        return self.layout.batch

    @property
    def time(self) -> int:
        """T, the number of steps with padding."""
        return self.layout.time

    @property
    def lengths(self) -> Lengths | None:
        """[B] steps of each row, as the batch tells them."""
        return self.layout.lengths

    @property
    def padded(self) -> Literal["told", "seen"] | None:
        """Whether the batch tells lengths, or its rows just end in padding."""
        if self.lengths is not None:
            return "told"
        return None if self._seen is None else "seen"

    @property
    def packed(self) -> bool:
        """Whether the main sequence came packed."""
        return isinstance(dict(every_leaf(self.arguments))[self.layout.main], PackedSequence)

    @property
    def ends(self) -> Lengths:
        """[B] steps of each row: as told, as the padding shows, or T."""
        if self.lengths is not None:
            return self.lengths
        return np.full(self.batch, self.time) if self._seen is None else self._seen

    @property
    def valid(self) -> Mask:
        """[B, T], true at a row's own steps."""
        return np.arange(self.time) < self.ends[:, None]

    @property
    def sequences(self) -> tuple[str, ...]:
        """Names of the arrays with rows and steps."""
        return self.layout.sequences

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Names and axes of what the module gives."""
        return self._axes.outputs

    @property
    def batch_first(self) -> bool:
        """Whether rows come before steps in the main sequence."""
        place = self.layout.places[self.layout.main]
        assert place.batch is not None
        assert place.time is not None
        return place.batch < place.time

    @property
    def fixed_rows(self) -> str | None:
        """Why another number of rows cannot be run; None where it can."""
        return self._axes.fixed_rows

    @property
    def fixed_steps(self) -> str | None:
        """Why another number of steps cannot be run; None where it can."""
        return self._axes.fixed_steps

    @property
    def astray(self) -> tuple[str, ...]:
        """Layers inside that take the rows of the batch for steps."""
        return self._axes.astray

    def names(self) -> tuple[str, ...]:
        """Return the dotted names of the recurrent layers inside."""
        kinds = nn.RNNBase | nn.RNNCellBase | Recurrent
        return tuple(name for name, each in self.module.named_modules() if isinstance(each, kinds))

    @property
    def bidirectional(self) -> bool:
        """Whether a layer inside reads from the end."""
        return any(
            isinstance(each, Bidirectional)
            or bool(getattr(each, "bidirectional", False))
            or (isinstance(each, Recurrent) and each.reverse)
            for each in self.module.modules()
        )

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are."""
        first = next(self.module.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def array(self, name: str) -> Tensor:
        """Return a sequence by its name as [B, T, ...]."""
        return self._padded(name, dict(every_leaf(self.arguments))[name])

    def _padded(self, name: str, leaf: Tensor | PackedSequence) -> Tensor:
        if isinstance(leaf, PackedSequence):
            return tensors(leaf)[0][1]
        return steps_first(leaf, self.layout.places[name])
