"""The sequence model in torch: what a ModelSpec describes, ready to be trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hiddenstate.artifact import LayerSpec, ModelSpec
from hiddenstate.cells import from_json
from hiddenstate.cells.cell import Scheme
from hiddenstate.nn import Bidirectional, Layer, Recurrent, Stack
from hiddenstate.nn.losses import cross_entropy, l1


@dataclass(frozen=True)
class Batch:
    """Padded histories and what should be predicted.

    codes [B, T, K] and numbers [B, T, F] are the inputs, lengths [B] their events; for each head
    there are targets [B, T] (class indices, or scaled numbers) and a mask [B, T], true where a
    target exists. weights [B] say how much a case counts; None means all alike.
    """

    codes: Tensor
    numbers: Tensor
    lengths: Tensor
    targets: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    weights: Tensor | None = None

    @property
    def events(self) -> int:
        """Real events in the batch."""
        return int(self.lengths.sum())


@dataclass(frozen=True)
class Regularisation:
    """Noise in training; none of it is left in a model that runs."""

    dropout: float = 0.0
    input_dropout: float = 0.0
    variational: bool = False
    dropconnect: float = 0.0


class SequenceModel(nn.Module):
    """Embeddings, a stack of recurrent layers, and a linear head for each task.

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
        self.embeddings = nn.ModuleList(
            nn.Embedding(rows, width)
            for rows, width in zip(spec.schema.code_sizes, spec.embeddings, strict=True)
        )
        one_way = partial(
            Recurrent,
            dropconnect=noise.dropconnect,
            kernel=kernel,
            init=init,
            longest_lag_steps=longest_lag_steps,
        )
        self.stack = Stack(
            [_layer(layer, one_way) for layer in spec.layers],
            dropout=noise.dropout,
            input_dropout=noise.input_dropout,
            output_dropout=noise.dropout,
            variational=noise.variational,
            residual=spec.residual,
            layer_norm=spec.layer_norm,
        )
        self.heads = nn.ModuleList(
            nn.Linear(self.stack.output_size, head.outputs) for head in spec.heads
        )

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernel that ran each layer last; of a bidirectional one, forward and then backward."""
        return tuple(
            str(layer.last_kernel) for layer in self.stack.modules() if isinstance(layer, Recurrent)
        )

    def forward(
        self,
        codes: Tensor,
        numbers: Tensor,
        lengths: Tensor | None = None,
        state: Any | None = None,
        final_state: bool = True,
    ) -> tuple[tuple[Tensor, ...], Any]:
        """Run codes [B, T, K] and numbers [B, T, F]; return heads' o [B, T, V] and the state."""
        parts = [table(codes[..., k]) for k, table in enumerate(self.embeddings)]
        x = torch.cat([*parts, numbers], dim=-1)
        h, state = self.stack(x, lengths, state, final_state)
        return tuple(head(h) for head in self.heads), state

    def losses(self, batch: Batch, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return each head's summed loss and the number of steps behind it, both [heads].

        Classes: cross entropy in nats. Numbers: absolute error in scaled units. With `weights`
        [B] a step counts that much in the sum; the number of steps does not know of them.
        """
        outputs, _ = self(batch.codes, batch.numbers, batch.lengths, final_state=False)
        sums = []
        for head, output, target, mask in zip(
            self.spec.heads, outputs, batch.targets, batch.masks, strict=True
        ):
            weight = mask if batch.weights is None else mask * batch.weights[:, None]
            if head.classes:
                summed = cross_entropy(
                    output, target, weight, label_smoothing=label_smoothing, reduction="sum"
                )
            else:
                summed = l1(output.squeeze(-1), target, weight, reduction="sum")
            sums.append(summed)
        return torch.stack(sums), torch.stack([mask.sum() for mask in batch.masks])


def _layer(spec: LayerSpec, one_way: Callable[..., Recurrent]) -> Layer:
    cell = from_json(spec.cell)
    forward = one_way(cell, zoneout=spec.zoneout)
    if not spec.bidirectional:
        return forward
    return Bidirectional(forward, one_way(cell, zoneout=spec.zoneout, reverse=True))
