"""Who is asked first to run a cell in torch, and what is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from hiddenstate.cells import Cell
from hiddenstate.kernels import Kernel, ReferenceKernel, Request
from hiddenstate.nn.arrays import TORCH
from hiddenstate.nn.fused import TorchKernel
from hiddenstate.nn.native import NativeKernel

KERNELS: tuple[Kernel, ...] = (NativeKernel(), TorchKernel(), ReferenceKernel(TORCH))
"""The kernels in the order of asking."""


def request_for(
    cell: Cell,
    x: Tensor,
    *,
    ragged: bool = False,
    reverse: bool = False,
    needs_grad: bool = False,
    needs_state: bool = False,
    needs_trace: bool = False,
    zoneout: bool = False,
) -> Request:
    """Return the request that running `cell` over x [B, T, D] makes.

    Under autocast a narrow x counts as float32, in which the compiled kernels then compute.
    Inside torch.func's transforms (vmap, grad, jacrev, ...) second derivatives count as asked for.
    """
    narrow = x.dtype in (torch.float16, torch.bfloat16)
    dtype = torch.float32 if narrow and torch.is_autocast_enabled(x.device.type) else x.dtype
    return Request(
        cell,
        x.shape[0],
        x.shape[1],
        dtype=str(dtype).removeprefix("torch."),
        device=x.device.type,
        ragged=ragged,
        reverse=reverse,
        needs_grad=needs_grad,
        needs_state=needs_state,
        needs_trace=needs_trace,
        zoneout=zoneout,
        # torch has no public way to ask whether a transform is active. While torch.compile traces,
        # only the type of what peek gives is right: it is not None even if there is none.
        second_order=isinstance(
            torch._C._functorch.peek_interpreter_stack(), torch._C._functorch.CInterpreter
        ),
    )
