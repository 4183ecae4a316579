"""Cheap checks of a fit while it runs: what they find is told once, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hiddenstate.cli.progress import Observer
from hiddenstate.train.progress import Progress

if TYPE_CHECKING:
    from torch import nn

    from hiddenstate.diagnose.finding import Finding
    from hiddenstate.diagnose.watching.watch import Watch


@contextmanager
def checked(observer: Observer, clip_norm: float, *, off: bool = False) -> Iterator[Observer]:
    """Give an observer that hands on all news and adds what the checks find, unless `off`."""
    if off:
        yield observer
        return
    checks = Checks(observer, clip_norm)
    try:
        yield checks
    finally:
        checks.close()


class Checks:
    """Watches the model of a fit, an epoch at a time."""

    def __init__(self, observer: Observer, clip_norm: float) -> None:
        """Hand on all news to `observer`, in words where something is found."""
        self._observer, self._clip_norm = observer, clip_norm
        self._watch: Watch | None = None
        self._epoch = 0

    def begins(self, model: nn.Module) -> None:
        """Look at the model from now on."""
        from hiddenstate.diagnose.watching.watch import Watch

        self._watch = Watch(model, clip_norm=self._clip_norm, tell=self._tell, keeps_best=True)

    def __call__(self, news: Progress | str) -> None:
        """Hand the news on; at the end of an epoch look at the model."""
        self._observer(news)
        if self._watch is None or isinstance(news, str) or not news.epoch_ended:
            return
        # A resumed fit tells its last epoch again; the last epochs have another loss.
        if news.phase != "train" or news.epoch <= self._epoch:
            return
        self._epoch = news.epoch
        self._watch.epoch(
            news.step,
            news.train_loss,
            validation=news.validation_loss,
            norm=news.gradient_norm,
            largest_norm=news.largest_gradient_norm,
            clipped=news.clipped,
            learning_rate=news.learning_rate,
        )

    def close(self) -> None:
        """Let go of the model."""
        if self._watch is not None:
            self._watch.close()

    def _tell(self, finding: Finding) -> None:
        from hiddenstate.diagnose.finding import Severity
        from hiddenstate.diagnose.watching.watch import sentence

        if finding.severity is not Severity.NOTE:
            self._observer(f"Epoch {self._epoch}: {sentence(finding)}")
