"""Healthy models of many shapes, fresh: what is given, what comes out, what is done with it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import (
    pack_padded_sequence,
    pad_packed_sequence,
)

from hiddenstate.nn import (
    cross_entropy,
)
from tests.faults.building import (
    Cells,
    Reader,
    Sizes,
    at_end,
    numbers,
    real,
    sizes,
    tokens,
    torch_layer,
)
from tests.faults.plant import Planted, healthy


def maybe_padded(rng: np.random.Generator, has: Sizes) -> tuple[Tensor, ...]:
    """Draw x with lengths, or x alone and whole."""
    if rng.random() < 0.5:
        return (numbers(rng, has, padded=False),)
    return (numbers(rng, has, padded=bool(rng.integers(2))), has.lengths)


class Tagger(nn.Module):
    def __init__(self, reader: Reader, classes: int) -> None:
        super().__init__()
        self.reader, self.head = reader, nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.head(self.reader(x, lengths))


@healthy("tagger of padded rows with a masked loss")
def tagger(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden, bidirectional=bool(rng.integers(2)))
    target = torch.as_tensor(rng.integers(0, has.classes, (has.rows, has.steps)))

    def loss(logits: Tensor) -> Tensor:
        return cross_entropy(logits, target, has.valid)

    return Planted(Tagger(reader, has.classes), (numbers(rng, has), has.lengths), loss)


class Pooling(nn.Module):
    """One answer a row, from the states by a kind of pool."""

    def __init__(self, reader: Reader, classes: int, kind: str) -> None:
        super().__init__()
        self.reader, self.kind = reader, kind
        self.score, self.head = nn.Linear(reader.width, 1), nn.Linear(reader.width, classes)
        self.dropout = nn.Dropout(0.3)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        states = self.reader(x, lengths)
        if lengths is None:
            lengths = torch.full((len(x),), x.shape[1])
        own = real(lengths, x.shape[1])
        if self.kind == "mean":
            h = torch.where(own, states, 0.0).sum(1) / lengths[:, None].clamp(min=1)
        elif self.kind == "max":
            h = states.masked_fill(~own, -1e9).amax(1)
        elif self.kind == "attention":
            scores = self.score(states).masked_fill(~own, torch.finfo(states.dtype).min)
            h = (scores.softmax(1) * states).sum(1)
        else:
            h = at_end(states, lengths)
        return self.head(self.dropout(h))


@healthy("classifier of the last state")
def last_state(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden, layers=int(rng.integers(1, 3)))
    return Planted(Pooling(reader, has.classes, "last"), maybe_padded(rng, has))


@healthy("classifier with a mean, a maximum or attention")
def pooled(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden, bidirectional=bool(rng.integers(2)))
    kind = str(rng.choice(["mean", "max", "attention"]))
    return Planted(Pooling(reader, has.classes, kind), maybe_padded(rng, has))


class BothWays(nn.Module):
    """Final states of both directions, packed; lengths as a list."""

    def __init__(self, layer: nn.RNNBase, classes: int) -> None:
        super().__init__()
        self.layer, self.head = layer, nn.Linear(2 * layer.hidden_size, classes)

    def forward(self, x: Tensor, lengths: list[int]) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        final = self.layer(packed)[1]
        h = final[0] if isinstance(final, tuple) else final
        return self.head(torch.cat([h[-2], h[-1]], -1))


@healthy("final states of both directions, lengths as a list")
def both_ways(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    layers = int(rng.integers(1, 3))
    layer = torch_layer(rng, has.features, has.hidden, num_layers=layers, bidirectional=True)
    return Planted(BothWays(layer, has.classes), (numbers(rng, has), has.lengths.tolist()))


class WordModel(nn.Module):
    """The classic word language model: steps first, its state in and out."""

    def __init__(self, layer: nn.RNNBase, features: int, *, joined: bool) -> None:
        super().__init__()
        self.joined = joined
        self.drop, self.encoder = nn.Dropout(0.2), nn.Embedding(11, features)
        self.rnn, self.decoder = layer, nn.Linear(layer.hidden_size, 11)

    def forward(self, codes: Tensor, hidden: Any = None) -> tuple[Tensor, Any]:
        output, hidden = self.rnn(self.drop(self.encoder(codes)), hidden)
        decoded = self.decoder(self.drop(output))
        if self.joined:
            decoded = decoded.view(-1, 11)
        return functional.log_softmax(decoded, -1), hidden


@healthy("word language model with its steps first")
def word_model(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    layers = int(rng.integers(1, 3))
    layer = torch_layer(rng, has.features, has.hidden, num_layers=layers, batch_first=False)
    codes = torch.as_tensor(rng.integers(0, 11, (has.steps, has.rows)))
    target = torch.as_tensor(rng.integers(0, 11, (has.steps, has.rows)))

    def loss(output: Any) -> Tensor:
        return functional.nll_loss(output[0].reshape(-1, 11), target.flatten())

    module = WordModel(layer, has.features, joined=bool(rng.integers(2)))
    return Planted(module, (codes,), loss)


class FromSymbols(nn.Module):
    """Lengths are read off the padding symbol; what stands in the padding is masked."""

    def __init__(self, reader: Reader, features: int, classes: int, index: int | None) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, features, padding_idx=index)
        self.reader, self.head = reader, nn.Linear(reader.width, classes)

    def forward(self, codes: Tensor) -> Tensor:
        lengths = (codes != 0).sum(1)
        states = self.reader(self.embed(codes), lengths)
        own = real(lengths, codes.shape[1])
        return self.head(torch.where(own, states, 0.0).sum(1) / lengths[:, None])


@healthy("classifier of symbols that finds their ends itself")
def from_symbols(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden, bidirectional=bool(rng.integers(2)))
    index = 0 if rng.random() < 0.5 else None
    return Planted(FromSymbols(reader, has.features, has.classes, index), (tokens(rng, has),))


class CellLoop(nn.Module):
    """torch's cells over the steps, layer upon layer, with the state in and out."""

    def __init__(self, cells: list[Cells], classes: int) -> None:
        super().__init__()
        self.cells, self.head = nn.ModuleList(cells), nn.Linear(cells[-1].hidden, classes)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        states = [cell.first(x) for cell in self.cells] if state is None else list(state)
        outputs = []
        for x_t in x.unbind(1):
            for k, cell in enumerate(self.cells):
                states[k] = cell(x_t, states[k])
                x_t = states[k][0]
            outputs.append(self.head(x_t))
        return torch.stack(outputs, 1), tuple(states)


