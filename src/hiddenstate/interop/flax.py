"""Flax linen: SimpleCell, GRUCell, LSTMCell and OptimizedLSTMCell, in RNN and Bidirectional."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from hiddenstate.errors import SpecError
from hiddenstate.interop.carries import from_carries, jax_precision, spelt_out, to_carries
from hiddenstate.interop.conventions import FLAX, TABLE, Convention
from hiddenstate.interop.express import changes, convention_of, express
from hiddenstate.interop.layout import names, read, write
from hiddenstate.interop.proof import Converted, Runner, prove
from hiddenstate.interop.weights import Array, States, Way, Weights

Tree: TypeAlias = Mapping[str, Any]
"""Parameters by name, nested: {"cell": {"ii": {"kernel": array, ...}, ...}, ...}."""

DIRECTIONS = ("forward_rnn", "backward_rnn")
_CONVENTIONS = [row for row in TABLE if row.system is FLAX]


class Model(NamedTuple):
    """A linen Sequential of RNN and Bidirectional, and its parameters.

    `module.apply({"params": params}, x)` gives the output [B, T, P] of x [B, T, D].
    """

    module: linen.Sequential
    params: dict[str, Any]


def from_flax(
    params: Tree | Sequence[Any], *, part: str | None = None, activation: str = "tanh"
) -> Converted[Model]:
    """Read the recurrent cells among a linen model's parameters.

    params:     nested by name, or flat with names joined by "/"; the cells are told by the names of
                their arrays and follow each other in the order of theirs; those under forward_rnn
                and backward_rnn are the two directions of one layer. Or the layers one by one: a
                list of cells' parameters, a pair of them for both directions
    part:       only what stands below this name, such as "encoder/RNN_0"
    activation: of SimpleCells, which the parameters do not tell: "tanh" or "relu"

    `value` is the model that was run for the proof. Raises SpecError where there is no cell.
    """
    notes = []
    if isinstance(params, Mapping):
        layers, others = _found(_flat(params), part)
        notes += [f"{others} other arrays are left behind"] * bool(others)
    else:
        pairs = [each if isinstance(each, (list, tuple)) else [each] for each in params]
        layers = [[_flat(cell) for cell in pair] for pair in pairs]
    options = {"elman": {"activation": activation}}
    weights = Weights(
        tuple(
            tuple(
                read(row, cell, reverse=bool(d), where=f"layer {k}", **options.get(row.cell, {}))
                for d, cell in enumerate(pair)
                for row in [_convention(cell)]
            )
            for k, pair in enumerate(layers)
        )
    )
    model = _build(weights)
    return Converted(model, weights, _prove(weights, model), tuple(notes))


def to_flax(weights: Weights) -> Converted[Model]:
    """Build the linen model that computes what the weights do.

    Raises ConversionRefusal where that is not exact, SpecError where linen has no such cell.
    """
    written = Weights(
        tuple(
            tuple(express(way, convention_of(FLAX, way, k)) for way in ways)
            for k, ways in enumerate(weights.layers)
        )
    )
    model = _build(written)
    return Converted(model, weights, _prove(weights, model), changes(weights, written))


def flatten(params: Tree) -> dict[str, Array]:
    """Return parameters by their names joined by "/", as an .npz holds them."""
    return {name: np.asarray(array) for name, array in _flat(params).items()}


def runner(model: Model, weights: Weights) -> Runner:
    """Return how a model's layers are run on NumPy arrays."""
    layers = model.module.layers
    rows = [[_row_of(rnn.cell) for rnn in _directions(layer)] for layer in layers]

    def forward(params: Any, x: Any, counts: Any, first: Any) -> Any:
        last = []
        for k, layer in enumerate(layers):
            carry, x = layer.apply(
                {"params": params[f"layers_{k}"]},
                x,
                initial_carry=None if first is None else first[k],
                seq_lengths=counts,
                return_carry=True,
            )
            last.append(carry)
        return x, last

    compiled = jax.jit(forward)

    def run(x: Array, lengths: Array | None, states: States | None) -> tuple[Array, States]:
        counts, first = spelt_out(weights, x, lengths, states)
        carries = None if first is None else to_carries(first, rows)
        with jax_precision(x.dtype):
            output, last = compiled(model.params, x, counts, carries)
        return np.asarray(output), from_carries(last, rows)

    return run


