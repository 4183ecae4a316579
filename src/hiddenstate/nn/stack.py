"""Layers on top of each other, and side by side in both directions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from hiddenstate.errors import ShapeError, SpecError
from hiddenstate.kernels import Scan
from hiddenstate.nn.dropout import Dropout, check_share
from hiddenstate.nn.layer import Layer
from hiddenstate.nn.lengths import Ragged
from hiddenstate.nn.recurrent import Recurrent


class Directions(NamedTuple):
    """The states of a `Bidirectional`."""

    forward: Any
    backward: Any


class Bidirectional(Layer):
    """h_t = [h_forward ; h_backward], each row reversed within its own length (SPEC 4.4).

    Source: Schuster, Paliwal 1997. `backward` is a Recurrent with reverse=True. The state is a
    `Directions`; backward's final state is the one at a row's first step. Raises SpecError when the
    two do not belong together.
    """

    def __init__(self, forward: Recurrent, backward: Recurrent) -> None:
        super().__init__()
        if forward.reverse or not backward.reverse or forward.input_size != backward.input_size:
            each = ", ".join(
                f"{name} with reverse={layer.reverse} and input_size={layer.input_size}"
                for name, layer in (("forward", forward), ("backward", backward))
            )
            raise SpecError(
                f"Bidirectional got {each}.",
                "It reads one input in both directions.",
                "Build the second with reverse=True, both with the same input_size.",
            )
        self.forward_layer, self.backward_layer = forward, backward
        self.input_size = forward.input_size
        self.output_size = forward.output_size + backward.output_size

    def run(
        self,
        x: Tensor,
        lengths: Tensor | None,
        state: Any | None,
        *,
        final_state: bool = True,
        scans: list[Scan] | None = None,
    ) -> tuple[Tensor, Any]:
        """Compute `forward` on checked x and lengths; append traced Scans to `scans` if given."""
        one, other = (None, None) if state is None else _matching(state, 2, "Bidirectional")
        first, ahead = self.forward_layer.run(x, lengths, one, final_state=final_state, scans=scans)
        second, behind = self.backward_layer.run(
            x, lengths, other, final_state=final_state, scans=scans
        )
        return torch.cat([first, second], -1), Directions(ahead, behind) if final_state else None


class Stack(Layer):
    """Layers, each reading the output of the one below; the state is a tuple over layers.

    dropout:        share dropped between layers (input_dropout: before the first, output_dropout:
                    after the last); variational=True draws one mask for all steps
    residual:       adds a layer's input to its output wherever their widths agree, so that stacks
                    of ten and more plain layers still train (He et al. 2015)
    layer_norm:     normalises the input of every layer but the first (Ba et al. 2016)

    Raises SpecError when there is no layer or two neighbours do not fit.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        variational: bool = False,
        residual: bool = False,
        layer_norm: bool = False,
    ) -> None:
        super().__init__()
        _require_chain(layers)
        self.layers = nn.ModuleList(layers)
        self.input_size, self.output_size = layers[0].input_size, layers[-1].output_size
        self.input_dropout = Dropout(input_dropout, variational=variational)
        check_share("dropout", dropout)
        self.dropouts = nn.ModuleList(Dropout(dropout, variational=variational) for _ in layers[1:])
        self.output_dropout = Dropout(output_dropout, variational=variational)
        self.residual = residual
        self.norms = nn.ModuleList(
            nn.LayerNorm(layer.input_size) for layer in (layers[1:] if layer_norm else ())
        )

    def run(
        self,
        x: Tensor,
        lengths: Tensor | None,
        state: Any | None,
        *,
        final_state: bool = True,
        scans: list[Scan] | None = None,
    ) -> tuple[Tensor, Any]:
        """Compute `forward` on checked x and lengths; append traced Scans to `scans` if given."""
        count = len(self.layers)
        states = (None,) * count if state is None else _matching(state, count, "Stack")
        if self.residual and lengths is not None:
            # A skip would take what stands in the padding past the first layer.
            x = Ragged.of(lengths, x.shape[1]).clear(x)
        last = []
        layers = cast("Sequence[Layer]", self.layers)
        for k, (layer, first) in enumerate(zip(layers, states)):
            read = self.norms[k - 1](x) if k and self.norms else x
            read = self.dropouts[k - 1](read) if k else self.input_dropout(read)
            output, final = layer.run(read, lengths, first, final_state=final_state, scans=scans)
            skips = self.residual and layer.input_size == layer.output_size
            x = x + output if skips else output
            last.append(final)
        return self.output_dropout(x), tuple(last) if final_state else None


def _matching(state: Any, count: int, owner: str) -> tuple[Any, ...]:
    if not isinstance(state, tuple) or len(state) != count:
        found = f"{len(state)} parts" if isinstance(state, tuple) else type(state).__name__
        raise ShapeError(
            f"The state given to a {owner} is {found}.",
            f"It needs a tuple of {count}, one state for each layer or direction.",
            "Give the state that it returned, or None.",
        )
    return state


def _require_chain(layers: Sequence[Layer]) -> None:
    if not layers:
        raise SpecError("A Stack got no layers.", "It needs at least one.", "Add a Recurrent.")
    for k, (below, above) in enumerate(pairwise(layers)):
        if below.output_size != above.input_size:
            raise SpecError(
                f"Layer {k} gives {below.output_size} features, layer {k + 1} reads "
                f"{above.input_size}.",
                "In a Stack each layer reads the output of the one below.",
                f"Build layer {k + 1} with input_size={below.output_size}.",
            )
