"""States, counts and randomness from call to call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.building import Cells
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    between,
    forecast,
    one_of,
    recurrent,
    series,
    sizes,
    told_apart,
    words,
)
from tests.faults.plant import Planted, fault


class Block(nn.Module):
    """A layer, dropout and a way around both."""

    def __init__(self, kind: str, hidden: int, drop: float) -> None:
        super().__init__()
        self.layer = TORCH[kind](hidden, hidden, batch_first=True)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.drop(self.layer(x)[0])
        return result


class Blocks(nn.Module):
    """The next values, by a layer and blocks over it."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        kind, drop = one_of(rng, *TORCH), float(rng.uniform(0.1, 0.5))
        self.first = TORCH[kind](inputs, hidden, batch_first=True)
        blocks = [Block(kind, hidden, drop) for _ in range(between(rng, 1, 3))]
        self.blocks: Any = nn.ModuleList(blocks) if remedied else blocks
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)[0]
        for block in self.blocks:
            h = block(h)
        result: Tensor = self.head(h)
        return result


@fault(
    "blocks in a plain list, which eval does not reach",
    "HS151",
    source="https://github.com/namisan/mt-dnn/issues/45",
    held_out=True,
)
def blocks_in_a_list(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, hidden=(8, 64))
    return forecast(rng, Blocks(rng, size.inputs, size.hidden, remedied), size)


class Positioned(nn.Module):
    """Tags of words to which sines of their places are added."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.seen = 0
        self.embed = nn.Embedding(symbols, 16)
        self.layer = recurrent(rng, 16, hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        steps = torch.arange(ids.shape[1]) + self.seen
        if not self.remedied:
            self.seen += ids.shape[1]
        angles = steps[:, None] / 10000 ** (torch.arange(8) / 8)
        places = torch.cat([angles.sin(), angles.cos()], 1)
        result: Tensor = self.head(self.layer(self.embed(ids) + places)[0])
        return result


@fault("a count of places that goes on from call to call", "HS133", held_out=True)
def places_go_on(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng), between(rng, 10, 40)
    tags = torch.as_tensor(rng.integers(0, CLASSES, (size.batch, size.time)))
    return Planted(
        Positioned(rng, symbols, size.hidden, remedied),
        (words(rng, size, symbols)[:, 1:],),
        told_apart(tags),
    )


class Streaming(nn.Module):
    """Values after each step, in a loop over a cell; x is [T, B, D]."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.cell = one_of(rng, nn.RNNCell, nn.GRUCell)(inputs, hidden)
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        h, outputs = h0, []
        for x_t in x:
            h = self.cell(x_t, h)
            outputs.append(self.head(h))
        if not self.remedied:
            h0.data.copy_(h.data)
        return torch.stack(outputs), h


