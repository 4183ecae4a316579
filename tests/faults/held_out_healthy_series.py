"""Held-out healthy models of numbers, fresh or trained for a second, as people write them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_healthy import Drawn, made
from tests.faults.held_out_healthy_layers import forecasting
from tests.faults.held_out_parts import (
    CLASSES,
    Sizes,
    between,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
)
from tests.faults.plant import Planted, healthy


def regressing(rng: np.random.Generator, size: Sizes) -> Callable[[], Drawn]:
    """The mean of the first series, which all steps have a part in."""

    def draw() -> Drawn:
        x = series(rng, size)
        answers = x[..., 0].mean(dim=1) * size.time**0.5
        return (x,), lambda y: functional.mse_loss(y.squeeze(-1), answers)

    return draw


class TimeFirst(nn.Module):
    """[T, B, D] in and out, as torch's layers have it by default."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size.inputs, size.hidden, between(rng, 1, 2))
        self.linear = nn.Linear(size.hidden, size.inputs)

    def forward(self, input: Tensor) -> Tensor:
        output, _ = self.lstm(input)
        return self.linear(output)


@healthy("forecaster with the steps first", held_out=True)
def time_first(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 40), (8, 64))

    def draw() -> Drawn:
        x = swings(rng, size).transpose(0, 1)
        return (x[:-1],), lambda y: functional.mse_loss(y, x[1:])

    return made(rng, TimeFirst(rng, size), draw)


class Stateful(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, size.inputs)

    def forward(self, x: Tensor, state: object = None) -> tuple[Tensor, object]:
        if isinstance(self.rnn, nn.RNNBase):
            h, state = self.rnn(x, state)
        else:
            h, state = self.rnn(x, state=state)
        return self.head(h), state


@healthy("a forecaster that is given its state", held_out=True)
def stateful(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 40), (8, 64))
    return made(rng, Stateful(rng, size), forecasting(rng, size))


class ManyToOne(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, kinds: tuple[str, ...]) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, kinds=kinds)
        self.fc = nn.Sequential(nn.Linear(size.hidden, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


@healthy("one number of several scaled series", held_out=True)
def many_to_one(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (10, 30), (8, 64))
    return made(rng, ManyToOne(rng, size, ("lstm", "gru")), regressing(rng, size))


class ConvolvedCausally(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.kernel = between(rng, 2, 5)
        self.conv = nn.Conv1d(size.inputs, 24, self.kernel, padding=self.kernel - 1)
        self.gru = nn.GRU(24, size.hidden, batch_first=True)
        self.head = nn.Linear(size.hidden, size.inputs)

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x.transpose(1, 2))[..., : x.size(1)]
        return self.head(self.gru(functional.relu(found).transpose(1, 2))[0])


@healthy("causal convolution before a GRU", held_out=True)
def convolved(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 40), (8, 64))
    return made(rng, ConvolvedCausally(rng, size), forecasting(rng, size))


class Speech(nn.Module):
    """Halves the frames, reads them both ways, one distribution for each that is left."""

    def __init__(self, size: Sizes) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(size.inputs, 16, 3, stride=2, padding=1), nn.BatchNorm1d(16), nn.ReLU()
        )
        self.lstm = nn.LSTM(16, size.hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * size.hidden, CLASSES)

    def forward(self, frames: Tensor) -> Tensor:
        x = self.conv(frames.transpose(1, 2)).transpose(1, 2)
        return self.fc(self.lstm(x)[0]).log_softmax(dim=-1)


@healthy("frames halved and read both ways", held_out=True)
def speech(rng: np.random.Generator) -> Planted:
    drawn = sizes(rng, (5, 15), (8, 48))
    size = Sizes(drawn.batch, 2 * drawn.time, max(3, drawn.inputs), drawn.hidden)

    def draw() -> Drawn:
        x = series(rng, size)
        answers = x[:, ::2, :CLASSES].argmax(dim=-1)
        return (x,), lambda y: functional.nll_loss(y.flatten(0, 1), answers.flatten())

    return made(rng, Speech(size), draw)


