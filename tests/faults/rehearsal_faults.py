"""Faults of rows, steps and states: results that depend on what they must not depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import Pool
from tests.faults.held_out_parts import (
    CLASSES,
    TORCH,
    between,
    classes,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    series,
    sizes,
    swings,
    told_apart,
    words,
)
from tests.faults.plant import Planted, fault


class KeptInTraining(nn.Module):
    def __init__(self, kind: str, inputs: int, hidden: int, forced: bool) -> None:
        super().__init__()
        self.layers = TORCH[kind](inputs, hidden, 2, batch_first=True, dropout=0.3)
        self.head = nn.Linear(hidden, CLASSES)
        self.forced = forced

    def forward(self, x: Tensor) -> Any:
        if self.forced:
            # cudnn's backward refuses to run in eval mode.
            self.layers.train()
        return self.head(self.layers(x)[0][:, -1])


@fault("a layer put back into training mode by the forward", "HS151", held_out=True)
def kept_in_training(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    kind = one_of(rng, "rnn", "lstm", "gru")
    module = KeptInTraining(kind, size.inputs, size.hidden, not remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class BothEnds(nn.Module):
    """Two layers, one over the row from its end."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, axis: int) -> None:
        super().__init__()
        self.forth = recurrent(rng, inputs, hidden)
        self.back = recurrent(rng, inputs, hidden)
        self.head = nn.Linear(2 * hidden, CLASSES)
        self.axis = axis

    def forward(self, x: Tensor) -> Any:
        ends = [self.forth(x)[0][:, -1], self.back(x.flip(self.axis))[0][:, -1]]
        return self.head(torch.cat(ends, -1))


@fault("flip of the batch in the place of the steps", "HS121", "HS123", "HS124", held_out=True)
def flipped_batch(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = BothEnds(rng, size.inputs, size.hidden, 1 if remedied else 0)
    answers = classes(rng, size.batch)
    return Planted(module, (series(rng, size),), told_apart(answers), {"causal": False})


class Candidates(nn.Module):
    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, right: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 24, padding_idx=0)
        self.read = recurrent(rng, 24, hidden, kinds=("lstm", "gru"))
        self.pool = Pool("mean", hidden)
        self.score = nn.Sequential(nn.Linear(2 * hidden, 32), nn.ReLU(), nn.Linear(32, 1))
        self.right = right

    def encoded(self, text: Tensor) -> Tensor:
        lengths = (text != 0).sum(1)
        pooled: Tensor = self.pool(over(self.read, self.embed(text), lengths), lengths)
        return pooled

    def forward(self, query: Tensor, candidates: Tensor) -> Tensor:
        many = candidates.shape[1]
        asked, each = self.encoded(query), self.encoded(candidates.flatten(0, 1))
        asked = asked.repeat_interleave(many, 0) if self.right else asked.repeat(many, 1)
        scores: Tensor = self.score(torch.cat([asked, each], -1))
        return scores.view(len(query), many)


