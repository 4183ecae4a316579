"""A cell over time by the compiled kernels, with gradients: what the kernel "native" runs.

Eager calls are a `torch.autograd.Function`; under torch.compile and dispatch modes the operators of
`hiddenstate.nn.operators` stand for the same functions. An operator written in Python costs three
times as much a call (docs/decisions/004).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from hiddenstate.cells import GRU, LSTM, Cell, Elman
from hiddenstate.kernels import ReferenceKernel
from hiddenstate.kernels import native as compiled
from hiddenstate.nn.arrays import TORCH

Ran: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]
"""y [B, T, H], h_n [B, H], c_n [B, H], what was kept [B, T, K, Hp], W_x x + b_x [B, T, G, Hp]."""


class Call(NamedTuple):
    """What is run, in numbers that an operator can take.

    kind, peephole, writes: the cell, as `kernels.native.code_of` says
    given:   which of `kernels.native.PARAMETERS` the parameters are, one bit each
    reverse: each row runs backwards
    want:    what is kept, as `kernels.native.KEPT`, PROJECTED and CLEAR say
    """

    kind: int
    peephole: bool
    writes: bool
    given: int
    reverse: bool
    want: int

    @property
    def lstm(self) -> bool:
        """Whether there is a c beside h."""
        return 2 <= self.kind < 5

    @property
    def kept_blocks(self) -> int:
        """Blocks [B, T, block, Hp] that are kept of each step."""
        return (0, 0, 5, 4, 4, 4, 3)[self.kind] if self.want & compiled.KEPT else 0

    def spread(self, params: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
        """Return one entry for each of PARAMETERS, None where it is not given."""
        each = iter(params)
        return tuple(
            next(each) if self.given >> k & 1 else None for k in range(len(compiled.PARAMETERS))
        )

    def cell(self, x: Tensor, w_h: Tensor) -> Cell:
        """Return the cell again."""
        biases = (self.given >> 2 & 1) + (self.given >> 3 & 1)
        sizes: dict[str, Any] = {"hidden_size": w_h.shape[-1], "biases": biases}
        sizes["input_size"] = x.shape[-1]
        if self.kind < 2:
            return Elman(**sizes, activation="relu" if self.kind else "tanh")
        if self.lstm:
            sizes |= {"forget_gate": self.kind != 4, "coupled": self.kind == 3}
            return LSTM(**sizes, peephole=self.peephole)
        reset: Any = ("after", "before")[self.kind - 5]
        return GRU(**sizes, reset=reset, update="writes" if self.writes else "keeps")


def call_of(cell: Cell, names: Sequence[str], *, reverse: bool, want: int) -> Call:
    """Return the Call of a cell with parameters of these names, in the order of PARAMETERS."""
    given = sum(1 << compiled.PARAMETERS.index(name) for name in names)
    return Call(*compiled.code_of(cell), given, reverse, want)


def recur(
    call: Call,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    params: Sequence[Tensor],
    lengths: Tensor | None,
) -> Ran:
    """Run a cell over x [B, T, D] from h and c [B, H], with gradients where they are recorded."""
    if torch.is_autocast_enabled(x.device.type):
        x, h, c, *params = (widened(each) for each in (x, h, c, *params))
    if is_plain(x):
        x, h, c, *params = (resolved(each) for each in (x, h, c, *params))
        if torch.is_grad_enabled():
            return _Recur.apply(call, lengths, x, h, c, *params)  # type: ignore[no-any-return, no-untyped-call]
        return forward(call, x, h, c, params, lengths)
    y, h_n, c_n, kept, projected = torch.ops.hiddenstate.recur(x, h, c, params, lengths, *call)
    return (
        y,
        h_n,
        c_n if call.lstm else None,
        kept if call.kept_blocks else None,
        projected if call.want & compiled.PROJECTED else None,
    )


def widened(each: Any) -> Any:
    """Return a tensor (or None) as autocast has the kernels take it: float16 as float32."""
    # As torch's own operators that autocast runs in float32: float64 stays what it is.
    narrow = each is not None and each.dtype in (torch.float16, torch.bfloat16)
    return each.float() if narrow else each


def resolved(each: Any) -> Any:
    """Return a tensor (or None) whose memory holds its values."""
    # The kernels read memory: the minus that torch keeps beside an imaginary part is not in it.
    return None if each is None else each.resolve_neg()


def is_plain(x: Tensor) -> bool:
    """Return whether a call on x may bypass the operators."""
    # Under a mode (fake tensors, counters of operations) or a compiler only an operator is seen.
    return (
        not torch.compiler.is_compiling()
        and type(x) in (Tensor, torch.nn.Parameter)
        and torch._C._len_torch_dispatch_stack() == 0
    )


def forward(
    call: Call,
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    params: Sequence[Tensor],
    lengths: Tensor | None,
) -> Ran:
    """Run a cell over x [B, T, D]; as `recur`, without gradients."""
    packed = compiled.module.Packed(call.kind, call.peephole, call.writes, call.spread(params))
    threads = torch.get_num_threads()
    ran: Ran = compiled.module.forward(packed, x, h, c, lengths, call.reverse, call.want, threads)
    return ran


def backward(
    call: Call,
    saved: Sequence[Tensor | None],
    upstream: Sequence[Tensor | None],
    needs_x: bool,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, h, c and the parameters; saved as in `_Recur.forward`."""
    x, h, c, lengths, y, kept, *params = saved
    dx, dh, dc, *d_params = compiled.module.backward(
        call.kind,
        call.peephole,
        call.writes,
        call.spread(params),
        x,
        h,
        c,
        lengths,
        call.reverse,
        y,
        kept,
        *upstream,
        needs_x,
        torch.get_num_threads(),
    )
    return dx, dh, dc, *(each for each in d_params if each is not None)


