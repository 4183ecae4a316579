"""Held-out faults of weights, gates and scales: nothing is wrong, but little can be learned."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import stack_of
from tests.faults.held_out_parts import (
    CLASSES,
    Sizes,
    between,
    classes,
    one_of,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
)
from tests.faults.plant import Planted, fault


class Reader(nn.Module):
    """A layer whose last state is asked for a class, or every state for the next values."""

    def __init__(self, rnn: nn.Module, width: int, outputs: int, every: bool = False) -> None:
        super().__init__()
        self.rnn, self.every = rnn, every
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.rnn(x)
        return self.head(h if self.every else h[:, -1])


def classifier(rng: np.random.Generator, size: Sizes, rnn: nn.Module) -> Planted:
    module = Reader(rnn, size.hidden, CLASSES)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


def forecaster(rng: np.random.Generator, size: Sizes, rnn: nn.Module) -> Planted:
    x = swings(rng, size)
    module = Reader(rnn, size.hidden, size.inputs, every=True)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


def matrices(rnn: nn.Module, *words: str) -> list[nn.Parameter]:
    """The parameters of a layer of torch or ours with one of these words in their names."""
    return [value for name, value in rnn.named_parameters() if any(word in name for word in words)]


RECURRENT, INPUTS = ("weight_hh", "w_h"), ("weight_ih", "w_x")
BIASES = ("bias", "b_x", "b_h")


@fault("weights that weight decay shrank", "HS403", "HS201", held_out=True)
def shrunk(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (30, 60), (8, 64))
    rnn = recurrent(rng, size.inputs, size.hidden, kinds=("rnn",))
    module = Reader(rnn, size.hidden, 1)

    def loss(y: Tensor, x: Tensor) -> Tensor:
        return functional.mse_loss(y[:, 0], x[:, :10, 0].mean(dim=1))

    decay = 0.0 if remedied else 5.0
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-2, weight_decay=decay)
    for _ in range(50):
        x = series(rng, size)
        optimiser.zero_grad()
        loss(module(x), x).backward()
        optimiser.step()
    x = series(rng, size)
    return Planted(module, (x,), lambda y: loss(y, x))


@fault(
    "gated layer of unit-normal weights",
    *("HS202", "HS301", "HS315", "HS405", "HS411", "HS412"),
    held_out=True,
)
def unit_normal(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (40, 100), (16, 128))
    rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2), kinds=("lstm", "gru"))
    for weight in [] if remedied else matrices(rnn, *RECURRENT, *INPUTS):
        nn.init.normal_(weight)
    return forecaster(rng, size, rnn)


class AroundTheCell(nn.Module):
    """h + cell(x, h) in time, where a way around belongs between layers."""

    def __init__(self, size: Sizes, right: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(size.inputs, size.hidden)
        self.head = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in x.unbind(dim=1):
            h = self.cell(step, h) if self.right else h + self.cell(step, h)
        return self.head(h)


@fault("a way around the cell in time", "HS202", "HS313", held_out=True)
def around_the_cell(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (30, 60))
    module = AroundTheCell(size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


@fault("numbers of categories read as numbers", "HS201", "HS301", "HS315", "HS421", held_out=True)
def categories_as_numbers(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    count = between(rng, 500, 20000)
    ids = torch.as_tensor(rng.integers(0, count, (size.batch, size.time)))
    rnn = recurrent(rng, size.inputs if remedied else 1, size.hidden)
    module: nn.Module = Reader(rnn, size.hidden, CLASSES)
    if remedied:
        module = nn.Sequential(nn.Embedding(count, size.inputs), module)
    x = ids if remedied else ids.unsqueeze(-1).float()
    return Planted(module, (x,), told_apart(ids[:, -1] % CLASSES))


@fault("a front layer drawn far too small", "HS302", "HS316", held_out=True)
def small_front(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = series(rng, size)
    answers = x[:, :, 0].mean(dim=1)
    front = nn.Linear(size.inputs, size.hidden)
    nn.init.normal_(front.weight, std=1.0 if remedied else 1e-5)
    nn.init.zeros_(front.bias)
    rnn = recurrent(rng, size.hidden, size.hidden, kinds=("lstm", "gru"))
    module = nn.Sequential(front, Reader(rnn, size.hidden, 1))
    return Planted(module, (x,), lambda y: functional.mse_loss(y[:, 0], answers))


@fault("all biases far below zero", "HS301", "HS303", "HS304", "HS306", held_out=True)
def biases_below_zero(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (20, 60))
    rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2), kinds=("lstm",))
    for bias in matrices(rnn, *BIASES):
        nn.init.constant_(bias, 0.0 if remedied else -8.0)
    return classifier(rng, size, rnn)


@fault("a gate's bias given to the candidate", "HS315", "HS316", held_out=True)
def candidate_bias(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (10, 40))
    rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2), kinds=("gru",))
    with torch.no_grad():
        for name, bias in rnn.named_parameters():
            if not remedied and ("bias_ih" in name or "b_x" in name):
                bias[2 * size.hidden :].fill_(6.0)
    return classifier(rng, size, rnn)


@fault("units pruned away and left in", "HS311", held_out=True)
def pruned_units(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    rnn = recurrent(rng, size.inputs, size.hidden, kinds=("rnn",))
    gone = torch.as_tensor(rng.permutation(size.hidden)[: size.hidden // 2])
    with torch.no_grad():
        for value in [] if remedied else rnn.parameters():
            value[gone] = 0.0
    return classifier(rng, size, rnn)


class Loop(nn.Module):
    """Layers one above the other, in a list."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        kind = one_of(rng, nn.LSTM, nn.GRU)
        self.first = nn.Linear(size.inputs, size.hidden)
        self.layers = nn.ModuleList(
            kind(size.hidden, size.hidden, batch_first=True) for _ in range(between(rng, 2, 3))
        )
        self.head = nn.Linear(size.hidden, size.inputs)
        self.right = right


