"""What the held-out models are drawn from: layers, sizes, data and a few steps of Adam."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from hiddenstate.nn import stack_of
from tests.faults.plant import Planted

TORCH: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
OURS = {"rnn": "elman", "lstm": "lstm", "gru": "gru"}
CLASSES = 3


@dataclass(frozen=True)
class Sizes:
    """B rows of T steps of D numbers, read by H units."""

    batch: int
    time: int
    inputs: int
    hidden: int


def between(rng: np.random.Generator, low: int, high: int) -> int:
    return int(rng.integers(low, high + 1))


def one_of(rng: np.random.Generator, *choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def sizes(
    rng: np.random.Generator, time: tuple[int, int] = (8, 40), hidden: tuple[int, int] = (8, 128)
) -> Sizes:
    """Hidden sizes are spread evenly over their logarithm."""
    low, high = np.log2(hidden)
    return Sizes(
        batch=between(rng, 4, 24),
        time=between(rng, *time),
        inputs=between(rng, 2, 10),
        hidden=round(2 ** rng.uniform(low, high)),
    )


def recurrent(
    rng: np.random.Generator,
    inputs: int,
    hidden: int,
    layers: int = 1,
    *,
    kinds: tuple[str, ...] = ("rnn", "lstm", "gru"),
    **options: Any,
) -> nn.Module:
    """A layer of torch or of ours, batch first, that gives (outputs, state) of x or packed x."""
    kind = one_of(rng, *kinds)
    if rng.random() < 0.5:
        return stack_of(OURS[kind], inputs, hidden, layers, **options)
    return TORCH[kind](inputs, hidden, layers, batch_first=True, **options)


def over(layer: nn.Module, x: Tensor, lengths: Tensor) -> Tensor:
    """Outputs [B, T, P] of a layer over packed rows, 0 past a row's end."""
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def inside(lengths: Tensor, time: int) -> Tensor:
    """[B, T], true at a row's own steps."""
    return torch.arange(time) < lengths[:, None]


def ragged(rng: np.random.Generator, size: Sizes) -> Tensor:
    """Lengths [B] from T / 4 to T; one row has T."""
    lengths = rng.integers(max(2, size.time // 4), size.time + 1, size.batch)
    lengths[rng.integers(size.batch)] = size.time
    return torch.as_tensor(lengths)


def series(rng: np.random.Generator, size: Sizes, lengths: Tensor | None = None) -> Tensor:
    """Standardised numbers [B, T, D], 0 past a row's end."""
    x = torch.as_tensor(
        rng.standard_normal((size.batch, size.time, size.inputs)), dtype=torch.float32
    )
    return x if lengths is None else x * inside(lengths, size.time)[..., None]


def swings(rng: np.random.Generator, size: Sizes) -> Tensor:
    """Sines of many periods with noise [B, T + 1, D], about as large as 1."""
    period = rng.uniform(6, 30, (size.batch, 1, size.inputs))
    phase = rng.uniform(0, 2 * np.pi, period.shape)
    x = np.sin(2 * np.pi * np.arange(size.time + 1)[:, None] / period + phase)
    return torch.as_tensor(x + 0.1 * rng.standard_normal(x.shape), dtype=torch.float32)


def words(rng: np.random.Generator, size: Sizes, symbols: int) -> Tensor:
    """Rows [B, T + 1] of a Markov chain over the symbols 1 to symbols - 1; 0 is for padding."""
    chances = np.random.default_rng(symbols).dirichlet(np.full(symbols - 1, 0.3), symbols - 1)
    x = rng.integers(0, symbols - 1, (size.batch, size.time + 1))
    for t in range(1, size.time + 1):
        x[:, t] = (chances[x[:, t - 1]].cumsum(1) < rng.random((size.batch, 1))).sum(1)
    return torch.as_tensor(x.clip(max=symbols - 2) + 1)


def classes(rng: np.random.Generator, batch: int) -> Tensor:
    return torch.as_tensor(rng.integers(0, CLASSES, batch))


def told_apart(answers: Tensor) -> Callable[[Any], Tensor]:
    """Cross entropy of scores [B, C] or [B, T, C] with the answers' first axes."""

    def loss(scores: Any) -> Tensor:
        given = scores[0] if isinstance(scores, tuple) else scores
        return functional.cross_entropy(given.flatten(0, -2), answers.flatten())

    return loss


def forecast(rng: np.random.Generator, module: nn.Module, size: Sizes) -> Planted:
    """The next values of all series, asked for at every step."""
    x = swings(rng, size)
    return Planted(module, (x[:, :-1],), lambda y: functional.mse_loss(y, x[:, 1:]))


def adam(model: nn.Module, value: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Lower `value`, drawn anew at every step, as most people do."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        value().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
