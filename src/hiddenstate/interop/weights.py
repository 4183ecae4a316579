"""Recurrent weights between two systems: cells with their parameters, in layers and directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import NUMPY, Cell
from hiddenstate.cells.state import map_state
from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.kernels.scan import scan

Array: TypeAlias = NDArray[Any]
States: TypeAlias = tuple[tuple[Any, ...], ...]
"""A State for each layer and direction."""

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Way(NamedTuple):
    """One cell over time.

    params:  by the names of `cell.shapes()`
    reverse: it runs each row from its last step to its first
    """

    cell: Cell
    params: dict[str, Array]
    reverse: bool = False


class Run(NamedTuple):
    """What a model gave: output [B, T, P], 0 past a row's length, and the last States."""

    output: Array
    states: States


@dataclass(frozen=True, eq=False)
class Weights:
    """A stack of recurrent layers as plain arrays: what every conversion goes through.

    layers: from the lowest; each is one Way, or two, forward first, whose outputs stand side by
            side

    All arrays are float32, or all float64. Raises SpecError for layers that do not fit each other,
    ShapeError for arrays that do not fit their cell.
    """

    layers: tuple[tuple[Way, ...], ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if not self.layers:
            raise SpecError("Weights got no layers.", "There is at least one.", "Give a layer.")
        for k, ways in enumerate(self.layers):
            _require_directions(k, ways)
            for way in ways:
                _require_params(k, way)
        for k, (below, above) in enumerate(pairwise(self.layers)):
            if _width(below) != above[0].cell.input_size:
                raise SpecError(
                    f"Layer {k} gives {_width(below)} features, layer {k + 1} reads "
                    f"{above[0].cell.input_size}.",
                    "Each layer reads the output of the one below.",
                    "Check the order of the layers and their directions.",
                )
        types = {array.dtype for way in self.ways for array in way.params.values()}
        if len(types) > 1 or not types <= set(FLOATS):
            raise ShapeError(
                f"The weights are of type {', '.join(sorted(map(str, types)))}.",
                "They are all float32, or all float64.",
                "Convert them to one of the two first.",
            )

    @property
    def ways(self) -> tuple[Way, ...]:
        """Every cell: lower layers first, forward before backward."""
        return tuple(way for ways in self.layers for way in ways)

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.ways[0].params["w_x"].dtype

    @property
    def input_size(self) -> int:
        """D, features of the input."""
        return self.layers[0][0].cell.input_size

    @property
    def output_size(self) -> int:
        """P, features of the output, both directions together."""
        return _width(self.layers[-1])

    def astype(self, dtype: Any) -> Weights:
        """Return the same in float32 or float64."""
        return Weights(
            tuple(
                tuple(
                    way._replace(params={k: v.astype(dtype) for k, v in way.params.items()})
                    for way in ways
                )
                for ways in self.layers
            )
        )

    def run(
        self,
        x: Array,
        lengths: Sequence[int] | Array | None = None,
        states: States | None = None,
    ) -> Run:
        """Run x [B, T, D] by the reference; None stands for full lengths, and for zero states."""
        last = []
        for k, ways in enumerate(self.layers):
            scans = [
                scan(
                    NUMPY,
                    way.cell,
                    way.params,
                    x,
                    None if states is None else states[k][d],
                    lengths,
                    reverse=way.reverse,
                )
                for d, way in enumerate(ways)
            ]
            x = np.concatenate([each.output for each in scans], axis=-1)
            last.append(tuple(each.state for each in scans))
        return Run(x, tuple(last))

    def zero_states(self, batch: int) -> States:
        """Return the States that None stands for."""
        like = np.zeros(0, self.dtype)
        return tuple(
            tuple(way.cell.initial_state(NUMPY, batch, like) for way in ways)
            for ways in self.layers
        )

    def __str__(self) -> str:
        """Return the layers in words, one a line."""
        return "\n".join(f"layer {k}: {_words(ways)}" for k, ways in enumerate(self.layers))


def astype_states(states: States | None, dtype: Any) -> States | None:
    """Return States in another type; None stays None."""
    return cast("States | None", map_state(lambda array: array.astype(dtype), states))


def _width(ways: Sequence[Way]) -> int:
    return sum(way.cell.output_size for way in ways)


def _words(ways: Sequence[Way]) -> str:
    cell = ways[0].cell
    both = "both directions" if len(ways) == 2 else "backwards" if ways[0].reverse else "forwards"
    return (
        f"{cell.name} ({cell.convention}, biases={cell.biases}), "
        f"D={cell.input_size} H={cell.hidden_size}, {both}"
    )


def _require_directions(k: int, ways: Sequence[Way]) -> None:
    reads = {way.cell.input_size for way in ways}
    if len(ways) == 1 or ([way.reverse for way in ways] == [False, True] and len(reads) == 1):
        return
    found = [f"reverse={way.reverse} over {way.cell.input_size} features" for way in ways]
    raise SpecError(
        f"Layer {k} has {len(ways)} directions: {', '.join(found) or 'none'}.",
        "A layer is one direction, or a forward and then a backward one over the same input.",
        "Put them in this order.",
    )


def _require_params(k: int, way: Way) -> None:
    expected = way.cell.shapes()
    found = {name: tuple(array.shape) for name, array in way.params.items()}
    if found != expected:
        wrong = sorted(name for name in found | expected if found.get(name) != expected.get(name))
        raise ShapeError(
            f"Layer {k} got {', '.join(f'{n} {list(found[n])}' for n in wrong if n in found)}"
            f"{'nothing' if not set(wrong) & set(found) else ''} for {', '.join(wrong)}.",
            f"The cell {way.cell.name} ({way.cell.convention}) has "
            f"{', '.join(f'{name} {list(shape)}' for name, shape in expected.items())}.",
            "Check the sizes, and how many biases there are.",
        )
    for name, array in way.params.items():
        wrong_values = int((~np.isfinite(array)).sum())
        if wrong_values:
            raise ShapeError(
                f"Layer {k}'s {name} {list(array.shape)} holds {wrong_values} NaN or infinite "
                "values.",
                "Weights are finite numbers.",
                "Take the weights of a model whose training went well.",
            )
