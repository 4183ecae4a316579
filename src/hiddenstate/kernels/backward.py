"""Back-propagation through time by hand: the reference for every gradient.

    dL/dh_t = dl_t/dh_t + (dh_{t+1}/dh_t)^T dL/dh_{t+1},    dL/dW = sum over t

NumPy float64, by the reverse steps of `reverse`, no automatic differentiation anywhere. It refuses
layer norm.
Sources: Rumelhart, Hinton, Williams 1986; Werbos 1990, 10.1109/5.58337; Goodfellow, Bengio,
Courville 2016, section 10.2.2.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell
from hiddenstate.errors import KernelRefusal, ShapeError
from hiddenstate.kernels.reverse import Back, is_written, step_back
from hiddenstate.kernels.scan import scan, whole_lengths

Floats: TypeAlias = NDArray[np.float64]
FloatParams: TypeAlias = dict[str, Floats]


class Gradients(NamedTuple):
    """Derivatives of a loss by the parameters (same names), x [B, T, D] and the first State."""

    params: FloatParams
    x: Floats
    state: Any


def refusals(cell: Cell) -> list[str]:
    """Return the reasons why `backward` cannot serve this cell; empty means that it can."""
    if not is_written(cell):
        return [f"no reverse step is written for the cell {cell.name}"]
    if isinstance(cell, LSTM) and cell.layer_norm:
        return ["no reverse step is written for layer norm"]
    return []


def backward(
    cell: Cell,
    params: Any,
    x: Any,
    d_output: Any | None = None,
    d_state: Any | None = None,
    *,
    state: Any | None = None,
    lengths: Any | None = None,
    reverse: bool = False,
) -> Gradients:
    """Return the gradients of a loss over one scan, in float64.

    d_output: dL/d output [B, T, P], None for zeros; what it holds past a row's length is ignored
    d_state:  dL/d last State, None for zeros
    state, lengths, reverse: as they were given to `scan`

    Raises KernelRefusal where no reverse step is written, ShapeError as `scan` does.
    """
    if reasons := refusals(cell):
        raise KernelRefusal(
            f"The reverse pass cannot run the cell {cell.name} ({cell.convention}).",
            f"It is written out by hand, and {reasons[0]}.",
            "Use torch's automatic differentiation.",
        )
    wide = {name: np.asarray(value, np.float64) for name, value in params.items()}
    x = np.asarray(x, np.float64)
    if state is not None:
        state = cell.State(*(np.asarray(each, np.float64) for each in state))
    forward = scan(NUMPY, cell, wide, x, state, lengths, reverse=reverse, trace=True)
    batch, time, _ = x.shape
    live = np.ones((batch, time, 1), dtype=bool)
    if lengths is not None:
        live = NUMPY.live(whole_lengths(lengths, batch, time), time, x)
    d_output = _like(forward.output, d_output, "d_output")
    first = cell.initial_state(NUMPY, batch, x) if state is None else state
    d_after = cell.State(
        *(
            _like(value, None if d_state is None else getattr(d_state, name), f"d_state.{name}")
            for name, value in first._asdict().items()
        )
    )
    x = np.where(live, x, 0.0)
    grads = {name: np.zeros_like(value) for name, value in wide.items()}
    d_projected = np.zeros((batch, time, wide["w_x"].shape[0]))
    for t in range(time) if reverse else reversed(range(time)):
        before = t + 1 if reverse else t - 1
        old = _at(forward.states, before) if 0 <= before < time else first
        gates, new = _at(forward.gates, t), _at(forward.states, t)
        here = live[:, t]
        d_new = cell.State(*(np.where(here, each, 0.0) for each in d_after))
        d_new = d_new._replace(h=d_new.h + np.where(here, d_output[:, t], 0.0))
        back = step_back(cell, wide, old, gates, new, d_new)
        _note(cell, grads, old, gates, new, d_new, back)
        d_projected[:, t] = back.rows
        # A row past its length only hands its state on, so its gradient comes straight back.
        d_after = cell.State(*(np.where(here, a, b) for a, b in zip(back.old, d_after)))
    flat = d_projected.reshape(batch * time, -1)
    grads["w_x"] += flat.T @ x.reshape(batch * time, -1)
    if "b_x" in grads:
        grads["b_x"] += flat.sum(axis=0)
    return Gradients(grads, d_projected @ wide["w_x"], d_after)


def _like(value: Floats, gradient: Any | None, name: str) -> Floats:
    if gradient is None:
        return np.zeros_like(value)
    gradient = np.asarray(gradient, np.float64)
    if gradient.shape != value.shape:
        raise ShapeError(
            f"{name} has shape {list(gradient.shape)}.",
            f"The forward pass gave {list(value.shape)}.",
            "Give the gradient of the loss by exactly that array.",
        )
    return np.asarray(gradient)


def _at(over_time: Any, t: int) -> Any:
    return type(over_time)(*(each[:, t] for each in over_time))


def _note(
    cell: Cell, grads: FloatParams, old: Any, gates: Any, new: Any, d_new: Any, back: Back
) -> None:
    """Add what one step gives to the derivatives by the parameters, but for those that x meets."""
    grads["w_h"] += back.past.T @ old.h
    if "b_h" in grads:
        grads["b_h"] += back.past.sum(axis=0)
    if isinstance(cell, GRU) and cell.reset == "before":
        # The candidate's rows read r h in the place of h.
        block = slice(2 * cell.hidden_size, None)
        grads["w_h"][block] += back.past[:, block].T @ (gates.r * old.h - old.h)
    if isinstance(cell, LSTM):
        rows = dict(zip(cell.blocks, np.split(back.rows, len(cell.blocks), axis=1)))
        for gate in rows:
            if f"p_{gate}" in grads:
                memory = new.c if gate == "o" else old.c
                grads[f"p_{gate}"] += (rows[gate] * memory).sum(axis=0)
        if "w_p" in grads:
            grads["w_p"] += d_new.h.T @ (gates.o * np.tanh(new.c))
