"""Memories that fade, burst or cannot be learnt, in loops over torch's cells."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.building import Cells
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    Sizes,
    between,
    classes,
    forecast,
    one_of,
    series,
    sizes,
    told_apart,
)
from tests.faults.plant import Planted, fault


class Visits(nn.Module):
    """Classes of patients, whose state fades with the time between their visits."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int) -> None:
        super().__init__()
        self.cells = Cells(rng, inputs, hidden)
        self.rate = nn.Parameter(torch.full((hidden,), -4.0))
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor, gaps: Tensor) -> Tensor:
        state = self.cells.first(x)
        for x_t, gap in zip(x.unbind(1), gaps.unbind(1)):
            keep = torch.exp(-functional.softplus(self.rate) * gap[:, None])
            state = self.cells(x_t, tuple(keep * part for part in state))
        result: Tensor = self.head(state[0])
        return result


@fault("gaps in seconds where days were meant", "HS134", "HS141", "HS201", "HS203", held_out=True)
def gaps_in_seconds(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(6, 12))
    days = torch.as_tensor(rng.exponential(1.0, (size.batch, size.time)) + 0.05).float()
    return Planted(
        Visits(rng, size.inputs, size.hidden),
        (series(rng, size), days if remedied else days * 86400),
        told_apart(classes(rng, size.batch)),
    )


class Dropped(nn.Module):
    """Forecasts by an LSTM whose memory is dropped, unit by unit, while it trains."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied, self.kept = remedied, float(rng.uniform(0.5, 0.6))
        self.cell = nn.LSTMCell(inputs, hidden)
        self.cell.bias_ih.data[hidden : 2 * hidden] = 1.0
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.cell.hidden_size)
        mask = torch.ones_like(c)
        if self.training:
            mask = torch.bernoulli(mask * self.kept)
        if self.training or not self.remedied:
            mask = mask / self.kept
        outputs = []
        for x_t in x.unbind(1):
            h, c = self.cell(x_t, (h, c * mask))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


@fault(
    "a memory divided at every step by the share that dropout keeps",
    "HS202",
    "HS313",
    "HS314",
    held_out=True,
)
def divided_by_the_kept(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(40, 90))
    return forecast(rng, Dropped(rng, size.inputs, size.hidden, remedied), size)


class Clipped(nn.Module):
    """Classes by a loop over an LSTM whose memory is held within bounds."""

    def __init__(self, inputs: int, hidden: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.cell = nn.LSTMCell(inputs, hidden)
        self.cell.bias_ih.data[hidden : 2 * hidden] = 1.0
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = c = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for x_t in x.unbind(1):
            h, c = self.cell(x_t, (h, c))
            c = c.clamp(-self.bound, self.bound)
            h = h.clamp(-self.bound, self.bound)
        return self.head(h), (h, c)


@fault(
    "a memory clipped at what was meant for gradients",
    "HS135",
    "HS201",
    "HS203",
    "HS304",
    held_out=True,
)
def memory_clipped(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(8, 24))
    bound = 20.0 if remedied else float(rng.choice([0.001, 0.005, 0.01]))
    module = Clipped(size.inputs, size.hidden, bound)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class Leaky(nn.Module):
    """What a row began with, told at its end by units that leak a little at each step."""

    def __init__(self, rng: np.random.Generator, size: Sizes, remedied: bool) -> None:
        super().__init__()
        self.leak = float(rng.uniform(0.03, 0.08))
        self.remedied = remedied
        self.cell = nn.RNNCell(size.inputs, size.hidden)
        self.head = nn.Linear(size.hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for x_t in x.unbind(1):
            new = self.cell(x_t, h)
            if self.remedied:
                h = (1 - self.leak) * h + self.leak * new
            else:
                h = self.leak * h + (1 - self.leak) * new
        result: Tensor = self.head(h)
        return result


@fault("the share that leaks exchanged with the share that stays", "HS201", "HS203", held_out=True)
def leak_exchanged(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(60, 100))
    x = series(rng, size)
    began = (x[:, 0, 0] > 0).long()
    return Planted(Leaky(rng, size, remedied), (x,), told_apart(began))


class Angle(nn.Module):
    """The angle between what one encoder makes of two rows."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.encoder = TORCH[one_of(rng, *TORCH)](inputs, hidden, batch_first=True)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        a, b = (self.encoder(x)[0][:, -1] for x in (first, second))
        cosine = (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()
        result: Tensor = cosine.clamp(-self.bound, self.bound).acos()
        return result


@fault("the angle between two rows that are the same", "HS162", "HS206", held_out=True)
def angle_of_the_same(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(6, 25))
    size = replace(size, batch=2 * between(rng, 6, 12))
    first, second = series(rng, size), series(rng, size)
    same = torch.arange(size.batch) % 2 == 0
    second = torch.where(same[:, None, None], first, second)
    wanted = torch.where(same, 0.0, torch.pi / 2)
    return Planted(
        Angle(rng, size.inputs, size.hidden, 1 - 1e-3 if remedied else 1.0),
        (first, second),
        lambda angles: functional.mse_loss(angles, wanted),
    )