def by_reference(
    call: Call, saved: Sequence[Tensor | None], upstream: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Return what `backward` does, itself differentiable: the reference goes forth and back."""
    # Views, for one tensor may be given twice (zeros as h and as c), each with its own gradient.
    x, h, c, *params = (
        None if each is None else each.view_as(each) for each in (*saved[:3], *saved[6:])
    )
    assert x is not None
    assert params[1] is not None
    cell = call.cell(x, params[1])
    names = [name for k, name in enumerate(compiled.PARAMETERS) if call.given >> k & 1]
    state = None if h is None else cell.State(*(each for each in (h, c) if each is not None))
    given = (x, h, c, *params)
    with torch.autocast(x.device.type, enabled=False):
        ran = ReferenceKernel(TORCH).run(
            cell, dict(zip(names, params)), x, state, saved[3], reverse=call.reverse
        )
        outputs = zip((ran.output, *ran.state), upstream)
        pairs = [(output, gradient) for output, gradient in outputs if gradient is not None]
        found = iter(
            torch.autograd.grad(
                [output for output, _ in pairs],
                [each for each in given if each is not None and each.requires_grad],
                [gradient for _, gradient in pairs],
                create_graph=True,
                allow_unused=True,
            )
        )
    return tuple(next(found) if each is not None and each.requires_grad else None for each in given)


class _Recur(torch.autograd.Function):
    """`hiddenstate::recur` in eager mode."""

    @staticmethod
    def forward(
        ctx: Any,
        call: Call,
        lengths: Tensor | None,
        x: Tensor,
        h: Tensor | None,
        c: Tensor | None,
        *params: Tensor,
    ) -> Any:
        ran = forward(call, x, h, c, params, lengths)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(each for each in ran[3:] if each is not None))
        ctx.save_for_backward(x, h, c, lengths, ran[0], ran[3], *params)
        ctx.call = call
        return ran

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> Any:
        if torch.is_grad_enabled():
            return None, None, *by_reference(ctx.call, ctx.saved_tensors, upstream[:3])
        given = [resolved(each) for each in upstream[:3]]
        found = backward(ctx.call, ctx.saved_tensors, given, ctx.needs_input_grad[2])
        needed = zip(found, ctx.needs_input_grad[2:])
        return None, None, *(each if wanted else None for each, wanted in needed)
