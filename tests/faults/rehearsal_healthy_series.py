"""Healthy models of numbers: forecasts, counts, sensors, gaps, and signals with noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.cells import build
from hiddenstate.nn import Recurrent
from tests.faults.held_out_parts import (
    OURS,
    TORCH,
    Sizes,
    adam,
    between,
    inside,
    one_of,
    ragged,
    recurrent,
    series,
    sizes,
    swings,
)
from tests.faults.plant import Planted, healthy


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


class PerStep(nn.Module):
    """A layer and a linear head at every step."""

    def __init__(self, layer: nn.Module, hidden: int, outputs: int = 1) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layer(x)[0])


@healthy("the value that stood at the last cue", held_out=True)
def held_value(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (10, 30), (16, 48))
    module = PerStep(recurrent(rng, 2, size.hidden, kinds=("lstm", "gru")), size.hidden)

    def draw() -> tuple[Tensor, Tensor]:
        value = rng.uniform(-1, 1, (size.batch, size.time))
        cue = rng.random(value.shape) < 0.25
        cue[:, 0] = True
        at = np.maximum.accumulate(np.where(cue, np.arange(size.time), 0), 1)
        return tensor(np.stack([value, cue], -1)), tensor(np.take_along_axis(value, at, 1))

    def step() -> Tensor:
        x, y = draw()
        return functional.mse_loss(module(x).squeeze(-1), y)

    adam(module, step, 300, 1e-2)
    x, y = draw()
    return Planted(module, (x,), lambda out: functional.mse_loss(out.squeeze(-1), y))


class Counts(nn.Module):
    """Mean and dispersion of the next count, after Salinas et al. 2020."""

    def __init__(self, rng: np.random.Generator, shops: int, hidden: int) -> None:
        super().__init__()
        self.shop = nn.Embedding(shops, 4)
        self.layers = recurrent(rng, 7, hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(hidden, 2)

    def forward(self, counts: Tensor, calendar: Tensor, shop: Tensor) -> tuple[Tensor, Tensor]:
        own = self.shop(shop)[:, None].expand(-1, counts.shape[1], -1)
        x = torch.cat([torch.log1p(counts)[..., None] - 1, calendar, own], -1)
        mean, shape = functional.softplus(self.head(self.layers(x)[0])).unbind(-1)
        return mean + 1e-3, shape + 1e-2


def unlikely(mean: Tensor, shape: Tensor, count: Tensor) -> Tensor:
    """-log of a negative binomial of this mean, with variance mean + shape mean^2."""
    total, odds = 1 / shape, torch.log(mean * shape)
    ways = torch.lgamma(total + count) - torch.lgamma(total) - torch.lgamma(count + 1)
    drawn = total * functional.logsigmoid(-odds) + count * functional.logsigmoid(odds)
    return -(ways + drawn).mean()


@healthy("counts with a dispersion, a shop and a calendar", held_out=True)
def counted(rng: np.random.Generator) -> Planted:
    size, shops = sizes(rng, (14, 40), (16, 40)), between(rng, 3, 6)
    level = rng.uniform(1, 6, shops)
    module = Counts(rng, shops, size.hidden)

    def draw() -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        shop = rng.integers(0, shops, size.batch)
        shop[:shops] = np.arange(shops)[: size.batch]
        day = rng.integers(0, 7, (size.batch, 1)) + np.arange(size.time + 1)
        rate = level[shop][:, None] * np.exp(0.6 * np.sin(2 * np.pi * day / 7))
        count = tensor(rng.poisson(rate * rng.gamma(5, 0.2, rate.shape)))
        angle = 2 * np.pi * day[:, 1:] / 7
        calendar = tensor(np.stack([np.sin(angle), np.cos(angle)], -1))
        return (count[:, :-1], calendar, torch.as_tensor(shop)), count[:, 1:]

    def step() -> Tensor:
        batch, following = draw()
        mean, shape = module(*batch)
        return unlikely(mean, shape, following)

    adam(module, step, 200, 5e-3)
    batch, following = draw()
    return Planted(module, batch, lambda out: unlikely(out[0], out[1], following))


class PastAndFuture(nn.Module):
    """Reads the past, then writes the future from what is known of it and what it wrote itself."""

    def __init__(self, known: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.GRU(1 + known, hidden, batch_first=True)
        self.cell = nn.GRUCell(1 + known, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, past: Tensor, past_known: Tensor, future_known: Tensor) -> Tensor:
        _, h = self.encoder(torch.cat([past[..., None], past_known], -1))
        state, value, written = h[0], past[:, -1:], []
        for t in range(future_known.shape[1]):
            state = self.cell(torch.cat([value, future_known[:, t]], -1), state)
            value = value + self.head(state)
            written.append(value)
        return torch.cat(written, 1)


@healthy("the past, and what is known of the future", held_out=True)
def past_and_future(rng: np.random.Generator) -> Planted:
    size, ahead = sizes(rng, (12, 50)), between(rng, 3, 12)
    known = torch.cat([series(rng, size), series(rng, size)], 1)[:, : size.time + ahead]
    wave = swings(rng, Sizes(size.batch, size.time + ahead, 1, size.hidden))[:, 1:, 0]
    truth = wave + 0.3 * known[..., 0]
    batch = {
        "past": truth[:, : size.time],
        "past_known": known[:, : size.time],
        "future_known": known[:, size.time :],
    }
    module = PastAndFuture(size.inputs, size.hidden)
    return Planted(module, batch, lambda y: functional.l1_loss(y, truth[:, size.time :]))


class RemainingLife(nn.Module):
    """x [T, B, D], rows from the longest to the shortest; a number for each row."""

    def __init__(self, kind: str, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.layers = TORCH[kind](inputs, hidden, layers)
        self.head = nn.Sequential(nn.Linear(hidden, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu())
        states, _ = pad_packed_sequence(self.layers(packed)[0], total_length=len(x))
        last = states[lengths - 1, torch.arange(len(lengths))]
        life: Tensor = self.head(last)
        return life.squeeze(-1)


@healthy("remaining life of machines, steps first, sorted by length", held_out=True)
def remaining_life(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (10, 30), (12, 40))
    kind = one_of(rng, "lstm", "gru")
    module = RemainingLife(kind, size.inputs, size.hidden, between(rng, 1, 2))
    weight = rng.standard_normal(size.inputs) / np.sqrt(size.inputs)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        lengths = ragged(rng, size).sort(descending=True).values
        pace = rng.uniform(0.02, 0.1, (size.batch, 1, 1))
        wear = pace * np.arange(size.time)[:, None]
        x = tensor(wear * weight * 2 + 0.5 * rng.standard_normal((*wear.shape[:2], size.inputs)))
        x = x * inside(lengths, size.time)[..., None]
        left = 1 - tensor(pace[:, 0, 0]) * lengths
        return x.transpose(0, 1).contiguous(), lengths, left

    def step() -> Tensor:
        x, lengths, left = draw()
        return functional.huber_loss(module(x, lengths), left)

    adam(module, step, 200, 5e-3)
    x, lengths, left = draw()
    return Planted(
        module, (x, lengths), lambda y: functional.huber_loss(y, left), {"batch_first": False}
    )


class Flowing(nn.Module):
    """Between two events the state follows dh/dt = f(h), by steps of Euler (Rubanova et al.)."""

    def __init__(self, inputs: int, hidden: int, parts: int) -> None:
        super().__init__()
        self.flow = nn.Sequential(
            nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.cell = nn.GRUCell(inputs, hidden)
        self.head = nn.Linear(hidden, inputs)
        self.parts = parts

    def forward(self, x: Tensor, gaps: Tensor) -> Any:
        h = x.new_zeros(len(x), self.cell.hidden_size)
        out = []
        for t in range(x.shape[1]):
            for _ in range(self.parts):
                h = h + gaps[:, t, None] / self.parts * self.flow(h)
            h = self.cell(x[:, t], h)
            out.append(h)
        return self.head(torch.stack(out, 1))


@healthy("gaps bridged by steps of Euler", held_out=True)
def flowing(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (6, 30), (8, 64))
    x = swings(rng, size)
    gaps = tensor(rng.exponential(0.5, (size.batch, size.time)))
    module = Flowing(size.inputs, size.hidden, between(rng, 2, 4))
    return Planted(module, (x[:, :-1], gaps), lambda y: functional.mse_loss(y, x[:, 1:]))


class Imputing(nn.Module):
    """Guesses every value before it is read, and reads its guess where none is (Cao et al.)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.decay = nn.Linear(inputs, hidden)
        self.guess = nn.Linear(hidden, inputs)
        self.cell = nn.LSTMCell(2 * inputs, hidden)

    def forward(self, x: Tensor, seen: Tensor, since: Tensor) -> tuple[Tensor, Tensor]:
        h = c = x.new_zeros(len(x), self.cell.hidden_size)
        guesses, filled = [], []
        for t in range(x.shape[1]):
            h = h * torch.exp(-torch.relu(self.decay(since[:, t])))
            guess = self.guess(h)
            whole = torch.where(seen[:, t], x[:, t], guess)
            h, c = self.cell(torch.cat([whole, seen[:, t].to(x.dtype)], -1), (h, c))
            guesses.append(guess)
            filled.append(whole)
        return torch.stack(guesses, 1), torch.stack(filled, 1)


