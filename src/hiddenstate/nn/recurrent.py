"""One cell over time as a torch module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.cells import Cell
from hiddenstate.cells.cell import Scheme
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.kernels import Scan, Zoneout, choose
from hiddenstate.nn.dropout import DropConnect, check_share
from hiddenstate.nn.kernels import KERNELS, request_for
from hiddenstate.nn.layer import Layer


class Recurrent(Layer):
    """Runs a cell over x [B, T, D], by the fastest kernel that can; see `Layer.forward`.

    Parameters are named as in `cell.shapes()` (w_x, w_h, b_x, ...), so that state_dict holds the
    weights of an artifact as they are; a learned first state adds initial_h (and initial_c).

    reverse:       run each row from its own last step to its first
    learned_state: the first state is learned (it starts as zeros), not fixed at zeros
    zoneout:       probability that a state value keeps its old value, for all arrays of the state
                   or by name, {"c": 0.5, "h": 0.05} (Krueger et al. 2016); runs the reference
    dropconnect:   share of w_h dropped in training, drawn once a call (or once within `drawn_once`)
    kernel:        name of the kernel to use, or None for the first that can
    init:          scheme of `Cell.init`, with `forget_bias` and `longest_lag_steps` (chrono)
    seed:          whole number or generator for the first parameters; None takes torch's generator

    `last_kernel` holds the name of the kernel that ran last. Raises SpecError for a share outside
    [0, 1) or a scheme that the cell does not have.

    >>> from hiddenstate.cells import GRU
    >>> output, state = Recurrent(GRU(5, 7), seed=0)(torch.zeros(2, 9, 5))
    >>> output.shape, state.h.shape
    (torch.Size([2, 9, 7]), torch.Size([2, 7]))
    """

    def __init__(
        self,
        cell: Cell,
        *,
        reverse: bool = False,
        learned_state: bool = False,
        zoneout: float | Mapping[str, float] = 0.0,
        dropconnect: float = 0.0,
        kernel: str | None = None,
        init: Scheme = "orthogonal",
        forget_bias: float | None = None,
        longest_lag_steps: int | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        super().__init__()
        self.cell = cell
        self.input_size, self.output_size = cell.input_size, cell.output_size
        self.reverse, self.kernel = reverse, kernel
        self.zoneout = _rates(cell, zoneout)
        self.dropconnect = DropConnect(dropconnect)
        self.last_kernel: str | None = None
        if seed is None:
            seed = int(torch.randint(2**63 - 1, ()))
        drawn = cell.init(
            np.random.default_rng(seed),
            init,
            forget_bias=forget_bias,
            longest_lag_steps=longest_lag_steps,
        )
        for name, array in drawn.items():
            first = torch.as_tensor(array, dtype=torch.get_default_dtype())
            self.register_parameter(name, nn.Parameter(first))
        self.learned_state = learned_state
        for name, width in cell.state_shapes().items() if learned_state else ():
            self.register_parameter(f"initial_{name}", nn.Parameter(torch.zeros(width)))

    @property
    def params(self) -> dict[str, Tensor]:
        """The cell's parameters by name."""
        return {name: getattr(self, name) for name in self.cell.shapes()}

    def initial_state(self, batch: int) -> Any | None:
        """Return the learned first State of [B, width], or None, which stands for zeros."""
        if not self.learned_state:
            return None
        names = self.cell.state_shapes()
        return self.cell.State(
            *(getattr(self, f"initial_{name}").expand(batch, -1) for name in names)
        )

    def run(
        self,
        x: Tensor,
        lengths: Tensor | None,
        state: Any | None,
        *,
        final_state: bool = True,
        scans: list[Scan] | None = None,
    ) -> tuple[Tensor, Any]:
        """Compute `forward` on checked x and lengths; append the traced Scan to `scans`."""
        batch = x.shape[0]
        state = self.initial_state(batch) if state is None else self._checked(state, batch)
        params = self.dropconnect(self.params)
        self._require_type(x, params)
        needs_grad = torch.is_grad_enabled() and (
            x.requires_grad or any(weight.requires_grad for weight in params.values())
        )
        request = request_for(
            self.cell,
            x,
            ragged=lengths is not None,
            reverse=self.reverse,
            needs_grad=needs_grad,
            needs_state=final_state or state is not None,
            needs_trace=scans is not None,
            zoneout=bool(self.zoneout),
        )
        kernel = choose(KERNELS, request, self.kernel)
        self.last_kernel = kernel.name
        scan = kernel.run(
            self.cell,
            params,
            x,
            state,
            lengths,
            reverse=self.reverse,
            trace=scans is not None,
            zoneout=self._zoneout(x) if self.zoneout else None,
            final_state=final_state,
        )
        if scans is not None:
            scans.append(scan)
        return scan.output, scan.state if final_state else None

    def _zoneout(self, x: Tensor) -> Zoneout:
        if not self.training:
            return Zoneout(self.zoneout)
        masks = {
            name: torch.rand(*x.shape[:2], width, device=x.device) < self.zoneout[name]
            for name, width in self.cell.state_shapes().items()
            if name in self.zoneout
        }
        empty = dict.fromkeys(self.cell.state_shapes())
        return Zoneout(self.zoneout, self.cell.State(**{**empty, **masks}))

    def _require_type(self, x: Tensor, params: Mapping[str, Tensor]) -> None:
        held = next(iter(params.values())).dtype
        if x.dtype != held and not torch.is_autocast_enabled(x.device.type):
            raise ShapeError(
                f"x {list(x.shape)} is of type {x.dtype}.",
                f"This layer's parameters are of type {held}.",
                f"Convert one of them: x.to({held}) or layer.to({x.dtype}).",
            )

    def _checked(self, state: Any, batch: int) -> Any:
        widths = self.cell.state_shapes()
        found = {name: list(getattr(state, name).shape) for name in getattr(state, "_fields", ())}
        if found != {name: [batch, width] for name, width in widths.items()}:
            raise ShapeError(
                f"The state given is {found or type(state).__name__}.",
                f"The cell {self.cell.name} and {batch} rows of x need "
                + ", ".join(f"{name} [{batch}, {width}]" for name, width in widths.items())
                + f" in a {self.cell.State.__name__}.",
                "Give the state that this layer returned for the same rows, or None.",
            )
        return state

    def extra_repr(self) -> str:
        """Return what print(module) shows."""
        return f"{self.cell}" + (", reverse" if self.reverse else "")


def _rates(cell: Cell, zoneout: float | Mapping[str, float]) -> dict[str, float]:
    """Return the zoneout rates above 0 by name of the state's array."""
    names = cell.state_shapes()
    by_name = zoneout if isinstance(zoneout, Mapping) else dict.fromkeys(names, zoneout)
    for name in by_name:
        if name not in names:
            raise SpecError(
                f"Zoneout names {name!r}.",
                f"The state of the cell {cell.name} holds {', '.join(names)}.",
                "Name one of them, or give one number for all.",
            )
    return {name: rate for name, rate in by_name.items() if check_share(f"zoneout of {name}", rate)}
