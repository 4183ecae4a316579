"""Gradients of a loss by every state of a traced layer, back through time from the kept gates.

    dL/dh_t = dl_t/dh_t + (dh_{t+1}/dh_t)^T dL/dh_{t+1}

Autograd knows dL/d(output) and dL/d(last state) of a fused layer; what the states in between get it
does not keep. The equations are those of `hiddenstate.kernels.reverse`; here whatever does not
wait for a later step is computed for all steps at once, in the trace's own type, so that a step is
one matrix product and a few multiplications. Layer norm inside a cell, zoneout and cells of the
user go back by autograd, a step at a time.
Sources: Rumelhart, Hinton, Williams 1986; Werbos 1990, 10.1109/5.58337.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from hiddenstate.cells import GRU, LSTM, NUMPY, Elman
from hiddenstate.diagnose.tracing.record import Floats, LayerTrace, turn
from hiddenstate.kernels import Zoneout
from hiddenstate.nn import TORCH

ByName: TypeAlias = dict[str, Floats]
Back: TypeAlias = Callable[[int, ByName], tuple[ByName, Floats]]
"""(t, dL/d(state after step t)) -> dL/d(state before it), dL/d(projected at t) [B, G, H].

Adds to the dL/dc that it is given what comes through h.
"""


def through_time(
    layer: LayerTrace,
    d_output: Floats | None,
    d_last: Mapping[str, Floats],
    zoneout: Mapping[str, float] | None = None,
) -> tuple[Any, Floats]:
    """Return dL/d(states) as a State of [B, T, width], and dL/d(projected) [B, T, G, H].

    d_output: dL/d(output) [B, T, P], None for zeros; what it holds past a row's length is ignored
    d_last:   dL/d(last state) [B, width] by name; an array not named is zeros
    zoneout:  rates by name, as evaluation uses them
    """
    read = layer.turned()
    if layer.reverse and d_output is not None:
        d_output = turn(d_output, layer.lengths)
    zeros = {name: np.zeros_like(each) for name, each in read.first._asdict().items()}
    after = zeros | dict(d_last)
    found = {name: np.zeros_like(each) for name, each in read.states._asdict().items()}
    rows, valid = np.zeros_like(read.projected), read.valid[..., None]
    ragged, back = not valid.all(), _back_of(read, zoneout or {})
    for t in reversed(range(read.x.shape[1])):
        d_new = dict(after)
        if d_output is not None:
            d_new["h"] = d_new["h"] + d_output[:, t]
        if ragged:
            d_new = {name: np.where(valid[:, t], each, 0) for name, each in d_new.items()}
        d_old, rows[:, t] = back(t, d_new)
        for name, each in d_new.items():
            found[name][:, t] = each
        # A row past its length only hands its state on, so its gradient comes straight back.
        after = {
            name: np.where(valid[:, t], d_old[name], each) if ragged else d_old[name]
            for name, each in after.items()
        }
    if layer.reverse:
        found = {name: turn(each, layer.lengths) for name, each in found.items()}
        rows = turn(rows, layer.lengths)
    return layer.cell.State(**found), rows


def flat(rows: Floats) -> Floats:
    """Return rows of the gates [..., G, H] as [..., G*H]; unlike -1, sizes of 0 are legal."""
    return rows.reshape(*rows.shape[:-2], rows.shape[-2] * rows.shape[-1])


def _back_of(read: LayerTrace, zoneout: Mapping[str, float]) -> Back:
    cell = read.cell
    old = {
        name: np.concatenate([first[:, None], states[:, :-1]], axis=1)
        for (name, first), states in zip(read.first._asdict().items(), read.states)
    }
    if zoneout or type(cell) not in (Elman, LSTM, GRU) or getattr(cell, "layer_norm", False):
        return _by_autograd(read, old, zoneout)
    if isinstance(cell, LSTM):
        return _lstm(cell, read.params, old["c"], read.gates, read.states.c)
    if isinstance(cell, GRU):
        return _gru(cell, read.params, old["h"], read.gates)
    h = read.states.h
    relu = isinstance(cell, Elman) and cell.activation == "relu"
    return _elman(read.params, (h > 0).astype(h.dtype) if relu else 1 - h * h)


def _elman(params: Mapping[str, Floats], slope: Floats) -> Back:
    def back(t: int, d: ByName) -> tuple[ByName, Floats]:
        row = d["h"] * slope[:, t]
        return {"h": row @ params["w_h"]}, row[:, None]

    return back


def _lstm(
    cell: LSTM, params: Mapping[str, Floats], old: Floats, gates: Any, memory: Floats
) -> Back:
    (i, f, g, o), shown = gates, np.tanh(memory)
    through_o, through_c = shown * o * (1 - o), o * (1 - shown * shown)
    of_c = {"i": (g - old if cell.coupled else g) * i * (1 - i), "g": i * (1 - g * g)}
    if "f" in cell.blocks:
        of_c["f"] = old * f * (1 - f)
    # The output gate stands last; all others have their effect through c.
    others = cell.blocks[:-1]
    through = np.stack([of_c[block] for block in others], axis=2)
    peepholes = [(k, params[f"p_{b}"]) for k, b in enumerate(others) if f"p_{b}" in params]

    def back(t: int, d: ByName) -> tuple[ByName, Floats]:
        d_h = d["h"] @ params["w_p"] if cell.projection else d["h"]
        rows = np.empty((len(d_h), len(cell.blocks), cell.hidden_size), d_h.dtype)
        rows[:, -1] = d_h * through_o[:, t]
        d["c"] = d["c"] + d_h * through_c[:, t]
        if cell.peephole:
            d["c"] += rows[:, -1] * params["p_o"]
        np.multiply(d["c"][:, None], through[:, t], out=rows[:, :-1])
        d_old = d["c"] * f[:, t]
        for k, weight in peepholes:
            d_old += rows[:, k] * weight
        return {"h": flat(rows) @ params["w_h"], "c": d_old}, rows

    return back


def _gru(cell: GRU, params: Mapping[str, Floats], old: Floats, gates: Any) -> Back:
    (r, z, n), w_h, two = gates, params["w_h"], 2 * cell.hidden_size
    keep, sign = (z, 1) if cell.update == "keeps" else (1 - z, -1)
    through_z, through_n = sign * (old - n) * z * (1 - z), (1 - keep) * (1 - n * n)
    if cell.reset == "after":
        inner = NUMPY.linear(old, w_h[two:], params["b_h"][two:] if "b_h" in params else None)
        through_r = inner * r * (1 - r)
    else:
        through_r = old * r * (1 - r)

    def back(t: int, d: ByName) -> tuple[ByName, Floats]:
        d_h = d["h"]
        rows = np.empty((len(d_h), 3, cell.hidden_size), d_h.dtype)
        d_z = np.multiply(d_h, through_z[:, t], out=rows[:, 1])
        d_n = np.multiply(d_h, through_n[:, t], out=rows[:, 2])
        d_old = d_h * keep[:, t]
        if cell.reset == "after":
            d_r = np.multiply(d_n, through_r[:, t], out=rows[:, 0])
            past = np.stack([d_r, d_z, d_n * r[:, t]], axis=1)
            return {"h": d_old + flat(past) @ w_h}, rows
        d_reset = d_n @ w_h[two:]
        np.multiply(d_reset, through_r[:, t], out=rows[:, 0])
        return {"h": d_old + flat(rows[:, :2]) @ w_h[:two] + d_reset * r[:, t]}, rows

    return back


def _by_autograd(read: LayerTrace, old: ByName, zoneout: Mapping[str, float]) -> Back:
    cell = read.cell
    params = {name: torch.from_numpy(np.ascontiguousarray(w)) for name, w in read.params.items()}

    def back(t: int, d: ByName) -> tuple[ByName, Floats]:
        row = torch.from_numpy(flat(read.projected[:, t]).copy()).requires_grad_()
        each = (torch.from_numpy(old[name][:, t].copy()).requires_grad_() for name in d)
        before = cell.State(*each)
        with torch.enable_grad():
            new, _ = cell.step(TORCH, params, row, before)
            if zoneout:
                new = Zoneout(zoneout).mix(TORCH, t, before, new)
        upstream = [torch.from_numpy(np.ascontiguousarray(each)) for each in d.values()]
        wanted = [*new, *before, row]
        gradients = torch.autograd.grad([*new], wanted, upstream, materialize_grads=True)
        *of_states, d_row = (each.numpy() for each in gradients)
        d.update(zip(d, of_states))
        return dict(zip(d, of_states[len(d) :])), d_row.reshape(read.projected[:, t].shape)

    return back
