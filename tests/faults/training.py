"""Trainings that go wrong, each a real one of a second, and the same with the remedy applied."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.cells import build
from hiddenstate.diagnose.finding import Finding
from hiddenstate.diagnose.watching.watch import Watch
from hiddenstate.nn import Recurrent
from tests.faults.plant import Watched, fault

KINDS = ("elman", "gru", "lstm", "ours gru", "ours lstm", "ours elman")


class Tagger(nn.Module):
    """Says at every step which symbol stood `LAG` steps before."""

    def __init__(self, kind: str, symbols: int, hidden: int, rows: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(rows or symbols, 8)
        name = kind.removeprefix("ours ")
        if kind.startswith("ours"):
            self.rnn: nn.Module = Recurrent(build(name, 8, hidden))
        else:
            kinds: dict[str, Any] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
            self.rnn = kinds[name](8, hidden, batch_first=True)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, codes: Tensor) -> Tensor:
        h, _ = self.rnn(self.embed(codes))
        return self.head(h)


LAG = 1
Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, truth: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, 1), truth.flatten())


@dataclass(frozen=True)
class Plan:
    """One training: what is learnt, how, and what goes wrong in it."""

    kind: str
    seed: int
    symbols: int = 6
    hidden: int = 24
    rows: int | None = None
    batch: int = 16
    time: int = 12
    steps: int = 200
    every: int = 20
    optimiser: str = "adam"
    rate: float = 1e-2
    schedule: Callable[[int], float] = lambda _: 1.0
    clip: float | None = None
    loss: Loss = cross_entropy
    model: Callable[[Plan], nn.Module] | None = None
    data: Callable[[Plan, torch.Generator, int], tuple[Tensor, Tensor]] | None = None
    held_back: Callable[[Plan, torch.Generator], tuple[Tensor, Tensor]] | None = None
    given: Callable[[nn.Module], Iterable[nn.Parameter]] = lambda model: model.parameters()

    def watched(self) -> Watched:
        """Return the training as a case; it runs when its findings are asked for."""
        return Watched(lambda: self.run())

    def run(self) -> tuple[Finding, ...]:
        """Train, and return what the watch has to say at the end."""
        return self.trained().findings

    def trained(self) -> Watch:
        """Train under a watch that has all the time it wants."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            generator = torch.Generator().manual_seed(self.seed + 1)
            make = self.model or (lambda p: Tagger(p.kind, p.symbols, p.hidden, p.rows))
            model = make(self)
            optimiser = self._optimiser(list(self.given(model)))
            watch = Watch(
                model,
                optimiser,
                every=self.every,
                clip_norm=self.clip,
                tell=lambda _: None,
                share=1.0,
            )
            batches = self.data or remembered
            with watch:
                for step in range(self.steps):
                    for group in optimiser.param_groups:
                        group["lr"] = self.rate * self.schedule(step)
                    x, y = batches(self, generator, step)
                    optimiser.zero_grad()
                    loss = self.loss(model(x), y)
                    loss.backward()
                    if self.held_back is not None and (step + 1) % self.every == 0:
                        held_x, held_y = self.held_back(self, generator)
                        with torch.no_grad():
                            watch.validation(self.loss(model.eval()(held_x), held_y))
                        model.train()
                    watch.step(loss)
                    if self.clip is not None:
                        nn.utils.clip_grad_norm_(model.parameters(), self.clip)
                    optimiser.step()
        return watch

    def _optimiser(self, given: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimiser == "sgd":
            return torch.optim.SGD(given, self.rate)
        if self.optimiser == "momentum":
            return torch.optim.SGD(given, self.rate, momentum=0.9)
        return torch.optim.AdamW(given, self.rate)


def remembered(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
    """Draw symbols, and as the truth of each step the symbol LAG steps before."""
    x = torch.randint(plan.symbols, (plan.batch, plan.time), generator=generator)
    return x, functional.pad(x, (LAG, 0))[:, :-LAG]


def drawn_plan(rng: np.random.Generator, kinds: tuple[str, ...] = KINDS, **changes: Any) -> Plan:
    """Draw cell, sizes and seed."""
    plan = Plan(
        kind=str(rng.choice(kinds)),
        seed=int(rng.integers(2**31)),
        symbols=int(rng.integers(4, 9)),
        hidden=int(rng.integers(16, 41)),
        batch=int(rng.integers(8, 25)),
        time=int(rng.integers(8, 17)),
    )
    return replace(plan, **changes)


# --- faults


@fault("the logarithm of a probability that became 0", "HS501")
def log_of_zero(rng: np.random.Generator, remedied: bool) -> Watched:
    def by_hand(logits: Tensor, truth: Tensor) -> Tensor:
        # In float16 small probabilities are 0, and so is what they are made of.
        p = functional.softmax(50 * logits, -1).half().float()
        return -p.gather(-1, truth[..., None]).log().mean()

    def stable(logits: Tensor, truth: Tensor) -> Tensor:
        return cross_entropy(50 * logits, truth)

    plan = drawn_plan(rng, steps=120, symbols=8)
    return replace(plan, loss=stable if remedied else by_hand).watched()


@fault("the square root of a variance that is 0", "HS501")
def root_of_zero(rng: np.random.Generator, remedied: bool) -> Watched:
    bad = int(rng.integers(40, 90))

    class Normed(Tagger):
        def forward(self, codes: Tensor) -> Tensor:
            h, _ = self.rnn(self.embed(codes))
            variance = h.var(0, keepdim=True, unbiased=False)
            deviation = (variance + 1e-5).sqrt() if remedied else variance.sqrt() + 1e-3
            return self.head(h / deviation)

    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        x, y = remembered(plan, generator, step)
        # One batch of equal rows, as padding or a repeated case makes them.
        return (x[:1].expand_as(x), y[:1].expand_as(y)) if step == bad else (x, y)

    model = lambda plan: Normed(plan.kind, plan.symbols, plan.hidden)  # noqa: E731
    return drawn_plan(rng, steps=120, model=model, data=batches).watched()


@fault("clipped to a hundredth of the usual norm", "HS502")
def clipped_far_too_low(rng: np.random.Generator, remedied: bool) -> Watched:
    limit = 1.0 if remedied else float(rng.choice([0.001, 0.003]))
    plan = drawn_plan(rng, optimiser="momentum", rate=0.1, steps=160, clip=limit)
    return plan.watched()


@fault("a loss that is summed over the batch, and clipped", "HS502")
def summed_and_clipped(rng: np.random.Generator, remedied: bool) -> Watched:
    def summed(logits: Tensor, truth: Tensor) -> Tensor:
        return cross_entropy(logits, truth) * truth.numel()

    loss = cross_entropy if remedied else summed
    return drawn_plan(rng, rate=1e-3, steps=160, clip=1.0, loss=loss, batch=24).watched()


@fault("rare long sequences explode", "HS503", source="Pascanu, Mikolov, Bengio 2013")
def rare_long_sequences(rng: np.random.Generator, remedied: bool) -> Watched:
    gain, every = float(rng.uniform(1.08, 1.15)), int(rng.integers(45, 60))

    class Growing(Tagger):
        def __init__(self, plan: Plan) -> None:
            super().__init__("elman", plan.symbols, plan.hidden)
            self.rnn = nn.RNN(8, plan.hidden, nonlinearity="relu", batch_first=True)
            with torch.no_grad():
                self.rnn.weight_hh_l0.copy_(gain * torch.eye(plan.hidden))

    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        long = replace(plan, time=110) if step % every == every - 1 else plan
        return remembered(long, generator, step)

    plan = drawn_plan(rng, optimiser="sgd", rate=1e-3, steps=160, model=Growing, data=batches)
    return replace(plan, time=6, clip=10.0 if remedied else None).watched()


@fault("a learning rate far too large for Adam", "HS504")
def rate_too_large(rng: np.random.Generator, remedied: bool) -> Watched:
    return drawn_plan(rng, rate=1e-2 if remedied else float(rng.uniform(0.8, 3.0))).watched()


@fault("a learning rate far too large for gradient descent", "HS504")
def descent_too_large(rng: np.random.Generator, remedied: bool) -> Watched:
    rate = 0.5 if remedied else float(rng.uniform(15.0, 40.0))
    return drawn_plan(rng, optimiser="sgd", rate=rate).watched()


@fault("a learning rate far too small", "HS505")
def rate_too_small(rng: np.random.Generator, remedied: bool) -> Watched:
    adam = bool(rng.random() < 0.5)
    small = 10 ** float(rng.uniform(-7.0, -5.5) if adam else rng.uniform(-5.0, -3.7))
    rate = small if not remedied else (1e-2 if adam else 0.5)
    return drawn_plan(rng, optimiser="adam" if adam else "sgd", rate=rate).watched()


@fault("answers that do not belong to their inputs", "HS506", "HS517")
def foreign_answers(rng: np.random.Generator, remedied: bool) -> Watched:
    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        x, y = remembered(plan, generator, step)
        # Inputs and answers were shuffled apart from each other.
        return x, y if remedied else y.flatten()[torch.randperm(y.numel())].view_as(y)

    return drawn_plan(rng, rate=3e-3, steps=300, every=30, data=batches).watched()


@fault("a restart of the learning rate far too high", "HS507", "HS504")
def restarted_too_high(rng: np.random.Generator, remedied: bool) -> Watched:
    factor = 1.0 if remedied else float(rng.uniform(60, 150))

    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        # Something is left to learn: without an error there is no gradient.
        x, y = remembered(plan, generator, step)
        other = torch.randint(plan.symbols, y.shape, generator=generator)
        return x, torch.where(torch.rand(y.shape, generator=generator) < 0.8, y, other)

    return drawn_plan(
        rng, data=batches, schedule=lambda step: factor if step >= 120 else 1.0
    ).watched()


@fault("the data change their coding", "HS507")
def coding_changes(rng: np.random.Generator, remedied: bool) -> Watched:
    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        x, y = remembered(plan, generator, step)
        # A second file of the data counts its symbols from another place.
        return (x + 1) % plan.symbols if step >= 191 and not remedied else x, y

    return drawn_plan(rng, rate=3e-3, every=5, data=batches).watched()


@fault("a table for ten times as many symbols as there are", "HS508")
def table_too_large(rng: np.random.Generator, remedied: bool) -> Watched:
    plan = drawn_plan(rng, steps=120)
    return replace(plan, rows=plan.symbols if remedied else 10 * plan.symbols).watched()


@fault("symbols are numbered with gaps", "HS508")
def numbered_with_gaps(rng: np.random.Generator, remedied: bool) -> Watched:
    gap = 1 if remedied else int(rng.integers(2, 5))

    class Gapped(Tagger):
        def __init__(self, plan: Plan) -> None:
            super().__init__(plan.kind, plan.symbols, plan.hidden, gap * plan.symbols)

        def forward(self, codes: Tensor) -> Tensor:
            return super().forward(gap * codes)

    return drawn_plan(rng, steps=120, model=Gapped).watched()


@fault("layers that the optimiser was not given", "HS509")
def not_given(rng: np.random.Generator, remedied: bool) -> Watched:
    def given(model: nn.Module) -> Iterable[nn.Parameter]:
        assert isinstance(model, Tagger)
        return model.parameters() if remedied else model.head.parameters()

    return drawn_plan(rng, steps=120, given=given).watched()


@fault("a graph that is cut below the head", "HS509")
def cut_graph(rng: np.random.Generator, remedied: bool) -> Watched:
    class Cut(Tagger):
        def forward(self, codes: Tensor) -> Tensor:
            h, _ = self.rnn(self.embed(codes))
            return self.head(h if remedied else h.detach())

    model = lambda plan: Cut(plan.kind, plan.symbols, plan.hidden)  # noqa: E731
    return drawn_plan(rng, steps=120, model=model).watched()


@fault("units of a relu that are dead from the start", "HS509")
def dead_from_the_start(rng: np.random.Generator, remedied: bool) -> Watched:
    class Dead(Tagger):
        def __init__(self, plan: Plan) -> None:
            super().__init__("elman", plan.symbols, plan.hidden)
            self.rnn = nn.RNN(8, plan.hidden, nonlinearity="relu", batch_first=True)
            if not remedied:
                nn.init.constant_(self.rnn.bias_ih_l0, -30.0)

    # No weight decay, which moves what no gradient moves.
    return drawn_plan(rng, steps=120, optimiser="sgd", rate=0.1, model=Dead).watched()


@fault("the training set is learnt by heart", "HS510")
def by_heart(rng: np.random.Generator, remedied: bool) -> Watched:
    count = 6

    def noisy(plan: Plan, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        # The answer is the symbol before, in three of five steps; else it is anything.
        x, y = remembered(plan, generator, 0)
        other = torch.randint(plan.symbols, y.shape, generator=generator)
        return x, torch.where(torch.rand(y.shape, generator=generator) < 0.6, y, other)

    def few(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        own = torch.Generator().manual_seed(plan.seed)
        return noisy(replace(plan, batch=count), own)

    def many(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        del step
        return noisy(plan, generator)

    def held_back(plan: Plan, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        del generator
        return noisy(replace(plan, batch=64), torch.Generator().manual_seed(plan.seed + 7))

    data = many if remedied else few
    return drawn_plan(rng, steps=240, data=data, held_back=held_back).watched()
