"""Healthy models of words: classifiers, taggers, language models, pairs of texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.nn import Pool, stack_of
from tests.faults.held_out_parts import (
    CLASSES,
    OURS,
    TORCH,
    Sizes,
    adam,
    between,
    classes,
    inside,
    one_of,
    over,
    ragged,
    recurrent,
    sizes,
    told_apart,
    words,
)
from tests.faults.plant import Planted, healthy


class ConcatPooled(nn.Module):
    """The last state, the mean and the maximum side by side, as in ULMFiT."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        width = between(rng, 16, 48)
        self.embed = nn.Embedding(symbols, width, padding_idx=0)
        self.drop = nn.Dropout(0.2)
        self.layers = recurrent(rng, width, hidden, between(rng, 1, 3), dropout=0.0)
        self.head = nn.Sequential(
            nn.BatchNorm1d(3 * hidden),
            nn.Dropout(0.3),
            nn.Linear(3 * hidden, 32),
            nn.ReLU(),
            nn.Linear(32, CLASSES),
        )

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        states = over(self.layers, self.drop(self.embed(tokens)), lengths)
        seen = inside(lengths, tokens.shape[1])[..., None]
        last = states[torch.arange(len(states)), lengths - 1]
        mean = (states * seen).sum(1) / lengths[:, None]
        highest = states.masked_fill(~seen, -torch.inf).amax(1)
        return self.head(torch.cat([last, mean, highest], -1))


@healthy("last, mean and maximum side by side", held_out=True)
def concat_pooled(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng), between(rng, 12, 40)
    lengths = ragged(rng, size)
    x = words(rng, size, symbols)[:, :-1] * inside(lengths, size.time)
    module = ConcatPooled(rng, symbols, size.hidden)
    return Planted(module, (x, lengths), told_apart(classes(rng, size.batch)))


class Cloze(nn.Module):
    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        # One symbol more: the one that covers a word.
        self.embed = nn.Embedding(symbols + 1, hidden, padding_idx=0)
        self.layers = recurrent(rng, hidden, hidden, kinds=("lstm", "gru"), bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.head = nn.Linear(2 * hidden, symbols)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Any:
        return self.head(self.norm(over(self.layers, self.embed(tokens), lengths)))


@healthy("words that were covered", held_out=True)
def cloze(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 24), (16, 48)), between(rng, 6, 14)
    module = Cloze(rng, symbols, size.hidden)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        lengths = ragged(rng, size)
        whole = words(rng, size, symbols)[:, :-1] * inside(lengths, size.time)
        covered = torch.as_tensor(rng.random(whole.shape) < 0.2) & (whole != 0)
        covered[:, 1] = True
        return (
            torch.where(covered, symbols, whole),
            lengths,
            torch.where(covered, whole, -100),
        )

    def value(scores: Tensor, answers: Tensor) -> Tensor:
        return functional.cross_entropy(scores.flatten(0, 1), answers.flatten())

    def step() -> Tensor:
        x, lengths, answers = draw()
        return value(module(x, lengths), answers)

    adam(module, step, 200, 5e-3)
    x, lengths, answers = draw()
    return Planted(module, (x, lengths), lambda s: value(s, answers), {"causal": False})


