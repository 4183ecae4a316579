"""Flax nnx: SimpleCell, GRUCell, LSTMCell and OptimizedLSTMCell, in RNN and Bidirectional.

The GRUCell of Flax up to 0.12 has no bias inside the reset product, although its docstring shows
b_hn (google/flax issue 5594). A GRU whose b_hn is not zero is refused with the error that the loss
would make. A GRUCell that has one, should a later Flax add it to dense_h, is refused as unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hiddenstate.cells.conventions import ConversionRefusal
from hiddenstate.errors import SpecError
from hiddenstate.interop.carries import from_carries, jax_precision, spelt_out, to_carries
from hiddenstate.interop.conventions import NNX, Convention, named
from hiddenstate.interop.express import changes, convention_of, express
from hiddenstate.interop.layout import read, write
from hiddenstate.interop.proof import Converted, Runner, difference, prove
from hiddenstate.interop.weights import Array, States, Way, Weights

Layer: TypeAlias = nnx.RNN | nnx.Bidirectional
CELLS = (nnx.SimpleCell, nnx.GRUCell, nnx.LSTMCell, nnx.OptimizedLSTMCell)


def from_nnx(source: Any) -> Converted[tuple[Layer, ...]]:
    """Read an RNN, a Bidirectional, a bare cell, or a list or Sequential of them.

    `value` holds the layers that were run for the proof. Raises SpecError for other modules,
    ConversionRefusal with the measured error for settings that no cell here has.
    """
    given = list(source.layers) if isinstance(source, nnx.Sequential) else source
    modules = list(given) if isinstance(given, (list, tuple)) else [given]
    reasons: list[str] = []
    layers = tuple(nnx.RNN(module) if isinstance(module, CELLS) else module for module in modules)
    weights = Weights(tuple(_ways(k, layer, reasons) for k, layer in enumerate(layers)))
    run = runner(layers, weights)
    if reasons:
        error = difference(weights, run, weights.dtype)
        raise ConversionRefusal(
            f"No cell here computes this: {'; '.join(reasons)}.",
            f"A conversion has to be exact; the nearest cell would differ by {error:.2g}.",
            "Train with the standard settings, or keep the model in Flax.",
            error,
        )
    return Converted(layers, weights, _prove(weights, run))


def to_nnx(weights: Weights, *, optimized: bool = True) -> Converted[tuple[Layer, ...]]:
    """Build the nnx layers that compute what the weights do, from the lowest.

    optimized: an LSTM becomes an OptimizedLSTMCell, else an LSTMCell

    Raises ConversionRefusal where that is not exact, SpecError where nnx has no such cell.
    """
    written = Weights(
        tuple(
            tuple(express(way, _row(way, optimized, k)) for way in ways)
            for k, ways in enumerate(weights.layers)
        )
    )
    with jax_precision(weights.dtype):
        layers = tuple(_build(ways, optimized) for ways in written.layers)
    proof = _prove(weights, runner(layers, weights))
    return Converted(layers, weights, proof, changes(weights, written))


def runner(layers: Sequence[Layer], weights: Weights) -> Runner:
    """Return how layers are run on NumPy arrays."""
    rows = [[_row_of(rnn.cell) for rnn in _directions(layer)] for layer in layers]
    graphs, parameters = zip(*(nnx.split(layer) for layer in layers), strict=True)

    def forward(given: Any, x: Any, counts: Any, first: Any) -> Any:
        last = []
        for k, (graph, state) in enumerate(zip(graphs, given, strict=True)):
            carry, x = nnx.merge(graph, state)(
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
            output, last = compiled(parameters, x, counts, carries)
        return np.asarray(output), from_carries(last, rows)

    return run


def _prove(weights: Weights, run: Runner) -> Any:
    return prove(weights, run, lengths=True, states=True, dtype=weights.dtype, shortest=1)


def _ways(k: int, layer: Any, reasons: list[str]) -> tuple[Way, ...]:
    if not isinstance(layer, (nnx.RNN, nnx.Bidirectional)) or not all(
        isinstance(rnn.cell, CELLS) for rnn in _directions(layer)
    ):
        inner = getattr(layer, "cell", None)
        found = type(layer).__name__ + (f" of {type(inner).__name__}" if inner is not None else "")
        raise SpecError(
            f"Layer {k} is a {found}.",
            f"RNN and Bidirectional over {', '.join(cell.__name__ for cell in CELLS)} of flax.nnx "
            "are read.",
            "Give the recurrent layers of the model.",
        )
    rnns = _directions(layer)
    if len(rnns) == 1 and layer.reverse and not layer.keep_order:
        reasons.append(f"layer {k} gives its outputs in reversed order (reverse, not keep_order)")
    return tuple(
        _way(f"layer {k}", rnn.cell, reasons, bool(d) or (len(rnns) == 1 and rnn.reverse))
        for d, rnn in enumerate(rnns)
    )


def _way(where: str, cell: Any, reasons: list[str], reverse: bool) -> Way:
    row = _row_of(cell)
    arrays = {}
    for dense, module in vars(cell).items():
        for name in ("kernel", "bias"):
            parameter = getattr(module, name, None) if isinstance(module, nnx.Linear) else None
            if parameter is not None:
                arrays[f"{dense.rstrip('_')}/{name}"] = np.asarray(parameter[...])
    options: dict[str, object] = {}
    activation = _activation(cell.activation_fn)
    if row.layer == "SimpleCell" and activation:
        options["activation"] = activation
    elif activation != "tanh":
        reasons.append(f"{where} has an activation_fn that is not tanh")
    if row.layer != "SimpleCell" and _activation(cell.gate_fn) != "sigmoid":
        reasons.append(f"{where} has a gate_fn that is not sigmoid")
    if getattr(cell, "residual", False):
        reasons.append(f"{where} adds its state before the activation (residual)")
    return read(row, arrays, reverse=reverse, where=where, **options)


def _activation(function: Any) -> str:
    """Tell an activation by what it does; '' for another."""
    x = jnp.linspace(-4.0, 4.0, 33, dtype=jnp.float32)
    known = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid}
    return next((name for name, each in known.items() if jnp.allclose(function(x), each(x))), "")


def _build(ways: Sequence[Way], optimized: bool) -> Layer:
    rnns = [_rnn(way, optimized) for way in ways]
    if len(rnns) == 1:
        return rnns[0]
    return nnx.Bidirectional(*rnns, rngs=False)


def _rnn(way: Way, optimized: bool) -> nnx.RNN:
    row, dtype = _row(way, optimized), way.params["w_x"].dtype
    options: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype, "rngs": nnx.Rngs(0)}
    if row.layer == "SimpleCell":
        relu = getattr(way.cell, "activation", "tanh") == "relu"
        options["activation_fn"] = nnx.relu if relu else nnx.tanh
    build = getattr(nnx, row.layer)
    cell = build(way.cell.input_size, way.cell.hidden_size, **options)
    for path, array in write(way, row).items():
        dense, name = path.split("/")
        module = getattr(cell, dense + "_" * (dense == "if"))
        setattr(module, name, nnx.Param(jnp.asarray(array)))
    return nnx.RNN(cell, reverse=way.reverse, keep_order=way.reverse)


def _row(way: Way, optimized: bool, k: int = 0) -> Convention:
    row = convention_of(NNX, way, k)
    lstm = "OptimizedLSTMCell" if optimized else "LSTMCell"
    return named(NNX, lstm) if row.cell == "lstm" else row


def _row_of(cell: Any) -> Convention:
    return named(NNX, type(cell).__name__)


def _directions(layer: Any) -> list[nnx.RNN]:
    if isinstance(layer, nnx.Bidirectional):
        return [layer.forward_rnn, layer.backward_rnn]
    return [layer]
