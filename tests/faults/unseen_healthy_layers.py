"""Held-out healthy models of the second set: unusual stacks and sizes. Written unseen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import stack_of
from tests.faults.held_out_healthy import Drawn, made
from tests.faults.held_out_parts import (
    Sizes,
    between,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
)
from tests.faults.plant import Planted, healthy
from tests.faults.unseen_faults import at_end


class Speaker(nn.Module):
    """Three LSTMs with projections; the last frame's vector, of length 1."""

    def __init__(self, size: Sizes) -> None:
        super().__init__()
        narrow = size.hidden // 2
        self.lstm = nn.LSTM(size.inputs, size.hidden, 2, proj_size=narrow, batch_first=True)
        self.linear = nn.Linear(narrow, 16)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        h = at_end(over(self.lstm, frames, lengths), lengths)
        return functional.normalize(self.linear(h), dim=1)


@healthy("vectors of speakers", held_out=True)
def speaker(rng: np.random.Generator) -> Planted:
    drawn = sizes(rng, (10, 40), (8, 128))
    size = Sizes(2 * (drawn.batch // 2), drawn.time, drawn.inputs, drawn.hidden)

    def draw() -> Drawn:
        lengths = ragged(rng, size)
        voices = torch.randn(size.batch // 2, 1, size.inputs).repeat_interleave(2, dim=0)
        x = (series(rng, size) + voices) * inside(lengths, size.time)[..., None]

        def loss(y: Tensor) -> Tensor:
            alike = 5 * y[::2] @ y[1::2].T
            return functional.cross_entropy(alike, torch.arange(len(alike)))

        return (x, lengths), loss

    return made(rng, Speaker(size), draw, 12)


class Normed(nn.Module):
    """Layers of ours with norms and ways around, over 200 steps at most."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        cell = one_of(rng, "lstm", "gru")
        self.inlet = nn.Linear(size.inputs, size.hidden)
        self.stack = stack_of(cell, size.hidden, size.hidden, 2, residual=True, dropout=0.1)
        self.norm = nn.LayerNorm(size.hidden)
        self.out = nn.Linear(size.hidden, 2 * size.inputs)

    def forward(self, x: Tensor) -> Tensor:
        return functional.glu(self.out(self.norm(self.stack(self.inlet(x))[0])))


@healthy("residual layers of ours over long rows", held_out=True)
def normed(rng: np.random.Generator) -> Planted:
    drawn = sizes(rng, (120, 200), (16, 256))
    size = Sizes(min(8, drawn.batch), drawn.time, drawn.inputs, drawn.hidden)

    def draw() -> Drawn:
        x = swings(rng, size)
        return (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:])

    return made(rng, Normed(rng, size), draw, 5)


class Pyramid(nn.Module):
    """Every layer reads both ways and hands on pairs of frames as one."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        widths = [size.inputs] + [4 * size.hidden] * between(rng, 1, 2)
        self.layers = nn.ModuleList(
            recurrent(rng, width, size.hidden, kinds=("lstm", "gru"), bidirectional=True)
            for width in widths
        )
        self.fc = nn.Linear(4 * size.hidden, 3)

    def forward(self, frames: Tensor) -> Tensor:
        x = frames
        for layer in self.layers:
            h = layer(x)[0]
            x = h.reshape(h.shape[0], h.shape[1] // 2, -1)
        return self.fc(x)


@healthy("pyramid of layers that read both ways", held_out=True)
def pyramid(rng: np.random.Generator) -> Planted:
    drawn = sizes(rng, (2, 8), (4, 40))
    size = Sizes(drawn.batch, 8 * drawn.time, max(3, drawn.inputs), drawn.hidden)
    module = Pyramid(rng, size)
    share = 2 ** len(module.layers)

    def draw() -> Drawn:
        x = series(rng, size)
        means = x[..., :3].unflatten(1, (-1, share)).mean(dim=2)
        return (x,), told_apart(means.argmax(dim=-1))

    return made(rng, module, draw, 10)


class Dreaming(nn.Module):
    """What was seen and done, float64: a mixture for what is seen next, and the state."""

    def __init__(self, size: Sizes, actions: int, parts: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size.inputs + actions, size.hidden, batch_first=True)
        self.out = nn.Linear(size.hidden, parts * (1 + 2 * size.inputs))
        self.parts, self.width = parts, size.inputs

    def forward(
        self, z: Tensor, action: Tensor, hidden: tuple[Tensor, Tensor] | None = None
    ) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        h, hidden = self.lstm(torch.cat([z, action], dim=-1), hidden)
        y = self.out(h).unflatten(-1, (self.parts, 1 + 2 * self.width))
        share, mean, spread = y.split([1, self.width, self.width], dim=-1)
        logs = share.squeeze(-1).log_softmax(dim=-1)
        return {"log_share": logs, "mean": mean, "log_spread": spread}, hidden


@healthy("mixtures for what an agent sees next", held_out=True)
def dreaming(rng: np.random.Generator) -> Planted:
    size, actions = sizes(rng, (8, 30), (8, 200)), between(rng, 1, 3)
    module = Dreaming(size, actions, between(rng, 2, 5)).double()

    def draw() -> Drawn:
        x = swings(rng, size).double()
        action = torch.as_tensor(rng.standard_normal((size.batch, size.time, actions)))

        def loss(y: tuple[dict[str, Tensor], object]) -> Tensor:
            parts, wide = y[0], y[0]["log_spread"].clamp(-5, 5)
            off = (x[:, 1:, None] - parts["mean"]) * (-wide).exp()
            logs = parts["log_share"] - (0.5 * off**2 + wide).sum(dim=-1)
            return -logs.logsumexp(dim=-1).mean()

        return (x[:, :-1], action), loss

    return made(rng, module, draw, 15)


class Counter(nn.Module):
    def __init__(self, rng: np.random.Generator, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(2, 2)
        self.rnn = recurrent(rng, 2, hidden, kinds=("lstm", "gru"))
        self.out = nn.Linear(hidden, 1)

    def forward(self, brackets: Tensor) -> Tensor:
        return self.out(self.rnn(self.embedding(brackets))[0]).squeeze(-1)


@healthy("two to four units that count", held_out=True)
def counter(rng: np.random.Generator) -> Planted:
    rows, steps = between(rng, 8, 24), between(rng, 4, 12)

    def draw() -> Drawn:
        brackets = torch.as_tensor(rng.integers(0, 2, (rows, steps)))
        depth = (2.0 * brackets - 1).cumsum(dim=1) / 3
        return (brackets,), lambda y: functional.mse_loss(y, depth)

    return made(rng, Counter(rng, between(rng, 2, 4)), draw, 150, 2e-2)
