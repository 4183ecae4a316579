"""Healthy models that say something at every step, written blind."""

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


class IntentAndSlots(nn.Module):
    """What a request is about, and the part that each of its words plays."""

    def __init__(self, encoder: nn.Module, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 24, padding_idx=0)
        self.encoder = encoder
        self.dropout = nn.Dropout(0.1)
        self.slots = nn.Linear(2 * hidden, 4)
        self.intent = nn.Linear(2 * hidden, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        states, final = packed(self.encoder, self.embedding(tokens), lengths)
        final = final[0] if isinstance(final, tuple) else final
        summary = torch.cat([final[-2], final[-1]], dim=1)
        return {
            "slots": self.slots(self.dropout(states)),
            "intent": self.intent(self.dropout(summary)),
        }


@healthy("intent and slots of a request", held_out=True)
def intent_and_slots(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 8, 18), width(rng, 16, 40)
    encoder = layer_of(rng, 24, hidden, kinds=("lstm", "gru"), bidirectional=True)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 4)
        tokens = rng.integers(4, 30, (rows, time))
        verb = rng.integers(1, 4, rows)
        tokens[np.arange(rows), rng.integers(0, lengths.numpy())] = verb
        before = np.concatenate([np.zeros((rows, 1), int), tokens[:, :-1]], 1)
        asked = (before >= 4) & (before < 14)
        slots = np.where(asked & (tokens >= 4), 1 + tokens % 3, 0)
        own = valid(lengths, time)
        slot_tags = torch.where(own, whole(slots), IGNORED)
        intent = whole(verb - 1)

        def loss(given: Any) -> Tensor:
            said = functional.cross_entropy(given["intent"], intent)
            return said + tagged(slot_tags)(given["slots"])

        return (torch.where(own, whole(tokens), 0), lengths), loss

    return trained(rng, IntentAndSlots(encoder, 30, hidden), draw, steps=180, causal=False)


