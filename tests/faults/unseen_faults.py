"""Held-out faults of the second set: padding, order in time, rows, state. Written unseen."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    Sizes,
    between,
    classes,
    forecast,
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
from tests.faults.plant import Planted, fault

WIDE = (6, 160)


def texts(rng: np.random.Generator, size: Sizes, symbols: int) -> tuple[Tensor, Tensor]:
    """Tokens [B, T] with 0 behind a row's end, and lengths [B]."""
    lengths = ragged(rng, size)
    return words(rng, size, symbols)[:, : size.time] * inside(lengths, size.time), lengths


def at_end(h: Tensor, lengths: Tensor) -> Tensor:
    return h[torch.arange(len(h)), lengths - 1]


class Positioned(nn.Module):
    """Tells each step how far through its row it is."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 12, padding_idx=0)
        self.rnn = recurrent(rng, 13, size.hidden, between(rng, 1, 2))
        self.fc = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        steps = torch.arange(tokens.shape[1], dtype=torch.float32).expand(tokens.shape)
        last = lengths[:, None] - 1 if self.right else tokens.shape[1] - 1
        share = (steps / last).unsqueeze(-1)
        h = over(self.rnn, torch.cat([self.embedding(tokens), share], dim=-1), lengths)
        return self.fc(at_end(h, lengths))


@fault("steps counted as a share of the padded length", "HS102", held_out=True)
def share_of_padded(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 30), WIDE), between(rng, 10, 40)
    module = Positioned(rng, size, symbols, remedied)
    return Planted(module, texts(rng, size, symbols), told_apart(classes(rng, size.batch)))


class Halved(nn.Module):
    """A convolution takes every second frame; the layer above reads what is left."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(size.inputs, 16, 3, stride=2, padding=1)
        both = bool(rng.random() < 0.5)
        self.rnn = recurrent(
            rng, 16, size.hidden, between(rng, 1, 2), kinds=("lstm", "gru"), bidirectional=both
        )
        self.fc = nn.Linear(size.hidden * (1 + both), CLASSES)
        self.right = right

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        frames = frames * inside(lengths, frames.shape[1])[..., None]
        x = functional.relu(self.conv(frames.transpose(1, 2))).transpose(1, 2)
        left = (lengths + 1) // 2 if self.right else lengths.clamp(max=x.shape[1])
        h = over(self.rnn, x, left)
        return self.fc(h.sum(dim=1) / left[:, None])


@fault("lengths not halved with the frames", "HS101", "HS102", held_out=True)
def not_halved(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (12, 40), WIDE)
    lengths = ragged(rng, size)
    x = series(rng, size, lengths)
    module = Halved(rng, size, remedied)
    return Planted(module, (x, lengths), told_apart(classes(rng, size.batch)))


class Crf(nn.Module):
    """Tagger with a chain of tags on top; gives each row's negative log likelihood [B]."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.rnn = recurrent(rng, 16, size.hidden, kinds=("lstm", "gru"), bidirectional=True)
        self.hidden2tag = nn.Linear(2 * size.hidden, CLASSES)
        self.transitions = nn.Parameter(0.1 * torch.randn(CLASSES, CLASSES))
        self.right = right

    def forward(self, tokens: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        scores = self.hidden2tag(over(self.rnn, self.embedding(tokens), lengths))
        real = inside(lengths, tokens.shape[1]) if self.right else torch.ones_like(tokens).bool()
        given = scores.gather(2, tags.unsqueeze(-1)).squeeze(-1)
        gold = (given * real).sum(dim=1)
        gold = gold + (self.transitions[tags[:, :-1], tags[:, 1:]] * real[:, 1:]).sum(dim=1)
        alpha = scores[:, 0]
        for t in range(1, tokens.shape[1]):
            new = (alpha.unsqueeze(2) + self.transitions).logsumexp(dim=1) + scores[:, t]
            alpha = torch.where(real[:, t, None], new, alpha)
        return alpha.logsumexp(dim=1) - gold


@fault("a chain of tags that goes on through the padding", "HS101", "HS102", held_out=True)
def chain_through_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 20), WIDE), between(rng, 10, 40)
    tokens, lengths = texts(rng, size, symbols)
    module = Crf(rng, size, symbols, remedied)
    return Planted(module, (tokens, lengths, tokens % CLASSES), lambda y: y.mean())


class AtLeastOne(nn.Module):
    """Reads rows of which some have no step at all."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.fc = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        some = lengths.clamp(min=1)
        h = at_end(over(self.rnn, x, some), some)
        if self.right:
            h = h.masked_fill(lengths[:, None] == 0, 0.0)
        return self.fc(h)


