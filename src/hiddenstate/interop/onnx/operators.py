"""ONNX's RNN, GRU and LSTM as cells with parameters, and back: gate order, attributes, layouts.

    ONNX            here
    RNN             Elman, activation Tanh or Relu
    GRU    z r h    GRU, update "keeps"; linear_before_reset=0 is reset "before", else "after"
    LSTM   i o f c  LSTM (c is g here); P [i o f] are peepholes, o's reads the new c;
                    input_forget=1 is coupled, f = 1 - i, and the rows of f mean nothing
    B               [Wb, Rb] are b_x and b_h; without B there are no biases

Source: the operator schemas of onnx 1.16 to 1.23 (opsets 7, 14 and 22); what they leave open is as
ONNX Runtime computes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import GRU, LSTM, NUMPY, Cell, Elman
from hiddenstate.cells.conventions import convert
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.interop.conventions import ONNX, TABLE
from hiddenstate.interop.express import ALWAYS_OPEN
from hiddenstate.interop.weights import Way
from hiddenstate.kernels import scan

Array = NDArray[Any]

ROWS: Mapping[str, tuple[str, ...]] = {
    each.layer: each.blocks for each in TABLE if each.system is ONNX
}
"""Each operator with its row blocks in ONNX's order, by the names of ours."""
PEEPHOLES = ("i", "o", "f")
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
"""The inputs of an LSTM; the other two operators have the first six."""
ACTIVATIONS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "RNN": (("tanh",), ("relu",)),
    "GRU": (("sigmoid", "tanh"),),
    "LSTM": (("sigmoid", "tanh", "tanh"),),
}
"""The activations that a cell here has, the operator's default first."""
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}


class Attributes(NamedTuple):
    """What a node says beside its weights; None and the first values are ONNX's defaults."""

    direction: str = "forward"
    hidden_size: int | None = None
    activations: tuple[str, ...] | None = None
    activation_alpha: tuple[float, ...] = ()
    activation_beta: tuple[float, ...] = ()
    clip: float | None = None
    input_forget: int = 0
    linear_before_reset: int = 0
    layout: int = 0

    def obstacles(self, kind: str) -> dict[str, str]:
        """Return the attributes that no cell here can express, each with the reason.

        Parameters of activations are none of them: Tanh, Relu and Sigmoid have no parameters.
        """
        found = {}
        if self.clip is not None:
            found["clip"] = f"it clips what its activations read at {self.clip:g}"
        if self.activations is not None:
            ways = len(DIRECTIONS.get(self.direction, (False,)))
            if any(each not in ACTIVATIONS[kind] for each in self._each(kind, ways)):
                names = ", ".join(self.activations)
                found["activations"] = f"its activations are {names}"
        return found

    def activations_of(self, kind: str, way: int) -> tuple[str, ...]:
        """Return the activations of one direction in small letters."""
        if self.activations is None:
            return ACTIVATIONS[kind][0]
        return self._each(kind, len(DIRECTIONS[self.direction]))[way]

    def _each(self, kind: str, ways: int) -> list[tuple[str, ...]]:
        names = tuple(name.lower() for name in self.activations or ())
        count = len(ACTIVATIONS[kind][0])
        if len(names) != ways * count:
            raise SpecError(
                f"A node {kind} with direction {self.direction} names {len(names)} activations.",
                f"It has {count} for each of its {ways} directions.",
                "Correct the attribute, or leave it out.",
            )
        return [names[k * count : (k + 1) * count] for k in range(ways)]


