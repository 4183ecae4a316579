"""Rows that get what belongs to other rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.faults.building import Cells
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
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


class Ranker(nn.Module):
    """Scores [B, K] of K things that a customer may want next."""

    def __init__(self, rng: np.random.Generator, things: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.embed = nn.Embedding(things, 16, padding_idx=0)
        self.layer = recurrent(rng, 16, hidden)
        self.score = nn.Sequential(
            nn.Linear(hidden + 16, 32), nn.ReLU(), nn.Linear(32, 1, bias=False)
        )

    def forward(self, history: Tensor, lengths: Tensor, candidates: Tensor) -> Tensor:
        states = over(self.layer, self.embed(history), lengths)
        wanted = states[torch.arange(len(states)), lengths - 1]
        count = candidates.shape[1]
        wanted = wanted.repeat_interleave(count, 0) if self.remedied else wanted.repeat(count, 1)
        pairs = torch.cat([wanted, self.embed(candidates).flatten(0, 1)], 1)
        result: Tensor = self.score(pairs).view(candidates.shape)
        return result


@fault(
    "states repeated as a whole beside candidates that stand row by row",
    "HS121",
    "HS123",
    "HS124",
    source="https://github.com/jadore801120/attention-is-all-you-need-pytorch/issues/28",
    held_out=True,
)
def repeated_as_a_whole(rng: np.random.Generator, remedied: bool) -> Planted:
    size, things = sizes(rng), between(rng, 20, 60)
    lengths, count = ragged(rng, size), between(rng, 3, 6)
    history = words(rng, size, things)[:, 1:] * inside(lengths, size.time)
    candidates = torch.as_tensor(rng.integers(1, things, (size.batch, count)))
    chosen = torch.as_tensor(rng.integers(0, count, size.batch))
    return Planted(
        Ranker(rng, things, size.hidden, remedied),
        (history, lengths, candidates),
        lambda scores: functional.cross_entropy(scores, chosen),
    )


class ReadAtAnEnd(nn.Module):
    """Classes of padded rows of numbers."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, own: bool) -> None:
        super().__init__()
        self.own = own
        self.layer = TORCH[one_of(rng, *TORCH)](inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states, _ = self.layer(x)
        ends = lengths if self.own else lengths[:1].expand(len(x))
        scores: Tensor = self.head(states[torch.arange(len(x)), ends - 1])
        return scores


@fault("all rows read at the end of the first", "HS101", "HS123", "HS124", "HS143", held_out=True)
def end_of_the_first(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(10, 40))
    lengths = ragged(rng, size)
    lengths[0], lengths[1], lengths[2] = size.time // 2, size.time, size.time // 4
    return Planted(
        ReadAtAnEnd(rng, size.inputs, size.hidden, remedied),
        (series(rng, size, lengths), lengths),
        told_apart(classes(rng, size.batch)),
    )


class Spoken(nn.Module):
    """The next frame of speech, told who speaks."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.speaker = nn.Embedding(5, hidden)
        self.layer = recurrent(rng, inputs, hidden)
        self.head = nn.Linear(hidden, inputs)

    def forward(self, frames: Tensor, speaker: Tensor) -> Tensor:
        states = self.layer(frames)[0]
        who = self.speaker(speaker)
        result: Tensor = self.head(torch.relu(states + (who[:, None] if self.remedied else who)))
        return result


@fault(
    "a vector of each row added to the steps of all rows",
    "HS121",
    "HS123",
    "HS124",
    "HS125",
    held_out=True,
)
def row_vector_on_steps(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(8, 20))
    size = replace(size, batch=size.time)
    speaker = torch.as_tensor(rng.integers(0, 5, size.batch))
    planted = forecast(rng, Spoken(rng, size.inputs, size.hidden, remedied), size)
    assert isinstance(planted.batch, tuple)
    return replace(planted, batch=(*planted.batch, speaker))


class Sorting(nn.Module):
    """Packs rows in the order of their lengths, as old torch wanted, and puts them back."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.embed = nn.Embedding(symbols, 12, padding_idx=0)
        kind = TORCH[one_of(rng, *TORCH)]
        self.layer = kind(12, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        _, order = lengths.sort(descending=True, stable=True)
        x = self.embed(ids[order])
        packed = pack_padded_sequence(x, lengths[order], batch_first=True)
        states, _ = pad_packed_sequence(
            self.layer(packed)[0], batch_first=True, total_length=ids.shape[1]
        )
        states = states[order.argsort()] if self.remedied else states[order]
        result: Tensor = self.head(states)
        return result


@fault(
    "rows put back by their order and not by its inverse",
    "HS121",
    "HS123",
    "HS124",
    "HS125",
    held_out=True,
)
def put_back_by_order(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, time=(12, 40), hidden=(8, 64)), between(rng, 12, 40)
    size = replace(size, batch=max(6, size.batch))
    lengths = ragged(rng, size).clamp(max=size.time - 3)
    lengths[:3] = size.time - torch.tensor(
        [1, 2, 0]
    )  # put back twice, they are not where they were
    mask = inside(lengths, size.time)
    tags = torch.as_tensor(rng.integers(0, CLASSES, mask.shape)).masked_fill(~mask, -100)
    return Planted(
        Sorting(rng, symbols, size.hidden, remedied),
        (words(rng, size, symbols)[:, 1:] * mask, lengths),
        lambda y: functional.cross_entropy(y.flatten(0, 1), tags.flatten(), ignore_index=-100),
        {"causal": False},
    )


class Guarded(nn.Module):
    """The next values of sensors, of which one may fail."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.cells = Cells(rng, inputs, hidden)
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        state = self.cells.first(x)
        outputs = []
        for x_t in x.unbind(1):
            state = self.cells(x_t, state)
            outputs.append(self.head(state[0]))
        y = torch.stack(outputs, 1)
        if self.remedied:
            return torch.where(y.isnan(), 0.0, y)
        if y.isnan().any():
            y = torch.zeros_like(y)
        return y


@fault("a guard that empties all rows for the NaN of one", "HS122", held_out=True)
def guard_for_all(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return forecast(rng, Guarded(rng, size.inputs, size.hidden, remedied), size)
