"""Held-out faults of the second set: state kept, gradients, gates, weights. Written unseen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    Sizes,
    adam,
    between,
    classes,
    forecast,
    one_of,
    over,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
    words,
)
from tests.faults.plant import Planted, fault
from tests.faults.unseen_faults import WIDE, at_end, texts


class Remembered(nn.Module):
    """Decoder with attention; what it attends to is projected once and kept."""

    keys: Tensor | None

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 12)
        self.encoder = recurrent(rng, 12, size.hidden, kinds=("lstm", "gru"))
        self.decoder = recurrent(rng, 12, size.hidden, kinds=("lstm", "gru"))
        self.project = nn.Linear(size.hidden, size.hidden)
        self.out = nn.Linear(2 * size.hidden, symbols)
        self.keys, self.right = None, right

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        memory = self.encoder(self.embedding(source))[0]
        keys = self.keys
        if self.training or self.right or keys is None or keys.shape != memory.shape:
            keys = self.project(memory)
            self.keys = None if self.right else keys.detach()
        query = self.decoder(self.embedding(target))[0]
        weights = (query @ keys.transpose(1, 2)).softmax(dim=-1)
        return self.out(torch.cat([query, weights @ keys], dim=-1))


@fault("attention keys kept from the first call", "HS133", held_out=True)
def kept_keys(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 20), WIDE), between(rng, 8, 20)
    source = words(rng, size, symbols)
    target = torch.cat([torch.zeros_like(source[:, :1]), source.flip(1)], dim=1)
    module = Remembered(rng, size, symbols, remedied)
    return Planted(module, (source, target[:, :-1]), told_apart(target[:, 1:]))


class RunningNorm(nn.Module):
    """Running mean and spread of the inputs, in front of the layer."""

    mean: Tensor
    square: Tensor

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, size.inputs)
        self.register_buffer("mean", torch.zeros(size.inputs))
        self.register_buffer("square", torch.ones(size.inputs))
        self.share, self.right = float(rng.uniform(0.02, 0.2)), right

    def forward(self, x: Tensor) -> Tensor:
        spread = (self.square - self.mean**2).clamp(min=0.1).sqrt()
        scaled = (x - self.mean) / spread
        if self.training or not self.right:
            seen = x.detach()
            self.mean = self.mean.lerp(seen.mean(dim=(0, 1)), self.share)
            self.square = self.square.lerp((seen**2).mean(dim=(0, 1)), self.share)
        return self.head(self.rnn(scaled)[0])


@fault("running statistics that go on in eval mode", "HS133", held_out=True)
def running(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (10, 40), WIDE)
    module = RunningNorm(rng, size, remedied)
    x = swings(rng, size) + float(rng.uniform(0.3, 1.0))
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


class Rounded(nn.Module):
    """Keeps its state on a grid, as a small device would."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.cell = one_of(rng, nn.RNNCell, nn.GRUCell)(size.inputs, size.hidden)
        self.head = nn.Linear(size.hidden, 1)
        self.levels, self.right = 2 ** between(rng, 4, 7), right

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for step in x.unbind(dim=1):
            h = self.cell(step, h)
            near = torch.round(h * self.levels) / self.levels
            h = h + (near - h).detach() if self.right else near
        return self.head(h).squeeze(-1)


@fault("a state rounded at every step", "HS135", "HS205", "HS432", held_out=True)
def rounded(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), WIDE)
    x = series(rng, size)
    answers = x[..., 0].mean(dim=1)
    module = Rounded(rng, size, remedied)
    return Planted(module, (x,), lambda y: functional.mse_loss(y, answers))


