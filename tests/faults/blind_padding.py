"""Padding that is read, attended to, handed on or paid for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from tests.faults.building import Cells
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    between,
    classes,
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


def last(states: Tensor, lengths: Tensor) -> Tensor:
    """[B, P] at the rows' own last steps."""
    return states[torch.arange(len(states)), lengths - 1]


class LeftPadded(nn.Module):
    """Classes of texts whose words stand at the right, as a generator of text wants them."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(symbols, 12, padding_idx=0)
        self.cells = Cells(rng, 12, hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        state = self.cells.first(x)
        for t in range(x.shape[1]):
            new = self.cells(x[:, t], state)
            if self.masked:
                real = attention_mask[:, t, None] == 1
                new = tuple(torch.where(real, n, s) for n, s in zip(new, state))
            state = new
        result: Tensor = self.head(state[0])
        return result


@fault(
    "padding before the words read by the layer",
    "HS101",
    "HS102",
    source="https://github.com/keras-team/keras/issues/4192",
    held_out=True,
)
def padding_before(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, time=(8, 20)), between(rng, 12, 40)
    lengths = ragged(rng, size)
    mask = inside(lengths, size.time).flip(1)
    ids = torch.where(mask, words(rng, size, symbols)[:, 1:], 0)
    return Planted(
        LeftPadded(rng, symbols, size.hidden, remedied),
        {"input_ids": ids, "attention_mask": mask.long()},
        told_apart(classes(rng, size.batch)),
    )


class Translator(nn.Module):
    """A decoder that asks an encoder's states at each of its steps, by products."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, shut: float) -> None:
        super().__init__()
        self.shut = shut
        self.embed = nn.Embedding(symbols, 16)
        self.encoder = TORCH[one_of(rng, "rnn", "gru")](16, hidden, batch_first=True)
        self.decoder = nn.GRUCell(16 + hidden, hidden)
        self.asks = nn.Linear(hidden, hidden, bias=False)
        self.head = nn.Linear(2 * hidden, symbols)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        states, _ = self.encoder(self.embed(source))
        mask = inside(lengths, source.shape[1]).float()
        h = last(states, lengths)
        context = torch.zeros_like(h)
        scores = []
        for symbol in target.unbind(1):
            h = self.decoder(torch.cat([self.embed(symbol), context], 1), h)
            energies = torch.einsum("bh,bth->bt", self.asks(h), states)
            weights = torch.softmax(energies - (1 - mask) * self.shut, 1)
            context = torch.einsum("bt,bth->bh", weights, states)
            scores.append(self.head(torch.cat([h, context], 1)))
        return torch.stack(scores, 1)


@fault(
    "a penalty of one on padding in the place of minus infinity", "HS101", "HS102", held_out=True
)
def penalty_of_one(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, hidden=(8, 64)), between(rng, 15, 40)
    lengths, answer = ragged(rng, size), between(rng, 3, 7)
    source = words(rng, size, symbols)[:, 1:] * inside(lengths, size.time)
    target = torch.as_tensor(rng.integers(1, symbols, (size.batch, answer + 1)))
    return Planted(
        Translator(rng, symbols, size.hidden, 1e9 if remedied else 1.0),
        (source, lengths, target[:, :-1]),
        told_apart(target[:, 1:]),
        {"causal": False},
    )


