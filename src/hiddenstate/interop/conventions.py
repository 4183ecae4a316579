"""How each system writes a recurrent layer down: facts that the converters use and docs print.

A system's layers differ from ours in the order of the gates, in what is transposed, in where the
biases lie, in the placement of the GRU's reset gate, and in which state comes first. Each row of
`TABLE` says so for one layer; `layout` reads and writes arrays by it, and docs/conventions.md is
made from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple

from hiddenstate.cells import Cell


@dataclass(frozen=True)
class System:
    """What all layers of a system share.

    transposed:    weights are [inputs, rows], where ours are [rows, inputs]
    biases_absent: a layer may go without biases
    layout:        axes of x, as it takes them unless told otherwise
    lengths:       how it is told where the padding begins
    both:          how it reads in both directions
    """

    name: str
    title: str
    transposed: bool
    biases_absent: bool
    layout: str
    lengths: str
    both: str
    source: str


class Place(NamedTuple):
    """Where one of our parameters lies among a system's arrays.

    ours:   w_x, w_h, b_x, b_h or w_p
    theirs: name of the array; "{gate}" in it stands for one array a gate
    part:   which half of an array that holds two biases
    join:   how the halves are joined: "rows" [2, G*H], "ends" [2*G*H]
    only:   gates that have it, where others do not; for those it is zero
    """

    ours: str
    theirs: str
    part: int = 0
    join: Literal["", "rows", "ends"] = ""
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Convention:
    """One layer of one system.

    cell:     name of our cell; `options` are those with which it computes the same
    blocks:   the gates in the order of the stacked weights, in our letters
    state:    the arrays of a state in the system's order
    page:     where it was read, under the system's source
    letters:  what the system calls gates for which it does not use our letter
    supports: options of our cell that the layer has as well
    """

    system: System
    layer: str
    cell: str
    blocks: tuple[str, ...]
    places: tuple[Place, ...]
    state: tuple[str, ...]
    page: str
    options: Mapping[str, object] = field(default_factory=dict)
    letters: Mapping[str, str] = field(default_factory=dict)
    supports: frozenset[str] = frozenset()
    remark: str = ""

    @property
    def name(self) -> str:
        """System and layer, as messages give them."""
        return f"{self.system.title}'s {self.layer}"

    @property
    def biases(self) -> int:
        """How many biases the layer has, where it has any: 1 or 2."""
        return sum(place.ours.startswith("b_") for place in self.places)

    def letter(self, gate: str) -> str:
        """Return our letter of a gate, and the system's where it is another."""
        return f"{gate} ({self.letters[gate]})" if gate in self.letters else gate


def find(system: System, cell: Cell) -> Convention | None:
    """Return the layer that comes nearest to a cell, None where the system has no such cell."""
    rows = [row for row in TABLE if row.system is system and row.cell == cell.name]

    def agreeing(row: Convention) -> int:
        return sum(getattr(cell, option) == value for option, value in row.options.items())

    return max(rows, key=agreeing, default=None)


def named(system: System, layer: str, **options: object) -> Convention:
    """Return a layer by its class; options tell two forms of one class apart."""
    for row in TABLE:
        if row.system is system and row.layer == layer and options.items() <= row.options.items():
            return row
    raise KeyError(system.name, layer, options)


BATCH_FIRST, TIME_FIRST = "[B, T, D]", "[T, B, D]"