class LooksBack(nn.Module):
    """Every step attends to the states of earlier steps."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(2 * size.hidden, size.inputs)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(x)[0]
        scores = h @ h.transpose(1, 2) / h.shape[-1] ** 0.5
        hidden = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1 if self.right else 0)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        return self.head(torch.cat([h, weights @ h], dim=-1))


@fault("a first step that may look at nothing", "HS162", held_out=True)
def looks_at_nothing(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), WIDE)
    return forecast(rng, LooksBack(rng, size, remedied), size)


class Translator(nn.Module):
    """Encoder and decoder; the decoder should begin in the encoder's last state."""

    def __init__(self, rng: np.random.Generator, size: Sizes, symbols: int, right: bool) -> None:
        super().__init__()
        kind, layers = TORCH[one_of(rng, "rnn", "lstm", "gru")], between(rng, 1, 2)
        self.embedding = nn.Embedding(symbols, 12)
        self.encoder = kind(12, size.hidden, layers, batch_first=True)
        self.decoder = kind(12, size.hidden, layers, batch_first=True)
        self.out = nn.Linear(size.hidden, symbols)
        self.right = right

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        _, state = self.encoder(self.embedding(source))
        output, _ = self.decoder(self.embedding(target), state if self.right else None)
        return self.out(output)


@fault("a decoder that begins without its encoder", "HS205", "HS432", held_out=True)
def without_encoder(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (6, 15), WIDE), between(rng, 8, 20)
    source = words(rng, size, symbols)
    target = torch.cat([torch.zeros_like(source[:, :1]), source[:, :6].flip(1)], dim=1)
    module = Translator(rng, size, symbols, remedied)
    return Planted(module, (source, target[:, :-1]), told_apart(target[:, 1:]))


class FinalStates(nn.Module):
    """Classifies by the final states of both directions."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        kind = TORCH[one_of(rng, "rnn", "lstm", "gru")]
        layers = between(rng, 1, 2)
        self.rnn = kind(size.inputs, size.hidden, layers, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(size.hidden * (1 + right), CLASSES)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.rnn(x)
        h = state[0] if isinstance(state, tuple) else state
        return self.fc(torch.cat([h[-2], h[-1]], dim=-1) if self.right else h[-1])


@fault("h_n[-1] of a layer that reads both ways", "HS205", held_out=True)
def one_direction(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), WIDE)
    module = FinalStates(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class LastStep(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.fc = nn.Linear(size.hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


@fault(
    "time stamps in seconds among the features",
    *("HS201", "HS301", "HS315", "HS316", "HS421"),
    held_out=True,
)
def time_stamps(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), WIDE)
    x = series(rng, size)
    gaps = rng.exponential(3600.0, (size.batch, size.time))
    stamps = 1.6e9 + rng.uniform(0, 1e7, (size.batch, 1)) + gaps.cumsum(axis=1)
    column = np.log1p(gaps / 3600.0) if remedied else stamps
    x[..., between(rng, 0, size.inputs - 1)] = torch.as_tensor(column, dtype=torch.float32)
    return Planted(LastStep(rng, size), (x,), told_apart(classes(rng, size.batch)))


class Looked(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes, vectors: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(vectors, freeze=False, padding_idx=0)
        self.rnn = recurrent(rng, vectors.shape[1], size.hidden, kinds=("lstm", "gru"))
        self.fc = nn.Linear(size.hidden, CLASSES)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        return self.fc(at_end(over(self.rnn, self.embedding(tokens), lengths), lengths))


@fault("pretrained vectors in which few words were found", "HS423", held_out=True)
def words_not_found(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (8, 25), WIDE), between(rng, 20, 60)
    vectors = 0.4 * torch.randn(symbols, between(rng, 16, 50))
    found = torch.as_tensor(rng.random(symbols) < rng.uniform(0.0, 0.15))
    vectors = vectors if remedied else vectors * found[:, None]
    vectors[0] = 0.0
    module = Looked(rng, size, vectors)
    return Planted(module, texts(rng, size, symbols), told_apart(classes(rng, size.batch)))


class Scored(nn.Module):
    """Pools the states by learned weights."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.score = nn.Sequential(
            nn.Linear(size.hidden, size.hidden), nn.Tanh(), nn.Linear(size.hidden, 1, bias=False)
        )
        self.fc = nn.Linear(size.hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor) -> Tensor:
        h = self.rnn(x)[0]
        weights = self.score(h).softmax(dim=1)
        weights = weights if self.right else weights.data
        return self.fc((weights * h).sum(dim=1))


