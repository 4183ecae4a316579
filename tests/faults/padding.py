"""Padding that is read, and the same models that leave it alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from hiddenstate.nn import Pool, cross_entropy, stack_of
from hiddenstate.nn.losses import squared
from tests.faults.building import Reader, at_end, numbers, real, sizes, tokens, torch_layer
from tests.faults.plant import Planted, fault

Use = Callable[[Tensor, Tensor], Tensor]


class Classifier(nn.Module):
    """Reads rows with or without their lengths, and makes one vector of the states by `use`."""

    def __init__(self, reader: Reader, classes: int, use: Use, *, told: bool) -> None:
        super().__init__()
        self.reader, self.use, self.told = reader, use, told
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = self.reader(x, lengths if self.told else None)
        return self.head(self.use(states, lengths))


def classified(
    rng: np.random.Generator, use: Use, *, told: bool, bidirectional: bool = False
) -> Planted:
    has = sizes(rng)
    layers = int(rng.integers(1, 3))
    reader = Reader(rng, has.features, has.hidden, layers=layers, bidirectional=bidirectional)
    module = Classifier(reader, has.classes, use, told=told)
    return Planted(module, (numbers(rng, has), has.lengths))


def last_column(states: Tensor, lengths: Tensor) -> Tensor:
    return states[:, -1]


def mean_of_all(states: Tensor, lengths: Tensor) -> Tensor:
    return states.mean(1)


def mean_of_own(states: Tensor, lengths: Tensor) -> Tensor:
    own = real(lengths, states.shape[1])
    return torch.where(own, states, 0.0).sum(1) / lengths[:, None].clamp(min=1)


def max_of_all(states: Tensor, lengths: Tensor) -> Tensor:
    return states.amax(1)


def max_of_own(states: Tensor, lengths: Tensor) -> Tensor:
    return states.masked_fill(~real(lengths, states.shape[1]), -torch.inf).amax(1)


@fault(
    "padding read by the backward direction",
    "HS101",
    "HS102",
    source="pytorch #517, #3662: bidirectional results change with padding",
)
def backward_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    return classified(rng, mean_of_own, told=remedied, bidirectional=True)


@fault(
    "last column of padded rows",
    "HS101",
    "HS102",
    source="speechbrain #501: results depend on the batch because of padding",
)
def last_of_padded(rng: np.random.Generator, remedied: bool) -> Planted:
    return classified(rng, at_end if remedied else last_column, told=False)


@fault("last column of packed rows", "HS102")
def last_of_packed(rng: np.random.Generator, remedied: bool) -> Planted:
    return classified(rng, at_end if remedied else last_column, told=True)


@fault("mean over padding", "HS101", "HS102")
def mean_over_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    return classified(rng, mean_of_own if remedied else mean_of_all, told=bool(rng.integers(2)))


@fault("maximum over padding", "HS101", "HS102")
def max_over_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    return classified(rng, max_of_own if remedied else max_of_all, told=True)


class Attending(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, masked: bool) -> None:
        super().__init__()
        self.reader, self.masked = reader, masked
        self.score, self.head = nn.Linear(reader.width, 1), nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = self.reader(x, lengths)
        scores = self.score(states.tanh())
        if self.masked:
            scores = scores.masked_fill(~real(lengths, x.shape[1]), -1e9)
        return self.head((scores.softmax(1) * states).sum(1))


@fault("attention over padding", "HS102")
def attention_over_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden, bidirectional=bool(rng.integers(2)))
    return Planted(
        Attending(reader, has.classes, masked=remedied), (numbers(rng, has), has.lengths)
    )


class TurnedRound(nn.Module):
    """Two layers, the second over the rows turned round: with their padding, or without."""

    def __init__(self, rng: np.random.Generator, features: int, hidden: int, *, own: bool) -> None:
        super().__init__()
        self.ahead, self.behind = (Reader(rng, features, hidden) for _ in range(2))
        self.own = own

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        ahead = self.ahead(x, lengths)
        behind = self.turn(self.behind(self.turn(x, lengths), lengths), lengths)
        return torch.cat([ahead, behind], -1)

    def turn(self, x: Tensor, lengths: Tensor) -> Tensor:
        if not self.own:
            return x.flip(1)
        steps = torch.arange(x.shape[1])
        index = torch.where(steps < lengths[:, None], lengths[:, None] - 1 - steps, steps)
        return x.gather(1, index[..., None].expand_as(x))


@fault(
    "rows turned round with their padding",
    "HS101",
    "HS102",
    source="keras #7244: bidirectional with masking",
)
def turned_with_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = TurnedRound(rng, has.features, has.hidden, own=remedied)
    return Planted(module, (numbers(rng, has), has.lengths), options={"causal": False})


class Encoder(nn.Module):
    """Gives a torch layer's final states [layers, B, H]."""

    def __init__(self, layer: nn.RNNBase, *, packs: bool) -> None:
        super().__init__()
        self.layer, self.packs = layer, packs

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        given = x
        if self.packs:
            given = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        final = self.layer(given)[1]
        return final[0] if isinstance(final, tuple) else final


