"""Healthy models that write one sequence from another, or solve a puzzle, written blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.blind_well_parts import (
    IGNORED,
    LOWEST,
    Loss,
    at_last,
    floats,
    fresh,
    layer_of,
    lengths_of,
    mean_where,
    packed,
    tables,
    tagged,
    text,
    trained,
    valid,
    whole,
    width,
)
from tests.faults.held_out_parts import between
from tests.faults.plant import Planted, healthy


class Summariser(nn.Module):
    """Writes words of its own or copies those of the source (See et al. 2017)."""

    def __init__(self, symbols: int, size: int, hidden: int) -> None:
        super().__init__()
        self.symbols = symbols
        self.words = nn.Embedding(symbols, size, padding_idx=0)
        self.encoder = nn.LSTM(size, hidden, batch_first=True, bidirectional=True)
        self.first_h, self.first_c = nn.Linear(2 * hidden, hidden), nn.Linear(2 * hidden, hidden)
        self.cell = nn.LSTMCell(size + 2 * hidden, hidden)
        self.keys = nn.Linear(2 * hidden, hidden, bias=False)
        self.asks = nn.Linear(2 * hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.out = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.Linear(hidden, symbols))
        self.writes = nn.Linear(4 * hidden + size, 1)

    def forward(self, source: Tensor, lengths: Tensor, written: Tensor) -> Tensor:
        """Return log probabilities [B, U, V] of the words after those written so far [B, U]."""
        states, (h_n, c_n) = packed(self.encoder, self.words(source), lengths)
        h = torch.relu(self.first_h(torch.cat([h_n[0], h_n[1]], dim=1)))
        c = torch.relu(self.first_c(torch.cat([c_n[0], c_n[1]], dim=1)))
        padding = ~valid(lengths, source.shape[1])
        keys, context = self.keys(states), states.new_zeros(len(states), states.shape[2])
        given = []
        for word in self.words(written).unbind(dim=1):
            h, c = self.cell(torch.cat([word, context], dim=1), (h, c))
            asked = self.asks(torch.cat([h, c], dim=1))[:, None]
            scores = self.score(torch.tanh(keys + asked)).squeeze(-1)
            weights = scores.masked_fill(padding, LOWEST).softmax(dim=1)
            context = (weights[..., None] * states).sum(dim=1)
            share = torch.sigmoid(self.writes(torch.cat([context, h, c, word], dim=1)))
            words = share * self.out(torch.cat([h, context], dim=1)).softmax(dim=1)
            words = words.scatter_add(1, source, (1 - share) * weights)
            given.append(torch.log(words + 1e-8))
        return torch.stack(given, dim=1)


@healthy("summaries of own and of copied words", held_out=True)
def summaries(rng: np.random.Generator) -> Planted:
    time, written = between(rng, 10, 40), between(rng, 3, 7)
    symbols = between(rng, 24, 50)

    def draw(rows: int) -> tuple[Any, Loss]:
        # The summary is the list of the first words that are names, the last quarter of all.
        lengths = lengths_of(rng, rows, time, 6)
        source = rng.integers(3, symbols, (rows, time))
        answers = np.full((rows, written), 2)
        for row, length in enumerate(lengths.tolist()):
            names = [word for word in source[row, :length] if word >= 0.75 * symbols]
            answers[row, : min(len(names), written)] = names[:written]
        after = np.concatenate([np.zeros((rows, 1), bool), answers[:, :-1] == 2], 1)
        begun = np.concatenate([np.ones((rows, 1), int), answers[:, :-1]], 1)
        tags = whole(np.where(after, IGNORED, answers))
        source_padded = torch.where(valid(lengths, time), whole(source), 0)

        def loss(given: Any) -> Tensor:
            return functional.nll_loss(given.flatten(0, 1), tags.flatten(), ignore_index=IGNORED)

        return (source_padded, lengths, whole(begun)), loss

    model = Summariser(symbols, between(rng, 16, 48), width(rng, 16, 100))
    return fresh(rng, model, draw, causal=False)


class Voice(nn.Module):
    """Frames of speech from letters: a pre-net, attention and two cells (Wang et al. 2017)."""

    def __init__(self, letters: int, hidden: int, bands: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, 32, padding_idx=0)
        self.encoder = nn.GRU(32, hidden, batch_first=True, bidirectional=True)
        self.pre = nn.Sequential(
            nn.Linear(bands, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 32), nn.ReLU()
        )
        self.attends = nn.GRUCell(32 + 2 * hidden, hidden)
        self.keys = nn.Linear(2 * hidden, hidden, bias=False)
        self.asks = nn.Linear(hidden, hidden)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.mix = nn.Linear(3 * hidden, hidden)
        self.speaks = nn.GRUCell(hidden, hidden)
        self.frame = nn.Linear(hidden, bands)

    def forward(self, letters: Tensor, lengths: Tensor, before: Tensor) -> Tensor:
        """Return frames [B, U, D], each from the one before it in `before` [B, U, D]."""
        memory, _ = packed(self.encoder, self.letters(letters), lengths)
        padding, keys = ~valid(lengths, letters.shape[1]), self.keys(memory)
        h = d = memory.new_zeros(len(memory), self.frame.in_features)
        context, frames = torch.zeros_like(memory[:, 0]), []
        for frame in self.pre(before).unbind(dim=1):
            h = self.attends(torch.cat([frame, context], dim=1), h)
            scores = self.score(torch.tanh(keys + self.asks(h)[:, None])).squeeze(-1)
            weights = scores.masked_fill(padding, LOWEST).softmax(dim=1)
            context = (weights[..., None] * memory).sum(dim=1)
            mixed = self.mix(torch.cat([h, context], dim=1))
            d = self.speaks(mixed, d)
            frames.append(self.frame(mixed + d))
        return torch.stack(frames, dim=1)


@healthy("frames of speech from letters", held_out=True)
def voice(rng: np.random.Generator) -> Planted:
    time, bands, letters = between(rng, 5, 16), between(rng, 6, 16), 20
    sounds = rng.standard_normal((letters, 2, bands))

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time)
        own = valid(lengths, time)
        spelled = torch.where(own, whole(rng.integers(1, letters, (rows, time))), 0)
        frames = floats(sounds[spelled.numpy()]).flatten(1, 2)
        frames = frames + 0.1 * torch.randn_like(frames)
        spoken = own.repeat_interleave(2, dim=1)
        frames = torch.where(spoken[..., None], frames, 0.0)
        before = functional.pad(frames[:, :-1], (0, 0, 1, 0))

        def loss(given: Any) -> Tensor:
            return mean_where((given - frames).abs().mean(-1), spoken)

        return (spelled, lengths, before), loss

    return fresh(rng, Voice(letters, width(rng, 16, 80), bands), draw, causal=False)


class Dialogue(nn.Module):
    """A cell over turns between an encoder and a decoder of words (Serban et al. 2016)."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 32, padding_idx=0)
        self.encoder = nn.GRU(32, hidden, batch_first=True)
        self.context = nn.GRU(hidden, hidden, batch_first=True)
        self.bridge = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh())
        self.decoder = nn.GRU(32, hidden, batch_first=True)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, turns: Tensor, lengths: Tensor, replies: Tensor) -> Any:
        """Return logits [B, U, T, V] of the words after those begun in `replies` [B, U, T]."""
        rows, count = turns.shape[:2]
        words = self.words(turns.flatten(0, 1))
        _, said = packed(self.encoder, words, lengths.flatten())
        context, _ = self.context(said[0].view(rows, count, -1))
        first = self.bridge(context).flatten(0, 1)[None]
        states, _ = self.decoder(self.words(replies.flatten(0, 1)), first)
        return self.out(states).view(rows, count, replies.shape[2], -1)