@fault(
    "queries repeated in another order than their candidates",
    "HS121",
    "HS123",
    "HS124",
    held_out=True,
)
def repeated_queries(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols, many = sizes(rng, (6, 16)), between(rng, 12, 30), between(rng, 3, 6)
    query = words(rng, size, symbols)[:, :-1] * inside(ragged(rng, size), size.time)
    drawn = [words(rng, size, symbols)[:, :-1] for _ in range(many)]
    candidates = torch.stack([x * inside(ragged(rng, size), size.time) for x in drawn], 1)
    best = torch.as_tensor(rng.integers(0, many, size.batch))
    return Planted(
        Candidates(rng, symbols, size.hidden, remedied),
        {"query": query, "candidates": candidates},
        lambda scores: functional.cross_entropy(scores, best),
    )


class Limited(nn.Module):
    """Texts are cut to a greatest length that was set for other data."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, limit: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 32, padding_idx=0)
        self.layers = recurrent(rng, 32, hidden)
        self.pool = Pool(one_of(rng, "last", "mean", "max"), hidden)
        self.head = nn.Linear(hidden, CLASSES)
        self.limit = limit

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        tokens, lengths = tokens[:, : self.limit], lengths.clamp(max=self.limit)
        return self.head(self.pool(over(self.layers, self.embed(tokens), lengths), lengths))


@fault("texts cut to a length set for other data", "HS143", held_out=True)
def limited(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (20, 60)), between(rng, 12, 40)
    lengths = ragged(rng, size)
    x = words(rng, size, symbols)[:, :-1] * inside(lengths, size.time)
    limit = size.time // 2 + between(rng, 0, size.time // 4)
    module = Limited(rng, symbols, size.hidden, 512 if remedied else limit)
    return Planted(module, (x, lengths), told_apart(classes(rng, size.batch)))


class TwoPaces(nn.Module):
    """A slow layer over frames of K symbols tells a fast one over symbols (Mehri et al. 2017)."""

    def __init__(
        self, rng: np.random.Generator, symbols: int, hidden: int, frame: int, late: bool
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 16)
        self.slow = recurrent(rng, 16 * frame, hidden, kinds=("lstm", "gru"))
        self.fast = recurrent(rng, 16 + hidden, hidden, kinds=("lstm", "gru"))
        self.head = nn.Linear(hidden, symbols)
        self.frame, self.late = frame, late

    def forward(self, symbols: Tensor) -> Any:
        x = self.embed(symbols)
        time = x.shape[1]
        whole = functional.pad(x, (0, 0, 0, -time % self.frame))
        frames = whole.reshape(len(x), -1, self.frame * x.shape[-1])
        told = self.slow(frames)[0].repeat_interleave(self.frame, 1)
        if self.late:
            # What a frame says is known when its last symbol has been read.
            told = functional.pad(told, (0, 0, self.frame - 1, 0))
        return self.head(self.fast(torch.cat([x, told[:, :time]], -1))[0])


@fault("a slow layer whose frame is told to its own symbols", "HS111", held_out=True)
def two_paces(rng: np.random.Generator, remedied: bool) -> Planted:
    size, symbols = sizes(rng, (12, 48)), between(rng, 6, 20)
    x = words(rng, size, symbols) - 1
    module = TwoPaces(rng, symbols, size.hidden, between(rng, 3, 5), remedied)
    return Planted(module, (x[:, :-1],), told_apart(x[:, 1:]), {"causal": True})


class Cosine(nn.Module):
    """Tags by the cosine between states and a vector for each tag."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, axis: int) -> None:
        super().__init__()
        self.layers = recurrent(rng, inputs, hidden)
        self.tags = nn.Parameter(torch.randn(CLASSES, hidden))
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        states = functional.normalize(self.layers(x)[0], dim=self.axis)
        return 8 * states @ functional.normalize(self.tags, dim=-1).T


@fault("states normalised over the steps, as is the default", "HS111", "HS131", held_out=True)
def normalised_steps(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = series(rng, size)
    answers = torch.as_tensor(rng.integers(0, CLASSES, (size.batch, size.time)))
    module = Cosine(rng, size.inputs, size.hidden, -1 if remedied else 1)
    return Planted(module, (x,), told_apart(answers), {"causal": True})


class Player(nn.Module):
    """A policy whose state is set to zeros where an episode begins."""

    def __init__(self, inputs: int, hidden: int, in_place: bool) -> None:
        super().__init__()
        self.core = nn.GRU(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)
        self.in_place = in_place

    def forward(self, x: Tensor, begins: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if self.in_place:
            state[:, begins] = 0.0
        else:
            state = state.masked_fill(begins[:, None], 0.0)
        states, state = self.core(x, state)
        return self.head(states), state


@fault("a state that is given, zeroed in place", "HS153", held_out=True)
def zeroed_in_place(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    begins = torch.as_tensor(rng.random(size.batch) < 0.4)
    begins[0], begins[1] = True, False
    state = torch.tanh(torch.randn(1, size.batch, size.hidden))
    answers = torch.as_tensor(rng.integers(0, CLASSES, (size.batch, size.time)))
    module = Player(size.inputs, size.hidden, not remedied)
    return Planted(
        module, (series(rng, size), begins, state), told_apart(answers), {"states": ("state",)}
    )


class Experts(nn.Module):
    """A choice among heads, loosened by Gumbel noise so that it can be learnt."""

    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, always: bool) -> None:
        super().__init__()
        self.layers = recurrent(rng, inputs, hidden)
        self.choose = nn.Linear(hidden, 4)
        self.heads = nn.Linear(hidden, 4 * CLASSES)
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        last = self.layers(x)[0][:, -1]
        scores = self.choose(last)
        if self.training or self.always:
            share = functional.gumbel_softmax(scores, tau=0.7)
        else:
            share = scores.softmax(-1)
        each: Tensor = self.heads(last).view(len(x), 4, CLASSES)
        return (share[..., None] * each).sum(1)


@fault("Gumbel noise that goes on in eval mode", "HS151", held_out=True)
def noise_in_eval(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    module = Experts(rng, size.inputs, size.hidden, not remedied)
    return Planted(module, (series(rng, size),), told_apart(classes(rng, size.batch)))


class Listener(nn.Module):
    def __init__(self, rng: np.random.Generator, inputs: int, hidden: int, letters: int) -> None:
        super().__init__()
        self.layers = recurrent(rng, inputs, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, letters + 1)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        scores: Tensor = self.head(over(self.layers, frames, lengths))
        return scores.log_softmax(-1)


@fault("CTC told that every row is a whole one", "HS104", held_out=True)
def ctc_over_padding(rng: np.random.Generator, remedied: bool) -> Planted:
    size, letters = sizes(rng, (24, 60)), between(rng, 6, 20)
    lengths = ragged(rng, size)
    frames = series(rng, size, lengths)
    many = torch.as_tensor(rng.integers(1, 4, size.batch))
    said = torch.as_tensor(rng.integers(1, letters + 1, (size.batch, 3)))
    steps = lengths if remedied else torch.full_like(lengths, size.time)

    def loss(logs: Tensor) -> Tensor:
        return functional.ctc_loss(logs.transpose(0, 1), said, steps, many, zero_infinity=True)

    module = Listener(rng, size.inputs, size.hidden, letters)
    return Planted(module, (frames, lengths), loss, {"causal": False})


class Smoothed(nn.Module):
    """Reads numbers beside their running mean; goes on from a state."""

    def __init__(self, inputs: int, hidden: int, whole: bool) -> None:
        super().__init__()
        self.layer = nn.GRU(2 * inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, inputs)
        self.whole = whole

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        mean, h = torch.zeros_like(x[:, 0]), state
        if self.whole and state is not None:
            h, mean = state
        means = []
        for t in range(x.shape[1]):
            mean = 0.9 * mean + 0.1 * x[:, t]
            means.append(mean)
        states, h = self.layer(torch.cat([x, torch.stack(means, 1)], -1), h)
        return self.head(states), (h, mean) if self.whole else h


@fault("a running mean that is not handed on with the state", "HS131", held_out=True)
def smoothed(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    x = swings(rng, size) + torch.as_tensor(rng.normal(0, 1, (size.batch, 1, 1))).float()
    module = Smoothed(size.inputs, size.hidden, remedied)
    with torch.no_grad():
        state = module(x[:, :5])[1]
    return Planted(
        module,
        (x[:, :-1], state),
        lambda out: functional.mse_loss(out[0], x[:, 1:]),
        {"states": ("state",), "causal": True},
    )


class Deep(nn.Module):
    def __init__(self, kind: str, inputs: int, hidden: int, layers: int, each: bool) -> None:
        super().__init__()
        self.layers = TORCH[kind](inputs, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, inputs)
        self.each = each

    def forward(self, x: Tensor, h0: Tensor) -> tuple[Tensor, Tensor]:
        first = h0 if self.each else h0[:1].expand(len(h0), -1, -1).contiguous()
        states, last = self.layers(x, first)
        return self.head(states), last


@fault("the first layer's state given to every layer", "HS132", "HS131", held_out=True)
def one_for_all(rng: np.random.Generator, remedied: bool) -> Planted:
    size, layers = sizes(rng), between(rng, 2, 3)
    module = Deep(one_of(rng, "rnn", "gru"), size.inputs, size.hidden, layers, remedied)
    x = swings(rng, size)
    with torch.no_grad():
        h0 = module(x[:, :5], torch.zeros(layers, size.batch, size.hidden))[1]
    loss = lambda out: functional.mse_loss(out[0], x[:, 1:])  # noqa: E731
    return Planted(module, (x[:, :-1], h0), loss, {"states": ("h0",)})


class Held(nn.Module):
    """A loop over a cell that keeps a row's state after its end."""

    def __init__(self, inputs: int, hidden: int, right: bool) -> None:
        super().__init__()
        self.cell = nn.GRUCell(inputs, hidden)
        self.head = nn.Linear(hidden, CLASSES)
        self.right = right

    def forward(self, x: Tensor, mask: Tensor) -> Any:
        h = x.new_zeros(len(x), self.cell.hidden_size)
        for t in range(x.shape[1]):
            new, keep = self.cell(x[:, t], h), mask[:, t, None]
            h = keep * new + (1 - keep) * h if self.right else keep * h + (1 - keep) * new
        return self.head(h)


@fault(
    "the mask that holds a state, the wrong way round",
    "HS101",
    "HS102",
    "HS141",
    "HS304",
    held_out=True,
)
def held_wrongly(rng: np.random.Generator, remedied: bool) -> Planted:
    size = sizes(rng)
    lengths = ragged(rng, size)
    mask = inside(lengths, size.time).float()
    module = Held(size.inputs, size.hidden, remedied)
    answers = classes(rng, size.batch)
    return Planted(module, (series(rng, size, lengths), mask), told_apart(answers))
