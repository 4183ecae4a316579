"""torch.nn.RNN, LSTM, GRU, their cells and plain state_dicts, from and to."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.errors import SpecError
from hiddenstate.interop.conventions import TORCH, Convention, named
from hiddenstate.interop.express import changes, convention_of, express
from hiddenstate.interop.layout import as_floats, from_order, in_order, read, write
from hiddenstate.interop.proof import Converted, Runner, prove
from hiddenstate.interop.weights import Array, States, Way, Weights

Module: TypeAlias = nn.RNN | nn.LSTM | nn.GRU
CellModule: TypeAlias = nn.RNNCell | nn.LSTMCell | nn.GRUCell

GATES = {1: "RNN", 3: "GRU", 4: "LSTM"}
"""Layer by the number of row blocks in its weights."""

_ARRAY = re.compile(
    r"(?P<prefix>(?:.*\.)?)(?P<array>weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)"
    r"(?:_l(?P<layer>\d+)(?P<reverse>_reverse)?)?"
)


class _Found(NamedTuple):
    """The arrays of one recurrent module: by layer and direction (True backward), then by name."""

    arrays: dict[tuple[int, bool], dict[str, Tensor]]
    others: int


def from_torch(
    source: nn.Module | Mapping[str, Tensor],
    *,
    part: str | None = None,
    activation: str = "tanh",
) -> Converted[nn.Module]:
    """Read a torch module, or the state_dict of one.

    part:       name of the recurrent module inside the source, such as "encoder.lstm"; None = the
                only one
    activation: of an nn.RNN of which only the state_dict is there, "tanh" or "relu"

    `value` is the module that was run for the proof: a copy of the source's own, or one built from
    the state_dict's sizes, batch first. Raises SpecError where there is no such module or more than
    one.

    >>> print(from_torch(nn.GRU(3, 4).state_dict()).weights)
    layer 0: gru (reset after the recurrent product, update keeps the state, biases=2), D=3 H=4, \
