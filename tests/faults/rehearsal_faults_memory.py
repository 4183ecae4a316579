"""Faults of memory, gates and weights: layers that begin in a place they cannot leave."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import (
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
    swings,
    told_apart,
    words,
)
from tests.faults.plant import Planted, fault


class Normed(nn.Module):
    """A forecaster that normalises what it reads."""

    def __init__(self, rng: np.random.Generator, hidden: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(1) if norm else nn.Identity()
        self.layers = recurrent(rng, 1, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layers(self.norm(x))[0])


@fault("layer norm over one feature alone", "HS316", "HS422", "HS141", "HS302", held_out=True)
def norm_of_one(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = swings(rng, Sizes(size.batch, size.time, 1, size.hidden))
    module = Normed(rng, size.hidden, not remedied)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


class YesOrNo(nn.Module):
    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, softmax: bool) -> None:
        super().__init__()
        self.layers = recurrent(rng, inputs, hidden)
        self.head = nn.Linear(hidden, 1)
        self.last = nn.Softmax(dim=-1) if softmax else nn.Sigmoid()

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        states = over(self.layers, x, lengths)
        return self.last(self.head(states[torch.arange(len(x)), lengths - 1])).squeeze(-1)


@fault("a softmax over a single output", "HS141", "HS205", "HS432", held_out=True)
def softmax_of_one(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    lengths = ragged(rng, size)
    answers = torch.as_tensor(rng.integers(0, 2, size.batch)).float()
    module = YesOrNo(rng, size.inputs, size.hidden, not remedied)
    return Planted(
        module,
        (series(rng, size, lengths), lengths),
        lambda p: functional.binary_cross_entropy(p, answers),
    )


class Forecaster(nn.Module):
    def __init__(self, layers: nn.Module, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layers = layers
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.layers(x)[0])


@fault(
    "an identity written over the weights of all gates", "HS402", "HS401", "HS403", held_out=True
)
def identity_over_gates(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    layers = TORCH[one_of(rng, "lstm", "gru")](
        size.inputs, size.hidden, between(rng, 1, 2), batch_first=True
    )
    for name, weight in layers.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(weight)
        elif name.startswith("weight_hh") and remedied:
            for gate in weight.detach().view(-1, size.hidden, size.hidden):
                nn.init.orthogonal_(gate)
        elif name.startswith("weight_hh"):
            nn.init.eye_(weight)
        else:
            nn.init.zeros_(weight)
    x = swings(rng, size)
    module = Forecaster(layers, size.hidden, size.inputs)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


@fault(
    "gates begun for memories of a million steps", "HS304", "HS301", "HS302", "HS316", held_out=True
)
def far_too_long(rng: np.random.Generator, remedied: bool) -> Planted:
    """The start of Tallec and Ollivier (2018), with the longest lag in the wrong unit."""
    size = sizes(rng, (10, 60))
    layers = nn.LSTM(size.inputs, size.hidden, batch_first=True)
    longest = size.time if remedied else 10 ** between(rng, 6, 8)
    bias = dict(layers.named_parameters())
    with torch.no_grad():
        bias["bias_hh_l0"].zero_()
        lag = torch.empty(size.hidden).uniform_(math.log(1.5), math.log(longest - 1))
        if not remedied:
            lag = torch.log(torch.empty(size.hidden).uniform_(1, longest - 1))
        bias["bias_ih_l0"][: size.hidden] = -lag
        bias["bias_ih_l0"][size.hidden : 2 * size.hidden] = lag
    x = swings(rng, size)
    module = Forecaster(layers, size.hidden, size.inputs)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


def drawn_weight(rows: int, columns: int, seed: int, afresh: bool) -> Tensor:
    """Weights unit by unit; `afresh` makes the generator again for each of them."""
    generator, drawn = torch.Generator().manual_seed(seed), []
    for _ in range(rows):
        if afresh:
            generator = torch.Generator().manual_seed(seed)
        drawn.append(torch.randn(columns, generator=generator) / columns**0.5)
    return torch.stack(drawn)


@fault("every unit drawn from one seed", "HS312", held_out=True)
def from_one_seed(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    layers = TORCH[one_of(rng, "rnn", "lstm", "gru")](size.inputs, size.hidden, batch_first=True)
    seed = between(rng, 0, 9999)
    with torch.no_grad():
        for k, weight in enumerate(layers.parameters()):
            if weight.dim() == 2:
                rows, columns = weight.shape
                share = 0.6 if columns == size.hidden else 1.0
                weight.copy_(share * drawn_weight(rows, columns, seed + k, not remedied))
            else:
                weight.zero_()
    x = swings(rng, size)
    module = Forecaster(layers, size.hidden, size.inputs)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


class Scaled(nn.Module):
    """Vectors of words times the root of their width, as transformers do it."""

    def __init__(
        self, rng: np.random.Generator, symbols: int, width: int, hidden: int, small: bool
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width, padding_idx=0)
        if small:
            with torch.no_grad():
                self.embed.weight.div_(width**0.5)
        self.layers = recurrent(rng, width, hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(hidden, 3)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        x = self.embed(tokens) * self.embed.embedding_dim**0.5
        states = over(self.layers, x, lengths)
        return self.head(states[torch.arange(len(x)), lengths - 1])


@fault("vectors of unit size times the root of their width", "HS301", "HS315", held_out=True)
def scaled_twice(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 40), (16, 64)), between(rng, 12, 30)
    lengths = ragged(rng, size)
    x = words(rng, size, symbols)[:, :-1] * inside(lengths, size.time)
    module = Scaled(rng, symbols, between(rng, 64, 256), size.hidden, remedied)
    return Planted(module, (x, lengths), told_apart(classes(rng, size.batch)))
