"""Weights drawn or set as they should not be, and the same models mended."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from hiddenstate.nn import stack_of
from tests.faults.gates import some_task
from tests.faults.memory import GRUS, LSTMS, PLAIN, between, hidden
from tests.faults.plant import Planted, fault
from tests.faults.small import (
    Drawn,
    Task,
    levels,
    markov,
    one_of,
    parts,
    planted,
    reader,
    recall,
    waves,
)

ANY = (*PLAIN, *LSTMS, *GRUS)


@fault("weight that is not a number", "HS162")
def not_a_number(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    if not remedied:
        weight = one_of(rng, *model.parameters()).data
        weight.view(-1)[int(rng.integers(weight.numel()))] = one_of(rng, np.nan, np.inf)
    return planted(model, task, rng)


@fault("recurrent weights of one number", "HS401")
def one_number(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *ANY), hidden(rng), between(rng, 1, 2))
    for part in [] if remedied else parts(model):
        nn.init.constant_(part.params["w_h"], one_of(rng, 0.0, 0.01, 0.05))
    return planted(model, task, rng)


@fault(
    "recurrent weights orthogonal over all gates together",
    "HS402",
    source="vwxyzjn/cleanrl #358",
)
def orthogonal_as_one(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *LSTMS, *GRUS), hidden(rng), between(rng, 1, 2))
    for part in parts(model):
        if remedied:
            part.orthogonal()
        else:
            nn.init.orthogonal_(part.params["w_h"], one_of(rng, 1.0, 2**0.5))
    return planted(model, task, rng)


@fault("recurrent weights of a hundredth", "HS403")
def small(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *ANY), hidden(rng), between(rng, 1, 2))
    for part in parts(model):
        width = part.cell.hidden_size**0.5
        size = 1.0 if remedied else rng.uniform(0.0005, 0.005)
        nn.init.normal_(part.params["w_h"], std=size / width)
    return planted(model, task, rng)


@fault("recurrent weights that grow a signal before it fades", "HS411")
def non_normal(rng: np.random.Generator, remedied: bool) -> Planted:
    task = waves(between(rng, 12, 40))
    width = hidden(rng)
    model = reader(task, one_of(rng, *PLAIN), width)
    for part in parts(model):
        if remedied:
            part.orthogonal(0.9)
        else:
            chain = 0.8 * torch.eye(width) + rng.uniform(2, 5) * torch.diag(
                torch.ones(width - 1), 1
            )
            part.params["w_h"].data.copy_(chain)
    return planted(model, task, rng)


@fault("units that latch for ever", "HS413")
def latches(rng: np.random.Generator, remedied: bool) -> Planted:
    task = one_of(rng, waves(between(rng, 12, 40)), levels(between(rng, 12, 40), 4))
    width = between(rng, 2, 6)
    model = reader(task, one_of(rng, *PLAIN), width)
    for part in parts(model):
        for name in ("b_x", "b_h"):
            if name in part.params:
                nn.init.zeros_(part.params[name])
        nn.init.eye_(part.params["w_h"].data)
        part.params["w_h"].data.mul_(0.5 if remedied else rng.uniform(1.8, 2.5))
    return planted(model, task, rng)


def uneven(task: Task, factor: float) -> Task:
    """One feature in other units than the rest."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x, *rest = task.draw(rng, batch)
        x = x.clone()
        x[..., 0] *= factor
        return x, *rest

    return Task(task.symbols, task.features, task.classes, task.per_step, draw)


@fault("one feature in other units than the rest", "HS421")
def other_units(rng: np.random.Generator, remedied: bool) -> Planted:
    task = levels(between(rng, 12, 40), between(rng, 2, 12))
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    factor = 1.0 if remedied else float(10 ** rng.uniform(4.5, 7))
    return planted(model, uneven(task, factor), rng)


@fault("feature whose weights were set to 0", "HS422")
def masked_out(rng: np.random.Generator, remedied: bool) -> Planted:
    features = between(rng, 3, 12)
    task = levels(between(rng, 12, 40), features)
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    for part in [] if remedied else parts(model):
        part.params["w_x"].data[:, int(rng.integers(features))] = 0.0
    return planted(model, task, rng)


@fault("embedding filled with one number", "HS423")
def one_vector(rng: np.random.Generator, remedied: bool) -> Planted:
    task = one_of(rng, recall(between(rng, 8, 30)), markov(between(rng, 8, 30), 6))
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    if not remedied:
        nn.init.constant_(model.embed.weight, one_of(rng, 0.0, 0.1, 1.0))
    return planted(model, task, rng)


@fault("embedding far larger than the vocabulary", "HS424")
def too_many_rows(rng: np.random.Generator, remedied: bool) -> Planted:
    task = markov(between(rng, 20, 40), between(rng, 6, 9))
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    if not remedied:
        model.embed = nn.Embedding(int(rng.integers(100, 5000)), model.embed.embedding_dim)
    return planted(model, task, rng, 32)


class CutTable(nn.Embedding):
    """Takes the last row for every code past its end."""

    def forward(self, codes: Tensor) -> Tensor:
        return super().forward(codes.clamp(max=self.num_embeddings - 1))


@fault("codes past the end of a table that cuts them", "HS425")
def past_the_end(rng: np.random.Generator, remedied: bool) -> Planted:
    task = markov(between(rng, 20, 40), between(rng, 6, 9))
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    if not remedied:
        model.embed = CutTable(between(rng, 3, 5), model.embed.embedding_dim)
    return planted(model, task, rng, 32)


@fault("recurrent layer left frozen", "HS431")
def frozen(rng: np.random.Generator, remedied: bool) -> Planted:
    task = some_task(rng)
    model = reader(task, one_of(rng, *ANY), hidden(rng))
    model.layer.requires_grad_(remedied)
    return planted(model, task, rng)


class Cut(nn.Module):
    """An encoder and a layer above it, which its gradient reaches, or not."""

    def __init__(self, kind: str, width: int, way: str) -> None:
        super().__init__()
        self.encoder, self.layer = nn.Linear(4, width), stack_of(kind, width, width)
        self.head, self.way = nn.Linear(width, 4), way

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.way == "no_grad":
            with torch.no_grad():
                x = torch.tanh(self.encoder(x))
        else:
            x = torch.tanh(self.encoder(x))
        states, _ = self.layer(x.detach() if self.way == "detach" else x, lengths)
        last = states[torch.arange(len(x)), lengths - 1]
        return self.head(last.data if self.way == "data" else last)


@fault("gradient cut on the way back", "HS432")
def cut(rng: np.random.Generator, remedied: bool) -> Planted:
    way = "none" if remedied else one_of(rng, "no_grad", "detach", "data")
    model = Cut(one_of(rng, "elman", "lstm", "gru"), hidden(rng), way)
    return planted(model, levels(between(rng, 8, 30), 4), rng)