forwards
    """
    inner = _inner(source, part) if isinstance(source, nn.Module) else None
    tensors = inner.state_dict() if inner is not None else source
    assert isinstance(tensors, Mapping)
    found = _one_of(tensors, None if inner is not None else part)
    if isinstance(inner, (nn.RNN, nn.RNNCell)):
        activation = str(inner.nonlinearity)
    weights = _weights(found.arrays, activation)
    if inner is None:
        model: nn.Module = _build(weights)
    else:
        dtype = torch.from_numpy(np.zeros(0, weights.dtype)).dtype
        model = deepcopy(inner).cpu().to(dtype).eval()
    notes = [f"{found.others} other arrays of the state_dict are left behind"] * bool(found.others)
    return Converted(model, weights, _prove(weights, model), tuple(notes))


def to_torch(weights: Weights) -> Converted[Module]:
    """Build the torch module (batch first, evaluation mode) that computes what the weights do.

    Raises ConversionRefusal where that is not exact, SpecError where torch has no such module: its
    layers are alike but for the first one's input, and none runs backwards alone.
    """
    rows = [convention_of(TORCH, way, k) for k, ways in enumerate(weights.layers) for way in ways]
    pairs = list(zip(weights.ways, rows, strict=True))
    ways = [express(way, row) for way, row in pairs]
    if any(way.cell.biases for way in ways):
        ways = [express(way, row, bare=False) for way, row in pairs]
    each = iter(ways)
    written = Weights(tuple(tuple(next(each) for _ in layer) for layer in weights.layers))
    lone = [k for k, layer in enumerate(written.layers) if layer[0].reverse]
    kinds = {replace(way.cell, input_size=1) for way in ways}
    if lone or len(kinds) > 1 or len({len(layer) for layer in written.layers}) > 1:
        raise SpecError(
            f"Layer {lone[0]} only runs backwards." if lone else "The layers are not alike.",
            "torch.nn repeats one cell over its layers, forwards or in both directions.",
            "Convert the layers one by one, or keep the model in hiddenstate, which is torch too.",
        )
    module = _build(written)
    return Converted(module, weights, _prove(weights, module), changes(weights, written))


def runner(module: nn.Module) -> Runner:
    """Return how a torch module, or the only layer of a cell, is run on NumPy arrays."""
    return _steps(module) if isinstance(module, CellModule) else _sequence(module)


def _prove(weights: Weights, module: nn.Module) -> Any:
    plain = isinstance(module, CellModule)
    return prove(
        weights, runner(module), lengths=not plain, states=True, dtype=weights.dtype, shortest=1
    )


def _inner(module: nn.Module, part: str | None) -> nn.Module:
    kinds = (nn.RNN, nn.LSTM, nn.GRU, nn.RNNCell, nn.LSTMCell, nn.GRUCell)
    inside = {name: each for name, each in module.named_modules() if isinstance(each, kinds)}
    if part in inside or (part is None and len(inside) == 1):
        return inside[part] if part is not None else next(iter(inside.values()))
    raise _choice(f"This {type(module).__name__}", part, list(inside))


def _one_of(tensors: Mapping[str, Tensor], part: str | None) -> _Found:
    by_prefix: dict[str, dict[tuple[int, bool], dict[str, Tensor]]] = {}
    for name, tensor in tensors.items():
        matched = _ARRAY.fullmatch(name)
        if matched:
            place = (int(matched["layer"] or 0), bool(matched["reverse"]))
            arrays = by_prefix.setdefault(matched["prefix"].removesuffix("."), {})
            arrays.setdefault(place, {})[matched["array"]] = tensor
    if part is None and len(by_prefix) == 1:
        part = next(iter(by_prefix))
    if part not in by_prefix:
        raise _choice(f"The state_dict of {len(tensors)} arrays", part, list(by_prefix))
    arrays = by_prefix[part]
    return _Found(arrays, len(tensors) - sum(map(len, arrays.values())))


def _choice(owner: str, part: str | None, names: list[str]) -> SpecError:
    held = ", ".join(repr(name) for name in names) or "none"
    return SpecError(
        f"{owner} holds {len(names)} recurrent modules: {held}"
        + (f"; {part!r} is not one of them." if part is not None else "."),
        "One is converted at a time: an nn.RNN, nn.LSTM, nn.GRU or a cell of theirs.",
        "Name one of them as the part." if names else "Give the state_dict of such a module.",
    )


def _weights(arrays: Mapping[tuple[int, bool], Mapping[str, Tensor]], activation: str) -> Weights:
    layers: list[tuple[Way, ...]] = []
    for k in range(1 + max(layer for layer, _ in arrays)):
        ways = []
        for reverse in (False, True):
            if (k, reverse) not in arrays:
                continue
            given = {name: _numpy(tensor) for name, tensor in arrays[k, reverse].items()}
            where = f"layer {k}" + " (reverse)" * reverse
            row = _convention(given, where)
            options = {"activation": activation} if row.cell == "elman" else {}
            ways.append(read(row, given, reverse=reverse, where=where, **options))
        layers.append(tuple(ways))
    return Weights(tuple(layers))


def _convention(arrays: Mapping[str, Array], where: str) -> Convention:
    """Tell the layer from the shapes: weight_hh is [gates x H, H]."""
    w_h = arrays.get("weight_hh")
    gates = 0
    if "weight_hr" in arrays:
        gates = 4
    elif w_h is not None and w_h.ndim == 2 and w_h.shape[1] and not w_h.shape[0] % w_h.shape[1]:
        gates = w_h.shape[0] // w_h.shape[1]
    if gates not in GATES:
        found = "missing" if w_h is None else f"of shape {list(w_h.shape)}"
        raise SpecError(
            f"The weight_hh of {where} is {found}.",
            "torch has [H, H] for an RNN, [3H, H] for a GRU, [4H, H] for an LSTM (with "
            "projections [4H, P], and weight_hr).",
            "Give the whole state_dict of one such module.",
        )
    return named(TORCH, GATES[gates])


def _numpy(tensor: Tensor) -> Array:
    narrow = tensor.is_floating_point() and tensor.element_size() < 4
    tensor = tensor.detach().cpu()
    return as_floats((tensor.float() if narrow else tensor).numpy())


def _build(weights: Weights) -> Module:
    """Return the module whose cells these are."""
    cell, both = weights.ways[0].cell, len(weights.layers[0]) == 2
    row = convention_of(TORCH, weights.ways[0])
    options: dict[str, Any] = {"activation": "nonlinearity", "projection": "proj_size"}
    given = {
        theirs: getattr(cell, ours)
        for ours, theirs in options.items()
        if getattr(cell, ours, None) is not None
    }
    module: Module = getattr(nn, row.layer)(
        cell.input_size,
        cell.hidden_size,
        num_layers=len(weights.layers),
        bias=cell.biases > 0,
        batch_first=True,
        bidirectional=both,
        **given,
    )
    arrays = {}
    for k, ways in enumerate(weights.layers):
        for way in ways:
            suffix = f"_l{k}" + "_reverse" * way.reverse
            for name, array in write(way, row).items():
                arrays[name + suffix] = torch.from_numpy(array.copy())
    module.to(next(iter(arrays.values())).dtype)
    try:
        module.load_state_dict(arrays)
    except RuntimeError as problem:
        raise SpecError(
            f"The arrays make no nn.{row.layer}: {' '.join(str(problem).split())}.",
            "All layers of a module have the same directions, sizes and biases.",
            "Give the whole state_dict of one module.",
        ) from None
    return module.eval()


def _sequence(module: Any) -> Runner:
    row, both = named(TORCH, type(module).__name__), 2 if module.bidirectional else 1

    def run(x: Array, lengths: Array | None, states: States | None) -> tuple[Array, States]:
        given: Any = torch.from_numpy(x)
        given = given if module.batch_first else given.transpose(0, 1)
        if lengths is not None:
            given = pack_padded_sequence(
                given, torch.from_numpy(lengths), module.batch_first, enforce_sorted=False
            )
        first: Any = None
        if states is not None:
            each = [in_order(state, row) for ways in states for state in ways]
            first = tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*each, strict=True))
        with torch.no_grad(), warnings.catch_warnings():
            # oneDNN has no projections: torch runs its own operator then, and says so.
            warnings.filterwarnings("ignore", "LSTM with projections")
            output, last = module(given, _unpaired(first))
        if lengths is not None:
            output, _ = pad_packed_sequence(output, module.batch_first, total_length=x.shape[1])
        output = output if module.batch_first else output.transpose(0, 1)
        kept = [from_order(arrays, row) for arrays in zip(*_paired(last), strict=True)]
        pairs = tuple(tuple(kept[k : k + both]) for k in range(0, len(kept), both))
        return output.numpy(), pairs

    return run


def _steps(cell: Any) -> Runner:
    row = named(TORCH, type(cell).__name__.removesuffix("Cell"))

    def run(x: Array, _: Array | None, states: States | None) -> tuple[Array, States]:
        last: Any = None
        if states is not None:
            last = _unpaired(tuple(map(torch.from_numpy, in_order(states[0][0], row))))
        outputs = []
        with torch.no_grad():
            for x_t in torch.from_numpy(x).unbind(1):
                last = cell(x_t, last)
                outputs.append(_paired(last)[0].numpy())
        return np.stack(outputs, 1), ((from_order(_paired(last), row),),)

    return run


def _paired(state: Any) -> tuple[Any, ...]:
    """Return a state's arrays: torch gives an LSTM's as a pair, others bare."""
    return state if isinstance(state, tuple) else (state,)


def _unpaired(state: Any) -> Any:
    return state[0] if state is not None and len(state) == 1 else state
