"""Outputs that know what comes later, and the same models without."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.building import Reader, numbers, sizes, tokens
from tests.faults.plant import Planted, fault


class LanguageModel(nn.Module):
    def __init__(self, reader: Reader, features: int) -> None:
        super().__init__()
        self.embed, self.reader = nn.Embedding(11, features), reader
        self.head = nn.Linear(reader.width, 11)

    def forward(self, codes: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.head(self.reader(self.embed(codes), lengths))


@fault("language model that reads backwards too", "HS111")
def backward_language_model(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden, bidirectional=not remedied)
    batch = (tokens(rng, has), has.lengths)
    return Planted(LanguageModel(reader, has.features), batch, options={"causal": True})


class Standardising(nn.Module):
    """Less the mean of the inputs: of the whole row, or of what has come so far."""

    def __init__(self, reader: Reader, classes: int, *, so_far: bool) -> None:
        super().__init__()
        self.reader, self.so_far = reader, so_far
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        steps = torch.arange(1, x.shape[1] + 1)[:, None]
        mean = x.cumsum(1) / steps if self.so_far else x.mean(1, keepdim=True)
        return self.head(self.reader(x - mean, lengths))


@fault("inputs standardised over the whole row", "HS111")
def standardised(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Standardising(Reader(rng, has.features, has.hidden), has.classes, so_far=remedied)
    return Planted(module, (numbers(rng, has, padded=False) + 2.0,))


class LookingBack(nn.Module):
    """Every step looks at the states, with or without those still to come."""

    def __init__(self, reader: Reader, classes: int, *, masked: bool) -> None:
        super().__init__()
        self.reader, self.masked = reader, masked
        self.head = nn.Linear(2 * reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.reader(x)
        scores = h @ h.transpose(1, 2) / h.shape[-1] ** 0.5
        if self.masked:
            later = torch.ones(h.shape[1], h.shape[1], dtype=torch.bool).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return self.head(torch.cat([h, scores.softmax(-1) @ h], -1))


@fault("attention without a causal mask", "HS111")
def unmasked_attention(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = LookingBack(Reader(rng, has.features, has.hidden), has.classes, masked=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Convolved(nn.Module):
    def __init__(self, reader: Reader, features: int, classes: int, *, back: bool) -> None:
        super().__init__()
        self.back, self.reader = back, reader
        self.convolve = nn.Conv1d(features, features, 3)
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        around = (2, 0) if self.back else (1, 1)
        near = self.convolve(functional.pad(x.transpose(1, 2), around)).relu()
        return self.head(self.reader(near.transpose(1, 2), lengths))


@fault("convolution padded on both sides of a live model", "HS111")
def two_sided(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden)
    module = Convolved(reader, has.features, has.classes, back=remedied)
    return Planted(module, (numbers(rng, has, padded=False),), options={"causal": True})


class WithSummary(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, so_far: bool) -> None:
        super().__init__()
        self.reader, self.so_far = reader, so_far
        self.head = nn.Linear(2 * reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.reader(x)
        summary = h.cummax(1).values if self.so_far else h.amax(1, keepdim=True).expand_as(h)
        return self.head(torch.cat([h, summary], -1))


@fault("summary of the whole row beside every step", "HS111")
def summary_beside(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = WithSummary(Reader(rng, has.features, has.hidden), has.classes, so_far=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class TimeToNext(nn.Module):
    """From symbols and the times between them to the next symbol."""

    def __init__(self, reader: Reader, features: int, *, ahead: bool) -> None:
        super().__init__()
        self.embed, self.reader, self.ahead = nn.Embedding(11, features), reader, ahead
        self.head = nn.Linear(reader.width, 11)

    def forward(self, codes: Tensor, times: Tensor) -> Tensor:
        # Between this event and the next, or between the last and this one.
        zero = torch.zeros_like(times[:, :1])
        gaps = times[:, 1:] - times[:, :-1]
        gaps = torch.cat([gaps, zero] if self.ahead else [zero, gaps], 1)
        return self.head(self.reader(torch.cat([self.embed(codes), gaps[..., None]], -1)))


@fault(
    "time to the next event among the inputs",
    "HS111",
    source="EasyTemporalPointProcess #32: the next event's time leaks into the model",
)
def next_time(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features + 1, has.hidden)
    times = torch.as_tensor(rng.exponential(size=(has.rows, has.steps)).cumsum(1)).float()
    codes = torch.as_tensor(rng.integers(0, 11, (has.rows, has.steps)))
    return Planted(TimeToNext(reader, has.features, ahead=not remedied), (codes, times))


class Probabilities(nn.Module):
    def __init__(self, reader: Reader, classes: int, axis: int) -> None:
        super().__init__()
        self.reader, self.axis = reader, axis
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reader(x)).softmax(self.axis)


@fault("softmax over the steps in place of the classes", "HS111")
def softmax_over_time(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    reader = Reader(rng, has.features, has.hidden)
    module = Probabilities(reader, has.classes, -1 if remedied else 1)
    return Planted(module, (numbers(rng, has, padded=False),))
