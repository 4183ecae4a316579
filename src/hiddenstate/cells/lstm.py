"""The long short-term memory, with the variants of its literature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hiddenstate.cells.arrays import NUMPY, Array, ArrayOps
from hiddenstate.cells.cell import Cell, Params
from hiddenstate.cells.registry import register
from hiddenstate.errors import SpecError


class LSTMState(NamedTuple):
    """Output h [B, P] and memory c [B, H]."""

    h: Array
    c: Array


class LSTMGates(NamedTuple):
    """Input i, forget f, candidate g, output o, each [B, H]."""

    i: Array
    f: Array
    g: Array
    o: Array


@register
@dataclass(frozen=True)
class LSTM(Cell):
    """A memory c that changes by addition, so that its gradient is the product of forget gates.

    Equations
    ---------
    i = sigmoid(W_xi @ x + W_hi @ h [biases: + b_i][peephole: + p_i * c])
    [forget_gate, no coupled: f = sigmoid(W_xf @ x + W_hf @ h [biases: + b_f][peephole: + p_f * c])]
    [coupled: f = 1 - i]
    [no forget_gate: f = 1]
    g = tanh(W_xg @ x + W_hg @ h [biases: + b_g])
    c = f * c + i * g
    o = sigmoid(W_xo @ x + W_ho @ h [biases: + b_o][peephole: + p_o * c])
    [no projection: h = o * tanh(c)]
    [projection: h = W_p @ (o * tanh(c))]

    Equations, layer_norm
    ---------------------
    s = layer_norm(W_x @ x, gain_x) + layer_norm(W_h @ h, gain_h)
    i = sigmoid(s_i [biases: + b_i][peephole: + p_i * c])
    [forget_gate, no coupled: f = sigmoid(s_f [biases: + b_f][peephole: + p_f * c])]
    [coupled: f = 1 - i]
    [no forget_gate: f = 1]
    g = tanh(s_g [biases: + b_g])
    c = f * c + i * g
    o = sigmoid(s_o [biases: + b_o][peephole: + p_o * c])
    [no projection: h = o * tanh(layer_norm(c, gain_c, shift_c))]
    [projection: h = W_p @ (o * tanh(layer_norm(c, gain_c, shift_c)))]

    Shapes: x [B, D], h [B, P], c i f g o [B, H]; w_x [4H, D], w_h [4H, P], b_x [4H], b_h [4H], rows
    i f g o (i g o where f has no weights of its own); p_i p_f p_o [H]; w_p [P, H];
    gain_x gain_h [4H], gain_c shift_c [H]. P = projection, or H without one.
    Numerics: i, f, o in (0, 1), g and tanh(c) in (-1, 1), |c| grows by at most 1 a step;
    4H(D + P) multiply-adds a step. b_i is the sum of the biases there are, b_xi + b_hi.
    Conventions: biases=2 is torch.nn.LSTM, with projection its proj_size. The output gate's
    peephole reads the new c. Layer norms are over all rows of W_x @ x and of W_h @ h, and on the c
    that the output reads; the c that is kept is not normalised.
    References: Hochreiter, Schmidhuber 1997, 10.1162/neco.1997.9.8.1735 (no forget gate; here
    with tanh for both squashing functions); Gers, Schmidhuber, Cummins 2000,
    10.1162/089976600300015015; Gers, Schraudolph, Schmidhuber 2002 (peepholes); Greff et al.
    2017, arXiv:1503.04069 (coupled: CIFG); Sak, Senior, Beaufays 2014, arXiv:1402.1128
    (projection); Ba, Kiros, Hinton 2016, arXiv:1607.06450, eq. 20-22 (layer norm).

    >>> print(LSTM(3, 2, coupled=True).equations.splitlines()[1])
    f = 1 - i
    """

    forget_gate: bool = True
    peephole: bool = False
    coupled: bool = False
    projection: int | None = None
    layer_norm: bool = False

    name = "lstm"
    State = LSTMState
    Gates = LSTMGates
    keep_bias = 1.0
    options: ClassVar[Mapping[str, tuple[object, ...]]] = MappingProxyType(
        {
            "forget_gate": (True, False),
            "peephole": (False, True),
            "coupled": (False, True),
            "layer_norm": (False, True),
        }
    )

    def __post_init__(self) -> None:
        """Refuse sizes and options outside their range."""
        super().__post_init__()
        if self.coupled and not self.forget_gate:
            raise SpecError(
                "The LSTM got coupled=True and forget_gate=False.",
                "A coupled LSTM has the forget gate f = 1 - i.",
                "Drop one of the two options.",
            )
        if self.projection is None:
            return
        self._require_positive("projection", self.projection)
        if self.projection >= self.hidden_size:
            raise SpecError(
                f"The LSTM got projection={self.projection} and hidden_size={self.hidden_size}.",
                "A projection makes the output narrower than the memory, as in torch.",
                f"Give a projection of at most {self.hidden_size - 1}, or none.",
            )

    @property
    def blocks(self) -> tuple[str, ...]:
        """i, f, g, o as in torch, without f where it has no weights of its own."""
        own_forget = self.forget_gate and not self.coupled
        return LSTMGates._fields if own_forget else ("i", "g", "o")

    @property
    def convention(self) -> str:
        """How it forgets, then what is added."""
        forgets = "coupled forget gate" if self.coupled else "forget gate"
        added = [name for name in ("peephole", "projection", "layer_norm") if getattr(self, name)]
        return ", ".join([forgets if self.forget_gate else "no forget gate (1997)", *added])

    @property
    def gate_ranges(self) -> Mapping[str, tuple[float, float]]:
        """Sigmoids in [0, 1], the candidate in [-1, 1]."""
        gate = (0.0, 1.0)
        return MappingProxyType({"i": gate, "f": gate, "g": (-1.0, 1.0), "o": gate})

    @property
    def output_size(self) -> int:
        """P: the projection's width, or H."""
        return self.projection or self.hidden_size

    @property
    def keep_rows(self) -> Mapping[str, int]:
        """The forget gate, opposed by the input gate; a coupled input gate alone; or none."""
        if not self.forget_gate:
            return MappingProxyType({})
        return MappingProxyType({"i": -1} if self.coupled else {"f": 1, "i": -1})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name, in drawing order."""
        shapes, height = super().shapes(), self.hidden_size
        if self.peephole:
            shapes |= {f"p_{gate}": (height,) for gate in self.blocks if gate != "g"}
        if self.projection:
            shapes["w_p"] = (self.projection, height)
        if self.layer_norm:
            rows = shapes["w_x"][:1]
            shapes |= {"gain_x": rows, "gain_h": rows, "gain_c": (height,), "shift_c": (height,)}
        return shapes

    def state_shapes(self) -> dict[str, int]:
        """Widths of h and c."""
        return {"h": self.output_size, "c": self.hidden_size}

    def project(self, xp: ArrayOps, params: Params, x: Array) -> Array:
        """Map x [..., D] to the part [..., G*H] that does not depend on the past."""
        if not self.layer_norm:
            return super().project(xp, params, x)
        normed = xp.layer_norm(xp.linear(x, params["w_x"]), params["gain_x"])
        return normed + params["b_x"] if self.biases else normed

    def step(
        self, xp: ArrayOps, params: Params, projected: Array, state: Any
    ) -> tuple[LSTMState, LSTMGates]:
        """Return the next state and its gates."""
        old = state.c
        if self.layer_norm:
            past = xp.layer_norm(
                xp.linear(state.h, params["w_h"]), params["gain_h"], params.get("b_h")
            )
        else:
            past = xp.linear(state.h, params["w_h"], params.get("b_h"))
        rows = dict(zip(self.blocks, xp.split(projected + past, len(self.blocks))))

        def gate(name: str, memory: Array) -> Array:
            return xp.sigmoid(
                rows[name] + params[f"p_{name}"] * memory if self.peephole else rows[name]
            )

        i = gate("i", old)
        if "f" in rows:
            f = gate("f", old)
        else:
            f = 1.0 - i if self.coupled else xp.zeros(i.shape, i) + 1.0
        g = xp.tanh(rows["g"])
        c = f * old + i * g
        o = gate("o", c)
        shown = xp.layer_norm(c, params["gain_c"], params["shift_c"]) if self.layer_norm else c
        h = o * xp.tanh(shown)
        if self.projection:
            h = xp.linear(h, params["w_p"])
        return LSTMState(h, c), LSTMGates(i, f, g, o)

    def jacobian(self, params: Params, x_t: Array, state: Any) -> Array:
        """Return d (h_t, c_t) / d (h_{t-1}, c_{t-1}), [B, P + H, P + H]."""
        new, gates = self.step(NUMPY, params, self.project(NUMPY, params, x_t), state)
        (i, f, g, o), old, width = gates, state.c, self.output_size
        past = np.broadcast_to(params["w_h"], (len(old), *params["w_h"].shape))
        if self.layer_norm:
            past = _layer_norm_jacobian(state.h @ params["w_h"].T, params["gain_h"]) @ past
        rows = dict(zip(self.blocks, np.split(past, len(self.blocks), axis=1)))
        # Every matrix here is d (something [H]) / d (h [P], c [H]), so [B, H, P + H].
        to_c = np.concatenate([np.zeros((self.hidden_size, width)), np.eye(self.hidden_size)], 1)

        def before_squash(name: str, d_memory: Array) -> Array:
            moved = np.pad(rows[name], ((0, 0), (0, 0), (0, self.hidden_size)))
            if self.peephole and name != "g":
                moved = moved + params[f"p_{name}"][:, None] * d_memory
            return moved

        d_i = (i * (1 - i))[..., None] * before_squash("i", to_c)
        d_g = (1 - g * g)[..., None] * before_squash("g", to_c)
        d_c = f[..., None] * to_c + g[..., None] * d_i + i[..., None] * d_g
        if self.coupled:
            d_c = d_c - old[..., None] * d_i
        elif self.forget_gate:
            d_c = d_c + (old * f * (1 - f))[..., None] * before_squash("f", to_c)
        d_o = (o * (1 - o))[..., None] * before_squash("o", d_c)
        shown, d_shown = new.c, d_c
        if self.layer_norm:
            shown = NUMPY.layer_norm(new.c, params["gain_c"], params["shift_c"])
            d_shown = _layer_norm_jacobian(new.c, params["gain_c"]) @ d_c
        bounded = np.tanh(shown)
        d_h = bounded[..., None] * d_o + (o * (1 - bounded * bounded))[..., None] * d_shown
        if self.projection:
            d_h = params["w_p"] @ d_h
        return np.concatenate([d_h, d_c], axis=1)


def _layer_norm_jacobian(x: Array, gain: Array, eps: float = 1e-5) -> Array:
    """Return d layer_norm(x) / d x, [B, N, N] for x [B, N]."""
    width = x.shape[-1]
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    scaled = centred / spread
    inner = np.eye(width) - (1.0 + scaled[..., :, None] * scaled[..., None, :]) / width
    return (gain / spread)[..., None] * inner
