"""One step of a cell as a linear map: cotangents are pulled back through it, without Jacobians.

    v_{t-1} = (d state_t / d state_{t-1})^T v_t

in NumPy, from the step's gates: one product with w_h for all probes. `Cell.jacobian` is the same
map as a matrix, H times as much work; it stands in for cells that have no reverse step here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import NUMPY
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace

Ints: TypeAlias = NDArray[np.int64]

WIDE = 64
"""States up to this width are followed in float64, wider ones in float32."""


@dataclass(frozen=True)
class Steps:
    """A traced layer, step by step, in reading order.

    layer:  a LayerTrace with reverse=False (`LayerTrace.turned`)
    params: its parameters in the type that is computed in
    held:   share of its old value that each array of the state keeps beside the cell's own step:
            zoneout's expectation, found from the trace; 0 where there is none
    """

    layer: LayerTrace
    params: dict[str, Floats]
    held: tuple[float, ...]

    @staticmethod
    def of(layer: LayerTrace) -> Steps:
        """Prepare a layer."""
        widths = layer.cell.state_shapes().values()
        kind = np.float64 if sum(widths) <= WIDE else np.float32
        params: dict[str, Floats] = {
            name: np.asarray(value, kind) for name, value in layer.params.items()
        }
        bare = Steps(layer, params, (0.0,) * len(widths))
        return Steps(layer, params, bare._found_held())

    @property
    def width(self) -> int:
        """S, the sum of the state's widths."""
        return sum(self.layer.cell.state_shapes().values())

    @property
    def kind(self) -> Any:
        """The type that is computed in."""
        return self.params["w_h"].dtype

    def before(self, rows: Ints, t: Ints) -> Any:
        """Return the State [A, width] before step t of each row, both [A]."""
        started = (t > 0)[:, None]
        pairs = zip(self.layer.first, self.layer.states)
        return self.layer.cell.State(
            *(
                np.where(started, after[rows, t - 1], first[rows]).astype(self.kind)
                for first, after in pairs
            )
        )

    def after(self, rows: Ints, t: Ints) -> Any:
        """Return the State [A, width] after step t of each row."""
        return self.layer.cell.State(*(s[rows, t].astype(self.kind) for s in self.layer.states))

    def step(self, rows: Ints, t: Ints, state: Any) -> Any:
        """Take step t of each row from another State [A, width]."""
        new, _ = self._bare(rows, t, state)
        return type(state)(*(k * a + (1 - k) * b for k, a, b in zip(self.held, state, new)))

    def pull(self, rows: Ints, t: Ints, v: Floats) -> Floats:
        """Pull cotangents [A, P, S] of the states after step t back to those before it."""
        cell, old = self.layer.cell, self.before(rows, t)
        new, gates = self._bare(rows, t, old)
        parts = cell.unpack(v)
        through = cell.State(*((1 - k) * part for k, part in zip(self.held, parts)))
        if cell.name in _PULLS:
            lifted = (type(s)(*(each[:, None] for each in s)) for s in (old, gates, new))
            pulled = cell.pack(NUMPY, _PULLS[cell.name](cell, self.params, *lifted, through))
        else:
            x_t = self.layer.x[rows, t].astype(self.kind)
            pulled = cell.pack(NUMPY, through) @ cell.jacobian(self.params, x_t, old)
        if not any(self.held):
            return np.asarray(pulled)
        kept = cell.State(*(k * part for k, part in zip(self.held, parts)))
        return np.asarray(pulled + cell.pack(NUMPY, kept))

    def _bare(self, rows: Ints, t: Ints, state: Any) -> tuple[Any, Any]:
        projected = self.layer.projected[rows, t].astype(self.kind)
        flat = projected.reshape(len(rows), int(np.prod(projected.shape[1:])))
        ran: tuple[Any, Any] = self.layer.cell.step(NUMPY, self.params, flat, state)
        return ran

    def _found_held(self) -> tuple[float, ...]:
        rows, t = np.nonzero(self.layer.valid)
        pick = np.linspace(0, len(rows) - 1, min(len(rows), 64)).astype(np.int64)
        rows, t = rows[pick], t[pick]
        old = self.before(rows, t)
        new, _ = self._bare(rows, t, old)
        return tuple(map(_share, old, new, self.after(rows, t)))


