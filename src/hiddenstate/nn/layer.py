"""What every recurrent module shares: x and a state in, output and a state out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from hiddenstate.cells.state import map_state
from hiddenstate.errors import ShapeError
from hiddenstate.kernels import Scan
from hiddenstate.nn.lengths import checked_lengths
from hiddenstate.nn.packed import pack_like, unpack

Sequences = TypeVar("Sequences", Tensor, PackedSequence)


class Layer(nn.Module, ABC):
    """A recurrent module: one cell over time, two directions, or a stack of either.

    input_size:  D
    output_size: P
    """

    input_size: int
    output_size: int

    def forward(
        self,
        x: Sequences,
        lengths: Tensor | None = None,
        state: Any | None = None,
        final_state: bool = True,
    ) -> tuple[Sequences, Any]:
        """Run over x [B, T, D] and return (output [B, T, P], final state).

        x:           or a PackedSequence, which gives one back
        lengths:     [B] real steps of each row, 0 to T; None = T everywhere. Output is 0 past a
                     row's length; what stands in the padding, NaN too, changes nothing
        state:       from where to go on; None = the learned first state, or zeros
        final_state: False says that it is not wanted, which can be faster; None is returned for it

        The final state of a row is the one at its last real step, or the first state in a row of
        length 0. Raises ShapeError when x, lengths or state do not fit, KernelRefusal when the
        kernel asked for by name cannot run this.
        """
        if isinstance(x, PackedSequence):
            if lengths is not None:
                raise ShapeError(
                    f"lengths {list(lengths.shape)} came with a PackedSequence.",
                    "A PackedSequence brings its own lengths.",
                    "Leave lengths out, or give x as [B, T, D].",
                )
            padded, counts = unpack(x)
            lengths = self._lengths(padded, counts)
            output, last = self.run(padded, lengths, state, final_state=final_state)
            return pack_like(output, counts, x), last
        return self.run(x, self._lengths(x, lengths), state, final_state=final_state)

    def step(self, x_t: Tensor, state: Any | None = None) -> tuple[Tensor, Any]:
        """Take one step: x_t [B, D] and a state (None = first) give (output [B, P], state)."""
        output, last = self.forward(x_t.unsqueeze(1), state=state)
        return output.squeeze(1), last

    def trace(
        self, x: Tensor, lengths: Tensor | None = None, state: Any | None = None
    ) -> tuple[Tensor, Any, tuple[Scan, ...]]:
        """Run as `forward` and also return every cell's Scan with gates and states [B, T, .].

        Scans stand in the order of computation: lower layers first, forward before backward.
        """
        scans: list[Scan] = []
        output, last = self.run(x, self._lengths(x, lengths), state, scans=scans)
        return output, last, tuple(scans)

    @abstractmethod
    def run(
        self,
        x: Tensor,
        lengths: Tensor | None,
        state: Any | None,
        *,
        final_state: bool = True,
        scans: list[Scan] | None = None,
    ) -> tuple[Tensor, Any]:
        """Compute `forward` on checked x and lengths; append traced Scans to `scans` if given."""

    def _lengths(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        if x.ndim != 3 or x.shape[2] != self.input_size:
            found = f"{x.shape[2]} features" if x.ndim == 3 else f"{x.ndim} axes"
            raise ShapeError(
                f"x has {found} (shape {list(x.shape)}, read as [B, T, D]).",
                f"This {type(self).__name__} was built with input_size={self.input_size}.",
                "Bring x to [B, T, D] with that D, or build a layer for this input.",
            )
        return checked_lengths(lengths, x)


def detach(state: Any) -> Any:
    """Cut a state from the graph: h <- stopgrad(h), the boundary of truncated BPTT (SPEC 3.3)."""
    return map_state(torch.Tensor.detach, state)
