"""The diagonal linear recurrence h_t = a_t * h_{t-1} + b_t in torch, by the compiled kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hiddenstate.errors import KernelRefusal
from hiddenstate.kernels import native as compiled
from hiddenstate.nn.recur import is_plain, resolved, widened


def linear_scan(a: Tensor, b: Tensor, first: Tensor | None = None) -> Tensor:
    """Return h [B, T, D] with h_t = a_t * h_{t-1} + b_t, with gradients of every order.

    a, b:  [B, T, D], both float32 or both float64, on the CPU
    first: h before the first step [B, D]; None is zeros

    Raises ShapeError; KernelRefusal without the compiled kernels.
    """
    if torch.is_autocast_enabled(a.device.type):
        a, b, first = (widened(each) for each in (a, b, first))
    compiled.require_scan(a, b, first)
    if compiled.module is None:
        raise KernelRefusal(
            f"linear_scan cannot run: {compiled.MISSING}.",
            "In torch it has no other way that would be worth its time.",
            "Install a C++ compiler and install hiddenstate again.",
        )
    run: Any = torch.ops.hiddenstate.linear_scan
    if is_plain(a):
        a, b, first = (resolved(each) for each in (a, b, first))
        run = _LinearScan.apply if torch.is_grad_enabled() else forward
    h: Tensor = run(a, b, first)
    return h


def forward(a: Tensor, b: Tensor, first: Tensor | None) -> Tensor:
    """Return h [B, T, D]; as `linear_scan`, without gradients."""
    h: Tensor = compiled.module.linear_scan(a, b, first, torch.get_num_threads())
    return h


class _LinearScan(torch.autograd.Function):
    """`hiddenstate::linear_scan` in eager mode."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, first: Tensor | None) -> Any:
        h = forward(a, b, first)
        ctx.save_for_backward(a, h, first)
        return h

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        back: Any = backward_again if torch.is_grad_enabled() else backward
        da, db, d_first = back(*ctx.saved_tensors, resolved(upstream[0]))
        return da, db, d_first if ctx.needs_input_grad[2] else None


def backward(
    a: Tensor, h: Tensor, first: Tensor | None, dh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a, b [B, T, D] and first [B, D] from that of h."""
    threads = torch.get_num_threads()
    found: tuple[Tensor, Tensor, Tensor] = compiled.module.linear_scan_backward(
        a, h, first, dh, threads
    )
    return found


def backward_again(
    a: Tensor, h: Tensor, first: Tensor | None, dh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `backward` does, itself differentiable."""
    # g_t = dh_t + a_{t+1} g_{t+1} is a scan as well, run from the end; so it has gradients.
    after = torch.cat([a[:, 1:], torch.zeros_like(a[:, :1])], 1)
    g = linear_scan(after.flip(1), dh.flip(1)).flip(1)
    start = torch.zeros_like(a[:, 0]) if first is None else first
    before = torch.cat([start[:, None], h[:, :-1]], 1)[:, : h.shape[1]]
    return g * before, g, (a * g)[:, :1].sum(1)
