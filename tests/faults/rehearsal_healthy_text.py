"""Healthy models of texts: copying, dialogues, stories, written lines, deep stacks."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from tests.faults.held_out_parts import (
    CLASSES,
    Sizes,
    adam,
    between,
    classes,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    sizes,
    told_apart,
    words,
)
from tests.faults.plant import Planted, healthy


class CopyOrWrite(nn.Module):
    """Writes words of its vocabulary or copies from the text (See et al. 2017); log p [B, T, V]."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 32, padding_idx=0)
        self.encoder = recurrent(rng, 32, hidden, kinds=("gru", "lstm"), bidirectional=True)
        self.bridge = nn.Linear(2 * hidden, hidden)
        self.decoder = nn.GRU(32, hidden, batch_first=True)
        self.query = nn.Linear(hidden, 2 * hidden)
        self.write = nn.Linear(3 * hidden, symbols)
        self.choose = nn.Linear(3 * hidden + 32, 1)

    def forward(self, text: Tensor, lengths: Tensor, begun: Tensor) -> Tensor:
        memory = over(self.encoder, self.embed(text), lengths)
        seen = inside(lengths, text.shape[1])
        first = torch.tanh(self.bridge(memory.sum(1) / lengths[:, None]))
        read = self.embed(begun)
        states, _ = self.decoder(read, first[None])
        scores = self.query(states) @ memory.transpose(1, 2) / math.sqrt(memory.shape[-1])
        weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
        both = torch.cat([states, weights @ memory], -1)
        own = torch.sigmoid(self.choose(torch.cat([both, read], -1)))
        chances = own * self.write(both).softmax(-1)
        where = text[:, None].expand(-1, begun.shape[1], -1)
        copied: Tensor = chances.scatter_add(2, where, (1 - own) * weights)
        return copied.clamp_min(1e-9).log()


@healthy("words written or copied from the text", held_out=True)
def copy_or_write(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (10, 40), (16, 64)), between(rng, 15, 40)
    lengths = ragged(rng, size)
    text = words(rng, size, symbols)[:, :-1] * inside(lengths, size.time)
    summary = words(rng, Sizes(size.batch, between(rng, 4, 10), 1, 1), symbols)
    module = CopyOrWrite(rng, symbols, size.hidden)
    answers = summary[:, 1:]
    return Planted(
        module,
        {"text": text, "lengths": lengths, "begun": summary[:, :-1]},
        lambda logs: functional.nll_loss(logs.flatten(0, 1), answers.flatten()),
        {"causal": False},
    )