@fault("the last state written into the first one's memory", "HS133", "HS153", held_out=True)
def first_state_overwritten(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = series(rng, size).transpose(0, 1)
    y = torch.randn(size.time, size.batch, size.inputs) * 0.3 + x.roll(1, 0)
    return Planted(
        Streaming(rng, size.inputs, size.hidden, remedied),
        (x, torch.randn(size.batch, size.hidden) * 0.3),
        lambda output: functional.mse_loss(output[0], y),
        {"batch_first": False},
    )


class LanguageModel(nn.Module):
    """The next symbols and the state of all layers, to go on from."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.embed = nn.Embedding(symbols, 24)
        kind = TORCH[one_of(rng, "rnn", "gru")]
        self.layers = kind(24, hidden, between(rng, 2, 3), batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, ids: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        states, after = self.layers(self.embed(ids), hidden)
        if not self.remedied:
            after = after[-1:].repeat(self.layers.num_layers, 1, 1)
        return self.head(states), after


@fault("the upper layer's state given out for all layers", "HS131", held_out=True)
def upper_state_for_all(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, hidden=(16, 128)), between(rng, 10, 60)
    ids = words(rng, size, symbols)
    module = LanguageModel(rng, symbols, size.hidden, remedied)
    hidden = torch.randn(module.layers.num_layers, size.batch, size.hidden) * 0.3
    return Planted(
        module,
        (ids[:, :-1], hidden),
        told_apart(ids[:, 1:]),
        {"states": ("hidden",), "causal": True},
    )


class CellStack(nn.Module):
    """Forecasts by cells one over the other; the state is [layers, B, H]."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        kind = one_of(rng, nn.RNNCell, nn.GRUCell)
        count = between(rng, 2, 3)
        self.cells = nn.ModuleList(kind(hidden if i else inputs, hidden) for i in range(count))
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        states = [h0[i if self.remedied else 0] for i in range(len(self.cells))]
        outputs = []
        for given in x.unbind(1):
            for i, cell in enumerate(self.cells):
                states[i] = given = cell(given, states[i])
            outputs.append(self.head(given))
        return torch.stack(outputs, 1), torch.stack(states)


@fault("the lowest layer's state given to all layers", "HS131", "HS132", held_out=True)
def lowest_state_for_all(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(8, 25))
    module = CellStack(rng, size.inputs, size.hidden, remedied)
    planted = forecast(rng, module, size)
    assert isinstance(planted.batch, tuple)
    assert planted.loss is not None
    of_outputs = planted.loss
    h0 = torch.randn(len(module.cells), size.batch, size.hidden) * 0.3
    return replace(planted, batch=(*planted.batch, h0), loss=lambda out: of_outputs(out[0]))


class Policy(nn.Module):
    """Actions and values [T, B, ...] of agents whose state starts anew behind an episode's end."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, remedied: bool) -> None:
        super().__init__()
        self.remedied = remedied
        self.body = nn.Linear(inputs, 32)
        self.cell = one_of(rng, nn.GRUCell, nn.RNNCell)(32, hidden)
        self.actor, self.critic = nn.Linear(hidden, CLASSES), nn.Linear(hidden, 1)

    def forward(self, observed: Tensor, done: Tensor, h0: Tensor) -> dict[str, Tensor]:
        h, states = h0, []
        for x, ended in zip(torch.tanh(self.body(observed)), done[..., None]):
            h = self.cell(x, h * (1 - ended) if self.remedied else h * ended)
            states.append(h)
        all_states = torch.stack(states)
        return {
            "actions": self.actor(all_states),
            "values": self.critic(all_states).squeeze(-1),
            "state": h,
        }


@fault(
    "a flag for an episode's end read the other way round",
    "HS132",
    "HS134",
    "HS141",
    "HS201",
    held_out=True,
)
def flag_turned_round(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, time=(10, 40))
    taken = torch.as_tensor(rng.integers(0, CLASSES, (size.time, size.batch)))
    returns = torch.randn(size.time, size.batch)
    done = torch.zeros(size.time, size.batch)
    done[size.time // 2, : size.batch // 3] = 1.0

    def loss(output: Any) -> Tensor:
        chosen = functional.cross_entropy(output["actions"].flatten(0, 1), taken.flatten())
        return chosen + 0.5 * functional.mse_loss(output["values"], returns)

    return Planted(
        Policy(rng, size.inputs, size.hidden, remedied),
        {
            "observed": series(rng, size).transpose(0, 1),
            "done": done,
            "h0": torch.randn(size.batch, size.hidden) * 0.3,
        },
        loss,
        {"batch_first": False, "states": ("h0",)},
    )


class SeveralAhead(nn.Module):
    """The next K values [B, K, D], each from the one before."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, first: int) -> None:
        super().__init__()
        self.first, self.ahead = first, between(rng, 3, 8)
        self.reader, self.writer = Cells(rng, inputs, hidden), nn.GRUCell(inputs, hidden)
        self.head = nn.Linear(hidden, inputs)

    def forward(self, x: Tensor) -> Tensor:
        state = self.reader.first(x)
        for x_t in x.unbind(1):
            state = self.reader(x_t, state)
        h, value = state[0], x[:, -1]
        future = torch.empty(x.shape[0], self.ahead, x.shape[2])
        for k in range(self.first, self.ahead):
            h = self.writer(value, h)
            value = self.head(h)
            future[:, k] = value
        return future


@fault(
    "a loop over an empty tensor that begins at the second forecast",
    "HS152",
    "HS154",
    held_out=True,
)
def first_forecast_unset(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = SeveralAhead(rng, size.inputs, size.hidden, 0 if remedied else 1)
    y = torch.randn(size.batch, module.ahead, size.inputs)
    return Planted(module, (series(rng, size),), lambda out: functional.mse_loss(out, y))
