"""What a fit tells its observers while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """The state of a fit, at the end of an epoch or within one.

    phase             "train", or "finish": the last epochs, with the validation cases as well
    step, steps       batches done in this epoch, and in all of it
    train_loss        mean training loss of this epoch so far (nats, or scaled units for numbers)
    validation_loss   mean validation loss; None within an epoch and without validation cases
    best_epoch        epoch with the lowest validation loss so far, 0 before the first
    gradient_norm     median global norm before clipping over this epoch
    clipped           share of this epoch's steps whose gradient was clipped
    events_per_s      training events per second in this epoch
    seconds           since the fit began (time before a resume included)
    seconds_left      until the last epoch, if early stopping does not come first
    epoch_ended       whether this is the report of a whole epoch, with its validation
    kernels           kernel that ran each layer
    """

    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    train_loss: float
    validation_loss: float | None
    best_epoch: int
    best_loss: float | None
    learning_rate: float
    gradient_norm: float
    largest_gradient_norm: float
    clipped: float
    events_per_s: float
    seconds: float
    seconds_left: float
    epoch_ended: bool
    kernels: tuple[str, ...] = ()

    def to_json(self) -> Mapping[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Progress:
        """Read `to_json` back."""
        return Progress(**{**value, "kernels": tuple(value["kernels"])})