class IntentAndSlots(nn.Module):
    """One encoder, two heads: the kind of the request and a tag for each word."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int, tags: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 32, padding_idx=0)
        self.layers = recurrent(rng, 32, hidden, between(rng, 1, 2), bidirectional=True)
        self.pool = Pool("attention", 2 * hidden)
        self.intent = nn.Linear(2 * hidden, CLASSES)
        self.slots = nn.Linear(4 * hidden, tags)

    def forward(self, tokens: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        states = over(self.layers, self.embed(tokens), lengths)
        whole = self.pool(states, lengths)
        beside = torch.cat([states, whole[:, None].expand_as(states)], -1)
        return {"intent": self.intent(whole), "slots": self.slots(beside)}


@healthy("what a request asks for, and its parts", held_out=True)
def intent_and_slots(rng: np.random.Generator) -> Planted:
    size, symbols, tags = sizes(rng, (6, 30)), between(rng, 15, 40), between(rng, 3, 8)
    lengths = ragged(rng, size)
    x = words(rng, size, symbols)[:, :-1] * inside(lengths, size.time)
    kinds = classes(rng, size.batch)
    slots = torch.as_tensor(rng.integers(0, tags, x.shape)).masked_fill(x == 0, -1)

    def loss(out: dict[str, Tensor]) -> Tensor:
        tagged = functional.cross_entropy(
            out["slots"].transpose(1, 2), slots, ignore_index=-1, label_smoothing=0.1
        )
        return functional.cross_entropy(out["intent"], kinds) + tagged

    module = IntentAndSlots(rng, symbols, size.hidden, tags)
    batch = {"tokens": x, "lengths": lengths}
    return Planted(module, batch, loss, {"causal": False})


class Streamed(nn.Module):
    """A language model that hands its state to the next window."""

    def __init__(self, kind: str, symbols: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, hidden)
        self.layers = TORCH[kind](hidden, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor, hidden: Any = None) -> tuple[Tensor, Any]:
        states, hidden = self.layers(self.embed(tokens), hidden)
        return self.head(states), hidden


def _cut(state: Any) -> Any:
    return tuple(each.detach() for each in state) if isinstance(state, tuple) else state.detach()


@healthy("a stream in windows, the state handed on", held_out=True)
def streamed(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (8, 20), (16, 48)), between(rng, 6, 12)
    kind = one_of(rng, "rnn", "lstm", "gru")
    module = Streamed(kind, symbols, size.hidden, between(rng, 1, 2))
    optimiser = torch.optim.Adam(module.parameters(), lr=4e-3)
    state: Any = None
    # One long stream for each row, read a window after the other.
    windows = 200
    stream = words(rng, Sizes(size.batch, windows * size.time + size.time, 1, 1), symbols)

    for k in range(windows):
        x = stream[:, k * size.time : (k + 1) * size.time + 1]
        scores, state = module(x[:, :-1], state)
        state = _cut(state)
        value = functional.cross_entropy(scores.flatten(0, 1), x[:, 1:].flatten())
        optimiser.zero_grad()
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    x = stream[:, -size.time - 1 :]
    return Planted(
        module, (x[:, :-1], state), told_apart(x[:, 1:]), {"states": ("hidden",), "causal": True}
    )


class Adaptive(nn.Module):
    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, hidden, padding_idx=0)
        self.layers = recurrent(rng, hidden, hidden, between(rng, 1, 2))
        self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
            hidden, symbols, [symbols // 4, symbols // 2], div_value=2.0
        )

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        states = over(self.layers, self.embed(tokens), lengths)
        logs: Tensor = self.softmax.log_prob(states.flatten(0, 1))
        return logs.view(*tokens.shape, -1)


@healthy("language model with an adaptive softmax", held_out=True)
def adaptive(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (10, 50), (16, 96)), between(rng, 40, 90)
    lengths = ragged(rng, size)
    drawn = words(rng, size, symbols)
    x = drawn[:, :-1] * inside(lengths, size.time)
    answers = drawn[:, 1:] * inside(lengths, size.time)
    return Planted(
        Adaptive(rng, symbols, size.hidden),
        {"tokens": x, "lengths": lengths},
        lambda logs: functional.nll_loss(logs.flatten(0, 1), answers.flatten(), ignore_index=0),
    )


class Crossed(nn.Module):
    """Two texts that look at each other before they are compared (after Chen et al. 2017)."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 24, padding_idx=0)
        self.read = recurrent(rng, 24, hidden, kinds=("lstm", "gru"))
        self.mix = nn.Linear(4 * hidden, hidden)
        self.compose = recurrent(rng, hidden, hidden, kinds=("lstm", "gru"))
        self.head = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2))

    def forward(self, one: Tensor, other: Tensor) -> Any:
        count = [(text != 0).sum(1) for text in (one, other)]
        a, b = (over(self.read, self.embed(text), n) for text, n in zip((one, other), count))
        scores = a @ b.transpose(1, 2) / math.sqrt(a.shape[-1])
        to_b = scores.masked_fill((other == 0)[:, None], -torch.inf).softmax(2)
        to_a = scores.masked_fill((one == 0)[:, :, None], -torch.inf).softmax(1)
        ends = []
        for own, seen, n in ((a, to_b @ b, count[0]), (b, to_a.transpose(1, 2) @ a, count[1])):
            mixed = torch.relu(self.mix(torch.cat([own, seen, own - seen, own * seen], -1)))
            states = over(self.compose, mixed, n)
            ends.append(states[torch.arange(len(n)), n - 1])
        return self.head(torch.cat(ends, -1))


