"""Held-out faults of time: read too early, too late, not at all, or from a wrong state."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import (
    CLASSES,
    Sizes,
    adam,
    between,
    classes,
    forecast,
    over,
    ragged,
    recurrent,
    series,
    sizes,
    told_apart,
    words,
)
from tests.faults.plant import Planted, fault


class Forecaster(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right


class Filtered(Forecaster):
    """Takes out what is fast: by a running mean, or by the spectrum of the whole row."""

    def forward(self, x: Tensor) -> Tensor:
        if self.right:
            count = torch.arange(1, x.shape[1] + 1).clamp(max=3).view(1, -1, 1)
            padded = functional.pad(x, (0, 0, 2, 0))
            slow = (padded[:, 2:] + padded[:, 1:-1] + padded[:, :-2]) / count
        else:
            spectrum = torch.fft.rfft(x, dim=1)
            spectrum[:, spectrum.shape[1] // 2 :] = 0
            slow = torch.fft.irfft(spectrum, n=x.shape[1], dim=1)
        return self.head(self.rnn(slow)[0])


@fault("a low-pass filter over the whole row", "HS111", held_out=True)
def filtered(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return forecast(rng, Filtered(rng, size, remedied), size)


class LayerNormed(Forecaster):
    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__(rng, size, right)
        self.norm = nn.LayerNorm(size.hidden if right else [size.time, size.hidden])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.rnn(x)[0]))


@fault("layer norm over the steps and the units", "HS111", held_out=True)
def normed_over_steps(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return forecast(rng, LayerNormed(rng, size, remedied), size)


class SelfAttention(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        width = 4 * max(2, size.hidden // 4)
        self.embedding = nn.Embedding(symbols, 16)
        self.rnn = recurrent(rng, 16, width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, symbols)
        self.right = right

    def forward(self, tokens: Tensor) -> Tensor:
        h, _ = self.rnn(self.embedding(tokens))
        steps = tokens.shape[1]
        later = torch.triu(torch.ones(steps, steps), diagonal=1)
        mask = later.bool() if self.right else later
        seen, _ = self.attention(h, h, h, attn_mask=mask, need_weights=False)
        return self.head(h + seen)


@fault("a causal mask of numbers where true and false were meant", "HS111", held_out=True)
def mask_of_numbers(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng), between(rng, 12, 40)
    tokens = words(rng, size, symbols)
    module = SelfAttention(rng, size, symbols, remedied)
    return Planted(module, (tokens[:, :-1],), told_apart(tokens[:, 1:]))


class Language(nn.Module):
    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 24)
        self.rnn = recurrent(rng, 24, hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(tokens))[0])


@fault("a language model that is asked for its own input", "HS106", "HS141", "HS608", held_out=True)
def own_input(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (10, 25), (16, 64)), between(rng, 12, 30)
    module = Language(rng, symbols, size.hidden)

    def asked(tokens: Tensor) -> Tensor:
        return tokens[:, 1:] if remedied else tokens[:, :-1]

    def value() -> Tensor:
        tokens = words(rng, size, symbols)
        return told_apart(asked(tokens))(module(tokens[:, :-1]))

    adam(module, value, 60, 1e-2)
    tokens = words(rng, size, symbols)
    return Planted(module, (tokens[:, :-1],), told_apart(asked(tokens)))


class Translator(nn.Module):
    """Reads a source and writes a target, fed with what it should have written before."""

    def __init__(self, symbols: int, hidden: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16)
        self.encoder = nn.GRU(16, hidden, batch_first=True)
        self.decoder = nn.GRU(16, hidden, batch_first=True)
        self.head = nn.Linear(hidden, symbols)
        self.right = right

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.embedding(source))
        if self.right:
            start = torch.zeros_like(target[:, :1])
            target = torch.cat([start, target[:, :-1]], dim=1)
        h, _ = self.decoder(self.embedding(target), state)
        return self.head(h)


@fault("a decoder fed with the answer of the same step", "HS106", "HS111", "HS608", held_out=True)
def fed_the_answer(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (6, 14), (16, 64)), between(rng, 8, 20)
    module = Translator(symbols, size.hidden, remedied)

    def value() -> Tensor:
        source = words(rng, size, symbols)
        target = source.flip(1)
        return told_apart(target)(module(source, target))

    adam(module, value, 60, 1e-2)
    source = words(rng, size, symbols)
    target = source.flip(1)
    return Planted(module, (source, target), told_apart(target))


class FirstOfBoth(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        layers = between(rng, 1, 2)
        self.rnn = recurrent(rng, size.inputs, size.hidden, layers, bidirectional=True)
        self.head = nn.Linear(2 * size.hidden, CLASSES)
        self.hidden, self.right = size.hidden, right

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.rnn(x)
        if self.right:
            h = torch.cat([h[:, -1, : self.hidden], h[:, 0, self.hidden :]], dim=1)
        else:
            h = h[:, 0, :]
        return self.head(h)


@fault(
    "the first output of a layer that reads both ways",
    "HS432",
    "HS143",
    "HS144",
    "HS205",
    held_out=True,
)
def first_of_both(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = FirstOfBoth(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class PooledWords(nn.Module):
    """Attention over the layer's states, or by a slip over what the layer was given."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 2 * size.hidden, padding_idx=0)
        self.rnn = recurrent(rng, 2 * size.hidden, size.hidden, bidirectional=True)
        self.score = nn.Linear(2 * size.hidden, 1)
        self.head = nn.Linear(2 * size.hidden, CLASSES)
        self.right = right

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        output = over(self.rnn, embedded, lengths)
        pooled = output if self.right else embedded
        padding = torch.arange(tokens.shape[1]) >= lengths[:, None]
        scores = self.score(pooled).squeeze(-1).masked_fill(padding, -torch.inf)
        return self.head((scores.softmax(dim=1).unsqueeze(-1) * pooled).sum(dim=1))


@fault(
    "pooled over the embeddings and not over the states", "HS141", "HS142", "HS205", held_out=True
)
def pooled_embeddings(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, hidden=(8, 48)), between(rng, 12, 60)
    lengths = ragged(rng, size)
    tokens = words(rng, size, symbols)[:, : size.time]
    tokens = tokens * (torch.arange(size.time) < lengths[:, None])
    module = PooledWords(rng, size, symbols, remedied)
    return Planted(module, (tokens, lengths), told_apart(classes(rng, size.batch)))


class Folded(Forecaster):
    """Folds long rows into many short ones to read them side by side, then unfolds them."""

    window = 1

    def forward(self, x: Tensor) -> Tensor:
        batch, time, inputs = x.shape
        if not self.right:
            x = functional.pad(x, (0, 0, 0, -time % self.window)).reshape(-1, self.window, inputs)
        y = self.head(self.rnn(x)[0])
        return y.reshape(batch, -1, inputs)[:, :time]


@fault("long rows folded into the batch", "HS134", held_out=True)
def folded_rows(rng: np.random.Generator, remedied: bool) -> Planted:
    drawn = sizes(rng)
    window = between(rng, 4, 8)
    size = Sizes(drawn.batch, window * between(rng, 3, 6), drawn.inputs, drawn.hidden)
    module = Folded(rng, size, remedied)
    module.window = window
    return forecast(rng, module, size)