@healthy("loop over torch's cells")
def cell_loop(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    widths = [has.features, *[has.hidden] * int(rng.integers(0, 2))]
    module = CellLoop([Cells(rng, width, has.hidden) for width in widths], has.classes)
    return Planted(module, (numbers(rng, has, padded=False),))


class OwnRecurrence(nn.Module):
    """h <- tanh(W [x, h]) out of plain layers, steps first."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden, self.mix = hidden, nn.Linear(features + hidden, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[1], self.hidden)
        for x_t in x:
            h = self.mix(torch.cat([x_t, h], -1)).tanh()
        return self.head(h)


@healthy("recurrence out of plain layers, steps first")
def own_recurrence(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    x = numbers(rng, has, padded=False).transpose(0, 1).contiguous()
    return Planted(OwnRecurrence(has.features, has.hidden, has.classes), (x,))


class Convolved(nn.Module):
    """A convolution over the real steps, then a layer, then the last state."""

    def __init__(self, reader: Reader, features: int, classes: int) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(features, features, 3, padding=1)
        self.reader, self.head = reader, nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = torch.where(real(lengths, x.shape[1]), x, 0.0)
        near = self.convolve(x.transpose(1, 2)).transpose(1, 2).relu()
        return self.head(at_end(self.reader(near, lengths), lengths))


@healthy("convolution before the layer")
def convolved(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    module = Convolved(Reader(rng, has.features, has.hidden), has.features, has.classes)
    return Planted(module, (numbers(rng, has, padded=False), has.lengths))


class ChannelsFirst(nn.Module):
    """Reads [B, D, T] and keeps every second step."""

    def __init__(self, reader: Reader, features: int, classes: int) -> None:
        super().__init__()
        self.convolve, self.pool = nn.Conv1d(features, features, 3, padding=1), nn.MaxPool1d(2)
        self.norm = nn.BatchNorm1d(features)
        self.reader, self.head = reader, nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        near = self.pool(self.norm(self.convolve(x)).relu()).transpose(1, 2)
        return self.head(self.reader(near)[:, -1])


@healthy("channels first, batch norm, and half of the steps")
def channels_first(rng: np.random.Generator) -> Planted:
    has = sizes(rng, steps=8)
    module = ChannelsFirst(Reader(rng, has.features, has.hidden), has.features, has.classes)
    with torch.no_grad():
        module.norm.running_mean.normal_()
        module.norm.running_var.uniform_(0.5, 2.0)
    return Planted(module, (numbers(rng, has, padded=False).transpose(1, 2),))


class Answer(NamedTuple):
    outcome: Tensor
    hours: Tensor


class Case(nn.Module):
    """Events and numbers, facts of the whole case, two answers."""

    def __init__(self, reader: Reader, features: int, classes: int) -> None:
        super().__init__()
        self.embed, self.fact = nn.Embedding(11, features), nn.Linear(3, reader.width)
        self.reader = reader
        self.outcome, self.hours = nn.Linear(reader.width, classes), nn.Linear(reader.width, 1)

    def forward(self, facts: Tensor, codes: Tensor, x: Tensor, lengths: Tensor) -> Answer:
        states = self.reader(torch.cat([self.embed(codes), x], -1), lengths)
        h = states + self.fact(facts)[:, None]
        return Answer(self.outcome(at_end(h, lengths)), self.hours(h)[..., 0])


@healthy("events, numbers and facts of a case, given by name")
def case(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, 2 * has.features, has.hidden)
    batch = {
        "facts": torch.as_tensor(rng.normal(size=(has.rows, 3))).float(),
        "codes": tokens(rng, has),
        "x": numbers(rng, has),
        "lengths": has.lengths,
    }
    return Planted(Case(reader, has.features, has.classes), batch)


class Masked(nn.Module):
    """As models of the transformers library are called: ids and attention_mask in a mapping."""

    def __init__(self, reader: Reader, features: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, features)
        self.reader, self.head = reader, nn.Linear(reader.width, classes)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = batch["attention_mask"]
        states = self.reader(self.embed(batch["input_ids"]), mask.sum(1))
        mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.head(mean), "states": states}


@healthy("a mapping of symbols and a mask")
def masked(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden, bidirectional=bool(rng.integers(2)))
    batch = {"input_ids": tokens(rng, has), "attention_mask": has.valid.long()}
    return Planted(Masked(reader, has.features, has.classes), (batch,))


class Translator(nn.Module):
    """An encoder, a decoder that is told the truth, and attention over the source."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.source, self.target = (nn.Embedding(11, features) for _ in range(2))
        self.encoder = nn.GRU(features, hidden, batch_first=True)
        self.decoder = nn.GRU(features, hidden, batch_first=True)
        self.head = nn.Linear(2 * hidden, 11)

    def forward(self, source: Tensor, source_lengths: Tensor, target: Tensor) -> Tensor:
        packed = pack_padded_sequence(
            self.source(source), source_lengths, batch_first=True, enforce_sorted=False
        )
        states, last = self.encoder(packed)
        states = pad_packed_sequence(states, batch_first=True, total_length=source.shape[1])[0]
        h, _ = self.decoder(self.target(target), last)
        scores = h @ states.transpose(1, 2)
        padding = ~real(source_lengths, source.shape[1]).transpose(1, 2)
        weights = scores.masked_fill(padding, -1e9).softmax(-1)
        return self.head(torch.cat([h, weights @ states], -1))


@healthy("encoder and decoder with attention")
def translator(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    other = has.steps if rng.random() < 0.3 else int(rng.integers(3, 12))
    target = torch.as_tensor(rng.integers(0, 11, (has.rows, other)))
    batch = (tokens(rng, has), has.lengths, target)
    return Planted(Translator(has.features, has.hidden), batch)


class Forecaster(nn.Module):
    """The next H values from the last state, of an LSTM with a projection."""

    def __init__(self, features: int, hidden: int, horizon: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(features, hidden, proj_size=hidden // 2, batch_first=True)
        self.head, self.shape = nn.Linear(hidden // 2, horizon * features), (horizon, features)

    def forward(self, x: Tensor) -> Tensor:
        level = x.mean(1, keepdim=True)
        h = self.layer(x - level)[0][:, -1]
        return self.head(h).unflatten(-1, self.shape) + level


@healthy("forecaster of several steps")
def forecaster(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    module = Forecaster(has.features, has.hidden, int(rng.integers(2, 7)))
    return Planted(module, (numbers(rng, has, padded=False).cumsum(1),))
