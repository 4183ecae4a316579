"""Healthy models whose steps may read the whole row, and say so by what they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from tests.faults.building import numbers, sizes, tokens, torch_layer
from tests.faults.plant import Planted, healthy

SYMBOLS = 11


class Sorting(nn.Module):
    """Points at its inputs one after the other: [B, T, T]."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(features, hidden, batch_first=True)
        self.cell = nn.LSTMCell(features, hidden)
        self.key, self.query, self.score = (
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        keys, (h, c) = self.encoder(x)
        state, read, found = (h[0], c[0]), torch.zeros_like(x[:, 0]), []
        for _ in range(x.shape[1]):
            state = self.cell(read, state)
            both = torch.tanh(self.key(keys) + self.query(state[0])[:, None])
            found.append(self.score(both).squeeze(-1))
            read = x[torch.arange(len(x)), found[-1].argmax(1)]
        return torch.stack(found, 1)


@healthy("a pointer that sorts")
def sorting(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    x = torch.rand(has.rows, min(has.steps, 10), has.features)
    order = x[..., 0].argsort(1).flatten()
    return Planted(
        Sorting(has.features, has.hidden),
        (x,),
        lambda y: functional.cross_entropy(y.flatten(0, 1), order),
    )


class Spans(nn.Module):
    """Where an answer begins and ends: two choices among the steps."""

    def __init__(self, rng: np.random.Generator, hidden: int) -> None:
        super().__init__()
        self.embed, self.layer = nn.Embedding(SYMBOLS, 8), torch_layer(rng, 8, hidden)
        self.about, self.head = nn.Linear(hidden, hidden), nn.Linear(hidden, 2)

    def forward(self, codes: Tensor) -> tuple[Tensor, ...]:
        h = self.layer(self.embed(codes))[0]
        return self.head(h * self.about(h.mean(1, keepdim=True))).unbind(-1)


@healthy("the beginning and the end of a span")
def spans(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    codes = torch.as_tensor(rng.integers(0, SYMBOLS, (has.rows, has.steps)))
    places = torch.as_tensor(rng.integers(0, has.steps, (2, has.rows)))

    def loss(y: tuple[Tensor, ...]) -> Tensor:
        return sum((functional.cross_entropy(*pair) for pair in zip(y, places)), torch.zeros(()))

    return Planted(Spans(rng, has.hidden), (codes,), loss)


class BothWays(nn.Module):
    """A second layer, or a loop over cells, from the end."""

    def __init__(self, rng: np.random.Generator, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.loops = bool(rng.integers(2))
        self.forwards = torch_layer(rng, features, hidden)
        self.backwards = torch_layer(rng, features, hidden)
        self.cell, self.head = nn.GRUCell(features, hidden), nn.Linear(2 * hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        ahead = self.forwards(x)[0]
        if not self.loops:
            back = self.backwards(x.flip(1))[0].flip(1)
        else:
            h, kept = torch.zeros_like(ahead[:, 0]), []
            for x_t in x.flip(1).unbind(1):
                h = self.cell(x_t, h)
                kept.append(h)
            back = torch.stack(kept[::-1], 1)
        return self.head(torch.cat([ahead, back], -1))


@healthy("both directions by hand")
def by_hand(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    tags = torch.as_tensor(rng.integers(0, has.classes, (has.rows, has.steps)))
    return Planted(
        BothWays(rng, has.features, has.hidden, has.classes),
        (numbers(rng, has, padded=False),),
        lambda y: functional.cross_entropy(y.transpose(1, 2), tags),
    )


class Remade(nn.Module):
    """The row again from its summary: fed with itself a step late, or told the step's number."""

    def __init__(self, features: int, hidden: int, fed: bool) -> None:
        super().__init__()
        self.encoder = nn.GRU(features, hidden, batch_first=True)
        self.decoder = nn.GRU(features if fed else hidden + 1, hidden, batch_first=True)
        self.head, self.fed = nn.Linear(hidden, features), fed

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.encoder(x)
        if self.fed:
            late = functional.pad(x[:, :-1], (0, 0, 1, 0))
            return self.head(self.decoder(late, h)[0])
        summary = h[-1].unsqueeze(1).expand(-1, x.shape[1], -1)
        step = torch.arange(x.shape[1]).sin().expand(len(x), -1).unsqueeze(-1)
        return self.head(self.decoder(torch.cat([summary, step], -1))[0])


@healthy("a row made again from its summary")
def remade(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    x = numbers(rng, has, padded=False)
    module = Remade(has.features, has.hidden, bool(rng.integers(2)))
    return Planted(module, (x,), lambda y: functional.mse_loss(y, x))


class Pairs(nn.Module):
    """Two texts with lengths, or with masks, of their own."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, 8, padding_idx=0)
        self.layer, self.head = nn.GRU(8, hidden, batch_first=True), nn.Linear(2 * hidden, 2)

    def read(self, codes: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.embed(codes), lengths, batch_first=True, enforce_sorted=False
        )
        return self.layer(packed)[1][-1]

    def forward(self, a: Tensor, b: Tensor, la: Tensor, lb: Tensor) -> Tensor:
        lengths = (each if each.ndim == 1 else each.sum(1) for each in (la, lb))
        return self.head(torch.cat([self.read(*each) for each in zip((a, b), lengths)], -1))


@healthy("pairs of texts, each with its own lengths or mask")
def pairs(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    one = tokens(rng, has, SYMBOLS)
    two = one.flip(0)
    told: Callable[[Tensor], Tensor] = (
        (lambda codes: (codes != 0).sum(1)) if rng.integers(2) else lambda codes: codes != 0
    )
    classes = torch.as_tensor(rng.integers(0, 2, has.rows))
    return Planted(
        Pairs(has.hidden),
        (one, two, told(one), told(two)),
        lambda y: functional.cross_entropy(y, classes),
    )


class Contrasting(nn.Module):
    """Features of every step beside what is foretold of those to come."""

    def __init__(self, rng: np.random.Generator, features: int, hidden: int) -> None:
        super().__init__()
        self.features = nn.Linear(features, hidden)
        self.layer, self.ahead = torch_layer(rng, hidden, hidden), nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.features(x).relu()
        return z, self.ahead(self.layer(z)[0])


@healthy("features that are told from other rows' ones")
def contrasting(rng: np.random.Generator) -> Planted:
    has = sizes(rng)

    def loss(y: tuple[Tensor, Tensor]) -> Tensor:
        scores = y[1][:, 2] @ y[0][:, 4].T
        return functional.cross_entropy(scores, torch.arange(len(scores)))

    module = Contrasting(rng, has.features, has.hidden)
    return Planted(module, (numbers(rng, has, padded=False),), loss)
