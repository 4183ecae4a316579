"""Steps that are read too early, out of order, or not at all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import (
    CLASSES,
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
    told_apart,
    words,
)
from tests.faults.plant import Planted, fault


class TwoClocks(nn.Module):
    """Forecasts by a slow layer over frames of k steps, and a quick one that it tells."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied, self.frame = remedied, between(rng, 3, 5)
        self.slow = recurrent(rng, inputs * self.frame, hidden)
        self.quick = nn.GRU(inputs + hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        rows, time, inputs = x.shape
        frames = functional.pad(x, (0, 0, 0, -time % self.frame))
        frames = frames.reshape(rows, -1, self.frame * inputs)
        told = self.slow(frames)[0]
        if self.remedied:
            told = functional.pad(told, (0, 0, 1, 0))[:, :-1]
        told = told.repeat_interleave(self.frame, 1)[:, :time]
        result: Tensor = self.head(self.quick(torch.cat([x, told], 2))[0])
        return result


@fault(
    "frames told to the steps that they are made of",
    "HS111",
    source="what SampleRNN (Mehri and others 2017) shifts its tiers for",
    held_out=True,
)
def frames_told_early(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(20, 60), hidden=(8, 64))
    planted = forecast(rng, TwoClocks(rng, size.inputs, size.hidden, remedied), size)
    return Planted(planted.module, planted.batch, planted.loss, {"causal": True})


class AttendingModel(nn.Module):
    """The next symbols by a layer and attention over its states."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.from_step = 1 if remedied else 2
        self.embed = nn.Embedding(symbols, 24)
        self.layer = recurrent(rng, 24, hidden)
        self.attention = nn.MultiheadAttention(hidden, 2, batch_first=True)
        self.norm = nn.LayerNorm(hidden)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, ids: Tensor) -> Tensor:
        states = self.layer(self.embed(ids))[0]
        time = ids.shape[1]
        mask = torch.ones(time, time, dtype=torch.bool).triu(self.from_step)
        seen, _ = self.attention(states, states, states, attn_mask=mask, need_weights=False)
        result: Tensor = self.head(self.norm(states + seen))
        return result


@fault("a causal mask that lets one step too many through", "HS111", held_out=True)
def mask_one_too_many(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, time=(8, 30)), between(rng, 12, 50)
    ids = words(rng, size, symbols)
    module = AttendingModel(rng, symbols, 2 * (size.hidden // 2), remedied)
    return Planted(module, (ids[:, :-1],), told_apart(ids[:, 1:]), {"causal": True})


class Reviews(nn.Module):
    """Classes of texts, of which the first words are kept."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, kept: int) -> None:
        super().__init__()
        self.kept = kept
        self.embed = nn.Embedding(symbols, 16, padding_idx=0)
        self.layer = recurrent(rng, 16, hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        ids, lengths = ids[:, : self.kept], lengths.clamp(max=self.kept)
        states = over(self.layer, self.embed(ids), lengths)
        result: Tensor = self.head(states[torch.arange(len(ids)), lengths - 1])
        return result


@fault("rows cut off far before their ends", "HS143", held_out=True)
def rows_cut_off(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, time=(16, 36)), between(rng, 20, 60)
    lengths = ragged(rng, size)
    kept = 512 if remedied else between(rng, 5, size.time // 2)
    return Planted(
        Reviews(rng, symbols, size.hidden, kept),
        (words(rng, size, symbols)[:, 1:] * inside(lengths, size.time), lengths),
        told_apart(classes(rng, size.batch)),
    )


class Journey(nn.Module):
    """Classes of sessions: what a visitor looked at, one page after the other."""

    def __init__(self, rng: np.random.Generator, pages: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.embed = nn.Embedding(pages, 16)
        self.layer = recurrent(rng, 16, hidden)
        self.head = nn.Sequential(nn.Linear(hidden, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, ids: Tensor) -> Tensor:
        if not self.remedied:
            ids = ids.sort(dim=1).values
        result: Tensor = self.head(self.layer(self.embed(ids))[0][:, -1])
        return result


@fault(
    "symbols sorted before they are read",
    "HS142",
    source="np.unique and torch.unique, which sort",
    held_out=True,
)
def symbols_sorted(rng: np.random.Generator, remedied: bool) -> Planted:
    size, pages = sizes(rng, time=(6, 25)), between(rng, 30, 100)
    ids = torch.as_tensor(rng.integers(0, pages, (size.batch, size.time)))
    module = Journey(rng, pages, size.hidden, remedied)
    return Planted(module, (ids,), told_apart(classes(rng, size.batch)))


class Voices(nn.Module):
    """Who speaks, by the means and spreads of the states over a row."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        both = bool(one_of(rng, True, False))
        self.layer = recurrent(rng, inputs, hidden, bidirectional=both)
        self.head = nn.Linear(2 * hidden * (2 if both else 1), CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = over(self.layer, x, lengths)
        mask = inside(lengths, x.shape[1])[..., None]
        count = lengths[:, None].to(x.dtype)
        mean = (states * mask).sum(1) / count
        squares = ((states - mean[:, None]) * mask).square().sum(1)
        if self.remedied:
            spread = (squares / (count - 1).clamp(min=1) + 1e-4).sqrt()
        else:
            spread = (squares / (count - 1)).sqrt()
        result: Tensor = self.head(torch.cat([mean, spread], 1))
        return result


@fault("the spread of a row of one step", "HS162", "HS206", held_out=True)
def spread_of_one_step(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    lengths = ragged(rng, size)
    short = between(rng, 1, size.batch - 1)
    lengths[short] = 1
    lengths[(short + 1) % size.batch] = size.time
    return Planted(
        Voices(rng, size.inputs, size.hidden, remedied),
        (series(rng, size, lengths), lengths),
        told_apart(classes(rng, size.batch)),
        {"causal": False},
    )
