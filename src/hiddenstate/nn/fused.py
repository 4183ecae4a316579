"""The kernel "torch": one call of torch's own operator for all steps (oneDNN, cuDNN, or its loop).

Computes Elman, LSTM and GRU over [B, T, D], also in the variants that are the same mathematics in
other rows (`rows.torch_rows`). Refuses what those operators do not offer: gates and states of every
step, zoneout, second derivatives, peepholes and layer norm inside a cell, a GRU that resets before
the product.

Ragged rows run padded, not packed: padding is cleared on both sides, and h is read at each row's
last step. An LSTM's c is not among the outputs, so the padding carries an extra input that drives
the forget gate to exactly 1 and the input gate to exactly 0: c stands still to the bit, and every
gradient of a frozen step is exactly 0.

Earned its place (one core with AVX-512, torch 2.13, forward and backward, B=32 T=64 D=64 H=128,
ms; reference, torch.nn packed, this one ragged, this one without lengths, torch.nn without):
    LSTM    41.4  28.7  17.6  15.8  15.8
    GRU     34.0  25.5  23.8  22.7  22.8
    Elman   11.2  11.6   8.3   7.6   7.7
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hiddenstate.cells import LSTM, Cell, Elman
from hiddenstate.errors import KernelRefusal
from hiddenstate.kernels import Request, Scan, Zoneout
from hiddenstate.nn.arrays import TORCH
from hiddenstate.nn.lengths import Ragged
from hiddenstate.nn.rows import SATURATED, missing_in_torch, torch_rows


@dataclass(frozen=True)
class TorchKernel:
    """torch's fused operator of a cell, as a `hiddenstate.kernels.Kernel`."""

    name: str = "torch"

    def refusals(self, request: Request) -> list[str]:
        """Return the reasons why torch's operators cannot run this request."""
        reasons = missing_in_torch(request.cell)
        if request.needs_trace:
            reasons.append("gates and states of every step stay inside the operator")
        if request.zoneout:
            reasons.append("the operator has no zoneout")
        if request.second_order:
            reasons.append("the operator gives first derivatives only, and none under torch.func")
        if request.time == 0 or request.batch == 0:
            reasons.append("the operator needs at least one row and one step")
        if request.device not in ("cpu", "cuda"):
            reasons.append(f"it is not known to be right on {request.device}")
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
        if trace or zoneout is not None:
            raise KernelRefusal(
                "The kernel torch was run with a trace or with zoneout.",
                "It refuses both when it is asked first.",
                "Choose a kernel with hiddenstate.kernels.choose.",
            )
        rows = None if lengths is None else Ragged.of(lengths, x.shape[1])
        weights = torch_rows(cell, params)
        if rows is not None:
            x = rows.clear(x)
        if reverse:
            x = x.flip(1) if rows is None else rows.reverse(x)
        if rows is not None and final_state and isinstance(cell, LSTM):
            x, weights[0] = _freeze(x, rows, weights[0])
        first = cell.initial_state(TORCH, x.shape[0], x) if state is None else state
        output, last = _operate(cell, weights, x, first)
        if rows is not None:
            output = rows.clear(output)
            last = last._replace(h=rows.last(output, first.h)) if final_state else None
        if reverse:
            output = output.flip(1) if rows is None else rows.reverse(output)
        return Scan(output, last if final_state else None)


def _freeze(x: Tensor, rows: Ragged, w_x: Tensor) -> tuple[Tensor, Tensor]:
    """Add an input that is 1 in the padding, and weights with which it closes i and opens f."""
    padding = (~rows.valid).to(x.dtype)[..., None]
    column = w_x.new_zeros(4, w_x.shape[0] // 4, 1)
    column[0], column[1] = -SATURATED, SATURATED
    return torch.cat([x, padding], -1), torch.cat([w_x, column.view(-1, 1)], 1)


def _operate(cell: Cell, weights: list[Tensor], x: Tensor, first: Any) -> tuple[Tensor, Any]:
    if x.is_cuda:
        weights = _adjacent(weights)
    # has_biases, num_layers, dropout, train, bidirectional, batch_first
    options = (len(weights) >= 4, 1, 0.0, torch.is_grad_enabled(), False, True)
    states = [each.unsqueeze(0).contiguous() for each in first]
    if isinstance(cell, LSTM):
        output, h, c = torch.lstm(x, states, weights, *options)
        return output, cell.State(h.squeeze(0), c.squeeze(0))
    if isinstance(cell, Elman):
        operator = torch.rnn_tanh if cell.activation == "tanh" else torch.rnn_relu
    else:
        operator = torch.gru
    output, h = operator(x, states[0], weights, *options)
    return output, cell.State(h.squeeze(0))


def _adjacent(weights: list[Tensor]) -> list[Tensor]:
    # cuDNN wants all weights in one piece of memory and warns at every call if they are not.
    flat = torch.cat([weight.reshape(-1) for weight in weights])
    pieces = torch.split(flat, [weight.numel() for weight in weights])
    return [piece.view_as(weight) for piece, weight in zip(pieces, weights)]
