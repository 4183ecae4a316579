"""Healthy models that name the class of a whole row, written blind."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.blind_well_parts import (
    LOWEST,
    Loss,
    at_last,
    floats,
    fresh,
    layer_of,
    lengths_of,
    packed,
    tables,
    tagged,
    text,
    trained,
    valid,
    waves,
    whole,
    width,
)
from tests.faults.held_out_parts import between
from tests.faults.plant import Planted, healthy


class DeepConvLSTM(nn.Module):
    """Four valid convolutions over time, then two LSTMs (Ordonez and Roggen 2016)."""

    def __init__(self, channels: int, filters: int, hidden: int, classes: int) -> None:
        super().__init__()
        widths = [channels, filters, filters, filters, filters]
        parts: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            parts += [nn.Conv1d(inputs, outputs, 5), nn.ReLU()]
        self.convolutions = nn.Sequential(*parts)
        self.lstm = nn.LSTM(filters, hidden, num_layers=2, batch_first=True, dropout=0.5)
        self.dropout = nn.Dropout(0.5)
        self.classes = nn.Linear(hidden, classes)

    def forward(self, window: Tensor) -> Any:
        features = self.convolutions(window.transpose(1, 2)).transpose(1, 2)
        states, _ = self.lstm(features)
        return self.classes(self.dropout(states[:, -1]))


@healthy("activities from windows of sensors", held_out=True)
def activities(rng: np.random.Generator) -> Planted:
    time, channels, classes = between(rng, 32, 100), between(rng, 3, 9), between(rng, 3, 6)

    def draw(rows: int) -> tuple[Any, Loss]:
        activity = rng.integers(0, classes, rows)
        speed = 0.2 + 0.25 * activity[:, None, None]
        phase = rng.uniform(0, 6, (rows, 1, channels))
        x = 1.3 * np.sin(speed * np.arange(time)[:, None] + phase)
        return (floats(x + 0.3 * rng.standard_normal(x.shape)),), tagged(whole(activity))

    model = DeepConvLSTM(channels, between(rng, 16, 64), width(rng, 24, 128), classes)
    return fresh(rng, model, draw)


class BeatClassifier(nn.Module):
    """One heartbeat, read both ways and summed up by additive attention."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.key = nn.Linear(2 * hidden, 16)
        self.score = nn.Linear(16, 1, bias=False)
        self.out = nn.Linear(2 * hidden, 3)

    def forward(self, beat: Tensor) -> Any:
        states, _ = self.layer(beat.unsqueeze(-1))
        weights = self.score(torch.tanh(self.key(states))).softmax(dim=1)
        return self.out((weights * states).sum(dim=1))


@healthy("the kind of a heartbeat", held_out=True)
def heartbeat(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 30, 48), width(rng, 8, 24)

    def wave(at: Any, wide: Any) -> Any:
        return np.exp(-0.5 * ((np.arange(time) - at) / wide) ** 2)

    def draw(rows: int) -> tuple[Any, Loss]:
        kind = rng.integers(0, 3, (rows, 1))
        peak = time * rng.uniform(0.42, 0.5, (rows, 1))
        early = wave(peak - 0.18 * time, 2.0) * np.where(kind == 1, -0.6, 0.6)
        wide = np.where(kind == 2, 3.2, 1.4)
        x = 3 * wave(peak, wide) + early + 0.8 * wave(peak + 0.3 * time, 3.0)
        x = x - 0.6 + 0.15 * rng.standard_normal((rows, time))
        return (floats(x),), tagged(whole(kind[:, 0]))

    layer = layer_of(rng, 1, hidden, kinds=("lstm", "gru"), bidirectional=True)
    return trained(rng, BeatClassifier(layer, hidden), draw, steps=150, causal=False)