@fault(
    "a row without steps read as one of padding",
    "HS101",
    "HS105",
    source="pytorch/pytorch #4582",
    held_out=True,
)
def read_as_one(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (6, 30), WIDE)
    lengths = ragged(rng, size)
    lengths[lengths.argmin()] = 0
    x = series(rng, size, lengths)
    module = AtLeastOne(rng, size, remedied)
    return Planted(module, (x, lengths), told_apart(classes(rng, size.batch)))


class Tagger(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        self.rnn = recurrent(rng, 16, size.hidden, between(rng, 1, 2), kinds=("lstm", "gru"))
        self.out = nn.Linear(size.hidden, symbols)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.out(over(self.rnn, self.embedding(tokens), lengths))


@fault("label smoothing that counts padding", "HS104", held_out=True)
def smoothed_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 25), WIDE), between(rng, 10, 40)
    tokens, lengths = texts(rng, size, symbols)
    answers = functional.pad(tokens, (0, 1))[:, 1:]
    real, share = inside(lengths, size.time), float(rng.uniform(0.05, 0.2))

    def loss(scores: Tensor) -> Tensor:
        logs = scores.log_softmax(dim=-1)
        hit = -logs.gather(2, answers.unsqueeze(-1)).squeeze(-1)
        even = -logs.mean(dim=-1)
        spread = even[real].mean() if remedied else even.mean()
        return (1 - share) * hit[real].mean() + share * spread

    return Planted(Tagger(rng, size, symbols), (tokens, lengths), loss)


class Differenced(nn.Module):
    """Reads each value and how much it has changed since the step before."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, 2 * size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        before = torch.roll(x, 1, dims=1)
        if self.right:
            before = torch.cat([x[:, :1], before[:, 1:]], dim=1)
        return self.head(self.rnn(torch.cat([x, x - before], dim=-1))[0])


@fault("the step before taken with torch.roll", "HS111", held_out=True)
def rolled(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (10, 40), WIDE)
    return forecast(rng, Differenced(rng, size, remedied), size)


class Filled(nn.Module):
    """Fills what was not measured with a neighbour's value."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, 2 * size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right

    def forward(self, values: Tensor, observed: Tensor) -> Tensor:
        last = values.shape[1] - 1
        steps = torch.arange(last + 1)[None, :, None].expand(values.shape)
        if self.right:
            source = torch.where(observed > 0, steps, 0).cummax(dim=1).values
        else:
            ahead = torch.where(observed > 0, steps, last).flip(1)
            source = ahead.cummin(dim=1).values.flip(1)
        filled = values.gather(1, source)
        return self.head(self.rnn(torch.cat([filled, observed], dim=-1))[0])


@fault("gaps filled from the value after them", "HS111", held_out=True)
def filled_back(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (12, 40), WIDE)
    x = swings(rng, size)
    chance = rng.uniform(0.3, 0.7)
    observed = torch.as_tensor(rng.random(x[:, 1:].shape) < chance, dtype=torch.float32)
    module = Filled(rng, size, remedied)
    batch = (x[:, :-1] * observed, observed)
    return Planted(module, batch, lambda y: functional.mse_loss(y, x[:, 1:]))


