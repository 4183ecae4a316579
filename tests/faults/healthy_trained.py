"""Healthy models of many cells, sizes and tasks: taught for a second or two, or as they are drawn.

What data do not ask for is not learned: some of these need no memory at all, some latch a bit for
ever, some are far from done. None of that is a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import nn

from tests.faults.memory import between
from tests.faults.plant import Planted, healthy
from tests.faults.small import (
    Task,
    adding,
    levels,
    markov,
    n_back,
    one_of,
    planted,
    problem,
    reader,
    recall,
    running_parity,
    tagging,
    teach,
    waves,
)

Kind = tuple[str, dict[str, Any]]
PLAIN: tuple[Kind, ...] = (("rnn", {}), ("elman", {}), ("elman", {"init": "identity"}))
RELU: tuple[Kind, ...] = (
    ("rnn", {"nonlinearity": "relu"}),
    ("elman", {"activation": "relu", "init": "identity"}),
)
LSTMS: tuple[Kind, ...] = (
    ("torch lstm", {}),
    ("lstm", {}),
    ("lstm", {"peephole": True}),
    ("lstm", {"coupled": True}),
    ("lstm", {"layer_norm": True}),
    ("lstm", {"biases": 2, "init": "uniform"}),
)
GRUS: tuple[Kind, ...] = (
    ("torch gru", {}),
    ("gru", {}),
    ("gru", {"reset": "before"}),
    ("gru", {"update": "writes"}),
)
GATED = LSTMS + GRUS
ANY = PLAIN + RELU + GATED


def taught(
    rng: np.random.Generator,
    task: Task,
    kinds: tuple[Kind, ...],
    widths: tuple[int, ...],
    steps: int,
    *,
    layers: int = 1,
    rate: float = 3e-3,
    **more: Any,
) -> Planted:
    """Teach one of the kinds at one of the widths."""
    kind, options = one_of(rng, *kinds)
    model = reader(task, kind, int(rng.choice(widths)), layers, **options, **more)
    teach(model, task, rng, steps, rate=rate)
    return planted(model, task, rng)


@healthy("taught: first symbol after a lag")
def first_symbol(rng: np.random.Generator) -> Planted:
    return taught(rng, recall(between(rng, 8, 20)), GATED, (16, 32, 64), 200)


@healthy("taught: first symbol after a lag, plain cells")
def first_symbol_plain(rng: np.random.Generator) -> Planted:
    return taught(rng, recall(between(rng, 6, 12)), PLAIN, (16, 32, 64), 200)


@healthy("taught: symbol of some steps ago")
def some_steps_ago(rng: np.random.Generator) -> Planted:
    task = n_back(between(rng, 1, 4), between(rng, 16, 30))
    return taught(rng, task, PLAIN + GATED, (16, 32, 64), 150)


@healthy("taught: parity at every step")
def parity(rng: np.random.Generator) -> Planted:
    task = running_parity(between(rng, 10, 20))
    return taught(rng, task, PLAIN + GATED, (4, 8, 16, 32), 200, rate=1e-2)


@healthy("taught: next symbol of a Markov chain")
def chain(rng: np.random.Generator) -> Planted:
    task = markov(between(rng, 16, 30), between(rng, 4, 10), between(rng, 1, 2))
    return taught(rng, task, PLAIN + GATED, (4, 16, 64), 200, rate=1e-2)


@healthy("taught: no memory needed")
def no_memory(rng: np.random.Generator) -> Planted:
    task = markov(between(rng, 12, 20), 5, 1)
    return taught(rng, task, PLAIN + GRUS, (8, 16, 24), 500, rate=1e-2)


@healthy("taught: next value of a wave")
def wave(rng: np.random.Generator) -> Planted:
    return taught(rng, waves(between(rng, 20, 50)), ANY, (8, 16, 32, 64), 120)


@healthy("taught: next value of a wave, two layers")
def wave_of_two(rng: np.random.Generator) -> Planted:
    return taught(rng, waves(between(rng, 20, 30)), ANY, (8, 16, 32), 100, layers=2)


@healthy("taught: sum of two marked numbers")
def added(rng: np.random.Generator) -> Planted:
    return taught(rng, adding(between(rng, 12, 30)), GATED + RELU, (8, 32, 64), 150)


@healthy("taught: tags, rows of unequal length")
def tags(rng: np.random.Generator) -> Planted:
    return taught(rng, tagging(between(rng, 8, 24)), ANY, (8, 16, 32), 150)


@healthy("taught: tags that lie ahead, both directions")
def tags_ahead(rng: np.random.Generator) -> Planted:
    task = tagging(between(rng, 8, 20), ahead=True)
    kinds = (("torch lstm", {}), ("torch gru", {}), ("lstm", {}), ("gru", {}), ("elman", {}))
    return taught(rng, task, kinds, (8, 16, 32), 100, bidirectional=True)


@healthy("taught: the largest mean, rows of unequal length")
def largest_mean(rng: np.random.Generator) -> Planted:
    task = levels(between(rng, 12, 40), between(rng, 3, 8))
    return taught(rng, task, ANY, (8, 16, 64), 120)


@healthy("taught: copy after a delay")
def copied(rng: np.random.Generator) -> Planted:
    task = problem("copy:length=5,symbols=3,alphabet=4")
    return taught(rng, task, PLAIN + GATED, (16, 32, 64), 200, rate=1e-2)


@healthy("taught: which brackets may follow")
def brackets(rng: np.random.Generator) -> Planted:
    return taught(rng, problem("dyck:length=20"), PLAIN + GATED, (8, 16, 32), 150, rate=1e-2)


@healthy("taught: walk around a circle")
def circle(rng: np.random.Generator) -> Planted:
    return taught(rng, problem("cycle_navigation:length=12"), GATED, (8, 16, 32), 200)


@healthy("taught: LSTM with a projection")
def projected(rng: np.random.Generator) -> Planted:
    task = one_of(rng, waves(between(rng, 16, 30)), recall(between(rng, 6, 14)))
    # torch's own operator warns that it has no fast way for projections.
    kinds = (("lstm", {"kernel": "reference", "projection": int(rng.choice([8, 16]))}),)
    return taught(rng, task, kinds, (24, 32), 40)


@healthy("taught: zoneout and residuals")
def zoned(rng: np.random.Generator) -> Planted:
    task = waves(between(rng, 12, 24))
    kinds = (("lstm", {}), ("gru", {}), ("elman", {}))
    return taught(rng, task, kinds, (8, 16), 40, layers=2, zoneout=0.1, residual=True)


@healthy("taught: wide")
def wide(rng: np.random.Generator) -> Planted:
    task = one_of(rng, waves(16), markov(16, 8), levels(16, 4))
    return taught(rng, task, PLAIN + GATED, (128, 256), 25)


@healthy("taught: three layers")
def three(rng: np.random.Generator) -> Planted:
    task = one_of(rng, waves(16), markov(16, 8), levels(16, 4))
    return taught(rng, task, PLAIN + GATED, (16, 32), 60, layers=3)


def fresh(kinds: tuple[Kind, ...], **more: Any) -> Callable[[np.random.Generator], Planted]:
    """Return a draw of models as their initialisation makes them."""

    def draw(rng: np.random.Generator) -> Planted:
        time = between(rng, 8, 60)
        ahead = waves(time), markov(time, 9), recall(time), levels(time, 4)
        # The backward direction knows what is asked of a step ahead of it, and at a row's last
        # step it has read one step.
        task = one_of(rng, tagging(time), *(() if more.get("bidirectional") else ahead))
        kind, options = one_of(rng, *kinds)
        width = int(rng.choice([4, 8, 16, 32, 64, 128, 256]))
        return planted(reader(task, kind, width, between(rng, 1, 3), **options, **more), task, rng)

    return draw


TORCH = tuple(kind for kind in ANY if kind[0] in ("rnn", "torch lstm", "torch gru"))
OURS = tuple(kind for kind in ANY if kind not in TORCH)

for name, kinds in (
    ("fresh: torch's layers", TORCH),
    ("fresh: plain cells", PLAIN + RELU),
    ("fresh: LSTMs", LSTMS),
    ("fresh: GRUs", GRUS),
):
    healthy(name)(fresh(kinds))
healthy("fresh: both directions")(fresh(TORCH + OURS, bidirectional=True))


@healthy("fresh: started for long memories")
def chrono(rng: np.random.Generator) -> Planted:
    time = between(rng, 20, 60)
    task = one_of(rng, waves(time), recall(time), levels(time, 4))
    longest = int(rng.choice([time, 2 * time, 4 * time]))
    kind, width = one_of(rng, "lstm", "gru"), int(rng.choice([16, 64]))
    return planted(reader(task, kind, width, init="chrono", longest_lag_steps=longest), task, rng)


class Step(nn.Module):
    """One of torch's cells in a loop, its last state asked."""

    def __init__(self, kind: type[nn.RNNCellBase], features: int, width: int) -> None:
        super().__init__()
        self.cell, self.head = kind(features, width), nn.Linear(width, features)

    def forward(self, x: Any, lengths: Any) -> Any:
        state: Any = None
        kept: list[Any] = []
        for x_t in x.unbind(1):
            state = self.cell(x_t, state)
            kept.append(state[0] if isinstance(state, tuple) else state)
        picked = [kept[int(length) - 1][row] for row, length in enumerate(lengths)]
        return self.head(nn.utils.rnn.pad_sequence(picked, batch_first=True))


@healthy("taught: a torch cell in a loop")
def looped(rng: np.random.Generator) -> Planted:
    task = levels(between(rng, 8, 20), 4)
    model = Step(one_of(rng, nn.RNNCell, nn.LSTMCell, nn.GRUCell), 4, int(rng.choice([8, 16])))
    teach(model, task, rng, 30)
    return planted(model, task, rng)
