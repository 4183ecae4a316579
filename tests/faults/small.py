"""Small tasks whose data are generated, and the small models that learn them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.cells import Cell
from hiddenstate.nn import Recurrent, stack_of
from hiddenstate.nn.exchange import cell_of
from hiddenstate.tasks.problems import parse_problem
from tests.faults.plant import Planted

Drawn = tuple[Tensor, Tensor | None, Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Data without end.

    symbols:  how many there are; 0: x is numbers [B, T, features]
    classes:  how many there are; 0: numbers are asked for
    per_step: an answer at every step, otherwise one at a row's end
    draw:     (rng, B) -> x, lengths [B] or None, answers [B, T] or [B], mask like them
    """

    symbols: int
    features: int
    classes: int
    per_step: bool
    draw: Callable[[np.random.Generator, int], Drawn]

    def loss(self, answers: Tensor, mask: Tensor) -> Callable[[Any], Tensor]:
        """Return the loss of a batch's outputs."""

        def of(outputs: Any) -> Tensor:
            given = outputs[0] if isinstance(outputs, tuple) else outputs
            if self.classes:
                return functional.cross_entropy(given[mask], answers[mask])
            return functional.mse_loss(given[..., 0][mask], answers[mask])

        return of


class Reader(nn.Module):
    """Embedding or numbers, a recurrent layer, a head at every step or at each row's last."""

    def __init__(self, task: Task, layer: nn.Module, width: int, inputs: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(task.symbols, inputs) if task.symbols else nn.Identity()
        self.layer, self.per_step = layer, task.per_step
        self.head = nn.Linear(width, task.classes or 1)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return [B, T, V], or [B, V] at each row's last step."""
        x = self.embed(x)
        if not isinstance(self.layer, nn.RNNBase):
            h = self.layer(x, lengths)[0]
        elif lengths is None:
            h = self.layer(x)[0]
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            h, _ = pad_packed_sequence(
                self.layer(packed)[0], batch_first=True, total_length=x.shape[1]
            )
        if self.per_step:
            return self.head(h)
        last = torch.full((len(x),), x.shape[1]) if lengths is None else lengths
        return self.head(h[torch.arange(len(x)), last - 1])


OURS = ("elman", "lstm", "gru")
PLAIN = {"rnn": nn.RNN, "torch lstm": nn.LSTM, "torch gru": nn.GRU}


def reader(task: Task, kind: str, hidden: int, layers: int = 1, **options: Any) -> Reader:
    """Build a reader with a layer of ours (elman, lstm, gru) or of torch (rnn, torch lstm, ...)."""
    inputs = min(hidden, 16) if task.symbols else task.features
    ways = 2 if options.get("bidirectional") else 1
    if kind in PLAIN:
        layer: nn.Module = PLAIN[kind](inputs, hidden, layers, batch_first=True, **options)
    else:
        layer = stack_of(kind, inputs, hidden, layers, **options)
    return Reader(task, layer, ways * (options.get("projection") or hidden), inputs)


def teach(
    model: nn.Module,
    task: Task,
    rng: np.random.Generator,
    steps: int,
    *,
    rate: float = 1e-2,
    batch: int = 32,
    clip: float = 1.0,
) -> list[float]:
    """Train with Adam and clipping by norm; return the losses."""
    optimiser = torch.optim.Adam(model.parameters(), rate)
    losses = []
    for _ in range(steps):
        x, lengths, answers, mask = task.draw(rng, batch)
        optimiser.zero_grad()
        value = task.loss(answers, mask)(model(x, lengths))
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        losses.append(float(value.detach()))
    return losses


def planted(
    model: nn.Module, task: Task, rng: np.random.Generator, batch: int = 16, **options: Any
) -> Planted:
    """Return a model with a batch of its task, and the loss on it."""
    x, lengths, answers, mask = task.draw(rng, batch)
    given = (x,) if lengths is None else (x, lengths)
    return Planted(model, given, task.loss(answers, mask), options)


def in_units(task: Task, factor: float, offset: float = 0.0) -> Task:
    """Return the task with its numbers times a factor, plus an offset."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x, *rest = task.draw(rng, batch)
        return x * factor + offset, *rest

    return replace(task, draw=draw)


def one_of(rng: np.random.Generator, *choices: Any) -> Any:
    """Return one of the choices as it is."""
    return choices[int(rng.integers(len(choices)))]


# --- weights


class Part(NamedTuple):
    """One cell of a layer and its parameters, which may be written to."""

    cell: Cell
    params: dict[str, Tensor]

    def rows(self, weight: str, name: str) -> Tensor:
        """Return the rows of one gate in a weight or bias."""
        height = self.cell.hidden_size
        row = self.cell.blocks.index(name) * height
        return self.params[weight].data[row : row + height]

    def set_bias(self, name: str, value: float) -> None:
        """Give a gate's rows one bias; where there are two, the second becomes 0."""
        self.rows("b_x", name).fill_(value)
        if "b_h" in self.params:
            self.rows("b_h", name).zero_()

    def orthogonal(self, gain: float = 1.0) -> None:
        """Make the recurrent weights of each gate orthogonal, times a gain."""
        for name in self.cell.blocks:
            nn.init.orthogonal_(self.rows("w_h", name), gain)


def parts(module: nn.Module) -> list[Part]:
    """Return every cell inside, of torch's layers and of ours, with its live parameters."""
    found = []
    for each in module.modules():
        if isinstance(each, Recurrent):
            found.append(Part(each.cell, each.params))
        elif isinstance(each, nn.RNN | nn.LSTM | nn.GRU):
            ways = ("", "_reverse") if each.bidirectional else ("",)
            for k in range(each.num_layers):
                for way in ways:
                    cell, _ = cell_of(each, k, reverse=bool(way))
                    theirs = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                    live = {
                        name: getattr(each, f"{other}_l{k}{way}")
                        for name, other in zip(("w_x", "w_h", "b_x", "b_h"), theirs)
                    }
                    found.append(Part(cell, live))
    return found


# --- tasks


def _all(x: Tensor, answers: Tensor) -> Drawn:
    return x, None, answers, torch.ones(answers.shape, dtype=torch.bool)


def recall(lag: int, symbols: int = 4) -> Task:
    """The first symbol, asked for after `lag` others."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x = rng.integers(symbols, 2 * symbols, (batch, lag + 1))
        x[:, 0] -= symbols
        return _all(torch.as_tensor(x), torch.as_tensor(x[:, 0]))

    return Task(2 * symbols, 0, symbols, False, draw)


def n_back(back: int, time: int, symbols: int = 4) -> Task:
    """The symbol of `back` steps ago, at every step that has one."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x = torch.as_tensor(rng.integers(0, symbols, (batch, time)))
        answers = torch.roll(x, back, 1)
        mask = (torch.arange(time) >= back).expand(batch, -1)
        return x, None, answers, mask

    return Task(symbols, 0, symbols, True, draw)


def running_parity(time: int) -> Task:
    """Whether the ones so far are odd, at every step."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x = rng.integers(0, 2, (batch, time))
        return _all(torch.as_tensor(x), torch.as_tensor(x.cumsum(1) % 2))

    return Task(2, 0, 2, True, draw)


def markov(time: int, symbols: int, order: int = 1) -> Task:
    """The next symbol of a Markov chain of `order`."""
    peaked = np.random.default_rng(symbols).dirichlet(np.full(symbols, 0.3), (symbols,) * order)

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x = rng.integers(0, symbols, (batch, time + 1))
        for t in range(order, time + 1):
            chances = peaked[tuple(x[:, t - order + k] for k in range(order))]
            x[:, t] = (chances.cumsum(1) < rng.random((batch, 1))).sum(1).clip(max=symbols - 1)
        return _all(torch.as_tensor(x[:, :-1]), torch.as_tensor(x[:, 1:]))

    return Task(symbols, 0, symbols, True, draw)


def waves(time: int, noise: float = 0.05) -> Task:
    """The next value of a sine of unknown period and phase."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        period, phase = rng.uniform(6, 30, (batch, 1)), rng.uniform(0, 7, (batch, 1))
        x = np.sin(2 * np.pi * np.arange(time + 1) / period + phase)
        x = torch.as_tensor(x + noise * rng.standard_normal(x.shape), dtype=torch.float32)
        return _all(x[:, :-1, None], x[:, 1:])

    return Task(0, 1, 0, True, draw)


def adding(time: int) -> Task:
    """The sum of the two marked numbers."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x = np.stack([rng.random((batch, time)), np.zeros((batch, time))], 2)
        for row in x:
            row[rng.choice(time, 2, replace=False), 1] = 1
        return _all(
            torch.as_tensor(x, dtype=torch.float32),
            torch.as_tensor((x[..., 0] * x[..., 1]).sum(1), dtype=torch.float32),
        )

    return Task(0, 2, 0, False, draw)


def tagging(time: int, symbols: int = 6, ahead: bool = False) -> Task:
    """Whether this symbol is larger than the one before (`ahead`: than the one behind)."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        x = rng.integers(0, symbols, (batch, time))
        lengths = rng.integers(max(2, time // 2), time + 1, batch)
        lengths[0] = time
        answers = (x > np.roll(x, -1 if ahead else 1, 1)).astype(np.int64)
        inside = np.arange(time) < lengths[:, None] - ahead
        return (
            torch.as_tensor(x),
            torch.as_tensor(lengths),
            torch.as_tensor(answers),
            torch.as_tensor(inside),
        )

    return Task(symbols, 0, 2, True, draw)


def levels(time: int, features: int) -> Task:
    """Which of the numbers had the largest mean; rows of unequal length."""

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        answers = rng.integers(0, features, batch)
        x = rng.standard_normal((batch, time, features))
        x[np.arange(batch), :, answers] += 0.7
        lengths = rng.integers(max(2, time // 3), time + 1, batch)
        return (
            torch.as_tensor(x, dtype=torch.float32),
            torch.as_tensor(lengths),
            torch.as_tensor(answers),
            torch.ones(batch, dtype=torch.bool),
        )

    return Task(0, features, features, False, draw)


def problem(text: str) -> Task:
    """One of hiddenstate's problems with known answers, one length."""
    asked = parse_problem(text)
    symbols = asked.code_sizes[0] if asked.code_sizes else 0

    def draw(rng: np.random.Generator, batch: int) -> Drawn:
        cases = asked.sample(rng, np.full(batch, asked.length.high))
        given = cases.codes[:, 0] if symbols else cases.numbers
        x = torch.as_tensor(given.reshape(batch, -1, *given.shape[1:]))
        shape = (batch, -1) if asked.per_step else (batch,)
        answers = torch.as_tensor(cases.values.reshape(shape))
        answers = answers.long() if asked.classes else answers.float()
        return (
            x.long() if symbols else x.float(),
            None,
            answers,
            torch.as_tensor(cases.mask.reshape(shape)),
        )

    return Task(symbols, len(asked.number_names), len(asked.classes), asked.per_step, draw)