class Dialogue(nn.Module):
    """A state for each speaker, renewed when he speaks, below one of the whole talk."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 24, padding_idx=0)
        self.words = recurrent(rng, 24, hidden, kinds=("gru", "lstm"))
        self.party = nn.GRUCell(2 * hidden, hidden)
        self.talk = nn.GRUCell(2 * hidden, hidden)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, tokens: Tensor, speakers: Tensor) -> Any:
        rows, said = tokens.shape[:2]
        flat = tokens.flatten(0, 1)
        lengths = (flat != 0).sum(1)
        states = over(self.words, self.embed(flat), lengths)
        spoken = states[torch.arange(len(flat)), lengths - 1].view(rows, said, -1)
        talk = spoken.new_zeros(rows, spoken.shape[-1])
        parties = spoken.new_zeros(rows, 2, spoken.shape[-1])
        at, out = torch.arange(rows), []
        for t in range(said):
            who = parties[at, speakers[:, t]]
            new = self.party(torch.cat([spoken[:, t], talk], -1), who)
            talk = self.talk(torch.cat([spoken[:, t], new], -1), talk)
            mine = functional.one_hot(speakers[:, t], 2).bool()[..., None]
            parties = torch.where(mine, new[:, None], parties)
            out.append(torch.cat([new, talk], -1))
        return self.head(torch.stack(out, 1))


@healthy("a dialogue with a state for each speaker", held_out=True)
def dialogue(rng: np.random.Generator) -> Planted:
    rows, said, symbols = between(rng, 4, 8), between(rng, 5, 12), between(rng, 15, 30)
    size = Sizes(rows * said, between(rng, 5, 10), 1, round(2 ** rng.uniform(3, 6)))
    tokens = words(rng, size, symbols)[:, :-1] * inside(ragged(rng, size), size.time)
    speakers = torch.as_tensor(rng.integers(0, 2, (rows, said)))
    answers = torch.as_tensor(rng.integers(0, CLASSES, (rows, said)))
    module = Dialogue(rng, symbols, size.hidden)
    return Planted(module, (tokens.view(rows, said, -1), speakers), told_apart(answers))


class Episodes(nn.Module):
    """Reads the sentences of a story again and again under a question (Kumar et al. 2016)."""

    def __init__(self, symbols: int, hidden: int, hops: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, hidden, padding_idx=0)
        self.read = nn.GRU(hidden, hidden, batch_first=True)
        self.gate = nn.Sequential(nn.Linear(4 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.episode = nn.GRUCell(hidden, hidden)
        self.remember = nn.GRUCell(hidden, hidden)
        self.head = nn.Linear(2 * hidden, symbols)
        self.hops = hops

    def encoded(self, tokens: Tensor) -> Tensor:
        states = over(self.read, self.embed(tokens), (tokens != 0).sum(1))
        return states[torch.arange(len(tokens)), (tokens != 0).sum(1) - 1]

    def forward(self, story: Tensor, question: Tensor) -> Any:
        facts = self.encoded(story.flatten(0, 1)).view(*story.shape[:2], -1)
        asked = self.encoded(question)
        memory = asked
        for _ in range(self.hops):
            q, m = asked[:, None], memory[:, None]
            alike = [facts * q, facts * m, (facts - q).abs(), (facts - m).abs()]
            open_ = torch.sigmoid(self.gate(torch.cat(alike, -1)))
            h = torch.zeros_like(memory)
            for t in range(facts.shape[1]):
                h = open_[:, t] * self.episode(facts[:, t], h) + (1 - open_[:, t]) * h
            memory = self.remember(h, memory)
        return self.head(torch.cat([memory, asked], -1))


@healthy("a story read again under a question", held_out=True)
def episodes(rng: np.random.Generator) -> Planted:
    rows, told, symbols = between(rng, 4, 10), between(rng, 4, 8), between(rng, 15, 30)
    size = Sizes(rows * told, between(rng, 4, 7), 1, round(2 ** rng.uniform(3.5, 6)))
    story = words(rng, size, symbols)[:, :-1] * inside(ragged(rng, size), size.time)
    question = words(rng, Sizes(rows, 4, 1, 1), symbols)[:, :-1]
    answers = torch.as_tensor(rng.integers(1, symbols, rows))
    module = Episodes(symbols, size.hidden, between(rng, 2, 3))
    return Planted(
        module,
        {"story": story.view(rows, told, -1), "question": question},
        told_apart(answers),
        {"causal": False},
    )


class Columns(nn.Module):
    """A line of writing [B, 1, 16, W]: convolutions, then its columns in both directions."""

    def __init__(self, rng: np.random.Generator, letters: int, hidden: int) -> None:
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d((2, 1)),
        )
        self.layers = recurrent(rng, 64, hidden, kinds=("lstm", "gru"), bidirectional=True)
        self.head = nn.Linear(2 * hidden, letters + 1)

    def forward(self, picture: Tensor) -> Tensor:
        columns = self.front(picture).permute(0, 3, 1, 2).flatten(2)
        scores: Tensor = self.head(self.layers(columns)[0])
        return scores.log_softmax(-1)


@healthy("columns of a written line, by CTC", held_out=True)
def columns(rng: np.random.Generator) -> Planted:
    rows, width, letters = between(rng, 4, 12), 2 * between(rng, 16, 40), between(rng, 8, 20)
    picture = torch.as_tensor(rng.standard_normal((rows, 1, 16, width)), dtype=torch.float32)
    many = torch.as_tensor(rng.integers(2, 7, rows))
    written = torch.as_tensor(rng.integers(1, letters + 1, (rows, 6)))
    steps = torch.full((rows,), width // 2)

    def loss(logs: Tensor) -> Tensor:
        return functional.ctc_loss(logs.transpose(0, 1), written, steps, many)

    module = Columns(rng, letters, round(2 ** rng.uniform(4, 7)))
    return Planted(module, (picture,), loss, {"causal": False})


class Mixed(nn.Module):
    """A language model with a mixture of softmaxes (Yang et al. 2018); log p [B, T, V]."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, parts: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, hidden)
        self.layers = recurrent(rng, hidden, hidden, between(rng, 1, 2))
        self.prior = nn.Linear(hidden, parts, bias=False)
        self.latent = nn.Linear(hidden, parts * hidden)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.layers(self.embed(tokens))[0]
        parts = torch.tanh(self.latent(states)).view(*states.shape[:2], -1, states.shape[-1])
        logs = self.out(parts).log_softmax(-1)
        return torch.logsumexp(logs + self.prior(states).log_softmax(-1)[..., None], -2)


