"""One call of a recurrent module: what it read, what it gave, and where its gradients are read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from hiddenstate.diagnose.tracing.record import Floats, Lengths
from hiddenstate.kernels import Scan

Named: TypeAlias = dict[str, Floats]
"""Arrays by name; those of a State are [N, B, width], N layers and directions."""


class Layout(NamedTuple):
    """How a module's tensors lie, to bring them to [B, T, .] and [N, B, .].

    packed: the PackedSequence that it read, or None
    lead:   axes of a sequence before its features: BT, TB, T, B or none
    states: axes of an array of its states before the width: NB, N, B or none
    """

    packed: PackedSequence | None
    lead: str
    states: str

    def sequence(self, tensor: Tensor) -> Floats:
        """Return an input, an output or its gradient as a copy [B, T, .]."""
        if self.packed is not None:
            packed = PackedSequence(tensor.detach(), *self.packed[1:])
            return array(pad_packed_sequence(packed, batch_first=True)[0])
        if "B" not in self.lead:
            tensor = tensor.unsqueeze(0)
        if "T" not in self.lead:
            tensor = tensor.unsqueeze(1)
        return array(tensor.transpose(0, 1) if self.lead == "TB" else tensor)

    def state(self, tensor: Tensor) -> Floats:
        """Return an array of a state or its gradient as a copy [N, B, .]."""
        if "B" not in self.states:
            tensor = tensor.unsqueeze(-2)
        return array(tensor if "N" in self.states else tensor.unsqueeze(0))


@dataclass(eq=False)
class Call:
    """One call of a recurrent module; arrays are copies.

    x:         [B, T, D], what it read
    lengths:   [B], or None where every row has T steps
    first:     the States before the first step; None for zeros
    output:    [B, T, P of all directions], what it gave
    last:      the States that it returned; None where they were not wanted
    device:    the kind of device on which it ran
    narrow:    the type in which it computed where that is one of 16 bits
    given:     tensors of the first state, as they came
    returned:  tensors of the last state, as they went
    steps:     what the module's own kernel kept of every step, by `by_name`; None elsewhere
    kernel:    that kernel
    params:    the parameters that it ran, where noise changed them
    tapped:    where the gradients of the output and of each array of the last state are read
    gradients: those that the loss depends on
    """

    module: nn.Module
    layout: Layout
    x: Floats
    lengths: Lengths | None
    first: Named | None
    output: Floats
    last: Named | None
    device: str
    narrow: str | None
    given: tuple[Tensor, ...]
    returned: tuple[Tensor, ...]
    steps: Named | None = None
    kernel: str = ""
    params: Named | None = None
    tapped: dict[str, GradientEdge] = field(default_factory=dict)
    gradients: Named = field(default_factory=dict)


def array(tensor: Tensor) -> Floats:
    """Return a copy of a tensor in NumPy; 16 bits become float32."""
    return np.array(_view(tensor), order="C")


def by_name(scan: Scan) -> Named:
    """Return the arrays of a traced scan: output, projected, states/h, gates/i, ...

    Only the output is copied: nobody else has the others.
    """
    output = array(scan.output) if isinstance(scan.output, Tensor) else scan.output
    found: Named = {"output": output}
    kinds: dict[str, Any] = {"states": scan.states, "gates": scan.gates}
    named = {f"{kind}/{k}": v for kind, each in kinds.items() for k, v in each._asdict().items()}
    for name, each in {"projected": scan.projected, **named}.items():
        if each is scan.output:
            found[name] = output
        else:
            found[name] = _view(each) if isinstance(each, Tensor) else each
    return found


def narrow_type(x: Tensor) -> str | None:
    """Return the type of 16 bits in which a module computes on x, or None."""
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    return str(dtype).removeprefix("torch.") if dtype.itemsize == 2 else None


def _view(tensor: Tensor) -> Floats:
    narrow = tensor.dtype in (torch.float16, torch.bfloat16)
    held = tensor.detach().float() if narrow else tensor.detach()
    found: Floats = held.resolve_neg().cpu().numpy()
    return found