def _share(old: Floats, new: Floats, seen: Floats) -> float:
    """Return k where seen = k * old + (1 - k) * new, 0 where seen is new or no such mixture."""
    moved = old - new
    size = float((moved * moved).sum())
    rest = float(np.square(seen - new).sum())
    if rest <= 1e-4 * size:
        return 0.0
    share = float(((seen - new) * moved).sum()) / size if size else 0.0
    left = float(np.square(seen - new - share * moved).sum())
    return share if 0 < share < 1 and left <= 1e-4 * size else 0.0


def through(rows: Floats, w: Floats) -> Floats:
    """Return rows [A, P, G] times w [G, S], as one product."""
    return np.asarray((rows.reshape(-1, rows.shape[-1]) @ w).reshape(*rows.shape[:-1], w.shape[1]))


def _elman(cell: Any, params: Any, old: Any, gates: Any, new: Any, v: Any) -> Any:  # noqa: ARG001
    slope = 1 - new.h * new.h if cell.activation == "tanh" else (new.h > 0).astype(new.h.dtype)
    return cell.State(through(v.h * slope, params["w_h"]))


def _lstm(cell: Any, params: Any, old: Any, gates: Any, new: Any, v: Any) -> Any:
    i, f, g, o = gates
    normed = cell.layer_norm
    read = NUMPY.layer_norm(new.c, params["gain_c"], params["shift_c"]) if normed else new.c
    shown = np.tanh(read)
    v_out = through(v.h, params["w_p"]) if cell.projection else v.h
    v_shown = v_out * (o * (1 - shown * shown))
    v_c = v.c + (_normed(new.c, params["gain_c"], v_shown) if normed else v_shown)
    rows = {"o": v_out * (shown * o * (1 - o))}
    if cell.peephole:
        v_c = v_c + rows["o"] * params["p_o"]
    rows["i"] = v_c * ((g - old.c if cell.coupled else g) * i * (1 - i))
    rows["g"] = v_c * (i * (1 - g * g))
    if "f" in cell.blocks:
        rows["f"] = v_c * (old.c * f * (1 - f))
    v_old = v_c * f
    if cell.peephole:
        for gate in {"i", "f"} & rows.keys():
            v_old = v_old + rows[gate] * params[f"p_{gate}"]
    stacked = np.concatenate([rows[block] for block in cell.blocks], axis=-1)
    if normed:
        stacked = _normed(NUMPY.linear(old.h, params["w_h"]), params["gain_h"], stacked)
    return cell.State(through(stacked, params["w_h"]), v_old)


def _gru(cell: Any, params: Any, old: Any, gates: Any, new: Any, v: Any) -> Any:  # noqa: ARG001
    (r, z, n), h = gates, old.h
    keep, sign = (z, 1.0) if cell.update == "keeps" else (1 - z, -1.0)
    w_n = params["w_h"][2 * cell.hidden_size :]
    v_z = v.h * (sign * (h - n) * z * (1 - z))
    v_n = v.h * ((1 - keep) * (1 - n * n))
    if cell.reset == "after":
        b_n = params["b_h"][2 * cell.hidden_size :] if "b_h" in params else None
        v_r = v_n * (NUMPY.linear(h, w_n, b_n) * r * (1 - r))
        past = through(np.concatenate([v_r, v_z, v_n * r], axis=-1), params["w_h"])
    else:
        v_reset = through(v_n, w_n)
        v_r = v_reset * (h * r * (1 - r))
        w_rz = params["w_h"][: 2 * cell.hidden_size]
        past = through(np.concatenate([v_r, v_z], axis=-1), w_rz) + v_reset * r
    return cell.State(v.h * keep + past)


def _normed(x: Floats, gain: Floats, v: Floats, eps: float = 1e-5) -> Floats:
    """Pull v back through layer_norm(x) * gain."""
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    scaled, v = centred / spread, v * gain
    along = (v * scaled).mean(axis=-1, keepdims=True)
    return np.asarray((v - v.mean(axis=-1, keepdims=True) - scaled * along) / spread)


_PULLS: dict[str, Callable[..., Any]] = {"elman": _elman, "lstm": _lstm, "gru": _gru}