@fault(
    "padding enters the final state",
    "HS101",
    "HS102",
    source="transformers #47086: padding enters the recurrent state",
)
def padding_in_state(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, num_layers=int(rng.integers(1, 4)))
    return Planted(Encoder(layer, packs=remedied), (numbers(rng, has), has.lengths))


class Decaying(nn.Module):
    """h_t = a_t h_{t-1} + m_t x_t, where the mask may miss the decay."""

    def __init__(self, features: int, hidden: int, *, masks_decay: bool) -> None:
        super().__init__()
        self.read, self.decay = nn.Linear(features, hidden), nn.Linear(features, hidden)
        self.masks_decay = masks_decay

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        own = real(lengths, x.shape[1])
        read, decay = self.read(x) * own, self.decay(x).sigmoid()
        if self.masks_decay:
            decay = torch.where(own, decay, 1.0)
        h = torch.zeros_like(read[:, 0])
        for a_t, x_t in zip(decay.unbind(1), read.unbind(1)):
            h = a_t * h + x_t
        return h


@fault(
    "mask that misses the decay gate",
    "HS101",
    "HS102",
    source="fla #1272: the padding mask is not applied to the decay gate",
)
def decaying_in_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Decaying(has.features, has.hidden, masks_decay=remedied)
    return Planted(module, (numbers(rng, has), has.lengths))


class Standardised(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, own: bool) -> None:
        super().__init__()
        self.reader, self.own = reader, own
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        own = real(lengths, x.shape[1])
        mean = mean_of_own(x, lengths)[:, None] if self.own else x.mean(1, keepdim=True)
        states = self.reader(torch.where(own, x - mean, 0.0), lengths)
        return self.head(at_end(states, lengths))


@fault("mean of the inputs taken over padding", "HS101", "HS102")
def standardised_with_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden)
    module = Standardised(reader, has.classes, own=remedied)
    return Planted(module, (numbers(rng, has) + 1.0, has.lengths))


class Language(nn.Module):
    """Tokens to a class; 0 is padding."""

    def __init__(self, reader: Reader, features: int, *, told: bool, index: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, features, padding_idx=0 if index else None)
        self.reader, self.told = reader, told

    def forward(self, codes: Tensor) -> Tensor:
        x = self.embed(codes)
        if not self.told:
            return self.reader(x)[:, -1]
        lengths = (codes != 0).sum(1)
        return at_end(self.reader(x, lengths), lengths)


@fault(
    "symbols that end in padding, and no lengths",
    "HS103",
    source="translate #308: results depend on the batch because of padding",
)
def untold_symbols(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden)
    module = Language(reader, has.features, told=remedied, index=bool(rng.integers(2)))
    return Planted(module, (tokens(rng, has),))


class Untold(nn.Module):
    def __init__(self, reader: Reader, classes: int) -> None:
        super().__init__()
        self.reader, self.head = reader, nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        states = self.reader(x, lengths)
        return self.head(states[:, -1] if lengths is None else at_end(states, lengths))