class SameInput(Loop):
    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            output, _ = layer(x)
            if self.right:
                x = output
        return self.head(output)


@fault("every layer of a list reads the first input", "HS205", held_out=True)
def same_input(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = swings(rng, size)
    module = SameInput(rng, size, remedied)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


class HardChoice(nn.Module):
    """A layer finds symbols, the next one reads them: chosen outright, or by their shares."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.lower = recurrent(rng, size.inputs, size.hidden)
        self.choose = nn.Linear(size.hidden, 12)
        self.embedding = nn.Embedding(12, 16)
        self.upper = recurrent(rng, 16, size.hidden)
        self.head = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        scores = self.choose(self.lower(x)[0])
        if self.right:
            found = scores.softmax(dim=-1) @ self.embedding.weight
        else:
            found = self.embedding(scores.argmax(dim=-1))
        return self.head(self.upper(found)[0][:, -1])


@fault("symbols chosen outright between two layers", "HS205", "HS432", held_out=True)
def hard_choice(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = HardChoice(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class Encoded(nn.Module):
    """An encoder under no_grad, as it was left when only the head was tried."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.encoder = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(self.right and torch.is_grad_enabled()):
            h, _ = self.encoder(x)
        return self.head(h[:, -1])


@fault("an encoder under no_grad", "HS205", "HS432", "HS431", held_out=True)
def under_no_grad(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = Encoded(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


@fault(
    "ten plain layers without a way around them", "HS207", "HS208", "HS205", "HS432", held_out=True
)
def ten_plain_layers(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 20), (16, 64))
    if remedied:
        rnn: nn.Module = stack_of("elman", size.inputs, size.hidden, 10, residual=True)
    elif rng.random() < 0.5:
        rnn = nn.RNN(size.inputs, size.hidden, 10, batch_first=True)
    else:
        rnn = stack_of(one_of(rng, "elman", "gru"), size.inputs, size.hidden, 10, init="uniform")
    return forecaster(rng, size, rnn)


class Squashed(nn.Module):
    """Takes the steps of a row for features of one step, by a slip or not."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.right = right
        width = size.inputs if right else size.inputs * size.time
        self.rnn = recurrent(rng, width, size.hidden)
        self.head = nn.Linear(size.hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        if not self.right:
            x = x.flatten(1).unsqueeze(1)
        return self.head(self.rnn(x)[0][:, -1])


@fault("all steps handed over as one", "HS141", "HS142", "HS432", held_out=True)
def one_long_step(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (6, 20))
    module = Squashed(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


@fault("uniform weights from 0 to 1", "HS301", "HS312", "HS315", "HS404", "HS411", held_out=True)
def all_positive(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, hidden=(24, 128))
    rnn = recurrent(rng, size.inputs, size.hidden)
    if not remedied:
        for weight in matrices(rnn, *RECURRENT, *INPUTS):
            nn.init.uniform_(weight)
    return forecaster(rng, size, rnn)
