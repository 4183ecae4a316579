"""Chance, changed arguments, wrong numbers, weights for each step; and the same models without."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import GRU, Recurrent
from tests.faults.building import Cells, Reader, numbers, sizes, torch_layer
from tests.faults.plant import Planted, fault


class Dropping(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, always: bool) -> None:
        super().__init__()
        self.reader, self.always = reader, always
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.dropout(self.reader(x), 0.3, self.always or self.training)
        return self.head(h)


@fault("F.dropout that does not know of eval mode", "HS151")
def always_dropping(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Dropping(Reader(rng, has.features, has.hidden), has.classes, always=not remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class WeightDrop(nn.Module):
    """Drops recurrent weights, in training or always."""

    def __init__(self, features: int, hidden: int, *, always: bool) -> None:
        super().__init__()
        self.cell, self.hidden, self.always = nn.GRUCell(features, hidden), hidden, always

    def forward(self, x: Tensor) -> Tensor:
        dropped = functional.dropout(self.cell.weight_hh, 0.4, self.always or self.training)
        h, outputs = x.new_zeros(x.shape[0], self.hidden), []
        for x_t in x.unbind(1):
            h = torch.func.functional_call(self.cell, {"weight_hh": dropped}, (x_t, h))
            outputs.append(h)
        return torch.stack(outputs, 1)


@fault(
    "weights dropped in eval mode",
    "HS151",
    source="pytorch #32346, awd-lstm-lm: weight drop breaks on upgrades",
)
def weights_dropped(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = WeightDrop(has.features, has.hidden, always=not remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Noisy(nn.Module):
    """Adds noise from a generator that nobody seeds."""

    def __init__(self, reader: Reader, classes: int, *, noise: float) -> None:
        super().__init__()
        self.reader, self.noise = reader, noise
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        if self.noise:
            drawn = np.random.default_rng().normal(scale=self.noise, size=x.shape)
            x = x + torch.as_tensor(drawn).to(x)
        return self.head(self.reader(x)[:, -1])


@fault(
    "noise from a generator without a seed",
    "HS152",
    source="pytorch #18110: nondeterminism",
)
def unseeded(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    noise = 0.0 if remedied else float(rng.uniform(0.05, 0.5))
    module = Noisy(Reader(rng, has.features, has.hidden), has.classes, noise=noise)
    return Planted(module, (numbers(rng, has, padded=False),))


class InPlace(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, writes: bool) -> None:
        super().__init__()
        self.reader, self.writes = reader, writes
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.mul_(0.5) if self.writes else x * 0.5
        return self.head(self.reader(x)[:, -1])


@fault("inputs scaled in place", "HS153")
def scaled_in_place(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = InPlace(Reader(rng, has.features, has.hidden), has.classes, writes=not remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Popping(nn.Module):
    def __init__(self, reader: Reader, *, writes: bool) -> None:
        super().__init__()
        self.reader, self.writes = reader, writes

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        last = lengths.sub_(1) if self.writes else lengths - 1
        return self.reader(x, last + 1)[torch.arange(len(x)), last]


@fault("lengths counted down in place", "HS153")
def counted_down(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Popping(Reader(rng, has.features, has.hidden), writes=not remedied)
    return Planted(module, (numbers(rng, has), has.lengths))


class ResetBefore(nn.GRU):
    """A GRU of the paper's first version: the reset gate acts before the recurrent product."""

    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        h = x.new_zeros(x.shape[0], self.hidden_size) if hx is None else hx[0]
        w_r, w_z, w_n = self.weight_hh_l0.chunk(3)
        b_r, b_z, b_n = self.bias_hh_l0.chunk(3)
        outputs = []
        for given in functional.linear(x, self.weight_ih_l0, self.bias_ih_l0).unbind(1):
            x_r, x_z, x_n = given.chunk(3, -1)
            r = (x_r + functional.linear(h, w_r, b_r)).sigmoid()
            z = (x_z + functional.linear(h, w_z, b_z)).sigmoid()
            n = (x_n + functional.linear(r * h, w_n, b_n)).tanh()
            h = (1 - z) * n + z * h
            outputs.append(h)
        return torch.stack(outputs, 1), h[None]