@fault("numbers that end in zeros, and no lengths", "HS103")
def untold_numbers(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Untold(Reader(rng, has.features, has.hidden), has.classes)
    x = numbers(rng, has)
    return Planted(module, (x, has.lengths) if remedied else (x,))


class Tagger(nn.Module):
    """An answer at every step, [B, T, V], or with rows and steps joined, [B * T, V]."""

    def __init__(self, reader: Reader, classes: int, *, joined: bool = False) -> None:
        super().__init__()
        self.reader, self.head = reader, nn.Linear(reader.width, classes)
        self.joined = joined

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        answers = self.head(self.reader(x, lengths))
        return answers.flatten(0, 1) if self.joined else answers


@fault("cross entropy that counts padding", "HS104")
def entropy_of_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    joined = bool(rng.integers(2))
    module = Tagger(Reader(rng, has.features, has.hidden), has.classes, joined=joined)
    target = torch.as_tensor(rng.integers(0, has.classes, (has.rows, has.steps)))
    target = torch.where(has.valid, target, 0)

    def wrong(logits: Tensor) -> Tensor:
        return functional.cross_entropy(logits.reshape(-1, has.classes), target.flatten())

    def right(logits: Tensor) -> Tensor:
        return cross_entropy(logits.reshape(*target.shape, -1), target, has.valid)

    return Planted(module, (numbers(rng, has), has.lengths), right if remedied else wrong)


@fault("squared error that counts padding", "HS104")
def error_of_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Tagger(Reader(rng, has.features, has.hidden), 1)
    target = torch.where(has.valid, torch.randn(has.rows, has.steps), 0.0)

    def wrong(output: Tensor) -> Tensor:
        return functional.mse_loss(output[..., 0], target)

    def right(output: Tensor) -> Tensor:
        return squared(output[..., 0], target, has.valid)

    return Planted(module, (numbers(rng, has), has.lengths), right if remedied else wrong)


class Ours(nn.Module):
    """A layer of ours, which takes rows without steps, and what is made of its states."""

    def __init__(self, rng: np.random.Generator, features: int, hidden: int, use: Use) -> None:
        super().__init__()
        self.stack = stack_of(str(rng.choice(["elman", "lstm", "gru"])), features, hidden)
        self.use = use

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.use(self.stack(x, lengths)[0], lengths)


def mean_of_none(states: Tensor, lengths: Tensor) -> Tensor:
    return states.sum(1) / lengths[:, None]


def empty_row(rng: np.random.Generator, use: Use) -> Planted:
    has = sizes(rng)
    lengths = has.lengths.clone()
    lengths[int(rng.integers(1, has.rows))] = 0
    return Planted(Ours(rng, has.features, has.hidden, use), (numbers(rng, has), lengths))


@fault("mean of a row without steps", "HS105", source="pytorch #11514: zero-length sequences")
def mean_of_empty(rng: np.random.Generator, remedied: bool) -> Planted:
    return empty_row(rng, mean_of_own if remedied else mean_of_none)


class LastOfInputs(nn.Module):
    """The last state beside the last input, which a row without steps does not have."""

    def __init__(self, rng: np.random.Generator, features: int, hidden: int, *, own: bool) -> None:
        super().__init__()
        self.stack = stack_of(str(rng.choice(["elman", "lstm", "gru"])), features, hidden)
        self.last, self.own = Pool("last", features), own

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = self.stack(x, lengths)[0]
        last = self.last(x, lengths) if self.own else at_end(x, lengths)
        return torch.cat([Pool("last", states.shape[-1])(states, lengths), last], -1)


@fault("last step of a row without steps", "HS105")
def last_of_empty(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    lengths = has.lengths.clone()
    lengths[int(rng.integers(1, has.rows))] = 0
    module = LastOfInputs(rng, has.features, has.hidden, own=remedied)
    return Planted(module, (numbers(rng, has, padded=False), lengths))
