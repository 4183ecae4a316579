"""Healthy models with surroundings of their own: pictures, memories, cells by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from hiddenstate.nn import Pool
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    adam,
    between,
    classes,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
    words,
)
from tests.faults.plant import Planted, healthy


def tensor(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


class Film(nn.Module):
    """Frames [B, T, 1, E, E], each seen by one small network, then read in order."""

    def __init__(self, rng: np.random.Generator, edge: int, hidden: int) -> None:
        super().__init__()
        self.see = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2, padding=1),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * (edge // 4) ** 2, 32),
        )
        self.layers = recurrent(rng, 32, hidden, kinds=("lstm", "gru"))
        self.pool = Pool(one_of(rng, "last", "mean"), hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, frames: Tensor) -> Any:
        seen = self.see(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        return self.head(self.pool(self.layers(seen)[0]))


@healthy("frames of a film, each seen by one network", held_out=True)
def film(rng: np.random.Generator) -> Planted:
    size, edge = sizes(rng, (6, 16), (16, 96)), 4 * between(rng, 2, 4)
    shape = (size.batch, size.time, 1, edge, edge)
    # A frame is much like the one before it.
    frames = tensor(rng.standard_normal(shape)).cumsum(1)
    frames = frames / torch.arange(1, size.time + 1)[:, None, None, None].sqrt()
    return Planted(Film(rng, edge, size.hidden), (frames,), told_apart(classes(rng, size.batch)))


class Keywords(nn.Module):
    """Log-odds [B, T, C] of keywords at each frame; convolutions that look back only."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, kinds: int) -> None:
        super().__init__()
        self.front = nn.Conv1d(inputs, 24, 5)
        self.layers = recurrent(rng, 24, hidden, between(rng, 1, 2), kinds=("gru", "lstm"))
        self.head = nn.Linear(hidden, kinds)

    def forward(self, frames: Tensor, lengths: Tensor) -> Any:
        before = functional.pad(frames.transpose(1, 2), (4, 0))
        x = torch.relu(self.front(before)).transpose(1, 2)
        return self.head(over(self.layers, x, lengths))


@healthy("a keyword somewhere, by the highest frame", held_out=True)
def keywords(rng: np.random.Generator) -> Planted:
    size, inputs = sizes(rng, (15, 60), (16, 128)), between(rng, 8, 16)
    lengths = ragged(rng, size)
    frames = tensor(rng.standard_normal((size.batch, size.time, inputs)))
    own = inside(lengths, size.time)[..., None]
    answers = classes(rng, size.batch)

    def loss(odds: Tensor) -> Tensor:
        return functional.cross_entropy(odds.masked_fill(~own, -torch.inf).amax(1), answers)

    module = Keywords(rng, inputs, size.hidden, CLASSES)
    return Planted(module, (frames * own, lengths), loss, {"causal": True})


class Caption(nn.Module):
    """Words about a picture: its features make the first state of the decoder."""

    def __init__(self, kind: str, features: int, symbols: int, hidden: int) -> None:
        super().__init__()
        self.begin = nn.Linear(features, 2 * hidden)
        self.embed = nn.Embedding(symbols, 24, padding_idx=0)
        self.layers = TORCH[kind](24, hidden, batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, features: Tensor, begun: Tensor) -> Any:
        h, c = torch.tanh(self.begin(features))[None].chunk(2, -1)
        h, c = h.contiguous(), c.contiguous()
        first = (h, c) if isinstance(self.layers, nn.LSTM) else h
        return self.head(self.layers(self.embed(begun), first)[0])


