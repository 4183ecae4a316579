"""Rows that read each other, or change places, and the same models with rows apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.faults.building import Reader, at_end, numbers, sizes, torch_layer
from tests.faults.plant import Planted, fault


class FinalStates(nn.Module):
    """All layers' final states of a row side by side."""

    def __init__(self, layer: nn.RNNBase, classes: int, *, turned: bool) -> None:
        super().__init__()
        self.layer, self.turned = layer, turned
        ways = layer.num_layers * (2 if layer.bidirectional else 1)
        self.head = nn.Linear(ways * layer.hidden_size, classes)

    def forward(self, x: Tensor) -> Tensor:
        final = self.layer(x)[1]
        h = final[0] if isinstance(final, tuple) else final
        if self.turned:
            h = h.transpose(0, 1)
        return self.head(h.reshape(x.shape[0], -1))


@fault(
    "final states [layers, B, H] viewed as [B, all]",
    "HS121",
    source="pytorch #4145: batch_first does not reach the hidden state",
)
def viewed(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layers, both = [(2, False), (1, True), (2, True)][int(rng.integers(3))]
    layer = torch_layer(rng, has.features, has.hidden, num_layers=layers, bidirectional=both)
    module = FinalStates(layer, has.classes, turned=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Weighted(nn.Module):
    def __init__(self, reader: Reader, classes: int, axis: int) -> None:
        super().__init__()
        self.reader, self.axis = reader, axis
        self.score, self.head = nn.Linear(reader.width, 1), nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.reader(x)
        return self.head((self.score(h).softmax(self.axis) * h).sum(1))


@fault("attention weights that sum to one over the rows", "HS121")
def softmax_over_rows(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Weighted(Reader(rng, has.features, has.hidden), has.classes, 1 if remedied else 0)
    return Planted(module, (numbers(rng, has, padded=False),))


class Unpacked(nn.Module):
    """A layer that may take rows for steps."""

    def __init__(self, layer: nn.RNNBase, classes: int, *, last: bool) -> None:
        super().__init__()
        self.layer, self.head, self.last = layer, nn.Linear(layer.hidden_size, classes), last

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        h = self.layer(x)[0]
        if lengths is not None:
            h = at_end(h, lengths)
        return self.head(h[:, -1] if self.last else h)


@fault("batch_first forgotten, lengths given", "HS125")
def forgotten(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, batch_first=remedied)
    module = Unpacked(layer, has.classes, last=False)
    lengths = has.lengths.clone()
    # As many rows as steps would tell nothing.
    x = numbers(rng, has)
    if has.rows == has.steps:
        x, lengths = x[:-1], lengths[:-1]
    return Planted(module, (x, lengths))


@fault("batch_first forgotten, last column taken", "HS125")
def forgotten_last(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, batch_first=remedied)
    return Planted(Unpacked(layer, has.classes, last=True), (numbers(rng, has, padded=False),))


class LastOf(nn.Module):
    def __init__(self, layer: nn.RNNBase, classes: int, *, along: str) -> None:
        super().__init__()
        self.layer, self.head, self.along = layer, nn.Linear(layer.hidden_size, classes), along

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)[0]
        return self.head(h[-1] if self.along == "rows" else h[:, -1])


@fault("output[-1] of a batch-first layer", "HS125")
def last_row(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden)
    module = LastOf(layer, has.classes, along="steps" if remedied else "rows")
    return Planted(module, (numbers(rng, has, padded=False),))


class Sorting(nn.Module):
    """Sorts rows by length for packing, as all code did before torch 1.1."""

    def __init__(self, layer: nn.RNNBase, classes: int, *, back: bool) -> None:
        super().__init__()
        self.layer, self.head, self.back = layer, nn.Linear(layer.hidden_size, classes), back

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        ordered, order = lengths.sort(descending=True, stable=True)
        packed = pack_padded_sequence(x[order], ordered, batch_first=True)
        h = pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0]
        h = at_end(h, ordered)
        return self.head(h[order.argsort()] if self.back else h)


@fault(
    "results left in the order of lengths",
    "HS121",
    "HS123",
    source="pytorch #23079, #33602: enforce_sorted confuses",
)
def not_put_back(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden)
    module = Sorting(layer, has.classes, back=remedied)
    order = torch.as_tensor(rng.permutation(has.rows))
    if bool((has.lengths[order].diff() <= 0).all()):
        order = order.flip(0)
    return Planted(module, (numbers(rng, has)[order], has.lengths[order]))


class Gathering(nn.Module):
    """Brings rows into another order by a product with zeros and ones, or by their index."""

    def __init__(self, reader: Reader, classes: int, *, by_index: bool) -> None:
        super().__init__()
        self.reader, self.by_index = reader, by_index
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.reader(x)[:, -1]
        order = torch.arange(len(h))
        if self.by_index:
            return self.head(h.index_select(0, order))
        return self.head(functional.one_hot(order, len(h)).to(h) @ h)


@fault(
    "rows chosen by a product with zeros",
    "HS122",
    source="pytorch #177016: a NaN row spoils the batch",
)
def product_with_zeros(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Gathering(Reader(rng, has.features, has.hidden), has.classes, by_index=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Normalised(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, by_mode: bool) -> None:
        super().__init__()
        self.reader, self.by_mode = reader, by_mode
        self.norm, self.head = nn.BatchNorm1d(reader.width), nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        h = self.reader(x)[:, -1]
        if self.by_mode:
            return self.head(self.norm(h))
        return self.head(functional.batch_norm(h, None, None, training=True))


@fault("batch norm on the batch's own statistics", "HS121", "HS124")
def batch_statistics(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Normalised(Reader(rng, has.features, has.hidden), has.classes, by_mode=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Squeezing(nn.Module):
    def __init__(self, layer: nn.RNNBase, classes: int, *, named: bool) -> None:
        super().__init__()
        self.layer, self.head, self.named = layer, nn.Linear(layer.hidden_size, classes), named

    def forward(self, x: Tensor) -> Tensor:
        final = self.layer(x)[1]
        h = final[0] if isinstance(final, tuple) else final
        return self.head(h.squeeze(0) if self.named else h.squeeze())


@fault("squeeze that takes the axis of a single row", "HS124")
def squeezed(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Squeezing(torch_layer(rng, has.features, has.hidden), has.classes, named=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Scaled(nn.Module):
    def __init__(self, reader: Reader, classes: int, *, by_steps: bool) -> None:
        super().__init__()
        self.reader, self.by_steps = reader, by_steps
        self.head = nn.Linear(reader.width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.reader(x).sum(1) / x.shape[1 if self.by_steps else 0])


@fault("sum over the steps divided by the rows", "HS124")
def divided_by_rows(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    module = Scaled(Reader(rng, has.features, has.hidden), has.classes, by_steps=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))


class Reshaped(nn.Module):
    """Brings [B, T, D] to [T, B, D], by a reshape or by a transpose."""

    def __init__(self, layer: nn.RNNBase, classes: int, *, turned: bool) -> None:
        super().__init__()
        self.layer, self.head, self.turned = layer, nn.Linear(layer.hidden_size, classes), turned

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, features = x.shape
        x = x.transpose(0, 1) if self.turned else x.reshape(steps, rows, features)
        return self.head(self.layer(x)[0][-1])


@fault("reshape in the place of a transpose", "HS121")
def reshaped(rng: np.random.Generator, remedied: bool) -> Planted:
    has = sizes(rng)
    layer = torch_layer(rng, has.features, has.hidden, batch_first=False)
    module = Reshaped(layer, has.classes, turned=remedied)
    return Planted(module, (numbers(rng, has, padded=False),))
