"""Healthy models with several inputs or several voices, written blind."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.cells import GRU
from hiddenstate.nn import Pool, Recurrent
from tests.faults.blind_well_parts import (
    LOWEST,
    Loss,
    at_last,
    floats,
    fresh,
    layer_of,
    lengths_of,
    mean_over,
    packed,
    tagged,
    trained,
    valid,
    whole,
    width,
)
from tests.faults.held_out_parts import between
from tests.faults.plant import Planted, healthy


class PianoRoll(nn.Module):
    """Log odds of the next notes from the notes so far, steps first: [T, B, N]."""

    def __init__(self, layer: nn.Module, notes: int, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.notes = nn.Linear(hidden, notes)

    def forward(self, roll: Tensor) -> Any:
        return self.notes(self.layer(roll)[0])


@healthy("the next notes of a piano roll", held_out=True)
def piano_roll(rng: np.random.Generator) -> Planted:
    time, hidden, notes, chords = between(rng, 12, 28), width(rng, 24, 64), 24, 5
    chord = np.zeros((chords, notes))
    for each in chord:
        each[rng.choice(notes, 4, replace=False)] = 1

    def draw(rows: int) -> tuple[Any, Loss]:
        way = rng.choice([-1, 1], rows)
        at = rng.integers(0, chords, rows) + way * np.arange(time + 1)[:, None]
        x = floats(chord[at % chords] * (rng.random((time + 1, rows, notes)) < 0.95))

        def loss(logits: Any) -> Tensor:
            return functional.binary_cross_entropy_with_logits(logits, x[1:])

        return (x[:-1],), loss

    model = PianoRoll(layer_of(rng, notes, hidden, batch_first=False), notes, hidden)
    return trained(rng, model, draw, steps=150, batch_first=False, causal=True)


class Diarisation(nn.Module):
    """Log odds [B, T, S] that each of S speakers talks, in any order of speakers."""

    def __init__(self, features: int, hidden: int, speakers: int) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Linear(features, 32), nn.LayerNorm(32), nn.ReLU())
        self.lstm = nn.LSTM(32, hidden, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.speakers = nn.Linear(2 * hidden, speakers)

    def forward(self, frames: Tensor, lengths: Tensor) -> Any:
        return self.speakers(packed(self.lstm, self.front(frames), lengths)[0])


@healthy("two speakers whose order does not matter", held_out=True)
def diarisation(rng: np.random.Generator) -> Planted:
    time, features = between(rng, 20, 80), between(rng, 8, 16)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 10)
        own = valid(lengths, time)
        turns = np.repeat(rng.random((rows, -(-time // 5), 2)) < 0.5, 5, 1)[:, :time]
        voices = rng.standard_normal((rows, 2, features))
        x = floats(turns @ voices + 0.3 * rng.standard_normal((rows, time, features)))
        talks = floats(turns)

        def loss(logits: Any) -> Tensor:
            def error(target: Tensor) -> Tensor:
                each = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
                return mean_over(each, own).mean(1)

            return torch.minimum(error(talks), error(talks.flip(-1))).mean()

        return (torch.where(own[..., None], x, 0.0), lengths), loss

    return fresh(rng, Diarisation(features, width(rng, 24, 128), 2), draw, causal=False)


class PassageReader(nn.Module):
    """Where in a passage the answer to a question begins and ends (Chen et al. 2017)."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 32, padding_idx=0)
        self.align = nn.Sequential(nn.Linear(32, 32), nn.ReLU())
        self.asks = nn.GRU(32, hidden, batch_first=True, bidirectional=True)
        self.reads = nn.GRU(65, hidden, batch_first=True, bidirectional=True)
        self.weight = nn.Linear(2 * hidden, 1, bias=False)
        self.start = nn.Linear(2 * hidden, 2 * hidden, bias=False)
        self.end = nn.Linear(2 * hidden, 2 * hidden, bias=False)

    def forward(
        self, passage: Tensor, passage_lengths: Tensor, question: Tensor, question_lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        asked = valid(question_lengths, question.shape[1])
        here = valid(passage_lengths, passage.shape[1])
        p, q = self.words(passage), self.words(question)
        scores = self.align(p) @ self.align(q).transpose(1, 2)
        aligned = scores.masked_fill(~asked[:, None], LOWEST).softmax(-1) @ q
        same = (passage[:, :, None] == question[:, None]) & asked[:, None]
        exact = same.any(-1, keepdim=True).to(p.dtype)
        states, _ = packed(self.reads, torch.cat([p, aligned, exact], -1), passage_lengths)
        words, _ = packed(self.asks, q, question_lengths)
        weights = self.weight(words).masked_fill(~asked[..., None], LOWEST).softmax(1)
        query = (weights * words).sum(1)

        def pointer(by: nn.Module) -> Any:
            return (states @ by(query)[..., None])[..., 0].masked_fill(~here, LOWEST)

        return pointer(self.start), pointer(self.end)


@healthy("an answer found in a passage", held_out=True)
def passage(rng: np.random.Generator) -> Planted:
    time, asked = between(rng, 12, 50), between(rng, 4, 8)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths, asks = lengths_of(rng, rows, time, 8), lengths_of(rng, rows, asked, 2)
        passage = rng.integers(15, 40, (rows, time))
        question = rng.integers(6, 15, (rows, asked))
        cue, more = rng.integers(3, 6, rows), rng.integers(1, 3, rows)
        question[:, 0], question[:, 1] = more, cue
        begins = rng.integers(1, lengths.numpy() - 3)
        passage[np.arange(rows), begins - 1] = cue
        starts, ends = whole(begins), whole(begins + more)
        batch = {
            "passage": torch.where(valid(lengths, time), whole(passage), 0),
            "passage_lengths": lengths,
            "question": torch.where(valid(asks, asked), whole(question), 0),
            "question_lengths": asks,
        }

        def loss(given: Any) -> Tensor:
            start, end = given
            return functional.cross_entropy(start, starts) + functional.cross_entropy(end, ends)

        return batch, loss

    return fresh(rng, PassageReader(40, width(rng, 16, 96)), draw, causal=False)


class Inference(nn.Module):
    """Two texts, each beside what it finds in the other (ESIM, Chen et al. 2017)."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 32, padding_idx=0)
        self.encoder = nn.LSTM(32, hidden, batch_first=True, bidirectional=True)
        self.project = nn.Sequential(nn.Linear(8 * hidden, hidden), nn.ReLU(), nn.Dropout(0.2))
        self.compose = nn.LSTM(hidden, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Sequential(nn.Linear(8 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 3))

    def forward(self, a: Tensor, a_lengths: Tensor, b: Tensor, b_lengths: Tensor) -> Any:
        in_a, in_b = valid(a_lengths, a.shape[1]), valid(b_lengths, b.shape[1])
        u, _ = packed(self.encoder, self.words(a), a_lengths)
        v, _ = packed(self.encoder, self.words(b), b_lengths)
        scores = u @ v.transpose(1, 2)
        from_b = scores.masked_fill(~in_b[:, None], LOWEST).softmax(2) @ v
        from_a = scores.transpose(1, 2).masked_fill(~in_a[:, None], LOWEST).softmax(2) @ u
        one = self.summary(u, from_b, a_lengths, in_a)
        other = self.summary(v, from_a, b_lengths, in_b)
        return self.out(torch.cat([one, other], dim=1))

    def summary(self, own: Tensor, other: Tensor, lengths: Tensor, inside: Tensor) -> Tensor:
        together = torch.cat([own, other, own - other, own * other], dim=-1)
        states, _ = packed(self.compose, self.project(together), lengths)
        highest = states.masked_fill(~inside[..., None], LOWEST).amax(1)
        return torch.cat([mean_over(states, inside), highest], dim=1)


@healthy("a premise and a hypothesis, aligned", held_out=True)
def inference(rng: np.random.Generator) -> Planted:
    time = between(rng, 6, 24)

    def draw(rows: int) -> tuple[Any, Loss]:
        first, second = lengths_of(rng, rows, time, 4), lengths_of(rng, rows, time, 4)
        a, kind = rng.integers(2, 30, (rows, time)), rng.integers(0, 3, rows)
        taken = np.take_along_axis(a, rng.integers(0, first.numpy()[:, None], (rows, time)), 1)
        b = np.where(kind[:, None] == 2, rng.integers(2, 30, (rows, time)), taken)
        b[kind == 1, 1] = 1
        texts = [torch.where(valid(n, time), whole(x), 0) for x, n in ((a, first), (b, second))]
        return (texts[0], first, texts[1], second), tagged(whole(kind))

    return fresh(rng, Inference(30, width(rng, 12, 64)), draw, causal=False)


class Ward(nn.Module):
    """Values with gaps, which of them were measured, and hours since (Che et al. 2018)."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.gru = Recurrent(GRU(3 * features, hidden, reset="before"))
        self.pool = Pool("last", hidden)
        self.risk = nn.Linear(hidden, 1)

    def forward(self, values: Tensor, measured: Tensor, hours: Tensor, lengths: Tensor) -> Any:
        known = torch.where(measured, values, 0.0)
        x = torch.cat([known, measured.to(values.dtype), torch.log1p(hours)], dim=-1)
        states, _ = self.gru(x, lengths)
        return self.risk(self.pool(states, lengths)).squeeze(1)


@healthy("patients whose values are measured now and then", held_out=True)
def ward(rng: np.random.Generator) -> Planted:
    time, features = between(rng, 12, 30), between(rng, 3, 5)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 8)
        ill = rng.integers(0, 2, rows)
        drift = (2 * ill[:, None] - 1) * np.linspace(-0.3, 1.4, time)
        values = 0.7 * rng.standard_normal((rows, time, features))
        values[..., 0] += drift
        values[..., 1] -= drift
        measured = rng.random(values.shape) < 0.5
        hours = np.zeros(values.shape)
        for t in range(1, time):
            hours[:, t] = np.where(measured[:, t - 1], 1.0, hours[:, t - 1] + 1.0)
        own = valid(lengths, time)[..., None]
        died = floats(ill)
        batch = {
            "values": torch.where(own, floats(values * measured), 0.0),
            "measured": torch.as_tensor(measured) & own,
            "hours": torch.where(own, floats(hours), 0.0),
            "lengths": lengths,
        }
        return batch, lambda odds: functional.binary_cross_entropy_with_logits(odds, died)

    model = Ward(features, width(rng, 12, 40))
    return trained(rng, model, draw, steps=150, held_back=True)