class Capitals(nn.Module):
    """Log odds that a letter was a capital."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.letters = nn.Embedding(symbols, 16, padding_idx=0)
        self.lstm = nn.LSTM(16, hidden, 2, batch_first=True, bidirectional=True, dropout=0.3)
        self.out = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, letters: Tensor, lengths: Tensor) -> Any:
        states, _ = packed(self.lstm, self.letters(letters), lengths)
        return self.out(states).squeeze(-1)


@healthy("capitals put back into a text", held_out=True)
def capitals(rng: np.random.Generator) -> Planted:
    time = between(rng, 20, 80)
    chances = tables(rng, 1, 28, 0.5)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 8)
        letters = text(rng, chances, rows, time)[0] + 1
        stop = np.concatenate([np.ones((rows, 1), bool), letters[:, :-1] <= 3], 1)
        own = valid(lengths, time)
        target = floats(stop)

        def loss(logits: Any) -> Tensor:
            each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            return mean_where(each, own)

        return (torch.where(own, whole(letters), 0), lengths), loss

    return fresh(rng, Capitals(29, width(rng, 24, 128)), draw, causal=False)


class SleepStager(nn.Module):
    """A convolution reads each epoch [C, S], an LSTM in both directions reads the night."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.epoch = nn.Sequential(
            nn.Conv1d(channels, 16, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv1d(16, 32, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(2),
            nn.Flatten(),
        )
        self.night = nn.LSTM(64, hidden, batch_first=True, bidirectional=True)
        self.stage = nn.Linear(2 * hidden, 5)

    def forward(self, night: Tensor) -> Any:
        rows, epochs = night.shape[:2]
        features = self.epoch(night.flatten(0, 1)).view(rows, epochs, -1)
        return self.stage(self.night(features)[0])


@healthy("stages of a night's sleep", held_out=True)
def sleep(rng: np.random.Generator) -> Planted:
    time, channels = between(rng, 8, 24), between(rng, 1, 3)
    speed = np.array([0.3, 0.7, 1.2, 1.9, 2.7])
    stays = 0.7 * np.eye(5) + 0.06

    def draw(rows: int) -> tuple[Any, Loss]:
        stage, _ = text(rng, stays[None], rows, time)
        phase = rng.uniform(0, 6, (rows, time, channels, 1))
        x = np.sqrt(2) * np.sin(speed[stage][..., None, None] * np.arange(60) + phase)
        x += 0.3 * rng.standard_normal(x.shape)
        return (floats(x),), tagged(whole(stage))

    return fresh(rng, SleepStager(channels, width(rng, 16, 96)), draw, causal=False)


class ResidualReader(nn.Module):
    """x + GRU(norm(x)) in both directions."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.gru = nn.GRU(size, size // 2, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        return x + self.dropout(packed(self.gru, self.norm(x), lengths)[0])


class SecondaryStructure(nn.Module):
    """Helix, strand or coil for each residue of a chain; `mask` [B, T] is true at residues."""

    def __init__(self, size: int, blocks: int) -> None:
        super().__init__()
        self.residue = nn.Embedding(21, size, padding_idx=0)
        self.blocks = nn.ModuleList(ResidualReader(size) for _ in range(blocks))
        self.head = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, 3))

    def forward(self, residues: Tensor, mask: Tensor) -> Any:
        lengths = mask.sum(dim=1)
        x = self.residue(residues)
        for block in self.blocks:
            x = block(x, lengths)
        return self.head(x)


@healthy("the structure of a protein, with a mask", held_out=True)
def protein(rng: np.random.Generator) -> Planted:
    time = between(rng, 16, 32)
    leaning = rng.standard_normal((21, 3))

    def draw(rows: int) -> tuple[Any, Loss]:
        own = valid(lengths_of(rng, rows, time, 6), time)
        residues = torch.where(own, whole(rng.integers(1, 21, (rows, time))), 0)
        leans = leaning[residues.numpy()] * own.numpy()[..., None]
        around = np.pad(leans, ((0, 0), (1, 1), (0, 0)))
        summed = around[:, :-2] + around[:, 1:-1] + around[:, 2:]
        tags = torch.where(own, whole(summed.argmax(-1)), IGNORED)
        return {"residues": residues, "mask": own}, tagged(tags)

    model = SecondaryStructure(2 * between(rng, 12, 20), 2)
    return trained(rng, model, draw, steps=130, held_back=True, causal=False)


class PieceTagger(nn.Module):
    """Tags of words [B, W], read off at the first piece of each word."""

    def __init__(self, encoder: nn.Module, hidden: int, tags: int) -> None:
        super().__init__()
        self.pieces = nn.Embedding(40, 32, padding_idx=0)
        self.encoder = encoder
        self.dropout = nn.Dropout(0.2)
        self.tags = nn.Linear(2 * hidden, tags)

    def forward(self, pieces: Tensor, lengths: Tensor, starts: Tensor) -> Any:
        states, _ = packed(self.encoder, self.dropout(self.pieces(pieces)), lengths)
        index = starts[..., None].expand(-1, -1, states.shape[2])
        return self.tags(self.dropout(states.gather(1, index)))


@healthy("tags for words made of pieces", held_out=True)
def pieces(rng: np.random.Generator) -> Planted:
    longest, tags, hidden = between(rng, 5, 14), between(rng, 3, 6), width(rng, 12, 100)
    encoder = layer_of(rng, 32, hidden, kinds=("lstm", "gru"), bidirectional=True)

    def draw(rows: int) -> tuple[Any, Loss]:
        count = lengths_of(rng, rows, longest).numpy()
        sizes = rng.integers(1, 4, (rows, longest)) * (np.arange(longest) < count[:, None])
        lengths = sizes.sum(1)
        tokens = rng.integers(1, 40, (rows, int(lengths.max())))
        tokens *= np.arange(tokens.shape[1]) < lengths[:, None]
        here = np.arange(longest) < count[:, None]
        starts = (sizes.cumsum(1) - sizes) * here
        first = np.take_along_axis(tokens, starts, 1)
        answers = np.where(here, (first + sizes) % tags, IGNORED)
        return (whole(tokens), whole(lengths), whole(starts)), tagged(whole(answers))

    return fresh(rng, PieceTagger(encoder, hidden, tags), draw, causal=False)


class StepDetector(nn.Module):
    """Log odds of a heel strike at each sample of an accelerometer, as it comes in."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.strike = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Any:
        return self.strike(self.layer(x)[0])[..., 0]


@healthy("steps of a walker, as they happen", held_out=True)
def walker(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 30, 60), width(rng, 12, 40)
    weight = torch.tensor(4.0)

    def draw(rows: int) -> tuple[Any, Loss]:
        pace = rng.uniform(0.09, 0.16, (rows, 1))
        phase = pace * np.arange(time) + rng.random((rows, 1))
        part = 2 * np.pi * (phase % 1.0)
        x = np.stack([np.sin(part), np.sin(2 * part + 0.5), np.cos(part) ** 3], -1)
        x = 1.4 * x + 0.2 * rng.standard_normal(x.shape)
        struck = np.floor(phase) > np.floor(phase - pace)

        def loss(logits: Any) -> Tensor:
            return functional.binary_cross_entropy_with_logits(
                logits, floats(struck), pos_weight=weight
            )

        return (floats(x),), loss

    model = StepDetector(layer_of(rng, 3, hidden), hidden)
    return trained(rng, model, draw, steps=160, held_back=True, causal=True)


class Biaffine(nn.Module):
    """Scores [B, T, T] of every word as the head of every word (Dozat and Manning 2017)."""

    def __init__(self, symbols: int, hidden: int, arc: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 32, padding_idx=0)
        self.lstm = nn.LSTM(32, hidden, 2, batch_first=True, bidirectional=True, dropout=0.33)
        self.dependent = nn.Sequential(nn.Linear(2 * hidden, arc), nn.LeakyReLU(0.1))
        self.head = nn.Sequential(nn.Linear(2 * hidden, arc), nn.LeakyReLU(0.1))
        self.weight = nn.Parameter(torch.empty(arc, arc))
        self.prior = nn.Linear(arc, 1, bias=False)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, words: Tensor, lengths: Tensor) -> Any:
        states, _ = packed(self.lstm, self.words(words), lengths)
        head = self.head(states)
        scores = self.dependent(states) @ self.weight @ head.transpose(1, 2)
        scores = scores + self.prior(head).transpose(1, 2)
        return scores.masked_fill(~valid(lengths, words.shape[1])[:, None], LOWEST)


@healthy("heads of words, every word with every other", held_out=True)
def biaffine(rng: np.random.Generator) -> Planted:
    time, symbols = between(rng, 6, 24), 24

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time)
        words = rng.integers(1, symbols, (rows, time))
        heads = np.zeros((rows, time), int)
        for t in range(1, time):
            heads[:, t] = np.where(words[:, t - 1] % 3 == 0, t - 1, heads[:, t - 1])
        own = valid(lengths, time)
        loss = tagged(torch.where(own, whole(heads), IGNORED))
        return (torch.where(own, whole(words), 0), lengths), loss

    model = Biaffine(symbols, width(rng, 24, 100), between(rng, 16, 48))
    return fresh(rng, model, draw, causal=False)
