"""One head in torch: predictions from what the top layer gives, and their loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.artifact import HeadSpec, Output
from hiddenstate.nn.losses import LOSSES
from hiddenstate.nn.pool import Pool

# By the kind of output, the name of its loss in `nn.LOSSES`.
LOSS_OF: dict[Output, str] = {
    "classes": "cross_entropy",
    "number": "l1",
    "numbers": "squared",
    "bernoulli": "bernoulli",
    "quantiles": "pinball",
    "gaussian": "gaussian",
}


class OutputHead(nn.Module):
    """o = W h + b at every step, or from the pooled states; see `artifact.HeadSpec`.

    With a tied head W is `table` [V, E], the weight of the first embedding, and h is projected to E
    first where its width is another.
    """

    def __init__(self, spec: HeadSpec, width: int, table: nn.Embedding | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.pool = None if spec.pool is None else Pool(spec.pool, width)
        self.project: nn.Linear | None = None
        # In a tuple, so that the table stays the embedding's own and is stored once.
        self._tied = () if table is None else (table,)
        if table is None:
            linear = nn.Linear(width, spec.outputs)
            self.weight, self.bias = linear.weight, linear.bias
            return
        if table.embedding_dim != width:
            self.project = nn.Linear(width, table.embedding_dim, bias=False)
        self.bias = nn.Parameter(torch.zeros(spec.outputs))

    def forward(self, h: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return o [B, T, V] from h [B, T, P] and lengths [B]; [B, V] with a pool."""
        if self.pool is not None:
            h = self.pool(h, lengths)
        if self.project is not None:
            h = self.project(h)
        weight = self._tied[0].weight if self._tied else self.weight
        return functional.linear(h, weight, self.bias)

    def loss(
        self, output: Tensor, target: Tensor, mask: Tensor, label_smoothing: float = 0.0
    ) -> Tensor:
        """Return the summed loss of o [..., V] against the target under the mask, a scalar."""
        kind, options = self.spec.output, dict[str, Any](reduction="sum")
        predictions: tuple[Tensor, ...] = (output,)
        if kind == "classes":
            options["label_smoothing"] = label_smoothing
        elif kind == "number":
            predictions = (output.squeeze(-1),)
        elif kind == "quantiles":
            levels = len(self.spec.levels)
            predictions = (output.reshape(*output.shape[:-1], self.spec.size, levels),)
            options["levels"] = self.spec.levels
        elif kind == "gaussian":
            predictions = output.chunk(2, dim=-1)
        return LOSSES[LOSS_OF[kind]](*predictions, target, mask, **options)
