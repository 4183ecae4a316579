"""One run of a torch kernel with everything that can be compared about it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hiddenstate.cells import Cell
from hiddenstate.kernels import Kernel, Request
from hiddenstate.nn import KERNELS

REFERENCE = next(kernel for kernel in KERNELS if kernel.name == "reference")
FAST = [kernel for kernel in KERNELS if kernel is not REFERENCE]


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is at hand")
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def accepts(kernel: Kernel, cell: Cell, device: str) -> bool:
    asked = {"needs_grad": True, "needs_state": True, "device": device}
    return not kernel.refusals(Request(cell, batch=3, time=7, **asked))


def measure(
    kernel: Kernel,
    cell: Cell,
    arrays: dict[str, dict[str, np.ndarray]],
    lengths: Tensor | None = None,
    reverse: bool = False,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
) -> dict[str, Tensor]:
    """Output, final state and every gradient of a fixed weighing of both, by name, on the CPU.

    arrays: "params" and "state" by name, and "x" under "x".
    """
    leaves = {
        group: {
            name: torch.tensor(a, dtype=dtype, device=device).requires_grad_()
            for name, a in named.items()
        }
        for group, named in arrays.items()
    }
    lengths = None if lengths is None else lengths.to(device)
    state = cell.State(**leaves["state"]) if leaves["state"] else None
    ran = kernel.run(cell, leaves["params"], leaves["x"]["x"], state, lengths, reverse=reverse)
    found = {"output": ran.output, **ran.state._asdict()}
    rng = np.random.default_rng(9)
    loss = sum(
        (value * torch.tensor(rng.standard_normal(value.shape), dtype=dtype, device=device)).sum()
        for value in found.values()
    )
    wanted = {
        f"d {group} {name}": leaf for group, named in leaves.items() for name, leaf in named.items()
    }
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    found |= dict(zip(wanted, gradients, strict=True))
    return {name: value.detach().cpu() for name, value in found.items()}


def inputs(
    cell: Cell, batch: int, time: int, *, state: bool = True, scale: float = 0.7, seed: int = 0
) -> dict[str, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape)

    params = {name: scale * draw(*shape) for name, shape in cell.shapes().items()}
    first = {name: 0.5 * draw(batch, width) for name, width in cell.state_shapes().items()}
    x = draw(batch, time, cell.input_size)
    return {"params": params, "x": {"x": x}, "state": first if state else {}}