class PackedData(nn.Module):
    """Packs its rows, all of one length, and wants [B, T, H] back."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.full((x.shape[0],), x.shape[1])
        output: PackedSequence = self.rnn(pack_padded_sequence(x, lengths, batch_first=True))[0]
        if self.right:
            h = pad_packed_sequence(output, batch_first=True)[0]
        else:
            h = output.data.view(x.shape[0], x.shape[1], -1)
        return self.head(h)


@fault("data of a PackedSequence viewed as rows", "HS121", "HS125", held_out=True)
def packed_data(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 40), WIDE)
    return forecast(rng, PackedData(rng, size, remedied), size)


class Compared(nn.Module):
    """Two texts, each sorted by its own lengths for one encoder."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 12, padding_idx=0)
        self.rnn = recurrent(rng, 12, size.hidden, kinds=("lstm", "gru"))
        self.fc = nn.Linear(2 * size.hidden, 2)
        self.right = right

    def encode(self, text: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        ordered, order = lengths.sort(descending=True)
        h = at_end(over(self.rnn, self.embedding(text[order]), ordered), ordered)
        return h, order.argsort()

    def forward(self, a: Tensor, a_lengths: Tensor, b: Tensor, b_lengths: Tensor) -> Tensor:
        u, back = self.encode(a, a_lengths)
        v, other_back = self.encode(b, b_lengths)
        v = v[other_back] if self.right else v[back]
        return self.fc(torch.cat([(u[back] - v).abs(), u[back] * v], dim=1))


@fault("second text put back in the first one's order", "HS121", "HS123", "HS124", held_out=True)
def order_of_other(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 25), WIDE), between(rng, 10, 40)
    batch = (*texts(rng, size, symbols), *texts(rng, size, symbols))
    answers = torch.as_tensor(rng.integers(0, 2, size.batch))
    return Planted(Compared(rng, size, symbols, remedied), batch, told_apart(answers))


class Clocked(nn.Module):
    """forward(x, state): sines of the step's number beside each value; for streams."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        kind = TORCH[one_of(rng, "rnn", "gru")]
        self.rnn = kind(size.inputs + 4, size.hidden, between(rng, 1, 2), batch_first=True)
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | Tensor]:
        begun = x.new_zeros(x.shape[0])
        h = state
        if isinstance(state, tuple):
            h, begun = state
        steps = begun[:, None, None] + torch.arange(x.shape[1])[:, None]
        angles = steps / torch.tensor([3.0, 20.0])
        y, h = self.rnn(torch.cat([x, angles.sin(), angles.cos()], dim=-1), h)
        return self.head(y), (h, begun + x.shape[1]) if self.right else h


@fault("the count of steps begun anew in every chunk", "HS131", held_out=True)
def counted_anew(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (10, 40), WIDE)
    x = swings(rng, size)
    module = Clocked(rng, size, remedied)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y[0], x[:, 1:]))


class Tossing(nn.Module):
    """Decoder that reads the answer or its own word, as a coin falls."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 12)
        self.encoder = TORCH["gru"](12, size.hidden, batch_first=True)
        self.cell = nn.GRUCell(12, size.hidden)
        self.out = nn.Linear(size.hidden, symbols)
        self.share, self.right = float(rng.uniform(0.3, 0.7)), right
        self.of_torch = bool(rng.random() < 0.5)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        h = self.encoder(self.embedding(source))[1][-1]
        word, scores = target[:, 0], []
        for t in range(target.shape[1] - 1):
            h = self.cell(self.embedding(word), h)
            scores.append(self.out(h))
            coin = torch.rand(1).item() if self.of_torch else random.random()
            forced = coin < self.share and (self.training or not self.right)
            word = target[:, t + 1] if forced else scores[-1].argmax(dim=-1)
        return torch.stack(scores, dim=1)


@fault("teacher forcing by a coin in eval mode", "HS151", "HS152", held_out=True)
def tossed(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 20), WIDE), between(rng, 8, 20)
    source = words(rng, size, symbols)
    target = torch.cat([torch.zeros_like(source[:, :1]), source.flip(1)], dim=1)
    module = Tossing(rng, size, symbols, remedied)
    return Planted(module, (source, target), told_apart(target[:, 1:]))