class RelationReader(nn.Module):
    """Words with their distances to two marked ones, summed up by attention (Zhou et al. 2016)."""

    def __init__(self, encoder: nn.Module, hidden: int, relations: int) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 32, padding_idx=0)
        self.distance = nn.Embedding(22, 6, padding_idx=0)
        self.encoder = encoder
        self.hidden = hidden
        self.attends = nn.Linear(hidden, 1, bias=False)
        self.out = nn.Linear(hidden, relations)

    def forward(self, tokens: Tensor, one: Tensor, other: Tensor, lengths: Tensor) -> Any:
        x = torch.cat([self.words(tokens), self.distance(one), self.distance(other)], -1)
        states, _ = packed(self.encoder, x, lengths)
        states = states[..., : self.hidden] + states[..., self.hidden :]
        scores = self.attends(torch.tanh(states))
        own = valid(lengths, tokens.shape[1])[..., None]
        weights = scores.masked_fill(~own, LOWEST).softmax(dim=1)
        return self.out(torch.tanh((weights * states).sum(dim=1)))


@healthy("the relation between two marked words", held_out=True)
def relation(rng: np.random.Generator) -> Planted:
    time, relations, hidden = between(rng, 8, 40), between(rng, 2, 5), width(rng, 16, 128)
    encoder = layer_of(rng, 44, hidden, kinds=("lstm", "gru"), bidirectional=True)

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 6)
        tokens = rng.integers(1, 30, (rows, time))
        first = rng.integers(0, lengths.numpy() - 3)
        second = rng.integers(first + 2, lengths.numpy())
        kind = tokens[np.arange(rows), first + 1] % relations
        own = valid(lengths, time)

        def distance(to: Any) -> Tensor:
            steps = (np.arange(time) - to[:, None]).clip(-10, 10) + 11
            return torch.where(own, whole(steps), 0)

        batch = (torch.where(own, whole(tokens), 0), distance(first), distance(second), lengths)
        return batch, tagged(whole(kind))

    return fresh(rng, RelationReader(encoder, hidden, relations), draw, causal=False)