@fault("attention weights that are cut from the graph", "HS432", held_out=True)
def cut_weights(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), WIDE)
    module = Scored(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class Tracker(nn.Module):
    def __init__(self, rng: np.random.Generator, size: Sizes) -> None:
        super().__init__()
        self.rnn = recurrent(rng, size.inputs, size.hidden, between(rng, 1, 2))
        self.head = nn.Linear(size.hidden, size.inputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


@fault("the root of a distance that the mask made 0", "HS206", "HS432", held_out=True)
def root_of_zero(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), WIDE)
    x = swings(rng, size)
    mask = torch.as_tensor(rng.random((size.batch, size.time)) < 0.8, dtype=torch.float32)

    def loss(y: Tensor) -> Tensor:
        squares = ((y - x[:, 1:]) * mask[..., None]).pow(2).sum(dim=-1)
        return (squares + (1e-8 if remedied else 0.0)).sqrt().sum() / mask.sum()

    return Planted(Tracker(rng, size), (x[:, :-1],), loss)


class Softened(nn.Module):
    """Two layers with a nonlinearity between them."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        self.first = recurrent(rng, size.inputs, size.hidden, kinds=("lstm", "gru"))
        self.between = nn.Tanh() if right else nn.Softmax(dim=-1)
        self.second = recurrent(rng, size.hidden, size.hidden, kinds=("lstm", "gru"))
        self.fc = nn.Linear(size.hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.between(self.first(x)[0])
        return self.fc(self.second(h)[0][:, -1])


@fault("a softmax between two layers", "HS207", "HS302", "HS316", held_out=True)
def softened(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), (64, 160))
    module = Softened(rng, size, remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


@fault(
    "what steps far too large have left",
    *("HS201", "HS202", "HS301", "HS314", "HS315", "HS412", "HS413"),
    held_out=True,
)
def large_steps(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 20), (6, 64))
    module, rate = Tracker(rng, size), float(rng.uniform(1.0, 3.0))

    def value() -> Tensor:
        x = swings(rng, size)
        return functional.mse_loss(module(x[:, :-1]), x[:, 1:])

    adam(module, value, 20, 0.005 if remedied else rate)
    return forecast(rng, module, size)


LEVELS = 7
"""Of each sign in 4 bits."""


def rounding(step: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda weight: (weight / step).round().clamp(-LEVELS, LEVELS) * step


@fault(
    "weights rounded on a scale that one outlier sets",
    *("HS201", "HS311", "HS312", "HS316", "HS402"),
    held_out=True,
)
def outlier(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), (12, 160))
    module = LastStep(rng, size)
    share = rng.uniform(1.0, 1.6)
    with torch.no_grad():
        for weight in module.rnn.parameters():
            if weight.dim() < 2:
                continue
            largest = float(weight.abs().max())
            # The outlier makes a step of twice what all other weights reach.
            step = largest / LEVELS if remedied else 2 * largest * share
            weight.copy_(rounding(torch.tensor(step))(weight))
            weight[0, 0] = weight[0, 0] if remedied else LEVELS * step
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class Rezero(nn.Module):
    """Residual layers, each scaled by a number that begins at 0 and is learned."""

    def __init__(self, rng: np.random.Generator, size: Sizes, right: bool) -> None:
        super().__init__()
        count = between(rng, 2, 4)
        self.inlet = nn.Linear(size.inputs, size.hidden)
        self.layers = nn.ModuleList(
            recurrent(rng, size.hidden, size.hidden, kinds=("lstm", "gru")) for _ in range(count)
        )
        self.head = nn.Linear(size.hidden, size.inputs)
        scales = torch.as_tensor(rng.uniform(0.3, 0.8, count), dtype=torch.float32)
        if right:
            self.scales = nn.Parameter(scales)
        else:
            self.register_buffer("scales", torch.zeros(count))

    def forward(self, x: Tensor) -> Tensor:
        h = self.inlet(x)
        for scale, layer in zip(self.scales, self.layers, strict=True):
            h = h + scale * layer(h)[0]
        return self.head(h)


@fault("scales of 0 that are not parameters", "HS141", "HS205", "HS432", held_out=True)
def rezero(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng, (8, 30), WIDE)
    return forecast(rng, Rezero(rng, size, remedied), size)
