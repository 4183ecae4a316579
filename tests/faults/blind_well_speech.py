"""Healthy models of lines, voices and talk, written blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.blind_well_parts import (
    IGNORED,
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
from tests.faults.held_out_parts import between, one_of
from tests.faults.plant import Planted, healthy


class LineReader(nn.Module):
    """Log probabilities [B, W / 4, C] of the letters in a picture of a line (Shi et al. 2017)."""

    def __init__(self, height: int, hidden: int, letters: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.lstm = nn.LSTM(24 * (height // 4), hidden, 2, batch_first=True, bidirectional=True)
        self.letters = nn.Linear(2 * hidden, letters)

    def forward(self, pictures: Tensor) -> Any:
        columns = self.convolutions(pictures).flatten(1, 2).transpose(1, 2)
        return self.letters(self.lstm(columns)[0]).log_softmax(dim=-1)


@healthy("lines of print, read by CTC", held_out=True)
def lines(rng: np.random.Generator) -> Planted:
    count, height, letters = between(rng, 4, 10), 16, between(rng, 6, 12)
    glyphs = rng.standard_normal((letters + 1, height, 8)) > 0.3
    glyphs[:, :, 7], glyphs[0] = False, False

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, count, 2)
        line = torch.where(
            valid(lengths, count), whole(rng.integers(1, letters + 1, (rows, count))), 0
        )
        pictures = glyphs[line.numpy()].transpose(0, 2, 1, 3).reshape(rows, 1, height, 8 * count)
        noisy = 2.0 * pictures - 0.6 + 0.2 * rng.standard_normal(pictures.shape)

        def loss(given: Any) -> Tensor:
            frames = torch.full((given.shape[0],), given.shape[1])
            return functional.ctc_loss(
                given.transpose(0, 1), line, frames, lengths, zero_infinity=True
            )

        return (floats(noisy),), loss

    return fresh(rng, LineReader(height, width(rng, 24, 128), letters + 1), draw, causal=False)


class Cleaner(nn.Module):
    """A mask between 0 and 1 for every band of a noisy spectrum."""

    def __init__(self, layer: nn.Module, bands: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(bands)
        self.layer = layer
        self.mask = nn.Sequential(nn.Linear(2 * hidden, bands), nn.Sigmoid())

    def forward(self, spectrum: Tensor, lengths: Tensor) -> Any:
        states, _ = packed(self.layer, self.norm(torch.log1p(spectrum)), lengths)
        return self.mask(states) * spectrum


@healthy("a mask that cleans spectra", held_out=True)
def cleaner(rng: np.random.Generator) -> Planted:
    time, bands, hidden = between(rng, 14, 26), 12, width(rng, 16, 40)
    voices = rng.gamma(0.6, 1.6, (6, bands))
    chances = tables(rng, 1, 6, 0.4)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 6)
        own = valid(lengths, time)
        sounds = np.repeat(text(rng, chances, rows, -(-time // 3))[0], 3, 1)[:, :time]
        clean = voices[sounds] * rng.uniform(0.8, 1.2, (rows, time, 1))
        noise = rng.gamma(1.0, 0.8, (rows, 1, bands)) * rng.uniform(0.6, 1.4, clean.shape)
        target = floats(clean)

        def loss(given: Any) -> Tensor:
            return mean_where((given - target).square().mean(-1), own)

        return (torch.where(own[..., None], floats(clean + noise), 0.0), lengths), loss

    layer = layer_of(rng, bands, hidden, kinds=("lstm", "gru"), bidirectional=True)
    model = Cleaner(layer, bands, hidden)
    return trained(rng, model, draw, steps=180, held_back=True, causal=False)


class Emotions(nn.Module):
    """What each turn feels like: a state of the talk, and one of each of two speakers."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.talk = nn.GRUCell(features + hidden, hidden)
        self.party = nn.GRUCell(features + hidden, hidden)
        self.emotion = nn.GRUCell(hidden, hidden)
        self.out = nn.Linear(hidden, classes)

    def forward(self, turns: Tensor, speaker: Tensor, mask: Tensor) -> Tensor:
        rows = torch.arange(len(turns))
        g = e = turns.new_zeros(len(turns), self.hidden)
        parties = turns.new_zeros(len(turns), 2, self.hidden)
        given = []
        for t in range(turns.shape[1]):
            who, real = speaker[:, t], mask[:, t, None]
            spoke = parties[rows, who]
            moved = self.party(torch.cat([turns[:, t], g], dim=1), spoke)
            g = torch.where(real, self.talk(torch.cat([turns[:, t], spoke], dim=1), g), g)
            own = functional.one_hot(who, 2).bool()[..., None] & real[..., None]
            parties = torch.where(own, moved[:, None], parties)
            e = torch.where(real, self.emotion(moved, e), e)
            given.append(self.out(e))
        return torch.stack(given, dim=1)