@healthy("language model with a mixture of softmaxes", held_out=True)
def mixed(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (10, 60), (16, 96)), between(rng, 10, 30)
    x = words(rng, size, symbols)
    module = Mixed(rng, symbols, size.hidden, between(rng, 2, 5))
    answers = x[:, 1:].flatten()
    return Planted(
        module, (x[:, :-1],), lambda logs: functional.nll_loss(logs.flatten(0, 1), answers)
    )


class Tagged(NamedTuple):
    scores: Tensor
    states: Tensor


class Deep(nn.Module):
    """One layer in both directions below several residual ones (after Wu et al. 2016)."""

    def __init__(self, symbols: int, hidden: int, layers: int, tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, hidden, padding_idx=0)
        self.lowest = nn.LSTM(hidden, hidden // 2, batch_first=True, bidirectional=True)
        self.upper = nn.ModuleList(nn.LSTM(hidden, hidden, batch_first=True) for _ in range(layers))
        self.head = nn.Linear(hidden, tags)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tagged:
        lengths = mask.sum(1)
        states = over(self.lowest, self.embed(tokens), lengths)
        for layer in self.upper:
            states = states + over(layer, states, lengths)
        return Tagged(self.head(states), states)


@healthy("residual layers above one of both directions", held_out=True)
def deep(rng: np.random.Generator) -> Planted:
    size, symbols, tags = sizes(rng, (8, 40), (16, 64)), between(rng, 12, 30), between(rng, 3, 6)
    lengths = ragged(rng, size)
    mask = inside(lengths, size.time)
    x = words(rng, size, symbols)[:, :-1] * mask
    answers = torch.as_tensor(rng.integers(0, tags, x.shape))
    module = Deep(symbols, size.hidden // 2 * 2, between(rng, 2, 4), tags)
    return Planted(
        module,
        {"tokens": x, "mask": mask},
        lambda out: functional.cross_entropy(out.scores[mask], answers[mask]),
        {"causal": False},
    )


class ListOfRows(nn.Module):
    """Rows as a list of tensors of unequal lengths, packed inside."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(inputs)
        self.layers = nn.LSTM(inputs, hidden, between(rng, 1, 2))
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, rows: list[Tensor]) -> Any:
        packed: PackedSequence = pack_sequence([self.norm(x) for x in rows], enforce_sorted=False)
        _, (h, _) = self.layers(packed)
        return self.head(h[-1])


@healthy("a list of rows", held_out=True)
def list_of_rows(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (8, 50))
    inputs = between(rng, 4, 12)
    rows = [
        torch.as_tensor(rng.standard_normal((int(n), inputs)), dtype=torch.float32)
        for n in ragged(rng, size)
    ]
    return Planted(
        ListOfRows(rng, inputs, size.hidden), (rows,), told_apart(classes(rng, size.batch))
    )


class FreeWriter(nn.Module):
    """Given the answers in training; in eval mode it reads what it wrote itself."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, hidden)
        self.encoder = nn.GRU(hidden, hidden, batch_first=True)
        self.cell = nn.GRUCell(hidden, hidden)
        self.head = nn.Linear(hidden, symbols)
        self.steps = between(rng, 4, 10)

    def forward(self, source: Tensor, answers: Tensor | None = None) -> Tensor:
        h = self.encoder(self.embed(source))[1][0]
        symbol, out = torch.zeros_like(source[:, 0]), []
        for t in range(self.steps):
            h = self.cell(self.embed(symbol), h)
            scores = self.head(h)
            symbol = answers[:, t] if self.training and answers is not None else scores.argmax(-1)
            out.append(scores)
        return torch.stack(out, 1)


@healthy("a decoder that reads its own words in eval mode", held_out=True)
def free_writer(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (5, 10), (24, 48)), between(rng, 5, 9)
    module = FreeWriter(rng, symbols, size.hidden)
    module.steps = size.time

    def draw() -> tuple[Tensor, Tensor]:
        # The answers are the symbols put in the opposite order within the row.
        x = torch.as_tensor(rng.integers(1, symbols, (size.batch, size.time)))
        return x, x.flip(1)

    def step() -> Tensor:
        x, y = draw()
        return functional.cross_entropy(module(x, y).flatten(0, 1), y.flatten())

    adam(module, step, 250, one_of(rng, 3e-3, 5e-3))
    x, y = draw()
    return Planted(module, (x,), told_apart(y), {"causal": False})
