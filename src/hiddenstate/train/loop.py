"""The training loop: one generator that yields Progress and leaves the best weights behind."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from hiddenstate.errors import TrainingError
from hiddenstate.models import Trainable
from hiddenstate.nn import clip_by_norm, detach
from hiddenstate.train import checkpoint
from hiddenstate.train.checkpoint import Position, Tensors
from hiddenstate.train.devices import autocast, device_of
from hiddenstate.train.feed import Feed
from hiddenstate.train.processes import Processes
from hiddenstate.train.progress import Progress
from hiddenstate.train.recipe import Train

REPORT_EVERY_S = 0.2
# A fit that is not told how long to train takes about this many steps, within these epochs.
STEPS, LEAST_EPOCHS, MOST_EPOCHS = 1600, 8, 60


def fit(
    model: Trainable,
    recipe: Train,
    training: Feed,
    validation: Feed | None,
    *,
    phase: str = "train",
    checkpoint_path: Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Train model in place and yield Progress; at the end it holds its best weights.

    Best is the epoch with the lowest validation loss; without validation cases, the last one. An
    epoch depends only on the checkpoint before it, so the same recipe and file give the same
    numbers on one machine, whether or not the fit was killed and resumed in between. Once `stop()`
    is true the epoch under way is given up. A resumed fit first tells the checkpoint's report
    again: it may have been killed before anybody heard it. Raises TrainingError when a loss is not
    finite.

    Under torchrun every process takes its part of each batch, and all step alike. A recipe with
    `minutes` ends the epoch under way when they are over, and its learning rate follows the clock.
    """
    processes, device = Processes(), device_of(model)
    processes.begin(model.state_dict().values())
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    epochs = recipe.epochs or _epochs(training, recipe)
    limit_s = math.inf if recipe.minutes is None else 60 * recipe.minutes
    position, best = Position(), _copy(model)
    if resume and checkpoint_path is not None:
        position, best = checkpoint.read(checkpoint_path, model, optimiser)
        if position.report:
            yield Progress.from_json(position.report)
    began = time.perf_counter() - position.seconds

    stopped = over = False
    while position.epoch < epochs and not (over or processes.any(stop())):
        if position.epoch - position.best_epoch >= recipe.patience:
            break
        epoch = _Epoch(phase, position.epoch + 1, epochs, recipe)
        processes.reseed(recipe.seed, epoch.number)
        order = training.order(recipe, epoch.number)
        # Every event counts the same, in a batch of short cases and in one of long ones.
        usual_events = training.events / max(len(order), 1)
        model.train()
        state, step = None, 0
        for step, item in enumerate(order, start=1):
            done = (epoch.number - 1 + (step - 1) / len(order)) / epochs
            done = processes.same(max(done, min((time.perf_counter() - began) / limit_s, 1.0)))
            rate = learning_rate(recipe, done)
            for group in optimiser.param_groups:
                group["lr"] = rate
            batch = training.batch(processes.part(training, item), state).to(device)
            model.done = done
            with autocast(recipe, device):
                lost = model.losses(batch, recipe.label_smoothing)
            state = detach(lost.state) if training.stateful else None
            steps, events = processes.sum(lost.steps), int(processes.number(batch.events))
            loss = (lost.sums / steps.clamp(min=1)).sum()
            objective = loss * (events / usual_events)
            if recipe.l2:
                squares = [weight.square().sum() for weight in model.parameters()]
                objective = objective + recipe.l2 / processes.count * torch.stack(squares).sum()
            optimiser.zero_grad(set_to_none=True)
            objective.backward()  # type: ignore[no-untyped-call]
            processes.add_gradients(model)
            norm = float(clip_by_norm(model.parameters(), recipe.clip_norm).before)
            epoch.add(processes.number(float(loss.detach())), events, norm, rate)
            optimiser.step()
            stopped = processes.any(stop())
            over = processes.any(time.perf_counter() - began >= limit_s)
            if stopped or over:
                break
            if epoch.due():
                position.seconds = time.perf_counter() - began
                yield epoch.report(position, step, len(order), model.kernels)
        if stopped:
            break
        judged = None if validation is None else validation_loss(model, validation, recipe)
        epoch.check("validation", judged or 0.0)
        position.epoch = epoch.number
        if position.best_loss is None or judged is None or judged < position.best_loss:
            position.best_loss, position.best_epoch = judged, epoch.number
            best = _copy(model)
        position.seconds = time.perf_counter() - began
        report = epoch.report(position, step, len(order), model.kernels, judged)
        report = replace(report, epoch_ended=True)
        position.report = report.to_json()
        if checkpoint_path is not None and processes.index == 0:
            checkpoint.write(checkpoint_path, position, model, best, optimiser)
        yield report
    if position.best_epoch or validation is None:
        model.load_state_dict(best)
    model.eval()


