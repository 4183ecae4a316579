"""What loops leave out or do too often, each a real training of a second, and the same mended."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hiddenstate.diagnose.finding import Finding
from hiddenstate.diagnose.watching.watch import Watch
from tests.faults.plant import Watched, fault, healthy
from tests.faults.training import (
    Plan,
    Tagger,
    cross_entropy,
    drawn_plan,
    remembered,
)


@dataclass(frozen=True)
class Habits:
    """A loop with its habits: what is done before, between and after its steps."""

    plan: Plan
    clears: bool = True
    batches: int = 1
    divides: bool = True
    decay: float = 0.0
    sign: float = 1.0
    dropout: float = 0.0
    evaluates: int = 0
    returns: bool = True
    prepare: Callable[[nn.Module], None] = lambda _: None

    def watched(self) -> Watched:
        """Return the training as a case."""
        return Watched(self.run)

    def run(self) -> Iterable[Finding]:
        """Train, and return what the watch has to say at the end."""
        plan = self.plan
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            generator = torch.Generator().manual_seed(plan.seed + 1)
            tagger = Tagger(plan.kind, plan.symbols, plan.hidden)
            tagger.head = nn.Sequential(nn.Dropout(self.dropout), tagger.head)
            self.prepare(tagger)
            optimiser = self._optimiser([p for p in tagger.parameters() if p.requires_grad])
            watch = Watch(tagger, optimiser, every=plan.every, tell=lambda _: None, share=1.0)
            batches = plan.data or remembered
            for step in range(plan.steps):
                for group in optimiser.param_groups:
                    group["lr"] = plan.rate * plan.schedule(step)
                if self.clears:
                    optimiser.zero_grad()
                for _ in range(self.batches):
                    x, y = batches(plan, generator, step)
                    loss = self.sign * cross_entropy(tagger(x), y)
                    (loss / self.batches if self.divides else loss).backward()
                watch.step(loss)
                optimiser.step()
                if self.evaluates and step % self.evaluates == 0:
                    tagger.eval()
                    if self.returns:
                        tagger.train()
            watch.close()
        return watch.findings

    def _optimiser(self, given: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.plan.optimiser == "sgd":
            return torch.optim.SGD(given, self.plan.rate, weight_decay=self.decay)
        return torch.optim.AdamW(given, self.plan.rate, weight_decay=self.decay)


@fault("gradients that no one clears", "HS512")
def not_cleared(rng: np.random.Generator, remedied: bool) -> Watched:
    return Habits(drawn_plan(rng, rate=3e-3), clears=remedied).watched()


@fault("a schedule that is over after a tenth of the training", "HS513")
def over_early(rng: np.random.Generator, remedied: bool) -> Watched:
    steps = 200 if remedied else int(rng.integers(15, 50))
    return Habits(drawn_plan(rng, schedule=lambda step: max(0.0, 1 - step / steps))).watched()


@fault("a validation after which nobody goes back to training mode", "HS514")
def left_in_eval(rng: np.random.Generator, remedied: bool) -> Watched:
    plan = drawn_plan(rng)
    return Habits(plan, dropout=0.2, evaluates=30, returns=remedied).watched()


@fault("weight decay that eats what is learnt", "HS515")
def strong_decay(rng: np.random.Generator, remedied: bool) -> Watched:
    sgd = bool(rng.random() < 0.5)
    plan = drawn_plan(rng, optimiser="sgd" if sgd else "adam", rate=0.5 if sgd else 1e-2)
    decay = float(rng.uniform(0.1, 0.5) if sgd else rng.uniform(5, 30))
    return Habits(plan, decay=1e-4 if remedied else decay).watched()


@fault("a cross entropy with its sign turned", "HS516")
def turned_sign(rng: np.random.Generator, remedied: bool) -> Watched:
    return Habits(drawn_plan(rng, rate=3e-3), sign=1.0 if remedied else -1.0).watched()


@fault("answers of the row before", "HS517", "HS506")
def shuffled_rows(rng: np.random.Generator, remedied: bool) -> Watched:
    def batches(plan: Plan, generator: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        # Some symbols are common, so that the loss falls whatever is read.
        drawn, _ = remembered(replace(plan, time=plan.time + 1), generator, step)
        drawn = (drawn * torch.rand(drawn.shape, generator=generator)).long()
        x, y = drawn[:, 1:], drawn[:, :-1]
        return x, y if remedied else y.roll(1, 0)

    return Habits(drawn_plan(rng, data=batches, rate=5e-3, steps=300)).watched()


@fault("gradients of many batches added and not divided", "HS518")
def not_divided(rng: np.random.Generator, remedied: bool) -> Watched:
    count = int(rng.integers(3, 9))
    plan = drawn_plan(rng, rate=3e-3, steps=100)
    return Habits(plan, batches=count, divides=remedied).watched()


@fault("dropout that leaves nothing", "HS519")
def strong_dropout(rng: np.random.Generator, remedied: bool) -> Watched:
    share = 0.2 if remedied else float(rng.uniform(0.92, 0.98))
    return Habits(drawn_plan(rng), dropout=share).watched()


@fault("embeddings frozen as they were drawn", "HS509")
def frozen_table(rng: np.random.Generator, remedied: bool) -> Watched:
    def freeze(model: nn.Module) -> None:
        model.get_submodule("embed").requires_grad_(remedied)

    return Habits(drawn_plan(rng), prepare=freeze).watched()


# --- healthy


@healthy("training that goes on from a trained model in small steps")
def small_steps(rng: np.random.Generator) -> Watched:
    plan = drawn_plan(rng)

    def teach(model: nn.Module) -> None:
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        generator = torch.Generator().manual_seed(plan.seed)
        for step in range(150):
            x, y = remembered(plan, generator, step)
            optimiser.zero_grad()
            cross_entropy(model(x), y).backward()
            optimiser.step()

    rate = 10 ** float(rng.uniform(-6, -4.5))
    return Habits(replace(plan, rate=rate), prepare=teach).watched()


@healthy("training of a generator against a critic")
def adversaries(rng: np.random.Generator) -> Watched:
    plan, part = drawn_plan(rng), str(rng.choice(["generator", "critic", "both"]))

    class Series(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.rnn = nn.GRU(inputs, plan.hidden, batch_first=True)
            self.head = nn.Linear(plan.hidden, outputs)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x)[0])

    def findings() -> Iterable[Finding]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            both = nn.ModuleDict({"generator": Series(3, 1), "critic": Series(1, 1)})
            make, judge = both["generator"], both["critic"]
            optimisers = [torch.optim.Adam(each.parameters(), 1e-3) for each in (make, judge)]
            seen = both if part == "both" else both[part]
            watch = Watch(seen, every=20, tell=lambda _: None, share=1.0)
            for _ in range(200):
                phase = 6.3 * torch.rand(plan.batch, 1, 1)
                wave = torch.sin(phase + 0.5 * torch.arange(plan.time)[:, None])
                false = make(torch.randn(plan.batch, plan.time, 3))
                said = torch.cat([judge(wave)[:, -1], judge(false.detach())[:, -1]])
                truth = torch.arange(2.0).flip(0).repeat_interleave(plan.batch)[:, None]
                optimisers[1].zero_grad()
                loss = functional.binary_cross_entropy_with_logits(said, truth)
                loss.backward()
                if part != "generator":
                    watch.step(loss)
                optimisers[1].step()
                optimisers[0].zero_grad()
                loss = functional.softplus(-judge(false)[:, -1]).mean()
                loss.backward()
                if part != "critic":
                    watch.step(loss)
                optimisers[0].step()
            watch.close()
        return watch.findings

    return Watched(findings)


@healthy("training beside a slow copy of itself")
def slow_copy(rng: np.random.Generator) -> Watched:
    class Pair(Tagger):
        def __init__(self, plan: Plan) -> None:
            super().__init__(plan.kind, plan.symbols, plan.hidden)
            own = Tagger(plan.kind, plan.symbols, plan.hidden)
            own.load_state_dict(copy.deepcopy(self.state_dict()))
            self.slow = own.requires_grad_(False)

        def forward(self, codes: Tensor) -> Tensor:
            with torch.no_grad():
                for mean, each in zip(self.slow.parameters(), self.parameters()):
                    mean.lerp_(each, 0.01)
            return super().forward(codes) + 0.1 * self.slow(codes)

    return drawn_plan(rng, model=Pair, rate=5e-3).watched()