@healthy("replies in a dialogue of turns", held_out=True)
def dialogue(rng: np.random.Generator) -> Planted:
    time, turns, symbols = between(rng, 4, 10), between(rng, 2, 5), between(rng, 15, 40)
    chances = tables(rng, 3, symbols)

    def draw(rows: int) -> tuple[Any, Loss]:
        subject = np.repeat(rng.integers(0, 3, rows), turns + 1)
        x = text(rng, chances, rows * (turns + 1), time, subject)[0] + 2
        x = x.reshape(rows, turns + 1, time)
        lengths = whole(rng.integers(2, time + 1, (rows, turns + 1)))
        lengths[0] = time
        own = torch.arange(time) < lengths[..., None]
        words = torch.where(own, whole(x), 0)
        begun = functional.pad(words[:, 1:, :-1], (1, 0), value=1)
        replies = torch.where(own[:, 1:], begun, 0)
        tags = torch.where(own[:, 1:], words[:, 1:], IGNORED)
        return (words[:, :-1], lengths[:, :-1], replies), tagged(tags)

    return fresh(rng, Dialogue(symbols + 2, width(rng, 16, 128)), draw, causal=False)


class Adder(nn.Module):
    """Log odds of the digits of a sum, least significant digit first."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.digit = nn.Linear(hidden, 1)

    def forward(self, digits: Tensor) -> Any:
        return self.digit(self.layer(digits)[0]).squeeze(-1)


@healthy("binary numbers added digit by digit", held_out=True)
def adder(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 8, 16), width(rng, 12, 40)

    def draw(rows: int) -> tuple[Any, Loss]:
        digits = rng.integers(0, 2, (rows, time, 2))
        carry, total = np.zeros(rows, int), []
        for t in range(time):
            both = digits[:, t].sum(1) + carry
            total.append(both % 2)
            carry = both // 2
        answers = floats(np.stack(total, 1))
        x = floats(2 * digits - 1)
        return (x,), lambda odds: functional.binary_cross_entropy_with_logits(odds, answers)

    model = Adder(layer_of(rng, 2, hidden), hidden)
    return trained(rng, model, draw, steps=350, held_back=True, causal=True)


class LastState(nn.Module):
    """Classes of rows of symbols, from the state at the last of them."""

    def __init__(self, layer: nn.Module, symbols: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, 16, padding_idx=0)
        self.layer = layer
        self.out = nn.Sequential(nn.Linear(hidden, 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, symbols: Tensor, lengths: Tensor) -> Any:
        states, _ = packed(self.layer, self.symbols(symbols), lengths)
        return self.out(at_last(states, lengths))


@healthy("does the probe match the sample", held_out=True)
def delayed_match(rng: np.random.Generator) -> Planted:
    time, hidden, samples = between(rng, 5, 10), width(rng, 24, 56), 3

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 3)
        x = rng.integers(samples + 1, samples + 4, (rows, time))
        x[:, 0] = rng.integers(1, samples + 1, rows)
        same = rng.random(rows) < 0.5
        other = (x[:, 0] - 1 + rng.integers(1, samples, rows)) % samples + 1
        x[np.arange(rows), lengths.numpy() - 1] = np.where(same, x[:, 0], other)
        return (torch.where(valid(lengths, time), whole(x), 0), lengths), tagged(whole(same))

    layer = layer_of(rng, 16, hidden, kinds=("gru", "lstm"))
    model = LastState(layer, samples + 4, hidden, 2)
    return trained(rng, model, draw, steps=350)


@healthy("the order of two marks far apart", held_out=True)
def temporal_order(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 10, 18), width(rng, 20, 56)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths, row = lengths_of(rng, rows, time, 8), np.arange(rows)
        x = rng.integers(3, 8, (rows, time))
        first, second = rng.integers(1, 3, rows), rng.integers(1, 3, rows)
        half = lengths.numpy() // 2
        x[row, rng.integers(0, half)] = first
        x[row, rng.integers(half, lengths.numpy())] = second
        batch = (torch.where(valid(lengths, time), whole(x), 0), lengths)
        return batch, tagged(whole(2 * first + second - 3))

    layer = layer_of(rng, 16, hidden, kinds=("gru", "lstm"))
    return trained(rng, LastState(layer, 8, hidden, 4), draw, steps=350, held_back=True)


class FlipFlops(nn.Module):
    """Three memories of the sign of the last pulse, steps first (Sussillo and Barak 2013)."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.out = nn.Linear(hidden, 3)

    def forward(self, pulses: Tensor) -> Any:
        return self.out(self.layer(pulses)[0])