@fault(
    "GRU whose reset gate acts elsewhere than its class says",
    "HS161",
    source="onnxscript #2852, pytorch #189225: wrong reset placement, silent",
)
def other_reset(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    made = nn.GRU if remedied else ResetBefore
    layer = made(has.features, has.hidden, batch_first=True)
    return Planted(layer, (numbers(rng, has, padded=False),))


class SwappedGates(Recurrent):
    """A layer whose fast path takes the rows of two gates for each other."""

    def run(self, x: Tensor, *arguments: object, **options: object) -> tuple[Tensor, object]:
        if self.kernel == "reference":
            return super().run(x, *arguments, **options)
        rows = self.w_h.data.chunk(3)
        kept = self.w_h.data
        self.w_h.data = torch.cat([rows[1], rows[0], rows[2]])
        try:
            return super().run(x, *arguments, **options)
        finally:
            self.w_h.data = kept


@fault("fast path with two gates exchanged", "HS161")
def swapped_gates(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    stack = GRU(has.features, has.hidden)
    layer = stack.layers[0]
    made = layer if remedied else SwappedGates(layer.cell)
    return Planted(made, (numbers(rng, has, padded=False),))


class Logarithms(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, shifted: bool) -> None:
        super().__init__()
        self.reader, self.shifted = reader, shifted
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reader((x + 1 if self.shifted else x).log())[:, -1])


@fault("logarithm of a count of zero", "HS162")
def log_of_zero(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    counts = torch.as_tensor(rng.poisson(2.0, (has.rows, has.steps, has.features))).float()
    counts[0, 0, 0] = 0.0
    module = Logarithms(Reader(rng, has.features, has.hidden), has.classes, shifted=remedied)
    return Planted(module, (counts,))


class OwnScale(nn.Module):
    def __init__(self, reader: Reader, *, least: float) -> None:
        super().__init__()
        self.reader, self.least = reader, least

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(x / (x.std(1, keepdim=True) + self.least))[:, -1]


@fault("division by the spread of a row that stands still", "HS162")
def no_spread(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    x = numbers(rng, has, padded=False)
    x[int(rng.integers(has.rows))] = 0.0
    module = OwnScale(Reader(rng, has.features, has.hidden), least=1e-6 if remedied else 0.0)
    return Planted(module, (x,))


class CellEachStep(nn.Module):
    def __init__(self, cells: list[Cells], classes: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.head = nn.Linear(cells[0].hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = self.cells[0].first(x), []
        for t, x_t in enumerate(x.unbind(1)):
            state = self.cells[t % len(self.cells)](x_t, state)
            outputs.append(state[0])
        return self.head(torch.stack(outputs, 1))


@fault("a cell for each step", "HS145")
def cell_each_step(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    kind = rng.bit_generator.state
    cells = []
    for _ in range(1 if remedied else has.steps):
        # The same kind of cell each time.
        rng.bit_generator.state = kind
        cells.append(Cells(rng, has.features, has.hidden))
    module = CellEachStep(cells, has.classes)
    return Planted(module, (numbers(rng, has, padded=False),))


class CellInTheLoop(nn.Module):
    def __init__(self, features: int, hidden: int, *, inside: bool) -> None:
        super().__init__()
        self.features, self.hidden, self.inside = features, hidden, inside
        self.cell = None if inside else nn.GRUCell(features, hidden)

    def forward(self, x: Tensor) -> Tensor:
        h, outputs = x.new_zeros(x.shape[0], self.hidden), []
        for x_t in x.unbind(1):
            cell = self.cell or nn.GRUCell(self.features, self.hidden)
            h = cell(x_t, h)
            outputs.append(h)
        return torch.stack(outputs, 1)


@fault("weights made anew in the loop", "HS145")
def cell_in_the_loop(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = CellInTheLoop(has.features, has.hidden, inside=not remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Bag(nn.Module):
    """Takes the mean of the inputs where that of the states was meant."""

    def __init__(self, layer: nn.RNNBase, features: int, classes: int, *, states: bool) -> None:
        super().__init__()
        self.embed, self.layer, self.states = nn.Embedding(11, features), layer, states
        self.head = nn.Linear(layer.hidden_size if states else features, classes)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.embed(codes)
        h = self.layer(x)[0]
        return self.head((h if self.states else x).mean(1))


@fault("mean of the inputs in the place of the states", "HS142")
def bag(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden)
    codes = torch.as_tensor(rng.integers(0, 11, (has.rows, has.steps)))
    return Planted(Bag(layer, has.features, has.classes, states=remedied), (codes,))


class Taken(nn.Module):
    """The state at one step of a row, counted from its end where it is negative."""

    def __init__(self, reader: Reader, classes: int, step: int) -> None:
        super().__init__()
        self.reader, self.step = reader, step
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        h = self.reader(x, lengths)
        index = lengths + self.step if self.step < 0 else torch.full_like(lengths, self.step)
        return self.head(h[torch.arange(len(h)), index])


def taken(rng: np.random.Generator, step: int) -> Planted:
    has = sizes(rng)
    module = Taken(Reader(rng, has.features, has.hidden), has.classes, step)
    return Planted(module, (numbers(rng, has), has.lengths))


@fault("state of the last step but one", "HS143")
def last_but_one(rng: np.random.Generator, remedied: bool) -> Planted:
    return taken(rng, -1 if remedied else -2)


@fault("state of the first step", "HS143")
def first_step(rng: np.random.Generator, remedied: bool) -> Planted:
    return taken(rng, -1 if remedied else 0)


class BothEnds(nn.Module):
    """One vector of a layer in both directions: its last column, or its final states."""

    def __init__(self, layer: nn.RNNBase, classes: int, *, final: bool) -> None:
        super().__init__()
        self.layer, self.final = layer, final
        self.head = nn.Linear(2 * layer.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        h, last = self.layer(x)
        if not self.final:
            return self.head(h[:, -1])
        last = last[0] if isinstance(last, tuple) else last
        return self.head(torch.cat([last[-2], last[-1]], -1))


@fault("last column of a layer in both directions", "HS144")
def both_at_the_end(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layers = int(rng.integers(1, 3))
    layer = torch_layer(rng, has.features, has.hidden, num_layers=layers, bidirectional=True)
    module = BothEnds(layer, has.classes, final=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))