TORCH = System(
    *("torch", "torch.nn", False, True, TIME_FIRST),
    "PackedSequence, lengths of at least 1",
    "bidirectional=True: arrays named _reverse",
    "https://docs.pytorch.org/docs/stable/generated/",
)
KERAS = System(
    *("keras", "Keras", True, True, BATCH_FIRST),
    "mask [B, T] of booleans",
    "Bidirectional(layer, merge_mode='concat')",
    "https://keras.io/api/layers/recurrent_layers/",
)
FLAX = System(
    *("flax", "Flax linen", True, False, BATCH_FIRST),
    "seq_lengths of at least 1; output past them is not cleared",
    "Bidirectional(forward_rnn, backward_rnn)",
    "https://flax-linen.readthedocs.io/en/latest/api_reference/flax.linen/",
)
NNX = System(
    *("nnx", "Flax nnx", True, False, BATCH_FIRST),
    "seq_lengths of at least 1; output past them is not cleared",
    "Bidirectional(forward_rnn, backward_rnn)",
    "https://flax.readthedocs.io/en/stable/api_reference/flax.nnx/nn/",
)
HASTE = System(
    *("haste", "haste", True, False, TIME_FIRST),
    "lengths, for the last state only",
    "no",
    "https://github.com/lmnt-com/haste/blob/master/docs/pytorch/haste_pytorch/",
)
ONNX = System(
    *("onnx", "ONNX", False, True, TIME_FIRST),
    "sequence_lens [B]",
    "direction='bidirectional': a leading axis of 2",
    "https://onnx.ai/onnx/operators/",
)
SYSTEMS = (TORCH, KERAS, FLAX, NNX, HASTE, ONNX)

_AFTER = MappingProxyType({"reset": "after", "update": "keeps"})
_BEFORE = MappingProxyType({"reset": "before", "update": "keeps"})
_H, _RZN, _ZRN = ("h",), ("r", "z", "n"), ("z", "r", "n")
_IFGO, _IGFO, _IOFG = ("i", "f", "g", "o"), ("i", "g", "f", "o"), ("i", "o", "f", "g")
_HC, _CH = ("h", "c"), ("c", "h")
_N_IS_H, _G_IS_C = MappingProxyType({"n": "h"}), MappingProxyType({"g": "c"})
_EITHER = frozenset({"activation"})

_TORCH_ARRAYS = (
    Place("w_x", "weight_ih"),
    Place("w_h", "weight_hh"),
    Place("b_x", "bias_ih"),
    Place("b_h", "bias_hh"),
)
_KERNELS = (Place("w_x", "kernel"), Place("w_h", "recurrent_kernel"))
_ONE_BIAS = (*_KERNELS, Place("b_x", "bias"))
_TWO_ROWS = (*_KERNELS, Place("b_x", "bias", 0, "rows"), Place("b_h", "bias", 1, "rows"))
_BY_GATE = (Place("w_x", "i{gate}/kernel"), Place("w_h", "h{gate}/kernel"))
_DENSE = (Place("w_x", "dense_i/kernel"), Place("w_h", "dense_h/kernel"))
_ONNX_ARRAYS = (
    Place("w_x", "W"),
    Place("w_h", "R"),
    Place("b_x", "B", 0, "ends"),
    Place("b_h", "B", 1, "ends"),
)