@healthy("what the speakers of a talk feel", held_out=True)
def emotions(rng: np.random.Generator) -> Planted:
    time, features, classes = between(rng, 5, 20), between(rng, 6, 20), between(rng, 3, 6)
    moods = rng.standard_normal((classes, features))
    stays = 0.7 * np.eye(classes) + 0.3 / classes

    def draw(rows: int) -> tuple[Any, Loss]:
        own = valid(lengths_of(rng, rows, time, 3), time)
        feels, _ = text(rng, stays[None], rows, time)
        turns = moods[feels] + 0.8 * rng.standard_normal((rows, time, features))
        batch = {
            "turns": torch.where(own[..., None], floats(turns), 0.0),
            "speaker": torch.where(own, whole(rng.integers(0, 2, (rows, time))), 0),
            "mask": own,
        }
        return batch, tagged(torch.where(own, whole(feels), IGNORED))

    model = Emotions(features, width(rng, 12, 80), classes)
    return fresh(rng, model, draw, causal=True)


class Writer(nn.Module):
    """Next letters and the state to go on from; `begin` gives the first one."""

    def __init__(self, kind: str, letters: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.kind, self.hidden, self.layers = kind, hidden, layers
        self.letters = nn.Embedding(letters, 16)
        made = nn.LSTM if kind == "lstm" else nn.GRU
        self.layer = made(16, hidden, layers, batch_first=True)
        self.out = nn.Linear(hidden, letters)

    def begin(self, rows: int) -> Any:
        zeros = torch.zeros(self.layers, rows, self.hidden)
        return (zeros, zeros.clone()) if self.kind == "lstm" else zeros

    def forward(self, letters: Tensor, hidden: Any) -> tuple[Tensor, Any]:
        states, hidden = self.layer(self.letters(letters), hidden)
        return self.out(states), hidden


def cut(hidden: Any) -> Any:
    return tuple(h.detach() for h in hidden) if isinstance(hidden, tuple) else hidden.detach()


@healthy("a text in windows whose state is handed on", held_out=True)
def writer(rng: np.random.Generator) -> Planted:
    time, letters, rows = between(rng, 10, 18), 16, between(rng, 8, 20)
    model = Writer(one_of(rng, "lstm", "gru"), letters, width(rng, 20, 48), between(rng, 1, 2))
    chances, windows = tables(rng, 3, letters), 10
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)

    def loss_of(answers: Tensor) -> Loss:
        return lambda given: tagged(answers)(given[0])

    for _ in range(20):
        x, hidden = whole(text(rng, chances, rows, windows * time + 1)[0]), model.begin(rows)
        for start in range(0, windows * time, time):
            answers = x[:, start + 1 : start + time + 1]
            optimiser.zero_grad()
            given = model(x[:, start : start + time], cut(hidden))
            loss_of(answers)(given).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            hidden = given[1]
    model.eval()
    x = whole(text(rng, chances, rows, 2 * time + 1)[0])
    with torch.no_grad():
        _, hidden = model(x[:, :time], model.begin(rows))
    return Planted(
        model,
        (x[:, time:-1], hidden),
        loss_of(x[:, time + 1 :]),
        {"causal": True, "states": ("hidden",)},
    )