def validation_loss(model: Trainable, feed: Feed, recipe: Train) -> float:
    """Sum over the heads of their mean losses on the feed, without dropout or smoothing."""
    model.eval()
    processes, device, state, each = Processes(), device_of(model), None, []
    with torch.no_grad(), autocast(recipe, device):
        for item in feed.order(recipe, None):
            batch = feed.batch(processes.part(feed, item), state).to(device)
            sums, steps, state = model.losses(batch)
            each.append(torch.stack([sums.double(), steps.double()]))
    sums, steps = processes.sum(torch.stack(each).sum(dim=0))
    return float((sums / steps.clamp(min=1)).sum())


def learning_rate(recipe: Train, done: float) -> float:
    """Learning rate after the share `done` of all epochs: linear warm-up, then the schedule."""
    if done < recipe.warmup:
        return recipe.learning_rate * (0.05 + 0.95 * done / recipe.warmup)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    share = (done - recipe.warmup) / (1 - recipe.warmup)
    return recipe.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))


def _epochs(training: Feed, recipe: Train) -> int:
    """How many epochs a fit takes that was not told."""
    steps = len(training.order(recipe, None))
    return min(max(-(-STEPS // max(steps, 1)), LEAST_EPOCHS), MOST_EPOCHS)


def _copy(model: Trainable) -> Tensors:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@dataclass
class _Epoch:
    """What one epoch adds up to."""

    phase: str
    number: int
    epochs: int
    recipe: Train
    loss: float = 0.0
    events: int = 0
    rate: float = 0.0
    norms: list[float] = field(default_factory=list)
    began: float = field(default_factory=time.perf_counter)
    reported: float = field(default_factory=time.perf_counter)

    def add(self, loss: float, events: int, norm: float, rate: float) -> None:
        self.rate = rate
        self.norms.append(norm)
        self.check("training", loss + norm)
        self.loss += loss * events
        self.events += events

    def check(self, part: str, value: float) -> None:
        """Raise TrainingError where a loss or gradient norm is NaN or infinite."""
        if math.isfinite(value):
            return
        finite = [norm for norm in self.norms if math.isfinite(norm)]
        grew = f"; the largest gradient norm before it was {max(finite):.3g}" if finite else ""
        raise TrainingError(
            f"The {part} loss or its gradient became {value} in epoch {self.number}, "
            f"step {len(self.norms)}, at learning rate {self.rate:.3g}{grew}.",
            "A finite number was expected; inputs are scaled and finite, so training diverged.",
            f"Use a smaller --learning-rate (for example {self.recipe.learning_rate / 3:.2g}) "
            "or a smaller train.clip_norm, and start anew with --overwrite.",
        )

    def due(self) -> bool:
        """Whether it is time for a report within the epoch."""
        now = time.perf_counter()
        if now - self.reported < REPORT_EVERY_S:
            return False
        self.reported = now
        return True

    def report(
        self,
        position: Position,
        step: int,
        steps: int,
        kernels: tuple[str, ...],
        validation: float | None = None,
    ) -> Progress:
        elapsed = max(time.perf_counter() - self.began, 1e-9)
        epochs_left = self.epochs - self.number + 1 - step / steps
        norms = np.array(self.norms)
        return Progress(
            phase=self.phase,
            epoch=self.number,
            epochs=self.epochs,
            step=step,
            steps=steps,
            train_loss=self.loss / max(self.events, 1),
            validation_loss=validation,
            best_epoch=position.best_epoch,
            best_loss=position.best_loss,
            learning_rate=self.rate,
            gradient_norm=float(np.median(norms)),
            largest_gradient_norm=float(norms.max()),
            clipped=float((norms > self.recipe.clip_norm).mean()),
            events_per_s=self.events / elapsed,
            seconds=position.seconds,
            seconds_left=epochs_left * elapsed * steps / step,
            epoch_ended=False,
            kernels=kernels,
        )
