"""Weights, inputs and embeddings with which nothing much can be learnt."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    Sizes,
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


class Forecaster(nn.Module):
    """The next values of all series."""

    def __init__(self, layer: nn.Module, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.layer(x)[0])
        return result


class LastState(nn.Module):
    """Classes of rows of numbers."""

    def __init__(self, layer: nn.Module, hidden: int) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.layer(x)[0][:, -1])
        return result


@fault(
    "recurrent weights that are one identity over all gates",
    "HS401",
    "HS402",
    "HS403",
    held_out=True,
)
def identity_over_gates(rng: np.random.Generator, remedied: bool) -> Planted:
    size, layers = sizes(rng, hidden=(12, 128)), between(rng, 1, 2)
    layer = TORCH[one_of(rng, "lstm", "gru")](size.inputs, size.hidden, layers, batch_first=True)
    for name, weight in layer.named_parameters():
        if name.startswith("weight_hh"):
            if remedied:
                for gate in weight.data.chunk(len(weight) // size.hidden):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.eye_(weight)
    return forecast(rng, Forecaster(layer, size.hidden, size.inputs), size)


@fault(
    "an identity whose units all read the same",
    "HS312",
    "HS401",
    source="IRNN (Le, Jaitly, Hinton 2015) with constant input weights",
    held_out=True,
)
def identity_read_alike(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(8, 30), hidden=(12, 100))
    layer = nn.RNN(size.inputs, size.hidden, batch_first=True)
    for name, weight in layer.named_parameters():
        if name.startswith("bias"):
            nn.init.zeros_(weight)
        elif name.startswith("weight_ih"):
            nn.init.constant_(weight, float(rng.uniform(0.05, 0.3)))
            if remedied:
                nn.init.xavier_uniform_(weight)
        elif remedied:
            nn.init.orthogonal_(weight)
        else:
            nn.init.eye_(weight)
    planted = LastState(layer, size.hidden)
    return Planted(planted, (series(rng, size),), told_apart(classes(rng, size.batch)))


@fault(
    "layer norm over a single feature", "HS141", "HS208", "HS316", "HS422", "HS432", held_out=True
)
def norm_over_one(rng: np.random.Generator, remedied: bool) -> Planted:
    drawn = sizes(rng, time=(12, 50))
    size = Sizes(drawn.batch, drawn.time, 1, drawn.hidden)
    layer = recurrent(rng, 1, size.hidden, between(rng, 1, 2))
    model = Forecaster(layer, size.hidden, 1)
    return forecast(rng, model if remedied else nn.Sequential(nn.LayerNorm(1), model), size)


@fault("missing values written as -999", "HS301", "HS314", "HS315", "HS421", held_out=True)
def missing_as_999(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(12, 40))
    x = series(rng, size)
    gaps = torch.as_tensor(rng.random((size.batch, size.time)) < rng.uniform(0.1, 0.25))
    column = between(rng, 0, size.inputs - 1)
    x[..., column] = torch.where(gaps, 0.0 if remedied else -999.0, x[..., column])
    model = LastState(recurrent(rng, size.inputs, size.hidden), size.hidden)
    return Planted(model, (x,), told_apart(classes(rng, size.batch)))


class Words(nn.Module):
    """The next symbols, over whatever embedding is given."""

    def __init__(self, embed: nn.Embedding, layer: nn.Module, hidden: int, symbols: int) -> None:
        super().__init__()
        self.embed, self.layer = embed, layer
        self.head = nn.Linear(hidden, symbols)

    def forward(self, ids: Tensor) -> Tensor:
        ids = ids.clamp(max=self.embed.num_embeddings - 1)
        result: Tensor = self.head(self.layer(self.embed(ids))[0])
        return result


@fault("symbols past the table's end read as its last", "HS423", "HS425", "HS606", held_out=True)
def past_the_table(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, time=(15, 40)), between(rng, 50, 100)
    ids = words(rng, size, symbols)
    embed = nn.Embedding(symbols if remedied else symbols // 8, 16)
    module = Words(embed, recurrent(rng, 16, size.hidden), size.hidden, symbols)
    return Planted(module, (ids[:, :-1],), told_apart(ids[:, 1:]), {"causal": True})


@fault(
    "vectors drawn at random and frozen by from_pretrained",
    "HS431",
    source="torch.nn.Embedding.from_pretrained, whose freeze is true",
    held_out=True,
)
def frozen_at_random(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng), between(rng, 15, 40)
    ids = words(rng, size, symbols)
    vectors = torch.randn(symbols, 16) * 0.5
    embed: nn.Embedding = nn.Embedding.from_pretrained(vectors, freeze=not remedied)  # type: ignore[no-untyped-call]
    module = Words(embed, recurrent(rng, 16, size.hidden), size.hidden, symbols)
    return Planted(module, (ids[:, :-1],), told_apart(ids[:, 1:]), {"causal": True})


class HardReader(nn.Module):
    """Classes of rows by the one step that a score likes best, or by the mean under the scores."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.layer = recurrent(rng, inputs, hidden, bidirectional=True)
        self.score = nn.Sequential(
            nn.Linear(2 * hidden, 16), nn.Tanh(), nn.Linear(16, 1, bias=False)
        )
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        states = over(self.layer, x, lengths)
        scores = self.score(states).squeeze(-1)
        scores = scores.masked_fill(~inside(lengths, x.shape[1]), -torch.inf)
        if self.remedied:
            chosen = torch.einsum("bt,bth->bh", scores.softmax(1), states)
        else:
            chosen = states[torch.arange(len(x)), scores.argmax(1)]
        result: Tensor = self.head(chosen)
        return result


@fault(
    "a step chosen outright by a score that no gradient reaches",
    "HS432",
    source="hard attention (Xu and others 2015) without its estimator",
    held_out=True,
)
def chosen_outright(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, hidden=(8, 64))
    lengths = ragged(rng, size)
    return Planted(
        HardReader(rng, size.inputs, size.hidden, remedied),
        (series(rng, size, lengths), lengths),
        told_apart(classes(rng, size.batch)),
        {"causal": False},
    )


class HalfTagger(nn.Module):
    """Tags by a layer that reads both ways."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, used: int) -> None:
        super().__init__()
        self.used = used
        self.embed = nn.Embedding(symbols, 16, padding_idx=0)
        self.layer = recurrent(rng, 16, hidden, bidirectional=True)
        self.head = nn.Linear(used, CLASSES)

    def forward(self, ids: Tensor, lengths: Tensor) -> Tensor:
        states = over(self.layer, self.embed(ids), lengths)
        result: Tensor = self.head(states[..., : self.used])
        return result


@fault("the backward half cut off to fit the head", "HS144", "HS205", "HS432", held_out=True)
def backward_cut_off(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng), between(rng, 12, 40)
    lengths = ragged(rng, size)
    mask = inside(lengths, size.time)
    tags = torch.as_tensor(rng.integers(0, CLASSES, mask.shape)).masked_fill(~mask, -100)
    module = HalfTagger(rng, symbols, size.hidden, size.hidden * (2 if remedied else 1))
    return Planted(
        module,
        (words(rng, size, symbols)[:, 1:] * mask, lengths),
        lambda y: functional.cross_entropy(y.flatten(0, 1), tags.flatten(), ignore_index=-100),
        {"causal": False},
    )