@healthy("words about a picture", held_out=True)
def caption(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 14), (24, 48)), between(rng, 8, 14)
    features = between(rng, 4, 8)
    module = Caption(one_of(rng, "lstm", "gru"), features, symbols, size.hidden)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        """Words go up from a first one, in strides; both are seen in the picture."""
        seen = rng.standard_normal((size.batch, features))
        start, stride = seen[:, :3].argmax(1) * 2, 1 + (seen[:, 3] > 0)
        said = (start[:, None] + stride[:, None] * np.arange(size.time)) % (symbols - 2) + 2
        said = torch.as_tensor(said) * inside(ragged(rng, size), size.time)
        begun = torch.cat([torch.ones(size.batch, 1, dtype=torch.long), said[:, :-1]], 1)
        return tensor(seen), begun, said

    def value(scores: Tensor, said: Tensor) -> Tensor:
        return functional.cross_entropy(scores.flatten(0, 1), said.flatten(), ignore_index=0)

    def step() -> Tensor:
        seen, begun, said = draw()
        return value(module(seen, begun), said)

    adam(module, step, 200, 5e-3)
    seen, begun, said = draw()
    return Planted(module, {"features": seen, "begun": begun}, lambda s: value(s, said))


class Slots(nn.Module):
    """A controller beside slots of memory that it finds by what they hold (Graves et al. 2014)."""

    def __init__(self, inputs: int, hidden: int, slots: int, width: int) -> None:
        super().__init__()
        self.blank = nn.Parameter(torch.randn(slots, width) / width**0.5)
        self.cell = nn.LSTMCell(inputs + width, hidden)
        self.keys = nn.Linear(hidden, 2 * width + 2)
        self.write = nn.Linear(hidden, 2 * width)
        self.head = nn.Linear(hidden + width, inputs)

    def forward(self, x: Tensor) -> Any:
        memory = self.blank.expand(len(x), -1, -1)
        width = memory.shape[-1]
        read = x.new_zeros(len(x), width)
        h = c = x.new_zeros(len(x), self.cell.hidden_size)
        out = []
        for t in range(x.shape[1]):
            h, c = self.cell(torch.cat([x[:, t], read], -1), (h, c))
            to_read, to_write, sharp = self.keys(h).split([width, width, 2], -1)
            sharp = 1 + functional.softplus(sharp)
            erase, add = self.write(h).chunk(2, -1)
            found = self.found(to_write, memory, sharp[:, :1])
            memory = memory * (1 - found * torch.sigmoid(erase)[:, None])
            memory = memory + found * torch.tanh(add)[:, None]
            read = (self.found(to_read, memory, sharp[:, 1:]) * memory).sum(1)
            out.append(torch.cat([h, read], -1))
        return self.head(torch.stack(out, 1))

    @staticmethod
    def found(key: Tensor, memory: Tensor, sharp: Tensor) -> Tensor:
        alike = functional.cosine_similarity(key[:, None], memory, dim=-1)
        return (sharp * alike).softmax(-1)[..., None]


@healthy("slots of memory found by what they hold", held_out=True)
def slots(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (6, 24), (16, 64))
    module = Slots(size.inputs, size.hidden, between(rng, 6, 12), between(rng, 6, 12))
    x = swings(rng, size)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


class Highest(nn.Module):
    def __init__(self, rng: np.random.Generator, hidden: int) -> None:
        super().__init__()
        self.layers = recurrent(rng, 1, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layers(x)[0])


@healthy("the highest value so far", held_out=True)
def highest(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 30), (16, 40))
    module = Highest(rng, size.hidden)

    def step() -> Tensor:
        x = tensor(rng.standard_normal((size.batch, size.time, 1)))
        return functional.smooth_l1_loss(module(x), x.cummax(1).values)

    adam(module, step, 250, 5e-3)
    x = tensor(rng.standard_normal((size.batch, size.time, 1)))
    truth = x.cummax(1).values
    return Planted(module, (x,), lambda y: functional.smooth_l1_loss(y, truth), {"causal": True})


class Conditioned(nn.Module):
    """What has to be done with the numbers is told by the state that the row begins in."""

    def __init__(self, tasks: int, hidden: int) -> None:
        super().__init__()
        self.first = nn.Embedding(tasks, hidden)
        self.layers = nn.GRU(1, hidden, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, task: Tensor) -> Any:
        states, _ = self.layers(x, torch.tanh(self.first(task))[None])
        return self.head(self.norm(states)).squeeze(-1)