class AspectSentiment(nn.Module):
    """One layer reads up to the target word, one back from the end to it (Tang et al. 2016)."""

    def __init__(self, left: nn.Module, right: nn.Module, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(25, 16, padding_idx=0)
        self.left, self.right = left, right
        self.out = nn.Linear(2 * hidden, 2)

    def forward(
        self, left: Tensor, left_lengths: Tensor, right: Tensor, right_lengths: Tensor
    ) -> Any:
        before, _ = packed(self.left, self.words(left), left_lengths)
        after, _ = packed(self.right, self.words(right), right_lengths)
        ends = [at_last(before, left_lengths), at_last(after, right_lengths)]
        return self.out(torch.cat(ends, dim=1))


@healthy("what is said about one word, read from both sides", held_out=True)
def aspect(rng: np.random.Generator) -> Planted:
    time, hidden = between(rng, 6, 14), width(rng, 12, 40)

    def side(rows: int, opinion: Any, negated: Any, told: Any) -> tuple[Tensor, Tensor]:
        lengths = lengths_of(rng, rows, time, 4)
        x, row, end = rng.integers(7, 25, (rows, time)), np.arange(rows), lengths.numpy() - 1
        x[row, end] = 6
        x[row[told], end[told] - 1] = opinion[told]
        x[row[told], end[told] - 2] = np.where(negated, 1, x[row, end - 2])[told]
        return torch.where(valid(lengths, time), whole(x), 0), lengths

    def draw(rows: int) -> tuple[Any, Loss]:
        opinion, negated = rng.integers(2, 6, rows), rng.random(rows) < 0.4
        at_left = rng.random(rows) < 0.5
        batch = (
            *side(rows, opinion, negated, at_left),
            *side(rows, opinion, negated, ~at_left),
        )
        return batch, tagged(whole((opinion >= 4) ^ negated))

    kinds = ("lstm", "gru")
    left, right = (layer_of(rng, 16, hidden, kinds=kinds) for _ in range(2))
    return trained(rng, AspectSentiment(left, right, hidden), draw, steps=200)


class EssayScorer(nn.Module):
    """Convolution, LSTM and the mean over time give a mark (Taghipour and Ng 2016)."""

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.words = nn.Embedding(symbols, 32, padding_idx=0)
        self.convolution = nn.Conv1d(32, 48, 3, padding=1)
        self.lstm = nn.LSTM(48, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.5)
        self.mark = nn.Linear(hidden, 1)

    def forward(self, essay: Tensor, lengths: Tensor) -> Any:
        own = valid(lengths, essay.shape[1])
        words = self.words(essay) * own[..., None]
        features = torch.relu(self.convolution(words.transpose(1, 2))).transpose(1, 2)
        states, _ = packed(self.lstm, features, lengths)
        return torch.sigmoid(self.mark(self.dropout(mean_over(states, own)))).squeeze(1)


@healthy("marks for essays", held_out=True)
def essays(rng: np.random.Generator) -> Planted:
    time, symbols = between(rng, 20, 100), 40
    merit = rng.standard_normal((symbols, symbols))

    def draw(rows: int) -> tuple[Any, Loss]:
        lengths = lengths_of(rng, rows, time, 10)
        own = valid(lengths, time)
        essay = rng.integers(1, symbols, (rows, time))
        pairs = merit[essay[:, :-1], essay[:, 1:]] * own.numpy()[:, 1:]
        marks = torch.sigmoid(floats(pairs.sum(1) / np.sqrt(lengths.numpy())))
        batch = (torch.where(own, whole(essay), 0), lengths)
        return batch, lambda given: functional.mse_loss(given, marks)

    return fresh(rng, EssayScorer(symbols, width(rng, 24, 128)), draw)
