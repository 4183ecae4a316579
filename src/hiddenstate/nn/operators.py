"""The compiled kernels as torch operators, for torch.compile and for dispatch modes.

`hiddenstate::recur` runs a cell over time and `hiddenstate::recur_backward` goes back;
`hiddenstate::linear_scan` and its backward do so for the diagonal linear recurrence. Each has the
shapes of its results for tracing, gradients, and float32 under autocast. A result that a call has
no use for is empty, [0].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hiddenstate.kernels import native as compiled
from hiddenstate.nn import diagonal, recur
from hiddenstate.nn.recur import Call

CELL = "int kind, bool peephole, bool writes, int given, bool reverse, int want"
SCHEMAS = (
    "recur(Tensor x, Tensor? h, Tensor? c, Tensor[] params, Tensor? lengths, "
    f"{CELL}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "recur_backward(Tensor x, Tensor? h, Tensor? c, Tensor? lengths, Tensor y, Tensor kept, "
    f"Tensor[] params, Tensor? dy, Tensor? dh, Tensor? dc, {CELL}) -> Tensor[]",
    "linear_scan(Tensor a, Tensor b, Tensor? first) -> Tensor",
    "linear_scan_backward(Tensor a, Tensor h, Tensor? first, Tensor dh) "
    "-> (Tensor, Tensor, Tensor)",
)


def _filled(x: Tensor, each: Tensor | None) -> Tensor:
    return x.new_empty(0) if each is None else each


def _recur(
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    params: Sequence[Tensor],
    lengths: Tensor | None,
    *call: Any,
) -> tuple[Tensor, ...]:
    ran = recur.forward(Call(*call), x, h, c, params, lengths)
    return tuple(_filled(x, each) for each in ran)


def _recur_shapes(
    x: Tensor,
    _h: Tensor | None,
    _c: Tensor | None,
    params: Sequence[Tensor],
    _lengths: Tensor | None,
    *call: Any,
) -> tuple[Tensor, ...]:
    what, (batch, time, _), height = Call(*call), x.shape, params[1].shape[1]
    blocks, kept = params[0].shape[0] // height, what.kept_blocks
    width = compiled.padded(height, x.dtype == torch.float64)
    sizes: tuple[tuple[int, ...], ...] = (
        (batch, time, height),
        (batch, height),
        (batch, height) if what.lstm else (0,),
        (batch, time, kept, width) if kept else (0,),
        (batch, time, blocks, width) if what.want & compiled.PROJECTED else (0,),
    )
    return tuple(x.new_empty(size) for size in sizes)


def _recur_backward(
    x: Tensor,
    h: Tensor | None,
    c: Tensor | None,
    lengths: Tensor | None,
    y: Tensor,
    kept: Tensor,
    params: Sequence[Tensor],
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    *call: Any,
) -> list[Tensor]:
    what = Call(*call)
    saved = (x, h, c, lengths, y, kept if what.kept_blocks else None, *params)
    found = recur.backward(what, saved, (dy, dh, dc), needs_x=True)
    return [_filled(x, each) for each in found]


def _recur_backward_shapes(
    x: Tensor,
    _h: Tensor | None,
    _c: Tensor | None,
    _lengths: Tensor | None,
    _y: Tensor,
    _kept: Tensor,
    params: Sequence[Tensor],
    *rest: Any,
) -> list[Tensor]:
    state = (x.shape[0], params[1].shape[1])
    lstm = Call(*rest[3:]).lstm
    return [
        x.new_empty(x.shape),
        x.new_empty(state),
        x.new_empty(state if lstm else 0),
        *(each.new_empty(each.shape) for each in params),
    ]


def _keep_recur(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, h, c, params, lengths, *call = inputs
    ctx.call = Call(*call)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[3 if ctx.call.lstm else 2 :])
    ctx.save_for_backward(x, h, c, lengths, output[0], output[3], *params)


def _recur_gradients(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
    x, h, c, lengths, y, kept, *params = ctx.saved_tensors
    if torch.is_grad_enabled():
        found = recur.by_reference(ctx.call, ctx.saved_tensors, upstream[:3])
    else:
        found = torch.ops.hiddenstate.recur_backward(
            x, h, c, lengths, y, kept, params, *upstream[:3], *ctx.call
        )
    dx, dh, dc, *d_params = found
    unasked = (None for _ in ("lengths", *ctx.call))
    return dx, None if h is None else dh, None if c is None else dc, d_params, *unasked


def _scan_shapes(a: Tensor, _b: Tensor, _first: Tensor | None) -> Tensor:
    return a.new_empty(a.shape)


def _scan_backward_shapes(
    a: Tensor, _h: Tensor, _first: Tensor | None, _dh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(a.shape), a.new_empty(a.shape), a.new_empty(a.shape[0], a.shape[2])


def _keep_scan(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    a, _, first = inputs
    ctx.save_for_backward(a, output, first)


def _scan_gradients(ctx: Any, dh: Tensor) -> tuple[Tensor | None, ...]:
    a, h, first = ctx.saved_tensors
    again = torch.is_grad_enabled()
    back = diagonal.backward_again if again else torch.ops.hiddenstate.linear_scan_backward
    da, db, d_first = back(a, h, first, dh)
    return da, db, None if first is None else d_first


def _register() -> torch.library.Library:
    library = torch.library.Library("hiddenstate", "DEF")  # type: ignore[no-untyped-call]
    for schema in SCHEMAS:
        library.define(schema)  # type: ignore[no-untyped-call]
    for name, run, shapes in (
        ("recur", _recur, _recur_shapes),
        ("recur_backward", _recur_backward, _recur_backward_shapes),
        ("linear_scan", diagonal.forward, _scan_shapes),
        ("linear_scan_backward", diagonal.backward, _scan_backward_shapes),
    ):
        library.impl(name, run, "CPU")  # type: ignore[no-untyped-call]
        torch.library.register_fake(f"hiddenstate::{name}", shapes, lib=library)
    for name, gradients, keep in (
        ("recur", _recur_gradients, _keep_recur),
        ("linear_scan", _scan_gradients, _keep_scan),
    ):
        named = f"hiddenstate::{name}"
        torch.library.register_autograd(named, gradients, setup_context=keep, lib=library)
        torch.library.register_autocast(named, "cpu", torch.float32, lib=library)
    return library


LIBRARY = None if compiled.module is None else _register()
"""Kept for as long as the operators shall exist; None without the compiled kernels."""