class StructuredSelfAttention(nn.Module):
    """Several weighted sums of the states of one text (Lin et al. 2017)."""

    def __init__(self, symbols: int, hidden: int, hops: int, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 48, padding_idx=0)
        self.lstm = nn.LSTM(48, hidden, batch_first=True, bidirectional=True)
        self.first = nn.Linear(2 * hidden, 32, bias=False)
        self.second = nn.Linear(32, hops, bias=False)
        self.out = nn.Sequential(
            nn.Linear(2 * hidden * hops, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, classes)
        )

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [B, C] and weights [B, R, T]."""
        states, _ = packed(self.lstm, self.words(tokens), lengths)
        scores = self.second(torch.tanh(self.first(states))).transpose(1, 2)
        own = valid(lengths, tokens.shape[1])[:, None]
        weights = scores.masked_fill(~own, LOWEST).softmax(dim=-1)
        return self.out((weights @ states).flatten(1)), weights


@healthy("self-attention with several looks and a penalty for equal ones", held_out=True)
def several_looks(rng: np.random.Generator) -> Planted:
    time, classes, hops = between(rng, 10, 60), between(rng, 2, 4), between(rng, 2, 5)
    chances = tables(rng, classes, 30, 0.4)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 5)
        tokens, topic = text(rng, chances, rows, time)
        kind = whole(topic)

        def loss(given: Any) -> Any:
            logits, weights = given
            overlap = weights @ weights.transpose(1, 2) - torch.eye(weights.shape[1])
            return functional.cross_entropy(logits, kind) + 0.1 * overlap.square().mean()

        tokens = torch.where(valid(lengths, time), whole(tokens + 1), 0)
        return (tokens, lengths), loss

    model = StructuredSelfAttention(31, width(rng, 16, 128), hops, classes)
    return fresh(rng, model, draw, causal=False)


class TopicModel(nn.Module):
    """Log odds of several topics at once, from the maximum of the states."""

    def __init__(self, layer: nn.Module, symbols: int, hidden: int, topics: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 20, padding_idx=0)
        self.layer = layer
        self.topics = nn.Linear(hidden, topics)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        states, _ = packed(self.layer, self.words(tokens), lengths)
        own = valid(lengths, tokens.shape[1])[..., None]
        return self.topics(states.masked_fill(~own, LOWEST).amax(dim=1))


@healthy("several topics of one text", held_out=True)
def topics(rng: np.random.Generator) -> Planted:
    time, hidden, count = between(rng, 12, 24), width(rng, 24, 64), 3

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 8)
        tokens = rng.integers(1, 16, (rows, time))
        present = np.zeros((rows, count))
        for topic in range(count):
            # A topic is two words in a row; either of them alone may stand anywhere.
            for row in np.flatnonzero(rng.random(rows) < 0.5):
                at = 2 * int(rng.integers(0, lengths[row] // 2))
                tokens[row, at : at + 2] = 2 * topic + 1, 2 * topic + 2
        for topic in range(count):
            pair = (tokens[:, :-1] == 2 * topic + 1) & (tokens[:, 1:] == 2 * topic + 2)
            present[:, topic] = (pair & valid(lengths, time)[:, 1:].numpy()).any(1)
        target = floats(present)

        def loss(logits: Any) -> Tensor:
            return functional.binary_cross_entropy_with_logits(logits, target)

        return (torch.where(valid(lengths, time), whole(tokens), 0), lengths), loss

    layer = layer_of(rng, 20, hidden, kinds=("lstm", "gru"))
    return trained(rng, TopicModel(layer, 16, hidden, count), draw, steps=280)


class Severity(nn.Module):
    """Log odds [B, K - 1] that the grade is above 0, 1, ...: one score, ordered thresholds."""

    def __init__(self, layer: nn.Module, hidden: int, grades: int) -> None:
        super().__init__()
        self.layer = layer
        self.score = nn.Linear(hidden, 1)
        self.lowest = nn.Parameter(torch.tensor(-1.0))
        self.gaps = nn.Parameter(torch.full((grades - 2,), 0.5))

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        states, _ = packed(self.layer, x, lengths)
        gaps = functional.softplus(self.gaps).cumsum(0)
        thresholds = torch.cat([self.lowest[None], self.lowest + gaps])
        return self.score(at_last(states, lengths)) - thresholds


@healthy("grades of severity in their order", held_out=True)
def severity(rng: np.random.Generator) -> Planted:
    time, hidden, grades = between(rng, 12, 24), width(rng, 12, 32), 4

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 8)
        grade = rng.integers(0, grades, rows)
        x = 0.6 * rng.standard_normal((rows, time, 3)) + rng.standard_normal((rows, 1, 3)) * 0.4
        x[..., 0] += (grade[:, None] - 1.5) * np.sin(np.arange(time) / 2)
        above = floats(grade[:, None] > np.arange(grades - 1))
        x = x * valid(lengths, time).numpy()[..., None]

        def loss(logits: Any) -> Tensor:
            return functional.binary_cross_entropy_with_logits(logits, above)

        return (floats(x), lengths), loss

    layer = layer_of(rng, 3, hidden, kinds=("lstm", "gru"))
    model = Severity(layer, hidden, grades)
    return trained(rng, model, draw, steps=180, held_back=True)


class RecurrentConvolution(nn.Module):
    """Every word with what stands to its left and to its right (Lai et al. 2015)."""

    def __init__(self, symbols: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 40, padding_idx=0)
        self.context = nn.RNN(40, hidden, batch_first=True, bidirectional=True)
        self.latent = nn.Linear(2 * hidden + 40, 64)
        self.out = nn.Linear(64, classes)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        words = self.words(tokens)
        states, _ = packed(self.context, words, lengths)
        ahead, behind = states.chunk(2, dim=-1)
        left = functional.pad(ahead[:, :-1], (0, 0, 1, 0))
        right = functional.pad(behind[:, 1:], (0, 0, 0, 1))
        latent = torch.tanh(self.latent(torch.cat([left, words, right], dim=-1)))
        own = valid(lengths, tokens.shape[1])[..., None]
        return self.out(latent.masked_fill(~own, -1.0).amax(dim=1))


@healthy("every word between its two contexts", held_out=True)
def two_contexts(rng: np.random.Generator) -> Planted:
    time, classes = between(rng, 8, 40), between(rng, 2, 5)
    chances = tables(rng, classes, 25, 0.3)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 4)
        tokens, kind = text(rng, chances, rows, time)
        tokens = torch.where(valid(lengths, time), whole(tokens + 1), 0)
        return (tokens, lengths), tagged(whole(kind))

    model = RecurrentConvolution(26, width(rng, 16, 100), classes)
    return fresh(rng, model, draw, causal=False)


class NameOrigin(nn.Module):
    """A GRU cell over the letters of a name; a finished name keeps its state."""

    def __init__(self, letters: int, hidden: int, languages: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.letters = nn.Embedding(letters, 12, padding_idx=0)
        self.cell = nn.GRUCell(12, hidden)
        self.out = nn.Linear(hidden, languages)

    def forward(self, name: Tensor) -> Any:
        going_on = name != 0
        letters = self.letters(name)
        h = letters.new_zeros(len(name), self.hidden)
        for t in range(name.shape[1]):
            h = torch.where(going_on[:, t, None], self.cell(letters[:, t], h), h)
        return self.out(h)


@healthy("where a name comes from, letter by letter", held_out=True)
def names(rng: np.random.Generator) -> Planted:
    time, languages = between(rng, 7, 13), between(rng, 2, 4)
    chances = tables(rng, languages, 18, 0.3)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 4)
        letters, kind = text(rng, chances, rows, time)
        name = torch.where(valid(lengths, time), whole(letters + 1), 0)
        return (name,), tagged(whole(kind))

    model = NameOrigin(19, width(rng, 16, 48), languages)
    return trained(rng, model, draw, steps=200, held_back=True)


class KeywordSpotter(nn.Module):
    """Logits [B, T, K + 1] of no keyword and of each, at every frame of a stream."""

    def __init__(self, features: int, hidden: int, keywords: int) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(features, 24), nn.ReLU())
        self.gru = nn.GRU(24, hidden, batch_first=True)
        self.out = nn.Linear(hidden, keywords + 1)

    def forward(self, frames: Tensor) -> Any:
        return self.out(self.gru(self.front(frames))[0])


@healthy("a spotter of keywords in a stream", held_out=True)
def keywords(rng: np.random.Generator) -> Planted:
    time, features, count = between(rng, 20, 36), 6, 2
    shapes = 1.5 * rng.standard_normal((count, 6, features))

    def draw(rows: int) -> tuple[Any, Loss]:
        x = rng.standard_normal((rows, time, features)) * 0.7
        tags = np.zeros((rows, time), int)
        for row, word in enumerate(rng.integers(0, count + 1, rows)):
            if word:
                at = int(rng.integers(0, time - 9))
                x[row, at : at + 6] += shapes[word - 1]
                tags[row, at + 5 : at + 9] = word
        return (floats(x),), tagged(whole(tags))

    model = KeywordSpotter(features, width(rng, 12, 40), count)
    return trained(rng, model, draw, steps=200, causal=True)


class Sieve(nn.Module):
    """Three layers, each half as wide as the one below, over windows of several series."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        widths = [inputs, hidden, hidden // 2, hidden // 4]
        self.layers = nn.ModuleList(
            nn.GRU(below, above, batch_first=True) for below, above in pairwise(widths)
        )
        self.dropout = nn.Dropout(0.2)
        self.out = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Any:
        for layer in self.layers:
            x = self.dropout(layer(x)[0])
        return self.out(x[:, -1])


@healthy("layers that narrow towards the top", held_out=True)
def sieve(rng: np.random.Generator) -> Planted:
    time, inputs = between(rng, 10, 30), between(rng, 2, 6)

    def draw(rows: int) -> tuple[Any, Loss]:
        x = waves(rng, rows, time, inputs)
        rising = (x[:, -1].sum(1) > x[:, -4].sum(1)).astype(int)
        return (floats(x),), tagged(whole(rising))

    return fresh(rng, Sieve(inputs, 4 * between(rng, 12, 48), 2), draw)