@healthy("values guessed before they are read", held_out=True)
def imputing(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 40), (12, 64))
    x = swings(rng, size)[:, 1:]
    seen = torch.as_tensor(rng.random(x.shape) < 0.7)
    since = torch.zeros_like(x)
    for t in range(1, size.time):
        since[:, t] = torch.where(seen[:, t - 1], 1.0, since[:, t - 1] + 1)
    shown = x * seen

    def loss(out: tuple[Tensor, Tensor]) -> Tensor:
        return (out[0] - shown).abs()[seen].mean()

    module = Imputing(size.inputs, size.hidden)
    return Planted(module, (shown, seen, since / 2), loss)


@healthy("a clean signal out of a noisy one, read both ways", held_out=True)
def denoised(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (16, 40), (12, 40))
    layers = recurrent(rng, size.inputs, size.hidden, bidirectional=True)
    module = PerStep(layers, 2 * size.hidden, size.inputs)

    def draw() -> tuple[Tensor, Tensor]:
        clean = swings(rng, size)[:, 1:]
        return clean + 0.5 * tensor(rng.standard_normal(clean.shape)), clean

    def step() -> Tensor:
        x, clean = draw()
        return functional.mse_loss(module(x), clean)

    adam(module, step, 200, 5e-3)
    x, clean = draw()
    return Planted(module, (x,), lambda y: functional.mse_loss(y, clean), {"causal": False})


