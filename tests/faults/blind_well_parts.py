"""What the healthy models of the files blind_well_* share: data, masks, and a short training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tests.faults.held_out_parts import between
from tests.faults.plant import Planted

Loss = Callable[[Any], Tensor]
Arguments = tuple[Any, ...] | dict[str, Any]
Draw = Callable[[int], tuple[Arguments, Loss]]
"""From a number of rows to the arguments of a model and the loss of what it gives."""
LAYERS: dict[str, type[nn.RNNBase]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
IGNORED = -100
LOWEST = -1e9


def answered(model: nn.Module, arguments: Arguments) -> Any:
    return model(**arguments) if isinstance(arguments, dict) else model(*arguments)


def fit(model: nn.Module, draw: Draw, steps: int, rate: float, rows: int = 24) -> None:
    """Adam with a cosine schedule on data drawn anew at every step."""
    optimiser = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, eta_min=rate / 20)
    model.train()
    for _ in range(steps):
        arguments, loss = draw(rows)
        optimiser.zero_grad()
        loss(answered(model, arguments)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()


def fresh(rng: np.random.Generator, model: nn.Module, draw: Draw, **options: Any) -> Planted:
    """A model as it was built, with one batch."""
    return Planted(model, *draw(between(rng, 4, 24)), options)


def trained(
    rng: np.random.Generator,
    model: nn.Module,
    draw: Draw,
    *,
    steps: int = 200,
    rate: float = 1e-2,
    held_back: bool = False,
    **options: Any,
) -> Planted:
    """A model that has learnt its task, with a batch and perhaps a second one."""
    fit(model, draw, steps, rate)
    if held_back:
        options["held_out"] = draw(between(rng, 8, 24))
    return Planted(model, *draw(between(rng, 8, 24)), options)


def layer_of(
    rng: np.random.Generator,
    inputs: int,
    hidden: int,
    layers: int = 1,
    kinds: tuple[str, ...] = ("rnn", "lstm", "gru"),
    **options: Any,
) -> nn.RNNBase:
    """One of torch's layers, batch first unless told otherwise."""
    made: Any = LAYERS[kinds[int(rng.integers(len(kinds)))]]
    layer: nn.RNNBase = made(inputs, hidden, layers, **{"batch_first": True, **options})
    return layer


def width(rng: np.random.Generator, low: int, high: int) -> int:
    """A hidden size, spread evenly over its logarithm."""
    return round(2 ** rng.uniform(np.log2(low), np.log2(high)))


def floats(x: Any) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(x), dtype=torch.float32)


def whole(x: Any) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(x), dtype=torch.int64)


def lengths_of(rng: np.random.Generator, rows: int, time: int, least: int = 3) -> Tensor:
    """Lengths [B] from `least` to T; one row has T."""
    lengths = rng.integers(min(least, time), time + 1, rows)
    lengths[rng.integers(rows)] = time
    return whole(lengths)


def valid(lengths: Tensor, time: int) -> Tensor:
    """[B, T], true at a row's own steps."""
    return torch.arange(time) < lengths[:, None]


def packed(layer: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Any]:
    """States [B, T, P] of a layer over packed rows, 0 past a row's end, and its final state."""
    given = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
    states, final = layer(given)
    return pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])[0], final


def at_last(states: Tensor, lengths: Tensor) -> Tensor:
    """States [B, P] at the rows' own last steps."""
    return states[torch.arange(len(states)), lengths - 1]


def mean_over(states: Tensor, mask: Tensor) -> Tensor:
    """Mean [B, P] of states [B, T, P] over the steps of a mask [B, T]."""
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values [...] where the mask [...] is true."""
    return values[mask].mean()


def tagged(tags: Tensor) -> Loss:
    """Cross entropy of scores [..., C] with tags [...], where they are not IGNORED."""

    def loss(scores: Any) -> Tensor:
        return functional.cross_entropy(scores.flatten(0, -2), tags.flatten(), ignore_index=IGNORED)

    return loss


def tables(rng: np.random.Generator, count: int, symbols: int, spread: float = 0.15) -> Any:
    """Chances [count, symbols, symbols] of the next symbol, few of them likely."""
    return rng.dirichlet(np.full(symbols, spread), (count, symbols))


def text(
    rng: np.random.Generator, chances: Any, rows: int, time: int, kind: Any = None
) -> tuple[Any, Any]:
    """Rows [B, T] of symbols from 0 on, each by one of the tables of chances, and which [B].

    To know the next symbol well, a reader has to remember from the row which table it is.
    """
    which = rng.integers(0, len(chances), rows) if kind is None else kind
    x = rng.integers(0, chances.shape[1], (rows, time))
    for t in range(1, time):
        row = chances[which, x[:, t - 1]].cumsum(1)
        x[:, t] = (row < rng.random((rows, 1))).sum(1).clip(max=chances.shape[1] - 1)
    return x, which


def waves(rng: np.random.Generator, rows: int, time: int, features: int) -> Any:
    """Sines of many periods with a little noise [B, T, D], about as large as 1."""
    period = rng.uniform(6, 24, (rows, 1, features))
    phase = rng.uniform(0, 2 * np.pi, period.shape)
    x = np.sin(2 * np.pi * np.arange(time)[:, None] / period + phase)
    return 1.3 * x + 0.1 * rng.standard_normal(x.shape)
