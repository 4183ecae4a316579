"""Modules with recurrent layers in every place, and what autograd says about their states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate import nn as ours
from hiddenstate.cells import Cell

B, T, D, H = 4, 6, 3, 5
LENGTHS = torch.tensor([4, 6, 1, 3])


class Case(NamedTuple):
    """A module in float64 with a batch, and the recurrent modules inside it."""

    module: nn.Module
    batch: tuple[Any, ...]


class Tagger(nn.Module):
    """A torch layer under a linear head; packs when lengths come; shows the last states too."""

    def __init__(self, layer: Any, outputs: int = 2) -> None:
        super().__init__()
        self.layer = layer
        width = (layer.proj_size or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: Any = None) -> Any:
        first = self.layer.batch_first
        if lengths is not None:
            x = pack_padded_sequence(x, lengths, batch_first=first, enforce_sorted=False)
        y, last = self.layer(x, state)
        if lengths is not None:
            y, _ = pad_packed_sequence(y, batch_first=first)
        return {"logits": self.head(y), "last": last}


class OwnTagger(nn.Module):
    """The same with one of hiddenstate's layers."""

    def __init__(self, layer: ours.Layer) -> None:
        super().__init__()
        self.layer = layer
        self.head = nn.Linear(layer.output_size, 2)

    def forward(self, x: Tensor, lengths: Tensor | None = None, state: Any = None) -> Any:
        y, last = self.layer(x, lengths, state)
        return {"logits": self.head(y), "last": last}


class Loop(nn.Module):
    """A user's loop over a torch cell, the head at every step; `keep` says what is handed on."""

    def __init__(self, cell: Any, keep: Callable[[Any, Any, int], Any] | None = None) -> None:
        super().__init__()
        self.cell, self.keep = cell, keep
        self.head = nn.Linear(cell.hidden_size, 2)

    def forward(self, x: Tensor, state: Any = None) -> Tensor:
        said = []
        for t in range(x.shape[1]):
            new = self.cell(x[:, t], state)
            state = new if self.keep is None else self.keep(new, state, t)
            said.append(self.head(state[0] if isinstance(state, tuple) else state))
        return torch.stack(said, 1)


def fused(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    options = {"batch_first": True} | options
    made = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}[kind](D, H, **options).double()
    for weight in made.parameters():
        weight.data.mul_(1.5)
    return made


def fused_layers() -> dict[str, Any]:
    """Every kind of torch layer, with its directions, layers and options."""
    options: dict[str, dict[str, Any]] = {
        "one layer": {},
        "time first": {"batch_first": False},
        "three layers": {"num_layers": 3},
        "two layers, both directions": {"num_layers": 2, "bidirectional": True},
        "no bias": {"bias": False, "num_layers": 2},
    }
    found = {
        f"{kind}, {what}": fused(kind, **each)
        for kind in ("RNN", "LSTM", "GRU")
        for what, each in options.items()
    }
    found["RNN, relu"] = fused("RNN", nonlinearity="relu", num_layers=2)
    found["LSTM, projection"] = fused("LSTM", proj_size=2, num_layers=2, bidirectional=True)
    return found


def own_layers() -> dict[str, ours.Layer]:
    stacks: dict[str, ours.Layer] = {
        "lstm": ours.LSTM(D, H, 2, bidirectional=True, seed=0),
        "peephole": ours.LSTM(D, H, 2, peephole=True, seed=0),
        "coupled, residual": ours.LSTM(D, H, 3, coupled=True, residual=True, seed=0),
        "layer norm": ours.LSTM(D, H, 2, layer_norm=True, bidirectional=True, seed=0),
        "projection": ours.LSTM(D, H, projection=2, seed=0),
        "gru before": ours.GRU(D, H, 2, reset="before", update="writes", seed=0),
        "learned state": ours.GRU(D, H, 2, bidirectional=True, learned_state=True, seed=0),
        "zoneout": ours.LSTM(D, H, 2, zoneout=0.3, bidirectional=True, seed=0),
        "by torch": ours.LSTM(D, H, 2, kernel="torch", seed=0),
        "by reference": ours.Elman(D, H, 2, kernel="reference", seed=0),
    }
    torch.manual_seed(1)
    for stack in stacks.values():
        for name, weight in stack.named_parameters():
            if "initial" in name:
                weight.data.normal_()
    return {name: stack.double() for name, stack in stacks.items()}


def x_of(batch_first: bool = True, seed: int = 3) -> Tensor:
    drawn = torch.tensor(np.random.default_rng(seed).standard_normal((B, T, D)))
    return drawn if batch_first else drawn.transpose(0, 1).contiguous()


def cost(outputs: Any) -> Tensor:
    """A loss that weighs every number of an output, nested as it may be, differently."""
    rng, total = np.random.default_rng(5), torch.zeros(())

    def visit(value: Any) -> None:
        nonlocal total
        if isinstance(value, Tensor):
            total = total + (value * torch.tensor(rng.standard_normal(value.shape))).sum()
        elif value is not None:
            for each in value.values() if isinstance(value, dict) else value:
                visit(each)

    visit(outputs)
    return total


class Recorded:
    """A cell that keeps every state that it gives, with its gradient, in order of computation."""

    def __init__(self, cell: Cell) -> None:
        self.cell, self.given = cell, []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.cell, name)

    def step(self, *arguments: Any) -> Any:
        new, gates = self.cell.step(*arguments)
        self.given.append(new)
        for each in new:
            each.retain_grad()
        return new, gates

    def gradients(self, reverse: bool) -> Any:
        steps = self.given[::-1] if reverse else self.given
        zeros = [torch.zeros_like(each) for each in steps[0]]
        read = [[z if a.grad is None else a.grad for a, z in zip(s, zeros)] for s in steps]
        return self.cell.State(*(torch.stack(each, 1).numpy() for each in zip(*read)))
