"""Back-propagation through time by hand: the reference for every gradient.

    dL/dh_t = dl_t/dh_t + (dh_{t+1}/dh_t)^T dL/dh_{t+1},    dL/dW = sum over t

NumPy float64, one function a cell, no automatic differentiation anywhere. It refuses layer norm.
Sources: Rumelhart, Hinton, Williams 1986; Werbos 1990, 10.1109/5.58337; Goodfellow, Bengio,
Courville 2016, section 10.2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import LSTM, NUMPY, Cell
from hiddenstate.errors import KernelRefusal, ShapeError
from hiddenstate.kernels.scan import scan, whole_lengths

Floats: TypeAlias = NDArray[np.float64]
FloatParams: TypeAlias = dict[str, Floats]


class Gradients(NamedTuple):
    """Derivatives of a loss by the parameters (same names), x [B, T, D] and the first State."""

    params: FloatParams
    x: Floats
    state: Any


class Passed(NamedTuple):
    """What one forward step leaves for the way back: State before, Gates, State after."""

    old: Any
    gates: Any
    new: Any


def refusals(cell: Cell) -> list[str]:
    """Return the reasons why `backward` cannot serve this cell; empty means that it can."""
    if cell.name not in _STEPS:
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
        passed = Passed(old, _at(forward.gates, t), _at(forward.states, t))
        here = live[:, t]
        d_new = cell.State(*(np.where(here, each, 0.0) for each in d_after))
        d_new = d_new._replace(h=d_new.h + np.where(here, d_output[:, t], 0.0))
        d_projected[:, t], d_old = _STEPS[cell.name](cell, wide, grads, passed, d_new)
        # A row past its length only hands its state on, so its gradient comes straight back.
        d_after = cell.State(*(np.where(here, a, b) for a, b in zip(d_old, d_after)))
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


def _through_past(params: FloatParams, grads: FloatParams, d_rows: Floats, h: Floats) -> Floats:
    """Reverse of rows = w_h h + b_h: note the parameters' gradients, return that of h."""
    grads["w_h"] += d_rows.T @ h
    if "b_h" in grads:
        grads["b_h"] += d_rows.sum(axis=0)
    return np.asarray(d_rows @ params["w_h"])


def _elman(
    cell: Any, params: FloatParams, grads: FloatParams, passed: Passed, d_new: Any
) -> tuple[Floats, Any]:
    h = passed.new.h
    slope = 1.0 - h * h if cell.activation == "tanh" else np.where(h > 0, 1.0, 0.0)
    d_row = d_new.h * slope
    return d_row, cell.State(_through_past(params, grads, d_row, passed.old.h))


def _lstm(
    cell: Any, params: FloatParams, grads: FloatParams, passed: Passed, d_new: Any
) -> tuple[Floats, Any]:
    (i, f, g, o), old, c = passed.gates, passed.old.c, passed.new.c
    shown = np.tanh(c)
    d_shown_o = d_new.h
    if cell.projection:
        grads["w_p"] += d_new.h.T @ (o * shown)
        d_shown_o = d_new.h @ params["w_p"]
    d_rows = {"o": d_shown_o * shown * o * (1 - o)}
    d_c = d_new.c + d_shown_o * o * (1 - shown * shown)
    if cell.peephole:
        d_c = d_c + d_rows["o"] * params["p_o"]
    d_i = d_c * (g - old) if cell.coupled else d_c * g
    d_rows["i"] = d_i * i * (1 - i)
    d_rows["g"] = d_c * i * (1 - g * g)
    if "f" in cell.blocks:
        d_rows["f"] = d_c * old * f * (1 - f)
    d_old = d_c * f
    if cell.peephole:
        grads["p_o"] += (d_rows["o"] * c).sum(axis=0)
        for gate in {"i", "f"} & d_rows.keys():
            grads[f"p_{gate}"] += (d_rows[gate] * old).sum(axis=0)
            d_old = d_old + d_rows[gate] * params[f"p_{gate}"]
    stacked = np.concatenate([d_rows[block] for block in cell.blocks], axis=-1)
    return stacked, cell.State(_through_past(params, grads, stacked, passed.old.h), d_old)


def _gru(
    cell: Any, params: FloatParams, grads: FloatParams, passed: Passed, d_new: Any
) -> tuple[Floats, Any]:
    (r, z, n), h, d_h = passed.gates, passed.old.h, d_new.h
    keep, sign = (z, 1.0) if cell.update == "keeps" else (1.0 - z, -1.0)
    d_z = sign * d_h * (h - n) * z * (1 - z)
    d_n = d_h * (1 - keep) * (1 - n * n)
    rows = slice(2 * cell.hidden_size, None)
    if cell.reset == "after":
        inner = NUMPY.linear(
            h, params["w_h"][rows], params["b_h"][rows] if "b_h" in params else None
        )
        d_r = d_n * inner * r * (1 - r)
        d_past = _through_past(params, grads, np.concatenate([d_r, d_z, d_n * r], axis=-1), h)
        return np.concatenate([d_r, d_z, d_n], axis=-1), cell.State(d_h * keep + d_past)
    d_reset_h = d_n @ params["w_h"][rows]
    d_r = d_reset_h * h * r * (1 - r)
    d_past = _through_past(params, grads, np.concatenate([d_r, d_z, 0.0 * d_n], axis=-1), h)
    grads["w_h"][rows] += d_n.T @ (r * h)
    if "b_h" in grads:
        grads["b_h"][rows] += d_n.sum(axis=0)
    d_old = d_h * keep + d_past + d_reset_h * r
    return np.concatenate([d_r, d_z, d_n], axis=-1), cell.State(d_old)


Step: TypeAlias = Callable[
    [Any, FloatParams, FloatParams, Passed, Any],
    tuple[Floats, Any],
]
_STEPS: dict[str, Step] = {"elman": _elman, "lstm": _lstm, "gru": _gru}