@dataclass(frozen=True, eq=False)
class Operator:
    """One recurrent node with its weights.

    kind:   RNN, GRU or LSTM
    ways:   its direction, or forward and backward
    layout: 0 is x [T, B, D], Y [T, W, B, H] and states [W, B, H] for W directions;
            1 is x [B, T, D], Y [B, T, W, H] and states [B, W, H]
    """

    kind: str
    ways: tuple[Way, ...]
    layout: int = 0

    def run(
        self,
        x: Array,
        lengths: Array | None = None,
        initial_h: Array | None = None,
        initial_c: Array | None = None,
    ) -> tuple[Array, ...]:
        """Return Y, Y_h and (of an LSTM) Y_c by the reference, in the node's layout.

        sequence_lens, initial_h and initial_c are None where the node does not have them.
        """
        by_way = 1 if self.layout else 0
        if not self.layout:
            x = x.swapaxes(0, 1)
        given = [each for each in (initial_h, initial_c) if each is not None]
        outputs, states = [], []
        for place, way in enumerate(self.ways):
            state = None
            if given:
                state = way.cell.initial_state(NUMPY, len(x), x)
                for name, each in (("h", initial_h), ("c", initial_c)):
                    if each is not None:
                        state = state._replace(**{name: np.take(each, place, axis=by_way)})
            done = scan(NUMPY, way.cell, way.params, x, state, lengths, reverse=way.reverse)
            outputs.append(done.output)
            states.append(done.state)
        output = np.stack(outputs, axis=2)
        output = output if self.layout else output.transpose(1, 2, 0, 3)
        return output, *(np.stack(parts, axis=by_way) for parts in zip(*states, strict=True))


def read(
    kind: str,
    attributes: Attributes,
    w: Array,
    r: Array,
    b: Array | None = None,
    p: Array | None = None,
) -> Operator:
    """Return the operator of a node with W [W, G*H, D], R [W, G*H, H], B [W, 2*G*H], P [W, 3*H].

    Raises SpecError for attributes that no cell here can express, ShapeError for arrays that do
    not fit.
    """
    if attributes.direction not in DIRECTIONS or attributes.layout not in (0, 1):
        raise SpecError(
            f"A node {kind} has direction {attributes.direction!r}, layout {attributes.layout}.",
            f"ONNX knows the directions {', '.join(DIRECTIONS)}, and the layouts 0 and 1.",
            "Correct the attribute.",
        )
    reasons = attributes.obstacles(kind)
    if reasons:
        raise SpecError(
            f"A node {kind} cannot be read: {'; '.join(reasons.values())}.",
            "Cells here have tanh and sigmoid (an Elman cell relu instead of tanh), unclipped.",
            "Build the model without it.",
        )
    reverses = DIRECTIONS[attributes.direction]
    height = _require_shapes(kind, len(reverses), attributes.hidden_size, w, r, b, p)
    ways = []
    for place, reverse in enumerate(reverses):
        cell = _cell(kind, attributes, place, (w.shape[2], height), b is not None, p is not None)
        order = ROWS[kind]
        params = {"w_x": _moved(w[place], order, cell.blocks)}
        params["w_h"] = _moved(r[place], order, cell.blocks)
        if b is not None:
            for name, half in zip(("b_x", "b_h"), np.split(b[place], 2)):
                params[name] = _moved(half, order, cell.blocks)
        if p is not None:
            parts = dict(zip(PEEPHOLES, np.split(p[place], 3)))
            params |= {f"p_{gate}": parts[gate].copy() for gate in cell.blocks if gate != "g"}
        ways.append(Way(cell, params, reverse))
    return Operator(kind, tuple(ways), attributes.layout)


def refusals(cell: Cell) -> list[str]:
    """Return the reasons why no ONNX operator computes a cell; empty means that one does."""
    if isinstance(cell, LSTM):
        wanted = {"projection": cell.projection, "layer norm inside the cell": cell.layer_norm}
        return [f"ONNX's LSTM has no {name}" for name, has in wanted.items() if has]
    if isinstance(cell, (Elman, GRU)):
        return []
    return [f"ONNX has no operator for the cell {cell.name}"]


def attributes_of(cell: Cell) -> tuple[str, dict[str, Any]]:
    """Return the operator that computes a cell without `refusals`, and its attributes.

    activations are those of one direction; they are left out where they are ONNX's default.
    """
    attributes: dict[str, Any] = {"hidden_size": cell.hidden_size}
    if isinstance(cell, LSTM):
        return "LSTM", attributes | ({"input_forget": 1} if cell.coupled else {})
    if isinstance(cell, GRU):
        return "GRU", attributes | {"linear_before_reset": int(cell.reset == "after")}
    assert isinstance(cell, Elman)
    return "RNN", attributes | ({"activations": ["Relu"]} if cell.activation == "relu" else {})


