"""The record of one pass through a recurrent model: every state, gate, projection, gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hiddenstate.cells import Cell
from hiddenstate.cells.state import map_state
from hiddenstate.errors import UsageError, nearest

Floats: TypeAlias = NDArray[np.floating[Any]]
Lengths: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LayerTrace:
    """What one cell did over a batch, in NumPy arrays, batch first.

    name:       the layer's place in its module: lstm.l0, lstm.l0.reverse, encoder.cell
    params:     the cell's parameters, as `Cell.shapes` names them
    reverse:    each row was run from its last step to its first
    kernel:     what computed the trace
    x:          [B, T, D], what the cell read; 0 past a row's length
    lengths:    [B], valid steps of each row
    first:      State of [B, width] before the first step
    states:     State of [B, T, width] after each step; past a row's length the one kept there
    gates:      Gates of [B, T, H], 0 past a row's length
    projected:  [B, T, G, H], the gates' rows before the past is added, 0 past a row's length
    gradients:  State of [B, T, width], dL/d(state after each step), through time and all layers
                above; 0 past a row's length; None where no loss was given
    difference: largest |h of the layer's own output - h of this trace|
    """

    name: str
    cell: Cell
    params: Mapping[str, Floats]
    reverse: bool
    kernel: str
    x: Floats
    lengths: Lengths
    first: Any
    states: Any
    gates: Any
    projected: Floats
    gradients: Any | None = None
    difference: float = 0.0

    @property
    def valid(self) -> NDArray[np.bool_]:
        """[B, T], true at a row's own steps."""
        steps: NDArray[np.bool_] = np.arange(self.x.shape[1]) < self.lengths[:, None]
        return steps

    def turned(self) -> LayerTrace:
        """Return the trace in the order in which the cell read: never reverse, itself if it is not.

        Reverse rows are turned within their own length; past it stands the state that they ended
        with.
        """
        if not self.reverse:
            return self

        def flip(array: Any) -> Any:
            return turn(array, self.lengths)

        # A reverse row ends at its step 0.
        ended = ~self.valid[..., None]
        states = map_state(lambda each: np.where(ended, each[:, :1], flip(each)), self.states)
        return replace(
            self,
            reverse=False,
            x=flip(self.x),
            states=states,
            gates=map_state(flip, self.gates),
            projected=flip(self.projected),
            gradients=map_state(flip, self.gradients),
        )

    def arrays(self) -> Iterator[tuple[str, str, Any]]:
        """Yield every array as (name such as states/h, axes such as B T H, array)."""
        widths = {name: self._axis_of(name) for name in self.cell.state_shapes()}
        for name, array in self.params.items():
            yield f"params/{name}", self._axes_of(name), array
        yield "x", "B T D", self.x
        yield "lengths", "B", self.lengths
        for name, array in self.first._asdict().items():
            yield f"first/{name}", f"B {widths[name]}", array
        for name, array in self.states._asdict().items():
            yield f"states/{name}", f"B T {widths[name]}", array
        for name, array in self.gates._asdict().items():
            yield f"gates/{name}", "B T H", array
        yield "projected", "B T G H", self.projected
        if self.gradients is not None:
            for name, array in self.gradients._asdict().items():
                yield f"gradients/{name}", f"B T {widths[name]}", array

    def _axis_of(self, state: str) -> str:
        """Return the letter of a state's width: P of a projected h, else H."""
        return "P" if state == "h" and self.cell.output_size != self.cell.hidden_size else "H"

    def _axes_of(self, parameter: str) -> str:
        """Return the axes of a parameter; GH are the rows of all gates, one block after another."""
        if parameter == "w_p":
            return "P H"
        if len(self.cell.shapes()[parameter]) == 2:
            return f"GH {'D' if parameter == 'w_x' else self._axis_of('h')}"
        return "H" if self.params[parameter].shape[0] == self.cell.hidden_size else "GH"


@dataclass(frozen=True, eq=False)
class Trace:
    """What every recurrent layer of a module did over one batch.

    layers:  in the order of computation; the layers and directions of a stack each on their own
    outputs: the module's own, flattened out of tuples and mappings; packed ones padded [B, T, .]
    loss:    of the batch, None where none was given
    remarks: what was not traced and why, and what the reader has to know
    lengths: [B], real steps of the batch's rows, where the caller told them; None where not
    """

    layers: tuple[LayerTrace, ...]
    outputs: tuple[NDArray[Any], ...]
    loss: float | None = None
    remarks: tuple[str, ...] = ()
    lengths: Lengths | None = None

    def layer(self, name: str) -> LayerTrace:
        """Return the layer of this name; raises UsageError where there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in self.layers]
        raise UsageError(
            f"The trace has no layer {name!r}.",
            f"Its layers are {', '.join(names)}.",
            f"Name one of them.{nearest(name, names)}",
        )

    @property
    def axes(self) -> Mapping[str, str]:
        """Axes of every array: {"lstm.l0/states/h": "B T H", ...}."""
        return {
            f"{layer.name}/{name}": axes
            for layer in self.layers
            for name, axes, _ in layer.arrays()
        }

    def save(self, path: str | Path) -> None:
        """Write the trace to a .npz file, all or nothing; numpy.load reads it as well."""
        from hiddenstate.diagnose.tracing.file import write

        write(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> Trace:
        """Read what `save` wrote; raises ArtifactError for a file that is damaged or another's."""
        from hiddenstate.diagnose.tracing.file import read

        return read(Path(path))


def turn(array: NDArray[Any], lengths: Lengths) -> NDArray[Any]:
    """Return an array [B, T, ...] with every row reversed within its own length."""
    steps, ends = np.arange(array.shape[1]), lengths[:, None]
    source = np.where(steps < ends, ends - 1 - steps, steps)
    turned: NDArray[Any] = array[np.arange(len(array))[:, None], source]
    return turned
