"""Memories that cannot hold, gradients that do not come back, and the same layers mended."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import stack_of
from tests.faults.plant import Planted, fault
from tests.faults.small import (
    adding,
    in_units,
    levels,
    one_of,
    parts,
    planted,
    reader,
    recall,
    running_parity,
    waves,
)

PLAIN = ("elman", "rnn")
LSTMS = ("lstm", "torch lstm")
GRUS = ("gru", "torch gru")


def between(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def hidden(rng: np.random.Generator) -> int:
    return int(one_of(rng, 8, 12, 16, 24, 32, 64))


@fault("plain cell with recurrent weights near zero", "HS201")
def cut_off(rng: np.random.Generator, remedied: bool) -> Planted:
    task = one_of(rng, recall(between(rng, 12, 30)), waves(between(rng, 12, 40)))
    model = reader(task, one_of(rng, *PLAIN), hidden(rng), between(rng, 1, 2))
    for part in parts(model):
        part.orthogonal(1.0 if remedied else float(10 ** rng.uniform(-4, -2)))
    return planted(model, task, rng)


@fault("gated cell that neither keeps nor reads its state", "HS201")
def forgets_all(rng: np.random.Generator, remedied: bool) -> Planted:
    task = one_of(rng, recall(between(rng, 12, 30)), adding(between(rng, 12, 40)))
    model = reader(task, one_of(rng, *LSTMS, *GRUS), hidden(rng))
    for part in parts(model):
        part.orthogonal(1.0 if remedied else 0.02)
        keep = "f" if "f" in part.cell.blocks else "z"
        part.set_bias(keep, 1.0 if remedied else -8.0)
    return planted(model, task, rng)


@fault("memory of a plain cell, rows far longer", "HS203")
def too_short(rng: np.random.Generator, remedied: bool) -> Planted:
    time, width = between(rng, 50, 90), hidden(rng)
    task = one_of(rng, waves(time), adding(time))
    if remedied:
        model = reader(
            task, one_of(rng, "lstm", "gru"), width, init="chrono", longest_lag_steps=2 * time
        )
    else:
        model = reader(task, "rnn", width)
    return planted(model, task, rng)


@fault("relu recurrence that grows", "HS202")
def growing_relu(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 25, 50))
    model = reader(task, "elman", hidden(rng), activation="relu", init="identity")
    for part in parts(model):
        part.params["w_h"].data.mul_(1.0 if remedied else rng.uniform(1.5, 2.0))
    return planted(model, task, rng)


@fault("tanh recurrence drawn twice too large", "HS202", "HS412")
def chaotic(rng: np.random.Generator, remedied: bool) -> Planted:
    task = one_of(rng, waves(between(rng, 40, 60)), running_parity(between(rng, 40, 60)))
    model = reader(task, one_of(rng, *PLAIN), one_of(rng, 32, 64, 128))
    for part in parts(model):
        part.orthogonal(1.0 if remedied else rng.uniform(2.5, 3.5))
    return planted(model, task, rng)


@fault("plain cell of unit-normal weights", "HS412", "HS405")
def unit_normal(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 30, 60))
    model = reader(task, one_of(rng, *PLAIN), one_of(rng, 16, 32, 64))
    for part in parts(model):
        if remedied:
            part.orthogonal()
        else:
            nn.init.normal_(part.params["w_h"])
            part.params["w_x"].data.mul_(0.3)
    return planted(model, task, rng)


class Two(nn.Module):
    """Two layers, of which the head reads the second, or by a slip the first."""

    def __init__(self, kind: str, width: int, right: bool) -> None:
        super().__init__()
        self.one, self.two = stack_of(kind, 1, width), stack_of(kind, width, width)
        self.head, self.right = nn.Linear(width, 1), right

    def forward(self, x: Tensor) -> Tensor:
        first, _ = self.one(x)
        second, _ = self.two(first)
        return self.head(second if self.right else first)


@fault("upper layer computed and not used", "HS205")
def unused(rng: np.random.Generator, remedied: bool) -> Planted:
    model = Two(one_of(rng, "elman", "lstm", "gru"), hidden(rng), remedied)
    return planted(model, waves(between(rng, 8, 30)), rng)


@fault("targets in raw units", "HS206")
def raw_targets(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 12, 40))
    x, _, answers, _ = task.draw(rng, 12)
    size = 1.0 if remedied else float(10 ** rng.uniform(5, 6))
    model = reader(task, one_of(rng, *PLAIN, *LSTMS, *GRUS), hidden(rng))
    return Planted(model, (x,), lambda y: functional.mse_loss(y[..., 0], size * answers))


@fault("logarithm of 0 in the loss", "HS206")
def log_of_nothing(rng: np.random.Generator, remedied: bool) -> Planted:
    task = levels(between(rng, 8, 30), 3)
    model = reader(task, one_of(rng, *PLAIN, *LSTMS, *GRUS), hidden(rng))
    x, lengths, answers, _ = task.draw(rng, 12)

    def loss(given: Any) -> Tensor:
        if remedied:
            return functional.cross_entropy(given, answers)
        shares = functional.relu(given)
        return -(shares / shares.sum(1, keepdim=True)).log()[torch.arange(12), answers].mean()

    return Planted(model, (x, lengths), loss)


@fault("many layers without a way around them", "HS207")
def deep(rng: np.random.Generator, remedied: bool) -> Planted:
    task, layers = waves(between(rng, 8, 20)), between(rng, 9, 12)
    kind = "lstm" if remedied else one_of(rng, "lstm", "torch lstm")
    options: dict[str, Any] = {"residual": True} if remedied else {}
    if kind == "lstm" and not remedied:
        options["init"] = "uniform"
    return planted(reader(task, kind, hidden(rng), layers, **options), task, rng)


@fault("inputs in raw units press a plain cell to 1 and -1", "HS201", "HS315")
def pressed(rng: np.random.Generator, remedied: bool) -> Planted:
    features = between(rng, 3, 8)
    task = levels(between(rng, 12, 40), features)
    model = reader(task, one_of(rng, *PLAIN), hidden(rng))
    return planted(model, in_units(task, 1.0 if remedied else 1e3), rng)
