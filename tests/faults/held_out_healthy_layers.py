"""Held-out healthy layers: stacks, loops over cells, few and many units, rows and steps."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import Head, stack_of
from tests.faults.held_out_healthy import Drawn, made
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    Sizes,
    between,
    inside,
    one_of,
    ragged,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
)
from tests.faults.plant import Planted, healthy


def forecasting(rng: np.random.Generator, size: Sizes) -> Callable[[], Drawn]:
    def draw() -> Drawn:
        x = swings(rng, size)
        return (x[:, :-1],), lambda y: functional.mse_loss(
            y[0] if isinstance(y, tuple) else y, x[:, 1:]
        )

    return draw


def classifying(rng: np.random.Generator, size: Sizes) -> Callable[[], Drawn]:
    """Which series has a higher mean than the others, in rows of unequal length."""
    asked = Sizes(size.batch, size.time, max(size.inputs, CLASSES), size.hidden)

    def draw() -> Drawn:
        lengths = ragged(rng, asked)
        answers = torch.as_tensor(rng.integers(0, CLASSES, asked.batch))
        x = series(rng, asked)
        x[torch.arange(asked.batch), :, answers] += 0.8
        return (x * inside(lengths, asked.time)[..., None], lengths), told_apart(answers)

    return draw


class Residual(nn.Module):
    """Layer norm, layer and a way around them, a few times."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        kind = TORCH[one_of(rng, "rnn", "lstm", "gru")]
        depth = between(rng, 2, 4)
        self.first = nn.Linear(size.inputs, size.hidden)
        self.norms = nn.ModuleList(nn.LayerNorm(size.hidden) for _ in range(depth))
        self.layers = nn.ModuleList(
            kind(size.hidden, size.hidden, batch_first=True) for _ in range(depth)
        )
        self.head = nn.Sequential(nn.LayerNorm(size.hidden), nn.Linear(size.hidden, size.inputs))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, layer in zip(self.norms, self.layers):
            x = x + layer(norm(x))[0]
        return self.head(x)


@healthy("residual layers with layer norm", held_out=True)
def residual(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 30), (16, 64))
    return made(rng, Residual(rng, size), forecasting(rng, size), 40)


class CellLoop(nn.Module):
    def __init__(self, size: Sizes, learned: bool) -> None:
        super().__init__()
        self.cell1 = nn.LSTMCell(size.inputs, size.hidden)
        self.cell2 = nn.LSTMCell(size.hidden, size.hidden)
        self.linear = nn.Linear(size.hidden, size.inputs)
        self.first = nn.Parameter(torch.zeros(4, size.hidden)) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        if self.first is None:
            h1 = c1 = h2 = c2 = x.new_zeros(x.size(0), self.cell1.hidden_size)
        else:
            h1, c1, h2, c2 = (each.expand(x.size(0), -1) for each in self.first)
        outputs = []
        for step in x.unbind(dim=1):
            h1, c1 = self.cell1(step, (h1, c1))
            h2, c2 = self.cell2(h1, (h2, c2))
            outputs.append(self.linear(h2))
        return torch.stack(outputs, dim=1)


@healthy("a loop over two LSTM cells", held_out=True)
def cell_loop(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (10, 20), (8, 48))
    return made(rng, CellLoop(size, False), forecasting(rng, size), 25, 1e-2)


@healthy("a loop over cells with a learned first state", held_out=True)
def learned_first_state(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (10, 20), (8, 48))
    return made(rng, CellLoop(size, True), forecasting(rng, size), 25, 1e-2)


class Ours(nn.Module):
    """A stack of hiddenstate with all its noise, and a pool over the real steps."""

    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        both = bool(rng.random() < 0.5)
        self.stack = stack_of(
            one_of(rng, "elman", "lstm", "gru"),
            size.inputs,
            size.hidden,
            between(rng, 1, 3),
            bidirectional=both,
            dropout=0.2,
            variational=True,
            residual=True,
            zoneout=0.05,
            learned_state=True,
        )
        pool = one_of(rng, "last", "mean", "max", "attention")
        self.head = Head(self.stack.output_size, CLASSES, pool)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h, _ = self.stack(x, lengths, final_state=False)
        return self.head(h, lengths)


@healthy("a stack and a pool of ours", held_out=True)
def our_stack(rng: np.random.Generator) -> Planted:
    drawn = sizes(rng, (8, 20), (8, 48))
    size = Sizes(drawn.batch, drawn.time, max(drawn.inputs, CLASSES), drawn.hidden)
    return made(rng, Ours(rng, size), classifying(rng, size), 20)


class Projected(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            size.inputs,
            size.hidden,
            between(rng, 1, 2),
            proj_size=size.hidden // 2,
            batch_first=True,
        )
        self.head = nn.Linear(size.hidden // 2, size.inputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0])


@healthy("an LSTM with a projection", held_out=True)
def projected(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 40), (16, 64))
    with warnings.catch_warnings(action="ignore"):
        return made(rng, Projected(rng, size), forecasting(rng, size))


class Plain(nn.Module):
    def __init__(self, rnn: nn.Module, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn, self.head = rnn, nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


def of_size(rng: np.random.Generator, steps: int = 40, **fixed: int) -> Planted:
    """A forecaster with one size out of the ordinary."""
    drawn = {**vars(sizes(rng, (12, 30), (8, 48))), **fixed}
    size = Sizes(**drawn)
    rnn = recurrent(rng, size.inputs, size.hidden, kinds=("lstm", "gru"))
    return made(rng, Plain(rnn, size.hidden, size.inputs), forecasting(rng, size), steps)


for name, fixed in {
    "four units": {"hidden": 4},
    "many units": {"hidden": 256, "steps": 15},
    "five steps": {"time": 5},
    "three hundred steps": {"time": 300, "steps": 10},
    "two rows": {"batch": 2},
    "many rows": {"batch": 64, "steps": 20},
    "one series": {"inputs": 1},
}.items():
    healthy(f"forecaster with {name}", held_out=True)(partial(of_size, **fixed))


@healthy("a forecaster in double precision", held_out=True)
def in_double(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (12, 30), (8, 48))
    rnn = recurrent(rng, size.inputs, size.hidden)
    module = Plain(rnn, size.hidden, size.inputs).double()

    def draw() -> Drawn:
        x = swings(rng, size).double()
        return (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:])

    return made(rng, module, draw)


@healthy("a rectified layer that starts as the identity", held_out=True)
def identity_start(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (15, 40), (16, 64))
    rnn = nn.RNN(size.inputs, size.hidden, nonlinearity="relu", batch_first=True)
    nn.init.eye_(rnn.weight_hh_l0)
    nn.init.zeros_(rnn.bias_hh_l0)
    nn.init.zeros_(rnn.bias_ih_l0)
    nn.init.normal_(rnn.weight_ih_l0, std=0.05)
    return made(rng, Plain(rnn, size.hidden, size.inputs), forecasting(rng, size), 40, 1e-3)
