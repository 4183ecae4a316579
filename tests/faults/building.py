"""Parts that planted faults and healthy models are put together from, drawn anew for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.nn import Stack, stack_of

KINDS = ("rnn", "lstm", "gru")


@dataclass(frozen=True)
class Sizes:
    """B, T, D, H, classes, and the lengths [B] of the rows; the first row is a whole one."""

    rows: int
    steps: int
    features: int
    hidden: int
    classes: int
    lengths: Tensor

    @property
    def valid(self) -> Tensor:
        """[B, T], true at a row's own steps."""
        return torch.arange(self.steps) < self.lengths[:, None]


def sizes(rng: np.random.Generator, *, rows: int = 4, steps: int = 6) -> Sizes:
    """Draw sizes of at least so many rows and steps; about half of the rows are short."""
    count, time = int(rng.integers(rows, 13)), int(rng.integers(steps, 26))
    lengths = rng.integers(max(2, time // 4), time + 1, count)
    lengths[0], lengths[1] = time, max(2, time // 3)
    return Sizes(
        count,
        time,
        int(rng.integers(2, 7)),
        int(rng.integers(6, 33)),
        int(rng.integers(2, 6)),
        torch.as_tensor(lengths),
    )


def numbers(rng: np.random.Generator, has: Sizes, *, padded: bool = True) -> Tensor:
    """Draw x [B, T, D], zeros in the padding."""
    x = torch.as_tensor(rng.normal(size=(has.rows, has.steps, has.features)), dtype=torch.float32)
    return torch.where(has.valid[..., None], x, 0.0) if padded else x


def tokens(rng: np.random.Generator, has: Sizes, symbols: int = 11) -> Tensor:
    """Draw symbols [B, T] from 1 on, 0 in the padding."""
    drawn = torch.as_tensor(rng.integers(1, symbols, (has.rows, has.steps)))
    return torch.where(has.valid, drawn, 0)


def torch_layer(
    rng: np.random.Generator, features: int, hidden: int, **options: Any
) -> nn.RNN | nn.LSTM | nn.GRU:
    """Draw one of torch's layers, batch first unless told otherwise."""
    made = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[str(rng.choice(KINDS))]
    return made(features, hidden, **{"batch_first": True, **options})


class Reader(nn.Module):
    """One of torch's layers or of ours over x [B, T, D] and lengths: states [B, T, P].

    Right under padding, whichever it is: torch's layers are packed.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        features: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        self.width = hidden * (2 if bidirectional else 1)
        if rng.random() < 0.5:
            self.layer: nn.Module = torch_layer(
                rng, features, hidden, num_layers=layers, bidirectional=bidirectional
            )
        else:
            cell = str(rng.choice(["elman", "lstm", "gru"]))
            self.layer = stack_of(cell, features, hidden, layers, bidirectional=bidirectional)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None or isinstance(self.layer, Stack):
            return self.layer(x, lengths)[0] if lengths is not None else self.layer(x)[0]
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(
            self.layer(packed)[0], batch_first=True, total_length=x.shape[1]
        )[0]


def at_end(states: Tensor, lengths: Tensor) -> Tensor:
    """Return [B, P], the states at the rows' own last steps."""
    return states[torch.arange(len(states)), lengths - 1]


def real(lengths: Tensor, steps: int) -> Tensor:
    """Return [B, T, 1], true at the rows' own steps."""
    return (torch.arange(steps) < lengths[:, None])[..., None]


class Cells(nn.Module):
    """One of torch's cells and its state as a tuple, for loops over steps."""

    def __init__(self, rng: np.random.Generator, features: int, hidden: int) -> None:
        super().__init__()
        kinds = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}
        self.cell = kinds[str(rng.choice(KINDS))](features, hidden)
        self.hidden = hidden

    def first(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return zeros for rows as in x."""
        count = 2 if isinstance(self.cell, nn.LSTMCell) else 1
        return tuple(x.new_zeros(x.shape[0], self.hidden) for _ in range(count))

    def forward(self, x_t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if isinstance(self.cell, nn.LSTMCell):
            return self.cell(x_t, state)
        return (self.cell(x_t, state[0]),)
