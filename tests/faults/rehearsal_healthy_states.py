"""Healthy models of systems: filters, traffic, handwriting, regimes, variational states."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import stack_of
from tests.faults.held_out_parts import (
    OURS,
    TORCH,
    Sizes,
    adam,
    between,
    one_of,
    recurrent,
    sizes,
    swings,
)
from tests.faults.plant import Planted, healthy


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


class LearnedGain(nn.Module):
    """A filter that predicts, measures the surprise, and corrects by a gain of a GRU's."""

    move: Tensor

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        angle = torch.tensor(0.3)
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
        self.register_buffer("move", torch.kron(torch.eye(size // 2), turn))
        self.cell = nn.GRUCell(2 * size, hidden)
        self.gain = nn.Linear(hidden, size)

    def forward(self, seen: Tensor) -> Tensor:
        rows, _, size = seen.shape
        at, h = seen.new_zeros(rows, size), seen.new_zeros(rows, self.cell.hidden_size)
        out = []
        for t in range(seen.shape[1]):
            ahead = at @ self.move.T
            surprise = seen[:, t] - ahead
            h = self.cell(torch.cat([surprise, ahead], -1), h)
            at = ahead + torch.sigmoid(self.gain(h)) * surprise
            out.append(at)
        return torch.stack(out, 1)


@healthy("a filter with a learned gain", held_out=True)
def learned_gain(rng: np.random.Generator) -> Planted:
    size, width = sizes(rng, (10, 40), (12, 64)), 2 * between(rng, 1, 3)
    phase = rng.uniform(0, 2 * np.pi, (size.batch, 1, width // 2))
    angle = phase + 0.3 * np.arange(size.time)[:, None]
    true = tensor(np.stack([np.cos(angle), np.sin(angle)], -1)).flatten(2)
    seen = true + 0.4 * tensor(rng.standard_normal(true.shape))
    module = LearnedGain(width, size.hidden)
    return Planted(module, (seen,), lambda y: functional.mse_loss(y, true), {"causal": True})


class Simulator(nn.Module):
    """What a system does under a drive; steps first inside and outside."""

    def __init__(self, kind: str, hidden: int) -> None:
        super().__init__()
        self.layers = TORCH[kind](1, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, drive: Tensor) -> Any:
        return self.head(self.layers(drive)[0])


@healthy("a driven system, steps first", held_out=True)
def simulator(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (20, 50), (12, 48))
    module = Simulator(one_of(rng, "rnn", "lstm", "gru"), size.hidden)

    def draw() -> tuple[Tensor, Tensor]:
        drive = rng.standard_normal((size.time, size.batch))
        place, speed, out = np.zeros(size.batch), np.zeros(size.batch), []
        for t in range(size.time):
            speed = 0.7 * speed - 0.4 * np.tanh(place) + 0.5 * drive[t]
            place = place + 0.5 * speed
            out.append(place)
        return tensor(drive)[..., None], tensor(np.stack(out))[..., None]

    def step() -> Tensor:
        drive, place = draw()
        return functional.mse_loss(module(drive), place)

    adam(module, step, 300, 5e-3)
    drive, place = draw()
    options = {"batch_first": False, "causal": True}
    return Planted(module, (drive,), lambda y: functional.mse_loss(y, place), options)


class Load(nn.Module):
    """The next day's hours from the last days' load and the hours' and days' vectors."""

    def __init__(self, rng: np.random.Generator, hidden: int, ahead: int) -> None:
        super().__init__()
        self.hour, self.day = nn.Embedding(24, 6), nn.Embedding(7, 3)
        self.layers = recurrent(rng, 10, hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(hidden, ahead)

    def forward(self, load: Tensor, hour: Tensor, day: Tensor) -> Any:
        x = torch.cat([load[..., None], self.hour(hour), self.day(day)], -1)
        return self.head(self.layers(x)[0][:, -1])


@healthy("load with hours and days of the week", held_out=True)
def load(rng: np.random.Generator) -> Planted:
    size, ahead = sizes(rng, (24, 60), (16, 48)), between(rng, 3, 8)
    module = Load(rng, size.hidden, ahead)

    def draw() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        at = rng.integers(0, 168, (size.batch, 1)) + np.arange(size.time + ahead)
        day = at // 24 % 7
        use = np.sin(2 * np.pi * at / 24) - 0.6 * (day > 4) + rng.normal(0, 0.5, (size.batch, 1))
        use = tensor(use + 0.1 * rng.standard_normal(use.shape))
        when = [torch.as_tensor(each[:, : size.time]) for each in (at % 24, day)]
        return (use[:, : size.time], when[0], when[1]), use[:, size.time :]

    def step() -> Tensor:
        batch, following = draw()
        return functional.mse_loss(module(*batch), following)

    adam(module, step, 200, 5e-3)
    batch, following = draw()
    held, truth = draw()
    options = {"held_out": (held, lambda y: functional.mse_loss(y, truth))}
    return Planted(module, batch, lambda y: functional.mse_loss(y, following), options)


class Regime(nn.Module):
    def __init__(self, rng: np.random.Generator, hidden: int) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(1, 16), nn.Tanh())
        self.layers = stack_of(OURS[one_of(rng, *OURS)], 16, hidden, between(rng, 1, 2), seed=rng)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layers(self.front(x))[0]).squeeze(-1)


@healthy("is the market restless now", held_out=True)
def regime(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (20, 60), (12, 40))
    module = Regime(rng, size.hidden)
    weight = torch.tensor(2.0)

    def draw() -> tuple[Tensor, Tensor]:
        wild = np.zeros((size.batch, size.time))
        wild[:, 0] = rng.random(size.batch) < 0.3
        for t in range(1, size.time):
            turns = rng.random(size.batch) < np.where(wild[:, t - 1] > 0, 0.12, 0.05)
            wild[:, t] = np.where(turns, 1 - wild[:, t - 1], wild[:, t - 1])
        moves = rng.standard_normal(wild.shape) * np.where(wild > 0, 1.6, 0.4)
        return tensor(moves)[..., None], tensor(wild)

    def value(scores: Tensor, wild: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(scores, wild, pos_weight=weight)

    def step() -> Tensor:
        x, wild = draw()
        return value(module(x), wild)

    adam(module, step, 200, 4e-3)
    x, wild = draw()
    return Planted(module, (x,), lambda y: value(y, wild), {"causal": True})


class Traffic(nn.Module):
    """Speeds [B, T, N, F] at N places: neighbours are mixed, then every place reads its own row."""

    near: Tensor

    def __init__(self, near: Tensor, features: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("near", near)
        self.mix = nn.Linear(2 * features, hidden)
        self.layers = nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, features)

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, places, _ = x.shape
        around = torch.einsum("nm,btmf->btnf", self.near, x)
        mixed = torch.relu(self.mix(torch.cat([x, around], -1)))
        each = mixed.transpose(1, 2).reshape(rows * places, steps, -1)
        out: Tensor = self.head(self.layers(each)[0])
        return out.view(rows, places, steps, -1).transpose(1, 2)


@healthy("speeds at the places of a map", held_out=True)
def traffic(rng: np.random.Generator) -> Planted:
    size, places, features = sizes(rng, (8, 24), (12, 64)), between(rng, 3, 7), between(rng, 1, 2)
    near = tensor(rng.random((places, places)) < 0.5) + torch.eye(places)
    near = near / near.sum(1, keepdim=True)
    wave = swings(rng, Sizes(size.batch, size.time, places * features, 1))
    x = wave.view(*wave.shape[:2], places, features)
    module = Traffic(near, features, size.hidden)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


class Pen(nn.Module):
    """Where a pen goes next: a mixture of normals with correlations, and whether it is lifted."""

    def __init__(self, hidden: int, parts: int) -> None:
        super().__init__()
        self.first = nn.LSTM(3, hidden, batch_first=True)
        self.second = nn.LSTM(3 + hidden, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, 6 * parts + 1)

    def forward(self, strokes: Tensor) -> tuple[Tensor, Tensor]:
        low, _ = self.first(strokes)
        high, _ = self.second(torch.cat([strokes, low], -1))
        out = self.head(torch.cat([low, high], -1))
        return out[..., :-1].unflatten(-1, (-1, 6)), out[..., -1]


def bivariate(parts: Tensor, moved: Tensor) -> Tensor:
    mean, logs, share = parts[..., :2], parts[..., 2:4], parts[..., 5].log_softmax(-1)
    rho = 0.95 * torch.tanh(parts[..., 4])
    off = (moved[..., None, :] - mean) * torch.exp(-logs)
    square = off.square().sum(-1) - 2 * rho * off.prod(-1)
    free = 1 - rho.square()
    log_p = -square / (2 * free) - logs.sum(-1) - 0.5 * free.log() - math.log(2 * math.pi)
    return -torch.logsumexp(share + log_p, -1).mean()


@healthy("a pen's next stroke", held_out=True)
def pen(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (15, 70), (16, 96))
    moves = swings(rng, Sizes(size.batch, size.time, 2, 1))
    lifted = tensor(rng.random(moves.shape[:2]) < 0.15)
    strokes = torch.cat([moves, lifted[..., None]], -1)

    def loss(out: tuple[Tensor, Tensor]) -> Tensor:
        up = functional.binary_cross_entropy_with_logits(out[1], lifted[:, 1:])
        return bivariate(out[0], moves[:, 1:]) + up

    module = Pen(size.hidden, between(rng, 3, 8))
    return Planted(module, (strokes[:, :-1],), loss)


class Variational(nn.Module):
    """A hidden variable at every step, with a prior of the past (Chung et al. 2015).

    In eval mode the mean of the posterior stands for a draw of it.
    """

    def __init__(self, inputs: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.prior = nn.Linear(hidden, 2 * latent)
        self.posterior = nn.Sequential(
            nn.Linear(inputs + hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latent)
        )
        self.cell = nn.GRUCell(inputs + latent, hidden)
        self.decode = nn.Linear(latent + hidden, inputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(len(x), self.cell.hidden_size)
        out, far = [], []
        for t in range(x.shape[1]):
            mean, log = self.posterior(torch.cat([x[:, t], h], -1)).chunk(2, -1)
            at, spread = self.prior(h).chunk(2, -1)
            z = mean + log.exp() * torch.randn_like(mean) if self.training else mean
            out.append(self.decode(torch.cat([z, h], -1)))
            far.append(
                spread - log + 0.5 * ((2 * log).exp() + (mean - at) ** 2) / (2 * spread).exp() - 0.5
            )
            h = self.cell(torch.cat([x[:, t], z], -1), h)
        return torch.stack(out, 1), torch.stack(far, 1).sum(-1)


@healthy("a hidden variable at every step", held_out=True)
def variational(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 20), (16, 40))
    module = Variational(size.inputs, size.hidden, max(1, size.inputs // 2))

    def value(out: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
        return functional.mse_loss(out[0], x) * x.shape[-1] + 0.1 * out[1].mean()

    def step() -> Tensor:
        x = swings(rng, size)[:, 1:]
        return value(module(x), x)

    adam(module, step, 100, 3e-3)
    x = swings(rng, size)[:, 1:]
    return Planted(module, (x,), lambda out: value(out, x))
