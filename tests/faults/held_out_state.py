"""Held-out faults of the state and the weights: lost, left over, drawn anew, changed by the way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import (
    CLASSES,
    Sizes,
    between,
    classes,
    forecast,
    one_of,
    series,
    sizes,
    swings,
    told_apart,
)
from tests.faults.plant import Planted, fault


class WarmedUp(nn.Module):
    """Reads the older half of a row first, to begin the newer one in a good state."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        kind = one_of(rng, nn.RNN, nn.LSTM, nn.GRU)
        self.rnn = kind(size.inputs, size.hidden, between(rng, 1, 2), batch_first=True)
        self.head = nn.Linear(size.hidden, 1)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        half = x.shape[1] // 2
        with torch.set_grad_enabled(self.right and torch.is_grad_enabled()):
            _, state = self.rnn(x[:, :half])
        output, _ = self.rnn(x[:, half:], state)
        return self.head(output[:, -1]).squeeze(-1)


@fault("the older half of a row read without gradients", "HS135", held_out=True)
def older_half(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (12, 40))
    x = series(rng, size)
    answers = x[..., 0].mean(dim=1)
    module = WarmedUp(rng, size, remedied)
    return Planted(module, (x,), lambda y: functional.mse_loss(y, answers))


class Buffered(nn.Module):
    """Goes on from the state of the call before, kept in a buffer."""

    state: Tensor

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = nn.GRU(size.inputs, size.hidden, between(rng, 1, 2), batch_first=True)
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right
        self.register_buffer("state", torch.zeros(self.rnn.num_layers, 1, size.hidden))

    def forward(self, x: Tensor) -> Tensor:
        first = self.state.mean(dim=1, keepdim=True).repeat(1, x.shape[0], 1)
        output, last = self.rnn(x, torch.zeros_like(first) if self.right else first)
        self.state = last.detach()
        return self.head(output)


@fault("a first state from the batch before, in a buffer", "HS133", held_out=True)
def buffered_state(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return forecast(rng, Buffered(rng, size, remedied), size)


class Swapped(nn.Module):
    """forward(x, state) gives the state to go on from."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        layers = between(rng, 1, 2)
        self.rnn = nn.LSTM(size.inputs, size.hidden, layers, batch_first=True)
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, (h, c) = self.rnn(x, state)
        return self.head(output), (h, c) if self.right else (c, h)


@fault("h and c given back the wrong way round", "HS131", held_out=True)
def swapped_state(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = swings(rng, size)
    module = Swapped(rng, size, remedied)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y[0], x[:, 1:]))


class NormedLoop(nn.Module):
    """forward(x, state): the head reads normalised states, the cell goes on from raw ones."""

    def __init__(self, size: Sizes, right: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(size.inputs, size.hidden)
        self.norm = nn.LayerNorm(size.hidden)
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h, outputs = state, []
        for step in x.unbind(dim=1):
            h = self.cell(step, h)
            outputs.append(self.norm(h))
        return self.head(torch.stack(outputs, dim=1)), h if self.right else outputs[-1]


@fault("the normalised state handed on in the place of the raw one", "HS131", held_out=True)
def normed_handed_on(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (10, 25))
    x = swings(rng, size)
    module = NormedLoop(size, remedied)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y[0], x[:, 1:]))


class Zoneout(nn.Module):
    """Keeps a share of the old state at random, in training alone or always."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(size.inputs, size.hidden)
        self.head = nn.Linear(size.hidden, size.inputs)
        self.share, self.right = float(rng.uniform(0.05, 0.3)), right

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], self.cell.hidden_size), []
        for step in x.unbind(dim=1):
            new = self.cell(step, h)
            if self.training or not self.right:
                keeps = torch.bernoulli(torch.full_like(h, self.share))
                h = keeps * h + (1 - keeps) * new
            else:
                h = self.share * h + (1 - self.share) * new
            outputs.append(self.head(h))
        return torch.stack(outputs, dim=1)


@fault("zoneout that eval mode does not end", "HS151", held_out=True)
def zoneout_in_eval(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (10, 25))
    return forecast(rng, Zoneout(rng, size, remedied), size)


class InTurns(nn.Module):
    """Cells of a stack: all of them at every step, or by a slip of the index one after another."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        kind = one_of(rng, nn.RNNCell, nn.GRUCell)
        self.cells = nn.ModuleList(
            kind(size.hidden, size.hidden) for _ in range(between(rng, 2, 3))
        )
        self.first = nn.Linear(size.inputs, size.hidden)
        self.head = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        states = [x.new_zeros(x.shape[0], x.shape[2]) for _ in self.cells]
        for t in range(x.shape[1]):
            if self.right:
                below = x[:, t]
                for k, cell in enumerate(self.cells):
                    below = states[k] = cell(below, states[k])
            else:
                states[-1] = self.cells[t % len(self.cells)](x[:, t], states[-1])
        return self.head(states[-1])


@fault("cells of a stack taken in turns", "HS145", held_out=True)
def cells_in_turns(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (6, 20), (8, 64))
    module = InTurns(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class DrawnAnew(nn.Module):
    """Draws its weights when it is built, or whenever a batch is read."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        kind = one_of(rng, nn.RNN, nn.LSTM, nn.GRU)
        self.rnn = kind(size.inputs, size.hidden, batch_first=True)
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right
        self.init_weights()

    def init_weights(self) -> None:
        for name, value in self.rnn.named_parameters():
            if "weight" in name:
                nn.init.xavier_uniform_(value)

    def forward(self, x: Tensor) -> Tensor:
        if not self.right:
            self.init_weights()
        return self.head(self.rnn(x)[0])


@fault("weights drawn anew by each forward", "HS145", "HS151", "HS152", "HS133", held_out=True)
def drawn_anew(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    return forecast(rng, DrawnAnew(rng, size, remedied), size)