@healthy("a task told by the first state", held_out=True)
def conditioned(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 24), (24, 48))
    module = Conditioned(3, size.hidden)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        x = torch.as_tensor(rng.uniform(-1, 1, (size.batch, size.time)), dtype=torch.float32)
        task = torch.as_tensor(rng.integers(0, 3, size.batch))
        before = functional.pad(x[:, :-1], (1, 0))
        ways = torch.stack([before, -before, x + before], 1)
        return x[..., None], task, ways[torch.arange(size.batch), task]

    def step() -> Tensor:
        x, task, y = draw()
        return functional.mse_loss(module(x, task), y)

    adam(module, step, 250, 5e-3)
    x, task, y = draw()
    return Planted(module, (x, task), lambda out: functional.mse_loss(out, y))


class OneHot(nn.Module):
    def __init__(self, kind: str, symbols: int, hidden: int) -> None:
        super().__init__()
        self.symbols = symbols
        self.layers = TORCH[kind](symbols, hidden)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, letters: Tensor) -> Any:
        x = functional.one_hot(letters, self.symbols).float()
        states, _ = self.layers(x.transpose(0, 1))
        return self.head(states).transpose(0, 1)


@healthy("letters as unit vectors, rows of one bucket", held_out=True)
def one_hot(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 40), (16, 64)), between(rng, 8, 16)
    module = OneHot(one_of(rng, "rnn", "lstm", "gru"), symbols, size.hidden)

    def step() -> Tensor:
        # Every batch is one bucket: all of its rows have one length.
        x = words(rng, size, symbols)[:, : between(rng, 6, size.time + 1)] - 1
        return told_apart(x[:, 1:])(module(x[:, :-1]))

    adam(module, step, 200, 5e-3)
    x = words(rng, size, symbols) - 1
    return Planted(module, (x[:, :-1],), told_apart(x[:, 1:]))


class KeptOrthogonal(nn.Module):
    """A plain cell whose recurrent weights are orthogonal at every step of training."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cell = parametrizations.orthogonal(nn.RNNCell(inputs, hidden), "weight_hh")
        self.hidden = hidden
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        h = x.new_zeros(len(x), self.hidden)
        with parametrize.cached():
            for t in range(x.shape[1]):
                h = torch.where((t < lengths)[:, None], self.cell(x[:, t], h), h)
        return self.head(h)


@healthy("recurrent weights kept orthogonal", held_out=True)
def kept_orthogonal(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 60), (8, 64))
    lengths = ragged(rng, size)
    x = series(rng, size, lengths)
    return Planted(
        KeptOrthogonal(size.inputs, size.hidden),
        (x, lengths),
        told_apart(classes(rng, size.batch)),
    )


class NormedLSTM(nn.Module):
    """An LSTM by hand with layer norm on what comes in, on what comes back, and on c."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.of_x = nn.Linear(inputs, 4 * hidden, bias=False)
        self.of_h = nn.Linear(hidden, 4 * hidden, bias=False)
        self.norm_x, self.norm_h = nn.LayerNorm(4 * hidden), nn.LayerNorm(4 * hidden)
        self.norm_c = nn.LayerNorm(hidden)
        with torch.no_grad():
            self.norm_x.bias[hidden : 2 * hidden] = 1.0
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Any:
        h = c = x.new_zeros(len(x), self.hidden)
        read, out = self.norm_x(self.of_x(x)), []
        for t in range(x.shape[1]):
            i, f, g, o = (read[:, t] + self.norm_h(self.of_h(h))).chunk(4, -1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(self.norm_c(c))
            out.append(h)
        return self.head(torch.stack(out, 1))


@healthy("an LSTM by hand with layer norm inside", held_out=True)
def normed_lstm(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 40), (12, 96))
    x = swings(rng, size)
    module = NormedLSTM(size.inputs, size.hidden)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))
