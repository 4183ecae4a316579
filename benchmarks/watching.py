"""What watching a training costs: docs/results/watching.md.

python -m benchmarks.watching

Two copies of each model are trained on the same batches, one of them watched; first their weights
have to be the same to the last bit. Then blocks of steps take turns, and the ratio of the processor
times of neighbouring blocks is told: median, and the middle half of all ratios.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.kernels.machine import describe
from hiddenstate.cells import build
from hiddenstate.diagnose.watching.watch import Watch
from hiddenstate.nn import Recurrent

PAGE = Path(__file__).parents[1] / "docs" / "results" / "watching.md"
# Blocks of each model: as many as go into the time, but no fewer than the least.
SECONDS, LEAST_BLOCKS = 20, 8
# Every looked-at step is within a block: a block is as long as the distance of two looks.
EVERY = 100


class Model(nn.Module):
    """Embedding, a recurrent layer, a head at every step."""

    def __init__(self, layer: nn.Module, symbols: int, width: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.layer, self.head = layer, nn.Linear(hidden, symbols)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x))[0])


@dataclass(frozen=True)
class Training:
    """One size of training: B rows of T symbols."""

    name: str
    layer: Callable[[], nn.Module]
    hidden: int
    symbols: int
    batch: int
    time: int
    width: int = 32


TRAININGS = (
    Training("torch LSTM", lambda: nn.LSTM(32, 32, batch_first=True), 32, 20, 8, 10),
    Training("torch GRU", lambda: nn.GRU(32, 128, batch_first=True), 128, 60, 32, 50),
    Training("hiddenstate LSTM", lambda: Recurrent(build("lstm", 32, 128)), 128, 60, 32, 50),
    Training("torch LSTM", lambda: nn.LSTM(32, 256, batch_first=True), 256, 1000, 32, 50),
)


def step(
    model: nn.Module, optimiser: torch.optim.Optimizer, x: Tensor, watch: Watch | None
) -> None:
    optimiser.zero_grad()
    loss = functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    loss.backward()
    if watch is not None:
        watch.step(loss)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()


def measure(training: Training, share: float) -> tuple[float, np.ndarray]:
    """Return seconds of a step, and the watched block's time over the other's [blocks]."""
    torch.manual_seed(0)
    bare = Model(training.layer(), training.symbols, training.width, training.hidden)
    watched = copy.deepcopy(bare)
    optimisers = [torch.optim.Adam(each.parameters(), 1e-3) for each in (bare, watched)]
    watch = Watch(
        watched, optimisers[1], every=EVERY, clip_norm=1.0, tell=lambda _: None, share=share
    )
    shape = (training.batch, training.time + 1)

    def block(which: int, number: int) -> float:
        generator = torch.Generator().manual_seed(number)
        batches = [
            torch.randint(training.symbols, shape, generator=generator) for _ in range(EVERY)
        ]
        began = time.process_time()
        for x in batches:
            if which:
                step(watched, optimisers[1], x, watch)
            else:
                step(bare, optimisers[0], x, None)
        return time.process_time() - began

    took = max(block(which, 0) for which in range(2))
    for one, other in zip(bare.parameters(), watched.parameters()):
        if not torch.equal(one, other):
            raise SystemExit(f"{training.name}: the watched model is another one")
    seconds, ratios = [], []
    for number in range(1, max(LEAST_BLOCKS, int(SECONDS / took)) + 1):
        order = (0, 1) if number % 2 else (1, 0)
        taken = {which: block(which, number) for which in order}
        seconds.append(taken[0] / EVERY)
        ratios.append(taken[1] / taken[0])
    return float(np.median(seconds)), np.array(ratios)


def main() -> None:
    torch.set_num_threads(1)
    machine = describe()
    lines = [
        "# What watching a training costs",
        "",
        f"`python -m benchmarks.watching`, {datetime.now(UTC):%Y-%m-%d}: {machine['processor']}, "
        f"one thread, torch {machine['versions']['torch']}. Processor time of a step with "
        f"`hiddenstate.diagnose.Watch` (a look every {EVERY} steps) over that without; the watched "
        "model's weights are the same to the last bit. Without a bound every step is measured; "
        "with the usual bound of 3 % steps are passed over where a step is too short.",
        "",
        "| training | B x T | hidden | step, ms | no bound (middle half) | bound 3 % (middle "
        "half) |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for training in TRAININGS:
        cells = []
        seconds = 0.0
        for share in (1.0, 0.03):
            seconds, ratios = measure(training, share)
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        lines.append(
            f"| {training.name} | {training.batch} x {training.time} | {training.hidden} | "
            f"{1e3 * seconds:.2f} | {cells[0]} | {cells[1]} |"
        )
        print(lines[-1])
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
