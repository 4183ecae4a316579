"""One step of a cell backwards, written out by hand in NumPy.

    dL/d before = (d after / d before)^T dL/d after

One function a cell, over any leading axes, in the type of what is given. `backward` goes back
through time by it, and `diagnose` pulls probes through single steps.
Sources: Rumelhart, Hinton, Williams 1986; Goodfellow, Bengio, Courville 2016, section 10.2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import NUMPY, Cell
from hiddenstate.errors import KernelRefusal

Array: TypeAlias = NDArray[Any]


class Back(NamedTuple):
    """Derivatives of a loss by what one step read.

    rows: by the projected rows [..., G*H]
    past: by w_h h + b_h [..., G*H]; the last block of a GRU that resets before the product is that
          by w_n (r h) + b_n
    old:  by the State before the step
    """

    rows: Array
    past: Array
    old: Any


def step_back(
    cell: Cell, params: Mapping[str, Array], old: Any, gates: Any, new: Any, d_new: Any
) -> Back:
    """Return the derivatives by what a step read, from those by the State that it gave.

    old, gates, new: State before, Gates and State after the step [..., H], as `Cell.step` has them
    d_new:           State of [..., H]; what was above is broadcast against it

    Raises KernelRefusal where no reverse step is written.
    """
    if not is_written(cell):
        raise KernelRefusal(
            f"No reverse step is written for the cell {cell.name}.",
            f"There is one for {', '.join(_STEPS)}.",
            "Use torch's automatic differentiation.",
        )
    return _STEPS[cell.name](cell, params, old, gates, new, d_new)


def is_written(cell: Cell) -> bool:
    """Return whether a cell has a reverse step here."""
    return cell.name in _STEPS


def through(rows: Array, w: Array) -> Array:
    """Return rows [..., G] times w [G, S], as one product."""
    flat = rows.reshape(-1, rows.shape[-1]) @ w
    return np.asarray(flat.reshape(*rows.shape[:-1], w.shape[1]))


def _elman(cell: Any, params: Any, old: Any, gates: Any, new: Any, d: Any) -> Back:  # noqa: ARG001
    slope = 1 - new.h * new.h if cell.activation == "tanh" else (new.h > 0).astype(new.h.dtype)
    row = d.h * slope
    return Back(row, row, cell.State(through(row, params["w_h"])))


def _lstm(cell: Any, params: Any, old: Any, gates: Any, new: Any, d: Any) -> Back:
    i, f, g, o = gates
    normed = cell.layer_norm
    read = NUMPY.layer_norm(new.c, params["gain_c"], params["shift_c"]) if normed else new.c
    shown = np.tanh(read)
    d_out = through(d.h, params["w_p"]) if cell.projection else d.h
    d_shown = d_out * (o * (1 - shown * shown))
    d_c = d.c + (_normed(new.c, params["gain_c"], d_shown) if normed else d_shown)
    rows = {"o": d_out * (shown * o * (1 - o))}
    if cell.peephole:
        d_c = d_c + rows["o"] * params["p_o"]
    rows["i"] = d_c * ((g - old.c if cell.coupled else g) * i * (1 - i))
    rows["g"] = d_c * (i * (1 - g * g))
    if "f" in cell.blocks:
        rows["f"] = d_c * (old.c * f * (1 - f))
    d_old = d_c * f
    if cell.peephole:
        for gate in {"i", "f"} & rows.keys():
            d_old = d_old + rows[gate] * params[f"p_{gate}"]
    stacked = np.concatenate([rows[block] for block in cell.blocks], axis=-1)
    past = stacked
    if normed:
        past = _normed(NUMPY.linear(old.h, params["w_h"]), params["gain_h"], stacked)
    return Back(stacked, past, cell.State(through(past, params["w_h"]), d_old))


def _gru(cell: Any, params: Any, old: Any, gates: Any, new: Any, d: Any) -> Back:  # noqa: ARG001
    (r, z, n), h, two = gates, old.h, 2 * cell.hidden_size
    keep, sign = (z, 1.0) if cell.update == "keeps" else (1 - z, -1.0)
    w_n = params["w_h"][two:]
    d_z = d.h * (sign * (h - n) * z * (1 - z))
    d_n = d.h * ((1 - keep) * (1 - n * n))
    if cell.reset == "after":
        b_n = params["b_h"][two:] if "b_h" in params else None
        d_r = d_n * (NUMPY.linear(h, w_n, b_n) * r * (1 - r))
        past = np.concatenate([d_r, d_z, d_n * r], axis=-1)
        rows = np.concatenate([d_r, d_z, d_n], axis=-1)
        return Back(rows, past, cell.State(d.h * keep + through(past, params["w_h"])))
    d_reset = through(d_n, w_n)
    d_r = d_reset * (h * r * (1 - r))
    rows = np.concatenate([d_r, d_z, d_n], axis=-1)
    by_gates = through(rows[..., :two], params["w_h"][:two])
    return Back(rows, rows, cell.State(d.h * keep + by_gates + d_reset * r))


def _normed(x: Array, gain: Array, d: Array, eps: float = 1e-5) -> Array:
    """Pull d back through layer_norm(x) * gain."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    scaled, d = centred / spread, d * gain
    along = (d * scaled).mean(axis=-1, keepdims=True)
    return np.asarray((d - d.mean(axis=-1, keepdims=True) - scaled * along) / spread)


_STEPS: dict[str, Callable[..., Back]] = {"elman": _elman, "lstm": _lstm, "gru": _gru}
