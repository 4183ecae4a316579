"""More healthy models, fresh: layers by themselves, layers of ours, several in one, rare sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)

from hiddenstate.artifact.transformer import TransformerSpec
from hiddenstate.cells import build
from hiddenstate.nn import (
    Bidirectional,
    Head,
    Recurrent,
    Stack,
    Transformer,
    stack_of,
)
from tests.faults.building import (
    Reader,
    Sizes,
    numbers,
    sizes,
    tokens,
    torch_layer,
)
from tests.faults.healthy_shapes import Tagger
from tests.faults.plant import Planted, healthy

CELLS = ("elman", "lstm", "gru")


class Sentences(nn.Module):
    """Words to sentences to a text: a layer over words, and one over what it gives."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, features)
        self.words = nn.GRU(features, hidden, batch_first=True)
        self.sentences = nn.GRU(hidden, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.embed(codes).flatten(0, 1)
        h = self.words(x)[1][0].unflatten(0, codes.shape[:2])
        return self.head(self.sentences(h)[1][0])


@healthy("words, sentences, texts")
def sentences(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    codes = torch.as_tensor(rng.integers(0, 11, (has.rows, has.steps, int(rng.integers(3, 7)))))
    return Planted(Sentences(has.features, has.hidden, has.classes), (codes,))


class Twins(nn.Module):
    """How alike two sequences are, by one encoder."""

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return functional.cosine_similarity(self.reader(left)[:, -1], self.reader(right)[:, -1])


@healthy("two sequences and one encoder")
def twins(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    pair = (numbers(rng, has, padded=False), numbers(rng, has, padded=False))
    return Planted(Twins(Reader(rng, has.features, has.hidden)), pair)


@healthy("torch's layer by itself")
def bare(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    first, both = bool(rng.integers(2)), bool(rng.integers(2))
    layers = int(rng.integers(1, 4))
    layer = torch_layer(
        rng, has.features, has.hidden, num_layers=layers, bidirectional=both, batch_first=first
    )
    x = numbers(rng, has, padded=False)
    return Planted(layer, (x if first else x.transpose(0, 1),))


@healthy("torch's layer given a PackedSequence")
def given_packed(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, bidirectional=bool(rng.integers(2)))
    ragged = rng.random() < 0.5
    lengths = has.lengths if ragged else has.lengths.sort(descending=True).values
    rows = [torch.randn(int(count), has.features) for count in lengths]
    packed: PackedSequence = pack_sequence(rows, enforce_sorted=not ragged)
    return Planted(layer, (packed,))


@healthy("stacks of ours, residual, normalised, with learned states")
def our_stack(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    stack = stack_of(
        str(rng.choice(CELLS)),
        has.hidden,
        has.hidden,
        int(rng.integers(2, 5)),
        residual=True,
        learned_state=bool(rng.integers(2)),
    )
    x = torch.randn(has.rows, has.steps, has.hidden)
    lengths = has.lengths.clone()
    if rng.random() < 0.3:
        lengths[-1] = 0
    return Planted(stack, (x, lengths))


class Ours(nn.Module):
    """Both directions of ours and a head with a pool, over rows that may have no steps."""

    def __init__(self, name: str, has: Sizes, pool: str) -> None:
        super().__init__()
        cell = build(name, has.features, has.hidden)
        self.both = Bidirectional(Recurrent(cell), Recurrent(cell, reverse=True))
        top = build(name, 2 * has.hidden, has.hidden)
        self.top = Stack([Recurrent(top, zoneout=0.1, dropconnect=0.2)], output_dropout=0.2)
        self.head = Head(has.hidden, has.classes, pool)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = self.both(x, lengths)[0]
        return self.head(self.top(states, lengths)[0], lengths)


@healthy("layers, pools and heads of ours")
def ours(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    module = Ours(
        str(rng.choice(CELLS)), has, str(rng.choice(["last", "mean", "max", "attention"]))
    )
    lengths = has.lengths.clone()
    if rng.random() < 0.3:
        lengths[-1] = 0
    return Planted(module, (numbers(rng, has, padded=False), lengths))


class AfterAttention(nn.Module):
    """A causal transformer of ours, then a recurrent layer."""

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        spec = TransformerSpec(features, 16, blocks=1, heads=2, feedforward=32)
        self.transformer, self.stack = Transformer(spec), stack_of("gru", 16, hidden)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.stack(self.transformer(x, lengths)[0], lengths)[0]


@healthy("causal attention below a recurrent layer")
def after_attention(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    module = AfterAttention(has.features, has.hidden)
    return Planted(module, (numbers(rng, has), has.lengths))


class Standardised(nn.Module):
    """Running statistics of what has come so far: causal."""

    def __init__(self, reader: Reader, classes: int) -> None:
        super().__init__()
        self.reader, self.head = reader, nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.arange(1, x.shape[1] + 1)[:, None]
        mean = x.cumsum(1) / steps
        spread = ((x.square().cumsum(1) / steps) - mean.square()).clamp(min=0).sqrt() + 1.0
        return self.head(self.reader((x - mean) / spread))


@healthy("running statistics of the inputs")
def running(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    module = Standardised(Reader(rng, has.features, has.hidden), has.classes)
    return Planted(module, (numbers(rng, has, padded=False),), options={"causal": True})


class WithReset(nn.Module):
    """Goes on from call to call until it is told to begin anew."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer, self.state = layer, None

    def reset_state(self) -> None:
        self.state = None

    def forward(self, x: Tensor) -> Tensor:
        output, state = self.layer(x, self.state)
        both = isinstance(state, tuple)
        self.state = tuple(each.detach() for each in state) if both else state.detach()
        return output


@healthy("module that goes on until it is reset")
def with_reset(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    module = WithReset(torch_layer(rng, has.features, has.hidden))
    return Planted(module, (numbers(rng, has, padded=False),))


@dataclass
class Said:
    """What a speaker's model gives."""

    logits: Tensor
    attentions: Tensor
    state: Any = None


class Looking(nn.Module):
    """Causal attention over its own states; gives the weights too."""

    def __init__(self, reader: Reader, classes: int) -> None:
        super().__init__()
        self.reader, self.head = reader, nn.Linear(2 * reader.width, classes)

    def forward(self, x: Tensor) -> Said:
        h = self.reader(x)
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        weights = (h @ h.transpose(1, 2)).masked_fill(later, -torch.inf).softmax(-1)
        return Said(self.head(torch.cat([h, weights @ h], -1)), weights)


@healthy("causal attention over the states, with its weights")
def looking(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    module = Looking(Reader(rng, has.features, has.hidden), has.classes)
    return Planted(module, (numbers(rng, has, padded=False),))


@healthy("as many rows as steps as features")
def square(rng: np.random.Generator) -> Planted:
    size = int(rng.integers(4, 9))
    x = torch.as_tensor(rng.normal(size=(size, size, size))).float()
    both = bool(rng.integers(2))
    reader = Reader(rng, size, size, bidirectional=both)
    return Planted(Tagger(reader, size), (x,))


@healthy("double precision, rectified")
def double(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    layer = nn.RNN(has.features, has.hidden, nonlinearity="relu", batch_first=True).double()
    return Planted(layer, (numbers(rng, has, padded=False).double(),))


@healthy("one row")
def one_row(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden)
    return Planted(Tagger(reader, has.classes), (numbers(rng, has, padded=False)[:1],))


class Decoding(nn.Module):
    """A character model of ours with tied weights, packed lengths in descending order."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, hidden, padding_idx=0)
        self.layer = nn.LSTM(hidden, hidden, num_layers=2, dropout=0.3, batch_first=True)
        self.bias = nn.Parameter(torch.zeros(11))

    def forward(self, codes: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.embed(codes), lengths, batch_first=True)
        h = pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]
        return functional.linear(h, self.embed.weight, self.bias)


@healthy("packed rows that have to be sorted, tied weights")
def decoding(rng: np.random.Generator) -> Planted:
    has = sizes(rng)
    order = has.lengths.argsort(descending=True, stable=True)
    codes = tokens(rng, has)[order]
    target = functional.pad(codes[:, 1:], (0, 1))
    lengths = has.lengths[order]

    def loss(logits: Tensor) -> Tensor:
        wanted = target[:, : logits.shape[1]]
        return functional.cross_entropy(logits.transpose(1, 2), wanted, ignore_index=0)

    return Planted(Decoding(has.hidden), (codes, lengths), loss)