class TwoRates(nn.Module):
    """Fast and slow sensors, each with a layer of its own, joined at the end."""

    def __init__(self, rng: np.random.Generator, fast: int, slow: int, hidden: int) -> None:
        super().__init__()
        self.fast = recurrent(rng, fast, hidden)
        self.slow = recurrent(rng, slow, max(8, hidden // 2))
        width = hidden + max(8, hidden // 2)
        self.head = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, fast: Tensor, slow: Tensor) -> Any:
        ends = [self.fast(fast)[0][:, -1], self.slow(slow)[0][:, -1]]
        return self.head(torch.cat(ends, -1))


@healthy("two sensors of two rates", held_out=True)
def two_rates(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (16, 80), (8, 128))
    slow = between(rng, 1, 4)
    batch = {
        "fast": swings(rng, size)[:, 1:],
        "slow": swings(rng, Sizes(size.batch, size.time // 4, slow, 8))[:, 1:],
    }
    answers = torch.as_tensor(rng.integers(0, 3, size.batch))
    module = TwoRates(rng, size.inputs, slow, size.hidden)
    return Planted(module, batch, lambda y: functional.cross_entropy(y, answers))


class Change(nn.Module):
    """The next value is the present one and a change."""

    def __init__(self, kind: str, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layer = Recurrent(build(OURS[kind], inputs, hidden), learned_state=True)
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Any:
        return x + self.head(self.layer(x)[0])


@healthy("the change to the next value", held_out=True)
def change(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 40), (12, 48))
    module = Change(one_of(rng, *OURS), size.inputs, size.hidden)

    def step() -> Tensor:
        x = swings(rng, size)
        return functional.mse_loss(module(x[:, :-1]), x[:, 1:])

    adam(module, step, 200, 5e-3)
    x = swings(rng, size)
    loss = lambda y: functional.mse_loss(y, x[:, 1:])  # noqa: E731
    return Planted(module, (x[:, :-1],), loss, {"causal": True})
