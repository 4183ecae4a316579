"""Held-out faults of padding and of rows: a row's result depends on its neighbours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    Sizes,
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


def classified(rng: np.random.Generator, module: nn.Module, size: Sizes) -> Planted:
    """A classifier of rows of unequal length, padded with zeros."""
    lengths = ragged(rng, size)
    x = series(rng, size, lengths)
    return Planted(module, (x, lengths), told_apart(classes(rng, size.batch)))


class Packed(nn.Module):
    """Reads packed rows and sums up the states of all steps; `right` says whether rightly."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        both = bool(rng.random() < 0.4)
        layers = between(rng, 1, 2)
        self.rnn = recurrent(rng, size.inputs, size.hidden, layers, bidirectional=both)
        self.width = size.hidden * (2 if both else 1)
        self.head = nn.Linear(self.width, CLASSES)
        self.right = right


class MeanPooled(Packed):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        h, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        if self.right:
            return self.head(h.sum(dim=1) / lengths.unsqueeze(1))
        return self.head(h.mean(dim=1))


@fault("mean divided by the longest row of the batch", "HS102", "HS121", "HS124", held_out=True)
def mean_over_longest(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return classified(rng, MeanPooled(rng, size, remedied), size)


class AttentionPooled(Packed):
    """Additive attention over the steps, with a mask of the real ones or without."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__(rng, size, right)
        self.attention = nn.Linear(self.width, self.width)
        self.context = nn.Linear(self.width, 1, bias=False)

    def scores(self, h: Tensor) -> Tensor:
        return self.context(torch.tanh(self.attention(h))).squeeze(-1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h, mask = over(self.rnn, x, lengths), inside(lengths, x.shape[1])
        scores = self.scores(h)
        if self.right:
            scores = scores.masked_fill(~mask, -1e9)
        weights = torch.softmax(scores, dim=1) * mask
        return self.head((weights.unsqueeze(-1) * h).sum(dim=1))


@fault("attention weights masked after the softmax", "HS101", "HS102", held_out=True)
def masked_afterwards(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return classified(rng, AttentionPooled(rng, size, remedied), size)


class InvertedMask(AttentionPooled):
    """Runs over the padding as well, and hides the wrong part of it."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h = over(self.rnn, x, lengths) if self.right else self.rnn(x)[0]
        mask = inside(lengths, x.shape[1])
        scores = self.scores(h).masked_fill(~mask if self.right else mask, -1e9)
        return self.head(torch.bmm(torch.softmax(scores, dim=1).unsqueeze(1), h).squeeze(1))


@fault("an attention mask the wrong way round", "HS101", "HS102", held_out=True)
def inverted_mask(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return classified(rng, InvertedMask(rng, size, remedied), size)


class AttendingStates(nn.Module):
    """Multi-head attention over the states; it takes steps first unless it is told otherwise."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        width = 4 * max(2, size.hidden // 4)
        self.rnn = recurrent(rng, size.inputs, width)
        self.attention = nn.MultiheadAttention(width, one_of(rng, 1, 2, 4), batch_first=right)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.rnn(x)
        seen, _ = self.attention(h, h, h, need_weights=False)
        return self.head(seen.mean(dim=1))


@fault("batch_first told to the layer and not to the attention", "HS121", "HS125", held_out=True)
def attention_over_rows(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = AttendingStates(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class OwnDirections(nn.Module):
    """Two loops over cells, one from the end."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        kind = one_of(rng, nn.RNNCell, nn.GRUCell)
        self.ahead = kind(size.inputs, size.hidden)
        self.back = kind(size.inputs, size.hidden)
        self.head = nn.Linear(2 * size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        batch, time, _ = x.shape
        one = other = x.new_zeros(batch, self.ahead.hidden_size)
        for t in range(time):
            real = (t < lengths).unsqueeze(1)
            one = torch.where(real, self.ahead(x[:, t], one), one)
        for t in reversed(range(time)):
            real = (t < lengths).unsqueeze(1)
            state = self.back(x[:, t], other)
            other = torch.where(real, state, other) if self.right else state
        return self.head(torch.cat([one, other], dim=1))


@fault("a loop from the end that begins in the padding", "HS101", "HS102", held_out=True)
def begins_in_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 20), (8, 64))
    return classified(rng, OwnDirections(rng, size, remedied), size)


class OneTooFar(Packed):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h, _ = self.rnn(x)
        last = lengths - 1 if self.right else lengths.clamp(max=x.shape[1] - 1)
        index = last.view(-1, 1, 1).expand(-1, 1, h.shape[2])
        return self.head(h.gather(1, index).squeeze(1))


@fault("the state one step behind a row's end", "HS101", "HS102", held_out=True)
def one_too_far(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = OneTooFar(rng, size, remedied)
    # One direction: a backward reading of the padding would be a fault of its own.
    module.rnn = recurrent(rng, size.inputs, size.hidden, 2)
    module.head = nn.Linear(size.hidden, CLASSES)
    return classified(rng, module, size)


class Sorted(nn.Module):
    """Sorts the rows by their lengths, as packing asked for once."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.kind = one_of(rng, "lstm", "gru")
        layers, both = between(rng, 1, 2), bool(rng.random() < 0.5)
        self.rnn = TORCH[self.kind](
            size.inputs, size.hidden, layers, batch_first=True, bidirectional=both
        )
        self.head = nn.Linear(size.hidden * (2 if both else 1), CLASSES)
        self.right = right

    def last(self, packed: object) -> Tensor:
        _, state = self.rnn(packed)
        h = state[0] if self.kind == "lstm" else state
        return torch.cat([h[-2], h[-1]], dim=1) if self.rnn.bidirectional else h[-1]


class OnlyLengthsSorted(Sorted):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        lengths, order = lengths.sort(descending=True)
        if self.right:
            x = x[order]
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True)
        h = self.last(packed)
        return self.head(h[order.argsort()] if self.right else h)


@fault(
    "lengths sorted without their rows",
    "HS101",
    "HS121",
    "HS123",
    "HS124",
    source="pytorch/pytorch #23079",
    held_out=True,
)
def only_lengths_sorted(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return classified(rng, OnlyLengthsSorted(rng, size, remedied), size)


class Directions(nn.Module):
    """Takes the final states [L * 2, B, H] of both directions apart."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.kind, layers = one_of(rng, "rnn", "lstm", "gru"), between(rng, 1, 3)
        self.rnn = TORCH[self.kind](
            size.inputs, size.hidden, layers, batch_first=True, bidirectional=True
        )
        self.head = nn.Linear(2 * size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        _, state = self.rnn(packed)
        h = state[0] if self.kind == "lstm" else state
        layers, batch, hidden = self.rnn.num_layers, x.shape[0], self.rnn.hidden_size
        if self.right:
            last = h.view(layers, 2, batch, hidden)[-1].transpose(0, 1)
        else:
            last = h.view(layers, batch, 2, hidden)[-1]
        return self.head(last.flatten(1))


@fault(
    "final states viewed with rows before directions",
    "HS121",
    source="pytorch/pytorch #4145",
    held_out=True,
)
def rows_before_directions(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return classified(rng, Directions(rng, size, remedied), size)


class Stacked(nn.Module):
    """A loop over a cell whose outputs are put together at its end."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.cell = one_of(rng, nn.RNNCell, nn.GRUCell)(size.inputs, size.hidden)
        self.head = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = None, []
        for t in range(x.size(1)):
            h = self.cell(x[:, t, :], h)
            outputs.append(h)
        if self.right:
            return self.head(torch.stack(outputs, dim=1))
        return self.head(torch.stack(outputs).view(x.size(0), x.size(1), -1))


@fault("outputs of a loop stacked by steps and viewed by rows", "HS121", "HS125", held_out=True)
def stacked_by_steps(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 25))
    answers = torch.as_tensor(rng.integers(0, CLASSES, (size.batch, size.time)))
    return Planted(Stacked(rng, size, remedied), (series(rng, size),), told_apart(answers))


class Standardised(nn.Module):
    """Standardises by constants of the training data, or by the batch that it is given."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, 1)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        x = (x - 5.0) / 2.0 if self.right else (x - x.mean()) / x.std()
        return self.head(self.rnn(x)[0][:, -1]).squeeze(-1)


@fault("inputs standardised by the batch at hand", "HS121", "HS124", held_out=True)
def standardised_by_batch(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = series(rng, size)
    answers = x[..., 0].mean(dim=1)
    module = Standardised(rng, size, remedied)
    return Planted(module, (5.0 + 2.0 * x,), lambda y: functional.mse_loss(y, answers))


class WordsAndMeaning(nn.Module):
    """A GRU over words, and the mean of their vectors beside it."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, size.inputs, padding_idx=0)
        nn.init.uniform_(self.embedding.weight, -0.25, 0.25)
        self.rnn = recurrent(rng, size.inputs, size.hidden, bidirectional=True)
        self.head = nn.Linear(2 * size.hidden + size.inputs, CLASSES)
        self.right = right

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.right:
            x = x * inside(lengths, tokens.shape[1]).unsqueeze(-1)
        h = over(self.rnn, x, lengths).sum(dim=1)
        both = torch.cat([h, x.sum(dim=1)], dim=1) / lengths.unsqueeze(1)
        return self.head(both)


@fault("a padding vector that the initialiser filled", "HS101", "HS102", held_out=True)
def padding_vector_filled(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng), between(rng, 12, 60)
    lengths = ragged(rng, size)
    tokens = words(rng, size, symbols)[:, : size.time] * inside(lengths, size.time)
    module = WordsAndMeaning(rng, size, symbols, remedied)
    return Planted(module, (tokens, lengths), told_apart(classes(rng, size.batch)))


class Tagger(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 16, padding_idx=0)
        kind = one_of(rng, "lstm", "gru")
        self.rnn = TORCH[kind](16, size.hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * size.hidden, tags)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.embedding(tokens), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        h, _ = pad_packed_sequence(
            self.rnn(packed)[0], batch_first=True, total_length=tokens.shape[1]
        )
        return self.head(h)


@fault("ignore_index that is not the padding's tag", "HS104", held_out=True)
def wrong_ignore_index(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols, tags = sizes(rng), between(rng, 12, 40), between(rng, 3, 8)
    lengths = ragged(rng, size)
    mask = inside(lengths, size.time)
    tokens = words(rng, size, symbols)[:, : size.time] * mask
    answers = torch.where(mask, tokens % (tags - 1) + 1, 0)
    ignored = 0 if remedied else -100

    def loss(scores: Tensor) -> Tensor:
        return functional.cross_entropy(
            scores.reshape(-1, tags), answers.reshape(-1), ignore_index=ignored
        )

    return Planted(Tagger(rng, size, symbols, tags), (tokens, lengths), loss)


class Regressor(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


@fault("answers [B] broadcast against predictions [B, 1]", "HS121", held_out=True)
def broadcast_loss(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = series(rng, size)
    answers = x[:, -3:, 0].sum(dim=1)

    def loss(y: Tensor) -> Tensor:
        return ((y.squeeze(-1) if remedied else y) - answers).pow(2).mean()

    return Planted(Regressor(rng, size), (x,), loss)