def arrays_of(way: Way) -> dict[str, Array]:
    """Return W [G*H, D], R [G*H, H] and, where the cell has them, B [2*G*H] and P [3*H].

    An update gate that writes becomes one that keeps, a forget gate that is not there one that is
    always open: both exact.
    """
    cell, params = way.cell, way.params
    if isinstance(cell, GRU) and cell.update == "writes":
        keeps = replace(cell, update="keeps")
        cell, params = keeps, convert(cell, params, keeps)
    kind, _ = attributes_of(cell)
    order, height = ROWS[kind], cell.hidden_size
    found = {"W": _moved(params["w_x"], cell.blocks, order, height)}
    found["R"] = _moved(params["w_h"], cell.blocks, order, height)
    nothing = np.zeros(len(cell.blocks) * height, params["w_x"].dtype)
    halves = [
        _moved(params.get(name, nothing), cell.blocks, order, height) for name in ("b_x", "b_h")
    ]
    never_forgets = isinstance(cell, LSTM) and not cell.forget_gate
    if never_forgets:
        row = order.index("f") * height
        halves[0][row : row + height] = ALWAYS_OPEN
    if cell.biases or never_forgets:
        found["B"] = np.concatenate(halves)
    if isinstance(cell, LSTM) and cell.peephole:
        zeros = np.zeros(height, params["w_x"].dtype)
        found["P"] = np.concatenate([params.get(f"p_{gate}", zeros) for gate in PEEPHOLES])
    return found


def _cell(
    kind: str,
    attributes: Attributes,
    way: int,
    sizes: tuple[int, int],
    biased: bool,
    peephole: bool,
) -> Cell:
    biases = 2 if biased else 0
    if kind == "LSTM":
        coupled = attributes.input_forget != 0
        return LSTM(*sizes, biases=biases, peephole=peephole, coupled=coupled)
    if kind == "GRU":
        return GRU(
            *sizes, biases=biases, reset="after" if attributes.linear_before_reset else "before"
        )
    (activation,) = attributes.activations_of(kind, way)
    return Elman(*sizes, biases=biases, activation="relu" if activation == "relu" else "tanh")


def _moved(
    array: Array, order: Sequence[str], wanted: Sequence[str], height: int | None = None
) -> Array:
    """Return a copy with its row blocks in another order; a block that is not there is zeros."""
    blocks = dict(zip(order, np.split(array, len(order))))
    zeros = np.zeros((height or 0, *array.shape[1:]), array.dtype)
    return np.concatenate([blocks.get(name, zeros) for name in wanted])


def _require_shapes(
    kind: str,
    ways: int,
    hidden_size: int | None,
    w: Array,
    r: Array,
    b: Array | None,
    p: Array | None,
) -> int:
    """Return H; raises ShapeError unless the arrays are a node's."""
    height = r.shape[-1] if r.ndim == 3 else 0
    rows = len(ROWS[kind]) * height
    size = w.shape[-1] if w.ndim == 3 else 0
    expected: dict[str, tuple[int, ...]] = {"W": (ways, rows, size), "R": (ways, rows, height)}
    given = {"W": w, "R": r}
    for name, array, width in (("B", b, 2 * rows), ("P", p, 3 * height)):
        if array is not None:
            expected[name], given[name] = (ways, width), array
    shapes = {name: array.shape for name, array in given.items()}
    fits = shapes == expected and hidden_size in (None, height) and height and size
    if not fits or len({array.dtype for array in given.values()}) > 1:
        found = ", ".join(f"{n} {list(a.shape)} {a.dtype}" for n, a in given.items())
        raise ShapeError(
            f"A node {kind} with hidden_size {hidden_size} and {ways} directions has {found}.",
            "Expected of one type: " + ", ".join(f"{n} {list(s)}" for n, s in expected.items()),
            "The file is damaged, or was not written by the rules of ONNX: export it again.",
        )
    return height