class TwoSensors(nn.Module):
    """A fast and a slow series, a layer for each."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.fast_rnn = recurrent(rng, size.inputs, size.hidden, kinds=("lstm", "gru"))
        self.slow_rnn = recurrent(rng, 2, size.hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(2 * size.hidden, 1)

    def forward(self, fast: Tensor, slow: Tensor) -> Tensor:
        last = [self.fast_rnn(fast)[0][:, -1], self.slow_rnn(slow)[0][:, -1]]
        return self.head(torch.cat(last, dim=1))


@healthy("two layers over two inputs", held_out=True)
def two_sensors(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (16, 30), (8, 48))
    slow_size = Sizes(size.batch, size.time // 4, 2, size.hidden)

    def draw() -> Drawn:
        fast, slow = series(rng, size), series(rng, slow_size)
        answers = fast[..., 0].mean(dim=1) + slow[..., 0].mean(dim=1)
        return (fast, slow), lambda y: functional.mse_loss(y.squeeze(-1), answers)

    return made(rng, TwoSensors(rng, size), draw)


class Autoencoder(nn.Module):
    """A row summed up in one vector, from which the row is drawn again."""

    def __init__(self, size: Sizes) -> None:
        super().__init__()
        self.encoder = nn.LSTM(size.inputs, size.hidden, batch_first=True)
        self.decoder = nn.LSTM(size.hidden, size.hidden, batch_first=True)
        self.output = nn.Linear(size.hidden, size.inputs)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.encoder(x)
        z = h[-1].unsqueeze(1).repeat(1, x.size(1), 1)
        return self.output(self.decoder(z)[0])


@healthy("an autoencoder of sequences", held_out=True)
def autoencoder(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 20), (16, 64))

    def draw() -> Drawn:
        x = swings(rng, size)[:, 1:]
        return (x,), lambda y: functional.mse_loss(y, x)

    return made(rng, Autoencoder(size), draw)


class Policy(nn.Module):
    """Acts at every step; its state starts anew where an episode does."""

    def __init__(self, size: Sizes) -> None:
        super().__init__()
        self.base = nn.Sequential(nn.Linear(size.inputs, 32), nn.Tanh())
        self.gru = nn.GRUCell(32, size.hidden)
        self.actor, self.critic = nn.Linear(size.hidden, CLASSES), nn.Linear(size.hidden, 1)

    def forward(self, observations: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
        h = observations.new_zeros(observations.size(0), self.gru.hidden_size)
        states = []
        for t in range(observations.size(1)):
            h = self.gru(self.base(observations[:, t]), h * (1.0 - starts[:, t : t + 1]))
            states.append(h)
        seen = torch.stack(states, dim=1)
        return self.actor(seen), self.critic(seen).squeeze(-1)


@healthy("a policy whose state starts anew with an episode", held_out=True)
def policy(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (10, 20), (8, 48))

    def draw() -> Drawn:
        x = series(rng, size)
        starts = torch.as_tensor(rng.random((size.batch, size.time)) < 0.1).float()
        actions = (x[..., 0] > 0).long() + (x[..., 1] > 0).long()
        returns = x[..., 1]

        def loss(y: tuple[Tensor, Tensor]) -> Tensor:
            return told_apart(actions)(y[0]) + functional.mse_loss(y[1], returns)

        return (x, starts), loss

    return made(rng, Policy(size), draw, 25, 1e-2)


class Gaussian(nn.Module):
    """Mean and scale of the next value."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.mu = nn.Linear(size.hidden, size.inputs)
        self.sigma = nn.Linear(size.hidden, size.inputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h, _ = self.rnn(x)
        return self.mu(h), functional.softplus(self.sigma(h)) + 1e-3


@healthy("mean and scale of the next value", held_out=True)
def gaussian(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 40), (8, 64))

    def draw() -> Drawn:
        x = swings(rng, size)
        return (x[:, :-1],), lambda y: functional.gaussian_nll_loss(y[0], x[:, 1:], y[1].square())

    return made(rng, Gaussian(rng, size), draw)