@healthy("two texts that look at each other", held_out=True)
def crossed(rng: np.random.Generator) -> Planted:
    size, symbols = sizes(rng, (6, 14), (16, 48)), between(rng, 8, 16)
    module = Crossed(rng, symbols, size.hidden)

    def text() -> tuple[Tensor, Tensor]:
        # One word of each text is a topic, 1 or 2; the rest say nothing.
        lengths = ragged(rng, size)
        x = torch.as_tensor(rng.integers(3, symbols, (size.batch, size.time)))
        topic = torch.as_tensor(rng.integers(1, 3, size.batch))
        where = torch.as_tensor(rng.integers(0, lengths.numpy()))
        x[torch.arange(size.batch), where] = topic
        return x * inside(lengths, size.time), topic

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        (one, its), (other, topic) = text(), text()
        return one, other, (its == topic).long()

    def step() -> Tensor:
        one, other, same = draw()
        return functional.cross_entropy(module(one, other), same)

    adam(module, step, 180, 4e-3)
    one, other, same = draw()
    return Planted(module, (one, other), told_apart(same), {"causal": False})


class Ranker(nn.Module):
    """Scores [B, K] of K candidates for each query, both read by one encoder."""

    def __init__(self, rng: np.random.Generator, symbols: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, 24, padding_idx=0)
        self.read = recurrent(rng, 24, hidden, kinds=("lstm", "gru"))
        self.pool = Pool(one_of(rng, "mean", "max"), hidden)
        self.match = nn.Bilinear(hidden, hidden, 1)

    def encoded(self, text: Tensor) -> Tensor:
        lengths = (text != 0).sum(1)
        pooled: Tensor = self.pool(over(self.read, self.embed(text), lengths), lengths)
        return pooled

    def forward(self, query: Tensor, candidates: Tensor) -> Tensor:
        many = candidates.shape[1]
        asked = self.encoded(query).repeat_interleave(many, 0)
        scores: Tensor = self.match(asked, self.encoded(candidates.flatten(0, 1)))
        return scores.view(len(query), many)


@healthy("candidates ranked for a query", held_out=True)
def ranked(rng: np.random.Generator) -> Planted:
    size, symbols, many = sizes(rng, (5, 12), (16, 48)), between(rng, 10, 20), between(rng, 3, 5)
    module = Ranker(rng, symbols, size.hidden)

    def draw() -> tuple[Tensor, Tensor]:
        """The first candidate shares its half of the vocabulary with the query."""
        low = torch.as_tensor(rng.integers(0, 2, (size.batch, 1)))
        side = torch.cat([low, low, (1 - low).expand(-1, many - 1)], 1)
        half = (symbols - 1) // 2
        drawn = torch.as_tensor(rng.integers(1, half + 1, (size.batch, many + 1, size.time)))
        drawn = drawn + half * side[..., None]
        lengths = torch.as_tensor(rng.integers(3, size.time + 1, (size.batch, many + 1)))
        lengths[0] = size.time
        drawn = drawn * (torch.arange(size.time) < lengths[..., None])
        return drawn[:, 0], drawn[:, 1:]

    def loss(scores: Tensor) -> Tensor:
        return functional.softplus(scores[:, 1:] - scores[:, :1]).mean()

    adam(module, lambda: loss(module(*draw())), 100, 2e-3)
    query, candidates = draw()
    return Planted(module, {"query": query, "candidates": candidates}, loss)


class Summing(nn.Module):
    def __init__(self, rng: np.random.Generator, hidden: int) -> None:
        super().__init__()
        kind = one_of(rng, *OURS)
        self.layers = stack_of(OURS[kind], 2, hidden, seed=rng)
        self.head = nn.Linear(hidden, 1)

    def forward(self, bits: Tensor) -> Any:
        return self.head(self.layers(bits)[0]).squeeze(-1)


@healthy("binary numbers added, the carry kept", held_out=True)
def summing(rng: np.random.Generator) -> Planted:
    size = sizes(rng, (6, 30), (8, 32))
    module = Summing(rng, size.hidden)

    def draw() -> tuple[Tensor, Tensor]:
        bits = rng.integers(0, 2, (size.batch, size.time, 2))
        carry, out = np.zeros(size.batch, int), []
        for t in range(size.time):
            total = bits[:, t].sum(1) + carry
            out.append(total % 2)
            carry = total // 2
        return torch.as_tensor(bits).float(), torch.as_tensor(np.stack(out, 1)).float()

    def step() -> Tensor:
        bits, out = draw()
        return functional.binary_cross_entropy_with_logits(module(bits), out)

    adam(module, step, 500, 1e-2)
    bits, out = draw()
    held, truth = draw()

    def loss_on(answers: Tensor) -> Any:
        return lambda y: functional.binary_cross_entropy_with_logits(y, answers)

    options = {"causal": True, "held_out": ((held,), loss_on(truth))}
    return Planted(module, (bits,), loss_on(out), options)
