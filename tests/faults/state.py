"""States that are kept, dropped, cut or made up, and the same models with them handed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.faults.building import Cells, numbers, sizes, torch_layer
from tests.faults.plant import Planted, fault

State = Any


class Keeping(nn.Module):
    """Keeps its last state for the next call, unless told not to."""

    def __init__(self, layer: nn.RNNBase, classes: int, *, keeps: bool) -> None:
        super().__init__()
        self.layer, self.head, self.keeps = layer, nn.Linear(layer.hidden_size, classes), keeps
        self.state: State = None

    def forward(self, x: Tensor) -> Tensor:
        h, state = self.layer(x, self.state)
        if self.keeps:
            parts = state if isinstance(state, tuple) else (state,)
            kept = tuple(each.detach() for each in parts)
            self.state = kept if isinstance(state, tuple) else kept[0]
        return self.head(h)


@fault(
    "state that stays in the module",
    "HS133",
    source="triton #7117: state leaks between sequences",
)
def kept(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, num_layers=int(rng.integers(1, 3)))
    module = Keeping(layer, has.classes, keeps=not remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class ResetInPart(nn.Module):
    """Keeps h and c for the next call, or begins every call from zeros."""

    def __init__(self, features: int, hidden: int, *, keeps: bool) -> None:
        super().__init__()
        self.layer, self.keeps = nn.LSTM(features, hidden, batch_first=True), keeps
        self.h: Tensor | None = None
        self.c: Tensor | None = None

    def reset_state(self) -> None:
        self.h = None

    def forward(self, x: Tensor) -> Tensor:
        zeros = x.new_zeros(1, x.shape[0], self.layer.hidden_size)
        first = tuple(zeros if each is None else each for each in (self.h, self.c))
        output, (h, c) = self.layer(x, first)
        if self.keeps:
            self.h, self.c = h.detach(), c.detach()
        return output


@fault("reset that forgets h and keeps c", "HS133")
def reset_in_part(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = ResetInPart(has.features, has.hidden, keeps=not remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Streaming(nn.Module):
    """Cells over steps; takes a state and gives one back.

    wrong: "" or what is done wrongly with the state
    """

    def __init__(self, cells: list[Cells], wrong: str) -> None:
        super().__init__()
        self.cells, self.wrong = nn.ModuleList(cells), wrong

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        states = [cell.first(x) for cell in self.cells]
        if state is not None and self.wrong != "ignored":
            states = list(state)
            if self.wrong == "only the first layer":
                states[1:] = [cell.first(x) for cell in self.cells[1:]]
        outputs, before = [], states
        for x_t in x.unbind(1):
            before = list(states)
            for k, cell in enumerate(self.cells):
                states[k] = cell(x_t, states[k])
                x_t = states[k][0]
            outputs.append(x_t)
        if self.wrong == "one step early":
            states = before
        return torch.stack(outputs, 1), tuple(states)


def streaming(rng: np.random.Generator, layers: int, wrong: str) -> Planted:
    has = sizes(rng)
    widths = [has.features, *[has.hidden] * (layers - 1)]
    module = Streaming([Cells(rng, width, has.hidden) for width in widths], wrong)
    return Planted(module, (numbers(rng, has, padded=False),))


@fault("state that is taken and not read", "HS132")
def ignored(rng: np.random.Generator, remedied: bool) -> Planted:
    return streaming(rng, int(rng.integers(1, 3)), "" if remedied else "ignored")


@fault("state of the upper layer not read", "HS132")
def first_layer_only(rng: np.random.Generator, remedied: bool) -> Planted:
    return streaming(rng, 2, "" if remedied else "only the first layer")


@fault("state given out one step early", "HS131")
def one_step_early(rng: np.random.Generator, remedied: bool) -> Planted:
    return streaming(rng, int(rng.integers(1, 3)), "" if remedied else "one step early")


class Exchanged(nn.Module):
    """torch's layer, whose layers' states may come back in the wrong order."""

    def __init__(self, layer: nn.RNNBase, *, right: bool) -> None:
        super().__init__()
        self.layer, self.right = layer, right

    def forward(self, x: Tensor, hidden: State = None) -> tuple[Tensor, State]:
        output, final = self.layer(x, hidden)
        if self.right:
            return output, final
        if isinstance(final, tuple):
            return output, tuple(each.flip(0) for each in final)
        return output, final.flip(0)


@fault("layers' states given out in the wrong order", "HS131")
def layers_mixed_up(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, num_layers=2)
    return Planted(Exchanged(layer, right=remedied), (numbers(rng, has, padded=False),))


class CellStateLost(nn.Module):
    """Hands h on and begins c anew."""

    def __init__(self, features: int, hidden: int, *, keeps: bool) -> None:
        super().__init__()
        self.layer, self.keeps = nn.LSTM(features, hidden, batch_first=True), keeps

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        if state is not None and not self.keeps:
            state = (state[0], torch.zeros_like(state[1]))
        return self.layer(x, state)


@fault("h handed on and c begun anew", "HS132", "HS131")
def cell_state_lost(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = CellStateLost(has.features, has.hidden, keeps=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Parallel(nn.Module):
    """h_t = a_t h_{t-1} + (1 - a_t) x_t: all steps at once, or step by step from a state."""

    def __init__(self, features: int, hidden: int, *, begins: bool) -> None:
        super().__init__()
        self.gate, self.read = nn.Linear(features, hidden), nn.Linear(features, hidden)
        self.begins = begins

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        a, written = self.gate(x).sigmoid(), self.read(x)
        kept = a.log().cumsum(1)
        h = kept.exp() * (((1 - a) * written) * (-kept).exp()).cumsum(1)
        if state is not None and (self.begins or x.shape[1] == 1):
            h = h + kept.exp() * state[:, None]
        return h, h[:, -1]


@fault(
    "parallel form that begins from zeros",
    "HS131",
    "HS132",
    source="minGRU-pytorch #9: parallel and sequential forms disagree with h0",
)
def parallel_from_zeros(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Parallel(has.features, has.hidden, begins=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class ShortConvolution(nn.Module):
    """A causal convolution before the layer; its last inputs belong to the state."""

    def __init__(self, features: int, hidden: int, *, keeps: bool) -> None:
        super().__init__()
        self.convolve, self.keeps = nn.Conv1d(features, features, 3), keeps
        self.layer = nn.GRU(features, hidden, batch_first=True)

    def forward(self, x: Tensor, state: State = None) -> tuple[Tensor, State]:
        before, h = (None, None) if state is None else state
        if before is None or not self.keeps:
            before = x.new_zeros(x.shape[0], 2, x.shape[2])
        x = torch.cat([before, x], 1)
        output, h = self.layer(self.convolve(x.transpose(1, 2)).transpose(1, 2), h)
        return output, (x[:, -2:], h)


@fault(
    "convolution that begins anew in every chunk",
    "HS131",
    "HS132",
    source="fla #1140: states of chunks shorter than the kernel",
)
def convolution_anew(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = ShortConvolution(has.features, has.hidden, keeps=remedied)
    return Planted(module, (numbers(rng, has, padded=False),), options={"causal": True})


class Loop(nn.Module):
    """A cell over steps; every `every` steps something is done to the state."""

    def __init__(self, cell: Cells, classes: int, *, every: int | None, does: str) -> None:
        super().__init__()
        self.cell, self.every, self.does = cell, every, does
        self.head = nn.Linear(cell.hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = self.cell.first(x), []
        for t, x_t in enumerate(x.unbind(1)):
            if self.every and t and t % self.every == 0:
                if self.does == "reset":
                    state = self.cell.first(x)
                else:
                    state = tuple(each.detach() for each in state)
            state = self.cell(x_t, state)
            outputs.append(state[0])
        return self.head(torch.stack(outputs, 1))


def loop(rng: np.random.Generator, every: tuple[int, int] | None, does: str) -> Planted:
    has = sizes(rng, steps=9)
    drawn = None if every is None else int(rng.integers(*every))
    module = Loop(Cells(rng, has.features, has.hidden), has.classes, every=drawn, does=does)
    return Planted(module, (numbers(rng, has, padded=False),))


@fault("state reset in the middle of a row", "HS134")
def reset_in_the_middle(rng: np.random.Generator, remedied: bool) -> Planted:
    return loop(rng, None if remedied else (3, 6), "reset")


class InChunks(nn.Module):
    """A layer over chunks of a row, with the state handed on or not."""

    def __init__(self, layer: nn.RNNBase, chunk: int, *, hands_on: bool) -> None:
        super().__init__()
        self.layer, self.chunk, self.hands_on = layer, chunk, hands_on

    def forward(self, x: Tensor) -> Tensor:
        state, found = None, []
        for part in x.split(self.chunk, 1):
            h, final = self.layer(part, state)
            state = final if self.hands_on else None
            found.append(h)
        return torch.cat(found, 1)


@fault("chunks of a row without the state of the one before", "HS134")
def chunks_alone(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng, steps=9)
    layer = torch_layer(rng, has.features, has.hidden)
    module = InChunks(layer, int(rng.integers(3, 6)), hands_on=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


@fault(
    "state detached in the loop over steps",
    "HS135",
    source="pytorch #49236: what to detach, and when",
)
def detached(rng: np.random.Generator, remedied: bool) -> Planted:
    return loop(rng, None if remedied else (1, 5), "detach")


class Forgetful(nn.Module):
    """A loop over steps that may give every step zeros for a state."""

    def __init__(self, cell: Cells, classes: int, *, hands_on: bool, pools: bool) -> None:
        super().__init__()
        self.cell, self.hands_on, self.pools = cell, hands_on, pools
        self.head = nn.Linear(cell.hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        first = state = self.cell.first(x)
        outputs = []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state if self.hands_on else first)
            outputs.append(state[0])
        h = torch.stack(outputs, 1)
        return self.head(h.mean(1) if self.pools else h[:, -1])


def forgetful(rng: np.random.Generator, *, hands_on: bool, pools: bool) -> Planted:
    has = sizes(rng)
    cell = Cells(rng, has.features, has.hidden)
    module = Forgetful(cell, has.classes, hands_on=hands_on, pools=pools)
    return Planted(module, (numbers(rng, has, padded=False),))


@fault("cell that gets zeros at every step", "HS141")
def zeros_every_step(rng: np.random.Generator, remedied: bool) -> Planted:
    return forgetful(rng, hands_on=remedied, pools=False)


@fault("cell that gets zeros at every step, then a mean", "HS142")
def zeros_then_mean(rng: np.random.Generator, remedied: bool) -> Planted:
    return forgetful(rng, hands_on=remedied, pools=True)


class Begun(nn.Module):
    def __init__(self, layer: nn.RNNBase, begin: str) -> None:
        super().__init__()
        self.layer, self.begin = layer, begin

    def forward(self, x: Tensor) -> Tensor:
        make = {"randn": torch.randn, "empty": torch.empty, "zeros": torch.zeros}[self.begin]
        h = make(self.layer.num_layers, x.shape[0], self.layer.hidden_size)
        first = (h, torch.zeros_like(h)) if isinstance(self.layer, nn.LSTM) else h
        return self.layer(x, first)[0]


def begun(rng: np.random.Generator, begin: str) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, num_layers=int(rng.integers(1, 3)))
    return Planted(Begun(layer, begin), (numbers(rng, has, padded=False),))


@fault("first state drawn at random", "HS136")
def begun_at_random(rng: np.random.Generator, remedied: bool) -> Planted:
    return begun(rng, "zeros" if remedied else "randn")


@fault(
    "first state in memory that nobody wrote",
    "HS154",
    source="Triton: the first state of a sequence is uninitialised by default",
)
def begun_unset(rng: np.random.Generator, remedied: bool) -> Planted:
    return begun(rng, "zeros" if remedied else "empty")


class Counting(nn.Module):
    """Fades what it gives with every call, or does not."""

    def __init__(self, layer: nn.RNNBase, *, counts: bool) -> None:
        super().__init__()
        self.layer, self.counts, self.calls = layer, counts, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        h = self.layer(x)[0]
        return h * 0.9**self.calls if self.counts else h


@fault("result that fades with every call", "HS133")
def fading(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Counting(torch_layer(rng, has.features, has.hidden), counts=not remedied)
    return Planted(module, (numbers(rng, has, padded=False),))
