"""Watch: cheap checks of a training while it runs, in any loop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hiddenstate.diagnose import checks as checks  # enters all rules
from hiddenstate.diagnose.finding import CATALOGUE, Finding, Skip
from hiddenstate.diagnose.watching.answers import Answers
from hiddenstate.diagnose.watching.circumstances import (
    decay_of,
    is_shared,
    look_drawn,
    noisy_parts,
    strongest_dropout,
)
from hiddenstate.diagnose.watching.gate_rows import GateRows
from hiddenstate.diagnose.watching.lasting import Lasting
from hiddenstate.diagnose.watching.probes import (
    Clearing,
    EmbeddingRows,
    GradientNoise,
    Movement,
)
from hiddenstate.diagnose.watching.rules import WATCHED
from hiddenstate.diagnose.watching.scalars import Writer, write
from hiddenstate.diagnose.watching.training import UNKNOWN, Training, Unfinite, Window

NOISE_STEPS = 16
CREDIT_S = 0.02
# Windows that are kept; beyond, neighbours become one.
MOST_WINDOWS = 512


class Watch:
    """Observes a training loop and says once, in plain words, when something is wrong.

        watch = Watch(model, optimiser, clip_norm=1.0)
        for x, y in batches:
            optimiser.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            watch.step(loss)                       # before clipping and the optimiser's step
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    It reads losses and gradient norms at every step; every so many steps also how far the weights
    move, the noise of the gradient, which rows of embeddings were read, and the gates of the
    recurrent layers on a few rows. What the loop computes stays the same to the last bit. The rules
    are those of the catalogue that begin with HS5, and those of gates (HS301 to HS306) where they
    hold at three looks in a row.

    optimiser: tells the learning rate, and which parameters it was given
    every:     steps from one look to the next
    clip_norm: the global norm to which the loop clips; None: it does not clip
    writer:    takes the scalars; a SummaryWriter of TensorBoard, or whatever has add_scalar
    tell:      hears each finding once, as it appears; the default logs a warning
    share:     of the time that may be spent on watching; steps are passed over beyond it
    ignore:    codes of rules that are not asked
    keeps_best: whether the loop keeps the weights of the best validation

    With a GradScaler call `step` after `unscale_`; with accumulated gradients once for each step of
    the optimiser. A second copy of weights and gradients is kept. `close` takes off all hooks;
    `with Watch(model) as watch` does it at the end.
    """

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer | None = None,
        *,
        every: int = 100,
        clip_norm: float | None = None,
        writer: Writer | None = None,
        tell: Callable[[Finding], None] | None = None,
        share: float = 0.03,
        ignore: Iterable[str] = (),
        keeps_best: bool = False,
    ) -> None:
        self._every, self._clip, self._writer = max(int(every), 1), clip_norm, writer
        self._optimiser, self._share, self._ignored = optimiser, share, set(ignore)
        self._tell, self._keeps_best = _log if tell is None else tell, keeps_best
        self._parameters = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._deferred = any(p.device.type != "cpu" for _, p in self._parameters)
        self._embeddings, self._movement = EmbeddingRows(model), Movement(model, optimiser)
        self._gates, self._noise = GateRows(model), GradientNoise()
        self._clearing, self._answers = Clearing(model, optimiser), Answers(model)
        self._answers.arm()
        self._model, self._shared = model, False
        self._drawn = look_drawn(p for _, p in self._parameters)
        self._evaluating, self._decay, self._highest_rate = 0, 0.0, UNKNOWN
        self._lasting = Lasting()
        self._moving = False
        self._steps, self._spent_s, self._began = 0, 0.0, UNKNOWN
        self._pending: list[tuple[int, Tensor, Tensor | None]] = []
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._first_loss, self._steps_read = UNKNOWN, 0
        self._updates: dict[str, float] = {}
        self._windows: list[Window] = []
        self._validation = UNKNOWN
        self._unfinite: Unfinite | None = None
        self._told: set[str] = set()

    # --- what the loop tells

    def step(self, loss: Tensor | float) -> tuple[Finding, ...]:
        """Look at a step whose gradients are there; return the findings that are new."""
        began = time.perf_counter()
        if math.isnan(self._began):
            self._began = began
        self._steps += 1
        place = (self._steps - 1) % self._every
        lavish = self._spent <= self._share * (began - self._began) + CREDIT_S
        if self._moving:
            moved = self._movement.end()
            self._updates = {n: max(u, self._updates.get(n, 0.0)) for n, u in moved.items()}
            self._moving = False
        norm = None
        self._clearing.end()
        self._evaluating += not self._model.training
        self._highest_rate = float(np.fmax(self._highest_rate, self._rate()))
        if self._steps == 1 or place == max(self._every - 2, 0):
            self._answers.take(float(torch.as_tensor(loss).detach()))
        if self._steps == 1:
            self._shared = is_shared(loss, self._model, self._optimiser)
        if lavish:
            gradients = {n: p.grad for n, p in self._parameters if p.grad is not None}
            norm = torch.nn.utils.get_total_norm([_dense(each) for each in gradients.values()])
            if place >= self._every - NOISE_STEPS:
                self._noise.add(gradients, norm)
            # The very first step, too: it tells most of a learning rate that is too large.
            if self._steps == 1 or place == max(self._every - 2, 0):
                self._movement.begin()
                self._moving = True
            if place == max(self._every - 2, 0):
                self._gates.arm()
            if place == max(self._every - 3, 0):
                self._answers.arm()
        self._clearing.arm(lavish and (place + 1) % self._every >= self._every - NOISE_STEPS)
        self._pending.append((self._steps, torch.as_tensor(loss).detach(), norm))
        known = self._unfinite
        if not self._deferred or place == self._every - 1:
            self._read()
        new: tuple[Finding, ...] = ()
        if place == self._every - 1 or self._unfinite is not known:
            new = self._look()
        self._spent_s += time.perf_counter() - began
        return new

    def validation(self, loss: Tensor | float) -> None:
        """Take the loss on held-back data as it is now."""
        self._validation = float(torch.as_tensor(loss).detach())

    def epoch(
        self,
        steps: int,
        loss: float,
        *,
        validation: float | None = None,
        norm: float = UNKNOWN,
        largest_norm: float = UNKNOWN,
        clipped: float = UNKNOWN,
        learning_rate: float = UNKNOWN,
    ) -> tuple[Finding, ...]:
        """Take a whole epoch from a loop that does not call `step`; return the new findings."""
        self._steps += steps
        judged = UNKNOWN if validation is None else validation
        window = Window(
            self._steps,
            steps,
            loss,
            norm=norm,
            largest_norm=largest_norm,
            clipped=clipped,
            learning_rate=learning_rate,
            validation=judged,
        )
        if not self._moving:
            self._moving = True
        else:
            self._movement.end()
        self._movement.begin()
        new = self._close(window)
        self._gates.arm()
        return new

    # --- what is known

    @property
    def training(self) -> Training:
        """What has been seen so far."""
        self._read()
        return Training(
            tuple(self._windows),
            first_loss=self._first_loss,
            clip_norm=self._clip,
            unfinite=self._unfinite,
            motionless=self._movement.motionless(),
            embeddings=self._embeddings.rows(),
            keeps_best=self._keeps_best,
            answered=self._answers.answered(),
            added=self._clearing.added(),
            noisy=noisy_parts(self._model),
            shared_by=self._shared_by(),
            drawn=self._drawn,
            frozen=self._embeddings.frozen(),
            dropout=strongest_dropout(self._model),
            highest_rate=self._highest_rate,
            decay=self._decay,
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules say of the training as far as it has come, worst first."""
        seen, found = self.training, self._lasting.findings(self._ignored)
        for code, ask in WATCHED.items():
            if code not in self._ignored:
                try:
                    found += list(ask(seen, CATALOGUE[code]))
                except Skip:
                    continue
        return tuple(sorted(found, key=lambda each: (each.severity.rank, each.code)))

    @property
    def overhead(self) -> float:
        """The share of the time since the first step that went into watching."""
        passed = time.perf_counter() - self._began
        return self._spent / passed if passed > 0 else 0.0

    def close(self) -> None:
        """Take off every hook; what was seen stays."""
        for probe in (self._embeddings, self._gates, self._clearing, self._answers):
            probe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- within

    @property
    def _spent(self) -> float:
        """Seconds that went into watching."""
        return self._spent_s + self._embeddings.spent_s

    def _read(self) -> None:
        """Read the numbers that wait on their device."""
        for step, loss, norm in self._pending:
            value, size = float(loss), UNKNOWN if norm is None else float(norm)
            if self._unfinite is None and not (
                math.isfinite(value) and (norm is None or math.isfinite(size))
            ):
                self._unfinite = self._where(step, value, size)
            if self._steps_read == 0:
                self._first_loss = value
            self._steps_read += 1
            self._losses.append(value)
            self._norms.append(size)
        self._pending.clear()

    def _where(self, step: int, loss: float, norm: float) -> Unfinite:
        norms = _finite(self._norms)
        before = [w.norm for w in self._windows if math.isfinite(w.norm)]
        typical = float(np.median(norms)) if len(norms) else (before or [UNKNOWN])[-1]
        largest = max([*norms, *(w.largest_norm for w in self._windows[-1:])], default=UNKNOWN)
        names: tuple[str, ...] = ()
        finite = math.isfinite(loss)
        # The gradients at hand are those of the step only where nothing was deferred.
        if finite and step == self._steps:
            names = tuple(
                n for n, p in self._parameters
                if p.grad is not None and not bool(_dense(p.grad).isfinite().all())
            )  # fmt: skip
        what, value = ("gradient", norm) if finite else ("loss", loss)
        return Unfinite(step, what, value, names, typical, float(largest))  # type: ignore[arg-type]

    def _look(self) -> tuple[Finding, ...]:
        """Close the window of the steps since the last look."""
        losses, seen = (_finite(each) for each in (self._losses, self._norms))
        signal, noise = self._noise.take()
        self._decay = max(self._decay, decay_of(self._optimiser))
        clipped = UNKNOWN
        if self._clip is None:
            clipped = 0.0
        elif len(seen):
            clipped = float((seen > self._clip).mean())
        window = Window(
            self._steps,
            len(self._losses),
            float(losses.mean()) if len(losses) else UNKNOWN,
            float(losses.std()) if len(losses) else UNKNOWN,
            float(np.median(seen)) if len(seen) else UNKNOWN,
            float(seen.max()) if len(seen) else UNKNOWN,
            clipped,
            self._rate(),
            self._validation,
            self._updates,
            signal,
            noise,
            self._movement.size,
            self._evaluating / max(len(self._losses), 1),
        )
        self._losses, self._norms, self._updates, self._evaluating = [], [], {}, 0
        self._validation = UNKNOWN
        return self._close(window)

    def _close(self, window: Window) -> tuple[Finding, ...]:
        """Add a window, write its scalars and tell what is new."""
        self._embeddings.look()
        self._windows.append(window)
        if len(self._windows) > MOST_WINDOWS:
            pairs = zip(self._windows[::2], self._windows[1::2])
            odd = self._windows[-1:] if len(self._windows) % 2 else []
            self._windows = [one.followed_by(other) for one, other in pairs] + odd
        traced = self._gates.take()
        self._lasting.look(traced)
        if self._writer is not None:
            write(self._writer, window, self._embeddings.rows(), traced)
        new = tuple(each for each in self.findings if each.code not in self._told)
        for finding in new:
            self._told.add(finding.code)
            self._tell(finding)
        return new

    def _shared_by(self) -> str:
        """Return why the loss may go another way than this module's training; "" if nothing is."""
        if self._shared:
            return "it is made from parameters of another module"
        added = self._clearing.added()
        if added is not None and added.thrown > added.steps / 2:
            return "another loss is gone back from through it, and its gradients are cleared away"
        return "another optimiser moves a part of the module" * self._movement.elsewhere()

    def _rate(self) -> float:
        if self._optimiser is None:
            return UNKNOWN
        return max(float(group["lr"]) for group in self._optimiser.param_groups)


def sentence(finding: Finding) -> str:
    """Return a finding in plain words: what was measured, and what to try."""
    return f"{finding.severity} {finding.code}: {finding.measured} Try: {finding.rule.remedy}"


def _log(finding: Finding) -> None:
    logging.getLogger("hiddenstate").warning(sentence(finding))


def _finite(values: list[float]) -> NDArray[np.float64]:
    every = np.array(values, dtype=np.float64)
    return every[np.isfinite(every)]


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
