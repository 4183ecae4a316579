"""The sequence model in torch: what a ModelSpec describes, ready to be trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from hiddenstate.artifact import AnyLayerSpec, ModelSpec, TransformerSpec
from hiddenstate.cells import from_json
from hiddenstate.cells.cell import Scheme
from hiddenstate.models.batch import Batch, Losses, Trainable
from hiddenstate.models.heads import OutputHead
from hiddenstate.nn import Bidirectional, Layer, Recurrent, Stack, drawn_once
from hiddenstate.nn.transformer import Transformer


@dataclass(frozen=True)
class Regularisation:
    """Noise in training; none of it is left in a model that runs."""

    dropout: float = 0.0
    input_dropout: float = 0.0
    variational: bool = False
    dropconnect: float = 0.0


class SequenceModel(Trainable):
    """Embeddings, a stack of recurrent layers or a transformer, and a head for each task.

    Its state_dict holds the artifact's weights under their names.
    """

    def __init__(
        self,
        spec: ModelSpec,
        regularisation: Regularisation | None = None,
        kernel: str | None = None,
        init: Scheme = "orthogonal",
        longest_lag_steps: int | None = None,
    ) -> None:
        """Draw first weights by torch's random generator; `init` is a scheme of `Cell.init`."""
        super().__init__()
        noise = regularisation or Regularisation()
        self.spec = spec
        tables = [
            nn.Embedding(rows, width)
            for rows, width in zip(spec.schema.code_sizes, spec.embeddings, strict=True)
        ]
        self.embeddings = nn.ModuleList(tables)
        one_way = partial(
            Recurrent,
            dropconnect=noise.dropconnect,
            kernel=kernel,
            init=init,
            longest_lag_steps=longest_lag_steps,
        )
        self.stack = Stack(
            [layer_of(layer, one_way, noise.dropout) for layer in spec.layers],
            dropout=noise.dropout,
            input_dropout=noise.input_dropout,
            output_dropout=noise.dropout,
            variational=noise.variational,
            residual=spec.residual,
            layer_norm=spec.layer_norm,
        )
        self.heads = nn.ModuleList(
            OutputHead(head, self.stack.output_size, tables[0] if head.tied else None)
            for head in spec.heads
        )

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernel that ran each layer last; of a bidirectional one, forward and then backward."""
        return tuple(
            str(layer.last_kernel) if isinstance(layer, Recurrent) else "torch"
            for layer in self.stack.modules()
            if isinstance(layer, Recurrent | Transformer)
        )

    def forward(
        self,
        codes: Tensor,
        numbers: Tensor,
        lengths: Tensor | None = None,
        state: Any | None = None,
        final_state: bool = True,
    ) -> tuple[tuple[Tensor, ...], Any]:
        """Run codes [B, T, K] and numbers [B, T, F]; return heads' o and the state.

        o is [B, T, V], or [B, V] of a head with a pool.
        """
        parts = [table(codes[..., k]) for k, table in enumerate(self.embeddings)]
        x = torch.cat([*parts, numbers], dim=-1)
        h, state = self.stack(x, lengths, state, final_state)
        return tuple(head(h, lengths) for head in self.heads), state

    def losses(self, batch: Batch, label_smoothing: float = 0.0) -> Losses:
        """Return each head's summed loss, the number of predictions behind it and a state.

        With `weights` [B] a sequence counts that much in the sum; the number of predictions does
        not know of them. The state is None unless the batch carries one on.
        """
        if batch.carry_steps is None:
            outputs, state = self(
                batch.codes,
                batch.numbers,
                batch.lengths,
                batch.state,
                final_state=batch.carries,
            )
        else:
            outputs, state = self._in_two(batch, batch.carry_steps)
        sums = []
        heads = cast("Sequence[OutputHead]", self.heads)
        for head, output, target, mask in zip(
            heads, outputs, batch.targets, batch.masks, strict=True
        ):
            weight = mask
            if batch.weights is not None:
                weight = mask * batch.weights.view(-1, *[1] * (mask.ndim - 1))
            sums.append(head.loss(output, target, weight, label_smoothing))
        return Losses(torch.stack(sums), torch.stack([mask.sum() for mask in batch.masks]), state)

    def _in_two(self, batch: Batch, steps: int) -> tuple[tuple[Tensor, ...], Any]:
        """Run the first steps and then the rest, one graph; return the state between them."""
        with drawn_once(self):
            first, state = self(
                batch.codes[:, :steps],
                batch.numbers[:, :steps],
                batch.lengths.clamp(max=steps),
                batch.state,
            )
            rest, _ = self(
                batch.codes[:, steps:],
                batch.numbers[:, steps:],
                (batch.lengths - steps).clamp(min=0),
                state,
                final_state=False,
            )
        return tuple(torch.cat(pair, dim=1) for pair in zip(first, rest)), state


def layer_of(spec: AnyLayerSpec, one_way: Callable[..., Recurrent], dropout: float) -> Layer:
    """Return the torch layer of a specification; `one_way` builds a Recurrent of a cell."""
    if isinstance(spec, TransformerSpec):
        return Transformer(spec, dropout=dropout)
    cell = from_json(spec.cell)
    forward = one_way(cell, zoneout=spec.zoneout)
    if not spec.bidirectional:
        return forward
    return Bidirectional(forward, one_way(cell, zoneout=spec.zoneout, reverse=True))