@healthy("three flip-flops", held_out=True)
def flip_flops(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 16, 32), width(rng, 24, 64)

    def draw(rows: int) -> tuple[Any, Loss]:
        pulses = rng.choice([-1, 1], (time, rows, 3)) * (rng.random((time, rows, 3)) < 0.25)
        held, states = np.zeros((rows, 3)), []
        for pulse in pulses:
            held = np.where(pulse != 0, pulse, held)
            states.append(held)
        target = floats(np.stack(states))
        return (floats(pulses),), lambda given: functional.mse_loss(given, target)

    layer = layer_of(rng, 3, hidden, batch_first=False)
    return trained(rng, FlipFlops(layer, hidden), draw, steps=220, causal=True, batch_first=False)


class Cortex(nn.Module):
    """Leaky units that weigh the evidence which the context asks for (Mante et al. 2013)."""

    def __init__(self, hidden: int, leak: float) -> None:
        super().__init__()
        self.hidden, self.leak = hidden, leak
        self.cell = nn.RNNCell(4, hidden)
        self.choice = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the choice's log odds [T, B] from x [T, B, 4]."""
        h, choices = x.new_zeros(x.shape[1], self.hidden), []
        for x_t in x:
            h = (1 - self.leak) * h + self.leak * self.cell(x_t, h)
            choices.append(self.choice(h).squeeze(1))
        return torch.stack(choices)


@healthy("leaky units that gather the evidence asked for", held_out=True)
def cortex(rng: np.random.Generator) -> Planted:
    time = between(rng, 12, 20)
    decides = 2 * time // 3

    def draw(rows: int) -> tuple[Any, Loss]:
        context = rng.integers(0, 2, rows)
        strength = rng.choice([-1, 1], (rows, 2)) * rng.uniform(0.3, 0.8, (rows, 2))
        evidence = strength + 0.8 * rng.standard_normal((time, rows, 2))
        asked = np.broadcast_to(np.eye(2)[context], (time, rows, 2))
        right = floats(strength[np.arange(rows), context] > 0).expand(time - decides, -1)

        def loss(odds: Any) -> Tensor:
            return functional.binary_cross_entropy_with_logits(odds[decides:], right)

        return (floats(np.concatenate([evidence, asked], -1)),), loss

    model = Cortex(width(rng, 24, 64), float(rng.uniform(0.25, 0.5)))
    return trained(rng, model, draw, steps=300, causal=True, batch_first=False)
