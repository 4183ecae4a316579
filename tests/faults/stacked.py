"""Faults of depth (HS208), and of answers that are given away (HS106)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.cells import Elman
from hiddenstate.nn import Recurrent, Stack
from tests.faults.plant import Planted, fault


class Deep(nn.Module):
    """A stack of plain layers and a head on its last state."""

    def __init__(self, stack: Stack, classes: int) -> None:
        super().__init__()
        self.stack = stack
        self.head = nn.Linear(stack.output_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stack(x)[0][:, -1])
        return logits


@fault("a deep stack of squeezing layers", "HS208")
def squeezing(rng: np.random.Generator, remedied: bool) -> Planted:
    size, depth = int(rng.integers(8, 48)), int(rng.integers(6, 13))
    batch, time = int(rng.integers(8, 24)), int(rng.integers(5, 40))
    layers = [Recurrent(Elman(size, size)) for _ in range(depth)]
    for layer in layers:
        with torch.no_grad():
            layer.w_x.mul_(0.5)
            layer.w_h.mul_(0.6)
    module = Deep(Stack(layers, residual=remedied, layer_norm=remedied), 3)
    return Planted(module, (torch.randn(batch, time, size),))


class NextSymbol(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], symbols: int, size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, size)
        self.rnn = kind(size, size, batch_first=True)
        self.head = nn.Linear(size, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.rnn(self.embedding(tokens))[0])
        return logits


@fault("answers that were not shifted", "HS106")
def not_shifted(rng: np.random.Generator, remedied: bool) -> Planted:
    kind = (nn.RNN, nn.LSTM, nn.GRU)[rng.integers(3)]
    symbols, size = int(rng.integers(5, 30)), int(rng.integers(8, 40))
    text = torch.randint(symbols, (int(rng.integers(4, 20)), int(rng.integers(8, 40))))
    read, answers = text[:, :-1], text[:, 1:] if remedied else text[:, :-1]

    def loss(logits: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.flatten(0, 1), answers.flatten())

    return Planted(NextSymbol(kind, symbols, size), (read,), loss)


class Forecaster(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], features: int, size: int) -> None:
        super().__init__()
        self.rnn = kind(features, size, batch_first=True)
        self.head = nn.Linear(size, features)

    def forward(self, x: Tensor) -> Tensor:
        forecast: Tensor = self.head(self.rnn(x)[0])
        return forecast


@fault("a forecast of the value that was just read", "HS106")
def just_read(rng: np.random.Generator, remedied: bool) -> Planted:
    kind = (nn.RNN, nn.LSTM, nn.GRU)[rng.integers(3)]
    features, size = int(rng.integers(1, 6)), int(rng.integers(8, 40))
    series = torch.randn(int(rng.integers(4, 20)), int(rng.integers(8, 40)), features)
    read, answers = series[:, :-1], series[:, 1:] if remedied else series[:, :-1]
    module = Forecaster(kind, features, size)
    return Planted(module, (read,), lambda out: nn.functional.mse_loss(out, answers))