def _prove(weights: Weights, model: Model) -> Any:
    return prove(
        weights, runner(model, weights), lengths=True, states=True, dtype=weights.dtype, shortest=1
    )


def _flat(params: Tree, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, each in params.items():
        path = f"{prefix}/{name}" if prefix else str(name)
        flat |= _flat(each, path) if isinstance(each, Mapping) else {path: each}
    return flat


def _found(flat: Mapping[str, Any], part: str | None) -> tuple[list[list[dict[str, Any]]], int]:
    """Return the cells' arrays, by layer and direction, and how many arrays belong to none."""
    cells: dict[str, dict[str, Any]] = {}
    for path, array in flat.items():
        if part is None or path.startswith(f"{part}/"):
            # A cell's arrays are two names deep: ii/kernel.
            above, _, name = path.rpartition("/")
            above, _, dense = above.rpartition("/")
            cells.setdefault(above, {})[f"{dense}/{name}"] = array
    cells = {above: arrays for above, arrays in cells.items() if _matching(arrays)}
    if not cells:
        below = f" below {part!r}" if part is not None else ""
        raise SpecError(
            f"Among {len(flat)} arrays{below} are no cell's: {', '.join(list(flat)[:8])}.",
            "A cell is told by its arrays: "
            + "; ".join(f"{row.layer} has {', '.join(names(row)[:3])}, ..." for row in _CONVENTIONS)
            + ".",
            "Give the parameters of a model with one of these cells.",
        )
    layers: dict[str, list[dict[str, Any]]] = {}
    for above in sorted(cells, key=_natural):
        whole = above
        for direction in DIRECTIONS:
            whole = whole.replace(direction, "")
        layers.setdefault(whole, []).append(cells[above])
    taken = sum(map(len, cells.values()))
    return list(layers.values()), len(flat) - taken


def _natural(path: str) -> list[Any]:
    """Sort layers_2 before layers_10, and forward before backward."""
    words = re.split(r"(\d+)", path.replace("forward_rnn", "0").replace("backward_rnn", "1"))
    return [int(word) if word.isdigit() else word for word in words]


def _matching(arrays: Mapping[str, Any]) -> list[Convention]:
    kernels = {name for name in arrays if name.endswith("/kernel")}
    return [
        row
        for row in _CONVENTIONS
        if kernels == {name for name in names(row) if name.endswith("/kernel")}
    ]


def _convention(arrays: Mapping[str, Any]) -> Convention:
    found = _matching(arrays)
    if not found:
        raise SpecError(
            f"A cell has the arrays {', '.join(arrays)}.",
            f"Cells are {', '.join(row.layer for row in _CONVENTIONS)} of flax.linen.",
            "Give the parameters of one of them.",
        )
    return found[0]


def _build(weights: Weights) -> Model:
    modules, params = [], {}
    for k, ways in enumerate(weights.layers):
        rnns = [_rnn(way) for way in ways]
        trees = [{"cell": _tree(way)} for way in ways]
        if len(ways) == 2:
            modules.append(linen.Bidirectional(*rnns))
            params[f"layers_{k}"] = dict(zip(DIRECTIONS, trees, strict=True))
        else:
            modules.append(rnns[0])
            params[f"layers_{k}"] = trees[0]
    return Model(linen.Sequential(modules), params)


def _rnn(way: Way) -> linen.RNN:
    row, dtype = convention_of(FLAX, way), way.params["w_x"].dtype
    options: dict[str, Any] = {"param_dtype": dtype}
    if row.layer == "SimpleCell":
        relu = getattr(way.cell, "activation", "tanh") == "relu"
        options["activation_fn"] = linen.relu if relu else linen.tanh
    cell = getattr(linen, row.layer)(way.cell.hidden_size, **options)
    return linen.RNN(cell, reverse=way.reverse, keep_order=way.reverse)


def _tree(way: Way) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    with jax_precision(way.params["w_x"].dtype):
        for path, array in write(way, convention_of(FLAX, way)).items():
            dense, name = path.split("/")
            tree.setdefault(dense, {})[name] = jnp.asarray(array)
    return tree


def _directions(layer: Any) -> list[linen.RNN]:
    if isinstance(layer, linen.Bidirectional):
        return [getattr(layer, name) for name in DIRECTIONS]
    return [layer]


def _row_of(cell: linen.RNNCellBase) -> Convention:
    layer = type(cell).__name__
    return next(row for row in _CONVENTIONS if row.layer == layer)
