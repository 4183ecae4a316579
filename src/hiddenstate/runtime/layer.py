"""A recurrent layer without torch: one direction or two, each run by a kernel that can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hiddenstate.artifact import AnyLayerSpec, LayerSpec, TransformerSpec
from hiddenstate.cells import NUMPY, Cell, Params, from_json
from hiddenstate.errors import KernelRefusal
from hiddenstate.kernels import KERNELS, Kernel, Request, Zoneout, choose, packed_if_able
from hiddenstate.kernels.native import Storage
from hiddenstate.runtime.transformer import Transformer
from hiddenstate.runtime.weights import Weights

Array = NDArray[Any]


class Direction:
    """A cell over time, from each row's first event to its last or (reverse) the other way."""

    def __init__(self, cell: Cell, params: Params, zoneout: Zoneout | None, reverse: bool) -> None:
        """Take parameters in float32; zoneout is that of evaluation."""
        self.cell, self.params, self.zoneout, self.reverse = cell, params, zoneout, reverse
        self._chosen = self._choose((1, 1, False, False))

    @property
    def kernel(self) -> str:
        """Kernel that ran last; before that, the one that would run a single event."""
        return self._chosen[1].name

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return self.cell.output_size

    def initial_state(self, batch: int) -> Any:
        """Return the State of entities without events."""
        return self.cell.initial_state(NUMPY, batch, np.zeros(0, dtype=np.float32))

    def run(
        self, x: Array, lengths: Array | None, state: Any | None, final_state: bool
    ) -> tuple[Array, Any]:
        """Run x [B, T, D]; return the output and the last State, as `kernels.Kernel.run` does."""
        batch, time, _ = x.shape
        facts = (batch, time, lengths is not None, final_state or state is not None)
        # Facts and kernel are one value, so that threads may share a model.
        chosen = self._chosen
        if chosen[0] != facts:
            chosen = self._chosen = self._choose(facts)
        scan = chosen[1].run(
            self.cell,
            self.params,
            x,
            state,
            lengths,
            reverse=self.reverse,
            zoneout=self.zoneout,
            final_state=final_state,
        )
        return scan.output, scan.state

    def _choose(self, facts: tuple[int, int, bool, bool]) -> tuple[tuple[object, ...], Kernel]:
        batch, time, ragged, needs_state = facts
        request = Request(
            self.cell,
            batch,
            time,
            ragged=ragged,
            reverse=self.reverse,
            needs_state=needs_state,
            zoneout=self.zoneout is not None,
        )
        return facts, choose(KERNELS, request)


@dataclass(frozen=True)
class Layer:
    """One layer of a stack.

    directions: forward, and backward where the layer is bidirectional; or a transformer
    norm:       gain and shift [D] with which its input is normalised, or None
    skips:      its input is added to its output
    """

    directions: tuple[Direction, ...] | tuple[Transformer]
    norm: tuple[Array, Array] | None
    skips: bool

    @property
    def output_size(self) -> int:
        """Width of the output."""
        return sum(direction.output_size for direction in self.directions)

    def initial_state(self, batch: int) -> Any:
        """Return the forward direction's state of entities without events."""
        return self.directions[0].initial_state(batch)

    def run(
        self, h: Array, lengths: Array | None, state: Any | None, final_state: bool
    ) -> tuple[Array, Any]:
        """Run h [B, T, D]; return the output [B, T, P] and the forward direction's last state."""
        read = h if self.norm is None else NUMPY.layer_norm(h, *self.norm)
        runs = [each.run(read, lengths, state, final_state) for each in self.directions]
        output, last = runs[0]
        if len(runs) > 1:
            output = np.concatenate([output for output, _ in runs], axis=-1)
        return output + h if self.skips else output, last


def build(
    index: int,
    spec: AnyLayerSpec,
    given: Weights,
    weights: Storage,
    *,
    normalised: bool,
    residual: bool,
) -> Layer:
    """Build the layer of this index in its stack, its recurrent weights stored as `weights` says.

    Raises ArtifactError, SpecError, KernelRefusal.
    """
    directions: tuple[Direction, ...] | tuple[Transformer]
    if isinstance(spec, TransformerSpec):
        directions, input_size = (
            (Transformer(spec, given, f"stack.layers.{index}."),),
            spec.input_size,
        )
    else:
        directions = _directions(index, spec, given, weights)
        input_size = directions[0].cell.input_size
    norm = None
    if normalised:
        size = (input_size,)
        norm = (
            given.take(f"stack.norms.{index - 1}.weight", size),
            given.take(f"stack.norms.{index - 1}.bias", size),
        )
    width = sum(each.output_size for each in directions)
    return Layer(directions, norm, skips=residual and input_size == width)


def _directions(
    index: int, spec: LayerSpec, given: Weights, weights: Storage
) -> tuple[Direction, ...]:
    cell = from_json(spec.cell)
    zoneout = None
    if spec.zoneout:
        if weights != "float32":
            raise KernelRefusal(
                f"Layer {index} has zoneout, and its weights shall be stored as {weights}.",
                "Narrow weights are for the compiled kernels, which have no zoneout.",
                "Leave the weights in float32.",
            )
        zoneout = Zoneout(dict.fromkeys(cell.state_shapes(), spec.zoneout))

    def direction(part: str, reverse: bool) -> Direction:
        params = {
            name: given.take(f"stack.layers.{index}.{part}{name}", shape)
            for name, shape in cell.shapes().items()
        }
        return Direction(cell, packed_if_able(cell, params, weights), zoneout, reverse)

    parts = (
        {"forward_layer.": False, "backward_layer.": True} if spec.bidirectional else {"": False}
    )
    return tuple(direction(part, reverse) for part, reverse in parts.items())
