"""From a sequence to one vector, and from vectors to predictions (SPEC 4.1, 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hiddenstate.errors import SpecError, nearest
from hiddenstate.nn.lengths import Ragged, checked_lengths

POOLS = ("last", "mean", "max", "attention")


class Pool(nn.Module):
    """Sums up states [B, T, H] as one vector [B, H], over every row's own steps only.

    kind: "last" valid step; "mean" or "max" over the steps; "attention", a weighted mean with
    weights softmax_t(v . tanh(W h_t + b)) (Bahdanau et al. 2014 without a query).
    A row of length 0 gives zeros. Raises SpecError for another kind.
    """

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        if kind not in POOLS:
            raise SpecError(
                f"There is no pool {kind!r}.",
                f"hiddenstate knows {', '.join(POOLS)}.",
                f"Choose one of them.{nearest(kind, POOLS)}",
            )
        self.kind, self.size = kind, size
        if kind == "attention":
            self.score = nn.Sequential(
                nn.Linear(size, size), nn.Tanh(), nn.Linear(size, 1, bias=False)
            )

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return [B, H] from states [B, T, H] and lengths [B]; raises ShapeError."""
        if states.shape[1] == 0:
            return states.new_zeros(states.shape[0], states.shape[2])
        lengths = checked_lengths(lengths, states)
        if lengths is None:
            return self._whole(states)
        rows = Ragged.of(lengths, states.shape[1])
        states = rows.clear(states)
        nothing = torch.zeros_like(states[:, 0])
        if self.kind == "last":
            return rows.last(states, nothing)
        count = rows.lengths[:, None]
        if self.kind == "mean":
            return states.sum(1) / count.clamp(min=1)
        padding = ~rows.valid[..., None]
        if self.kind == "max":
            highest = states.masked_fill(padding, -torch.inf).amax(1)
            return torch.where(count > 0, highest, nothing)
        # The lowest finite score, not -inf: a row without steps must not become 0 / 0.
        scores: Tensor = self.score(states)
        scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
        return _average(scores, states)

    def _whole(self, states: Tensor) -> Tensor:
        if self.kind == "last":
            return states[:, -1]
        if self.kind == "mean":
            return states.mean(1)
        if self.kind == "max":
            return states.amax(1)
        return _average(self.score(states), states)

    def extra_repr(self) -> str:
        """Return what print(module) shows."""
        return f"{self.kind!r}, {self.size}"


def _average(scores: Tensor, states: Tensor) -> Tensor:
    return (scores.softmax(1) * states).sum(1)


class Head(nn.Module):
    """A linear prediction W h + b: logits of classes, or numbers.

    Without a pool there is one prediction for each step, [B, T, V]; with a pool (its kind) one for
    each sequence, [B, V].
    """

    def __init__(self, size: int, outputs: int, pool: str | None = None) -> None:
        super().__init__()
        self.pool = None if pool is None else Pool(pool, size)
        self.linear = nn.Linear(size, outputs)

    def forward(self, states: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return predictions from states [B, T, H]; lengths [B] matter to a pool only."""
        if self.pool is not None:
            states = self.pool(states, lengths)
        predictions: Tensor = self.linear(states)
        return predictions