class StatefulForecaster(nn.Module):
    """The next values at each step, and the state to go on from."""

    def __init__(self, kind: str, inputs: int, hidden: int, packed: bool) -> None:
        super().__init__()
        self.packed = packed
        self.layer = TORCH[kind](inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor, lengths: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        outputs, after = self.layer(x, state)
        if self.packed:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            after = self.layer(packed, state)[1]
        return self.head(outputs) * inside(lengths, x.shape[1])[..., None], after


@fault("the state behind the padding handed on", "HS101", "HS102", "HS131", held_out=True)
def state_behind_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    size, kind = sizes(rng, hidden=(8, 64)), one_of(rng, *TORCH)
    lengths = ragged(rng, size)
    x = series(rng, size, lengths)
    mask = inside(lengths - 1, size.time - 1)[..., None]
    given: Any = torch.randn(1, size.batch, size.hidden) * 0.3
    if kind == "lstm":
        given = (given, torch.randn(1, size.batch, size.hidden) * 0.3)

    def loss(output: Any) -> Tensor:
        wrong = (output[0][:, :-1] - x[:, 1:]).square() * mask
        result: Tensor = wrong.sum() / (mask.sum() * size.inputs)
        return result

    module = StatefulForecaster(kind, size.inputs, size.hidden, remedied)
    return Planted(module, (x, lengths, given), loss, {"states": ("state",)})


class ConvThenPacked(nn.Module):
    """Two convolutions over words, then a layer that reads both ways, packed."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(symbols, 16)
        self.convs = nn.ModuleList(nn.Conv1d(16, 16, 3, padding=1) for _ in range(2))
        kind = TORCH[one_of(rng, "lstm", "gru")]
        self.layer = kind(16, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        mask = inside(lengths, ids.shape[1])
        x = self.embed(ids).transpose(1, 2)
        for conv in self.convs:
            x = torch.tanh(conv(x * mask[:, None] if self.masked else x))
        states = over(self.layer, x.transpose(1, 2), lengths)
        result: Tensor = self.head(states.masked_fill(~mask[..., None], -2.0).amax(1))
        return result


@fault("convolutions that read past a row's end", "HS101", "HS102", held_out=True)
def convolutions_past_the_end(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, hidden=(8, 64)), between(rng, 12, 40)
    lengths = ragged(rng, size)
    ids = words(rng, size, symbols)[:, 1:] * inside(lengths, size.time)
    return Planted(
        ConvThenPacked(rng, symbols, size.hidden, remedied),
        (ids, lengths),
        told_apart(classes(rng, size.batch)),
        {"causal": False},
    )


class QuestionAndText(nn.Module):
    """Whether a text answers a question, from the last states of both."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, own: bool) -> None:
        super().__init__()
        self.own = own
        self.embed = nn.Embedding(symbols, 16, padding_idx=0)
        self.reads_question = nn.GRU(16, hidden, batch_first=True)
        self.reads_text = TORCH[one_of(rng, "rnn", "gru")](16, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, 1)

    def forward(
        self, question: Tensor, question_lengths: Tensor, text: Tensor, text_lengths: Tensor
    ) -> Tensor:
        q = self.read(self.reads_question, question, question_lengths)
        t = self.read(self.reads_text, text, text_lengths if self.own else question_lengths)
        result: Tensor = self.head(torch.cat([q, t], 1)).squeeze(1)
        return result

    def read(self, layer: nn.Module, ids: Tensor, lengths: Tensor) -> Tensor:
        x = self.embed(ids)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        result: Tensor = layer(packed)[1][-1]
        return result


@fault("a text packed with the lengths of the question", "HS101", "HS102", "HS143", held_out=True)
def lengths_of_the_question(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, time=(8, 20)), between(rng, 15, 60)
    longer = size.time + between(rng, 4, 20)
    question_lengths = ragged(rng, size)
    lengths = torch.as_tensor(rng.integers(2, longer + 1, size.batch))
    lengths[0], lengths[1] = longer, 3
    question_lengths[1] = size.time
    question = torch.as_tensor(rng.integers(1, symbols, (size.batch, size.time)))
    text = torch.as_tensor(rng.integers(1, symbols, (size.batch, longer)))
    fits = torch.as_tensor(rng.integers(0, 2, size.batch)).float()
    return Planted(
        QuestionAndText(rng, symbols, size.hidden, remedied),
        {
            "question": question * inside(question_lengths, size.time),
            "question_lengths": question_lengths,
            "text": text * inside(lengths, longer),
            "text_lengths": lengths,
        },
        lambda scores: functional.binary_cross_entropy_with_logits(scores, fits),
    )


class Letters(nn.Module):
    """Logarithms of letters' probabilities [B, T, C] at the frames of speech; 0 is the blank."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, letters: int) -> None:
        super().__init__()
        self.front = nn.Linear(inputs, 16)
        self.layer = recurrent(rng, 16, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, letters)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        states = over(self.layer, torch.tanh(self.front(frames)), lengths)
        return torch.log_softmax(self.head(states), -1)


@fault("CTC told that all rows are as long as the longest", "HS104", held_out=True)
def ctc_over_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    size, letters = sizes(rng, time=(16, 50), hidden=(8, 64)), between(rng, 5, 12)
    lengths = ragged(rng, size).clamp(min=8)
    spoken = torch.as_tensor(rng.integers(1, letters, (size.batch, 4)))
    spoken_lengths = torch.as_tensor(rng.integers(2, 5, size.batch))
    told = lengths if remedied else torch.full_like(lengths, size.time)

    def loss(scores: Tensor) -> Tensor:
        return functional.ctc_loss(scores.transpose(0, 1), spoken, told, spoken_lengths)

    module = Letters(rng, size.inputs, size.hidden, letters)
    return Planted(module, (series(rng, size, lengths), lengths), loss, {"causal": False})


class Explained(nn.Module):
    """Tags at each step, with the states that a penalty is put on."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int) -> None:
        super().__init__()
        self.layer = TORCH[one_of(rng, *TORCH)](inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        states, _ = self.layer(x)
        scores = self.head(states).masked_fill(~inside(lengths, x.shape[1])[..., None], 0.0)
        return {"logits": scores, "states": states}


def penalised(truth: Tensor, counted: Tensor) -> Callable[[Any], Tensor]:
    """Cross entropy where truth is not -100, and twice the mean square of the states counted."""

    def loss(output: Any) -> Tensor:
        wrong = functional.cross_entropy(
            output["logits"].flatten(0, 1), truth.flatten(), ignore_index=-100
        )
        result: Tensor = wrong + 2 * output["states"][counted].square().mean()
        return result

    return loss


@fault(
    "a penalty on the states that counts padding",
    "HS104",
    source="activation regularisation of AWD-LSTM, over padded rows",
    held_out=True,
)
def penalty_counts_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    lengths = ragged(rng, size)
    mask = inside(lengths, size.time)
    tags = torch.as_tensor(rng.integers(0, CLASSES, mask.shape))
    return Planted(
        Explained(rng, size.inputs, size.hidden),
        (series(rng, size, lengths), lengths),
        penalised(tags.masked_fill(~mask, -100), mask if remedied else torch.ones_like(mask)),
    )