TABLE: tuple[Convention, ...] = (
    Convention(
        *(TORCH, "RNN", "elman", _H, _TORCH_ARRAYS, _H),
        page="torch.nn.RNN.html",
        supports=_EITHER,
        remark="only the sum of the biases counts",
    ),
    Convention(
        *(TORCH, "GRU", "gru", _RZN, _TORCH_ARRAYS, _H),
        page="torch.nn.GRU.html",
        options=_AFTER,
        remark="b_hn stands inside the reset product; of the other biases only the sum counts",
    ),
    Convention(
        *(TORCH, "LSTM", "lstm", _IFGO, (*_TORCH_ARRAYS, Place("w_p", "weight_hr")), _HC),
        page="torch.nn.LSTM.html",
        supports=frozenset({"projection"}),
        remark="only the sum of the biases counts; proj_size is a projection of h",
    ),
    Convention(
        *(KERAS, "SimpleRNN", "elman", _H, _ONE_BIAS, _H),
        page="simple_rnn/",
        supports=_EITHER,
    ),
    Convention(
        *(KERAS, "GRU", "gru", _ZRN, _TWO_ROWS, _H),
        page="gru/",
        options=_AFTER,
        letters=_N_IS_H,
        remark="reset_after=True, the default",
    ),
    Convention(
        *(KERAS, "GRU", "gru", _ZRN, _ONE_BIAS, _H),
        page="gru/",
        options=_BEFORE,
        letters=_N_IS_H,
        remark="reset_after=False",
    ),
    Convention(
        *(KERAS, "LSTM", "lstm", _IFGO, _ONE_BIAS, _HC),
        page="lstm/",
        letters=_G_IS_C,
    ),
    Convention(
        *(FLAX, "SimpleCell", "elman", _H),
        (Place("w_x", "i/kernel"), Place("w_h", "h/kernel"), Place("b_x", "i/bias")),
        _H,
        page="layers.html#flax.linen.SimpleCell",
        supports=_EITHER,
    ),
    Convention(
        *(FLAX, "GRUCell", "gru", _RZN),
        (*_BY_GATE, Place("b_x", "i{gate}/bias"), Place("b_h", "h{gate}/bias", only=("n",))),
        _H,
        page="layers.html#flax.linen.GRUCell",
        options=_AFTER,
        remark="the recurrent side has a bias for n alone",
    ),
    Convention(
        *(FLAX, "LSTMCell", "lstm", _IFGO, (*_BY_GATE, Place("b_x", "h{gate}/bias")), _CH),
        page="layers.html#flax.linen.LSTMCell",
        remark="OptimizedLSTMCell has the same arrays",
    ),
    Convention(
        *(NNX, "SimpleCell", "elman", _H, (*_DENSE, Place("b_x", "dense_i/bias")), _H),
        page="recurrent.html#flax.nnx.SimpleCell",
        supports=_EITHER,
    ),
    Convention(
        *(NNX, "GRUCell", "gru", _RZN, (*_DENSE, Place("b_x", "dense_i/bias")), _H),
        page="recurrent.html#flax.nnx.GRUCell",
        options=_AFTER,
        remark="no bias inside the reset product, although its docstring shows b_hn "
        "(google/flax issue 5594): a GRU whose b_hn is not zero cannot become one",
    ),
    Convention(
        *(NNX, "OptimizedLSTMCell", "lstm", _IFGO, (*_DENSE, Place("b_x", "dense_h/bias")), _CH),
        page="recurrent.html#flax.nnx.OptimizedLSTMCell",
    ),
    Convention(
        *(NNX, "LSTMCell", "lstm", _IFGO, (*_BY_GATE, Place("b_x", "h{gate}/bias")), _CH),
        page="recurrent.html#flax.nnx.LSTMCell",
        remark="the attribute of the forget gate's input side is if_",
    ),
    Convention(
        *(HASTE, "GRU", "gru", _ZRN, (*_ONE_BIAS, Place("b_h", "recurrent_bias")), _H),
        page="GRU.md",
        options=_AFTER,
        letters=_N_IS_H,
    ),
    Convention(
        *(HASTE, "LSTM", "lstm", _IGFO, _ONE_BIAS, _HC),
        page="LSTM.md",
    ),
    Convention(
        *(ONNX, "RNN", "elman", _H, _ONNX_ARRAYS, _H),
        page="onnx__RNN.html",
        supports=_EITHER,
    ),
    Convention(
        *(ONNX, "GRU", "gru", _ZRN, _ONNX_ARRAYS, _H),
        page="onnx__GRU.html",
        options=_BEFORE,
        letters=_N_IS_H,
        remark="linear_before_reset=0, the default",
    ),
    Convention(
        *(ONNX, "GRU", "gru", _ZRN, _ONNX_ARRAYS, _H),
        page="onnx__GRU.html",
        options=_AFTER,
        letters=_N_IS_H,
        remark="linear_before_reset=1",
    ),
    Convention(
        *(ONNX, "LSTM", "lstm", _IOFG, _ONNX_ARRAYS, _HC),
        page="onnx__LSTM.html",
        letters=_G_IS_C,
        supports=frozenset({"peephole", "coupled"}),
        remark="peepholes P are of i, o, f; input_forget=1 is a coupled gate",
    ),
)
