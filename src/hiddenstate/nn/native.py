"""The kernel "native" in torch: the compiled kernels, with gradients of everything.

Computes and refuses what `hiddenstate.kernels.native` does, and gives gates and states of every
step as views of what the way back needs anyway (they carry no gradient of their own). Under
autocast it computes in float32. Second derivatives (create_graph=True) come from the reference,
which takes the whole way back over; torch.func's transforms are refused beforehand. Threads are
torch's (torch.set_num_threads).

Parameters are packed at every call, since nothing in torch tells for certain that they have not
changed (`.data` is not counted). What earned it its place is measured in docs/results/kernels.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hiddenstate.cells import Cell
from hiddenstate.errors import KernelRefusal
from hiddenstate.kernels import Request, Scan, Zoneout
from hiddenstate.kernels import native as compiled
from hiddenstate.nn.arrays import TORCH
from hiddenstate.nn.operators import LIBRARY as LIBRARY  # registers what `recur` may call
from hiddenstate.nn.recur import call_of, recur


@dataclass(frozen=True)
class NativeKernel:
    """The compiled kernels for torch tensors, as a `hiddenstate.kernels.Kernel`."""

    name: str = "native"

    def refusals(self, request: Request) -> list[str]:
        """Return the reasons why they cannot run this request."""
        reasons = compiled.refusals(request)
        if request.second_order:
            reasons.append("they give first derivatives only, and none under torch.func")
        return reasons

    def run(
        self,
        cell: Cell,
        params: Mapping[str, Tensor],
        x: Tensor,
        state: Any | None = None,
        lengths: Tensor | None = None,
        *,
        reverse: bool = False,
        trace: bool = False,
        zoneout: Zoneout | None = None,
        final_state: bool = True,
    ) -> Scan:
        """Run x [B, T, D]; lengths [B] are taken as checked. Raises KernelRefusal."""
        if zoneout is not None:
            raise KernelRefusal(
                "The kernel native was run with zoneout.",
                "It refuses that when it is asked first.",
                "Choose a kernel with hiddenstate.kernels.choose.",
            )
        names = [name for name in compiled.PARAMETERS if name in params]
        want = compiled.KEPT if trace or torch.is_grad_enabled() else 0
        if trace:
            want |= compiled.PROJECTED | (compiled.CLEAR if lengths is not None else 0)
        call = call_of(cell, names, reverse=reverse, want=want)
        h, c, *_ = (None, None) if state is None else (*state, None)
        ran = recur(call, x, h, c, [params[name] for name in names], lengths)
        scan = compiled.scan_of(TORCH, cell, ran, state, lengths, reverse=reverse, trace=trace)
        return scan if final_state else scan._replace(state=None)
