"""From cases to padded tensors: what the loop eats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hiddenstate.artifact import HeadSpec
from hiddenstate.models import Batch
from hiddenstate.schema import EventLog, Schema
from hiddenstate.tasks import Task


@dataclass(frozen=True)
class Feed:
    """A log seen through a schema and tasks; encodes only the cases of the batch asked for.

    weights: how much each case counts in the loss [C], with mean 1; None means all alike
    """

    log: EventLog
    schema: Schema
    tasks: Sequence[Task]
    heads: Sequence[HeadSpec]
    weights: NDArray[np.float32] | None = None

    def batch(self, cases: NDArray[np.int64]) -> Batch:
        """Encode and pad the given cases."""
        part = self.log.select(cases)
        inputs = self.schema.encode(part)
        lengths = part.lengths
        time = int(lengths.max(initial=0))
        steps = np.arange(time)
        real = steps[None, :] < lengths[:, None]
        rows = np.minimum(part.offsets[:-1, None] + steps, max(part.events - 1, 0))
        targets, masks = [], []
        for task, head in zip(self.tasks, self.heads, strict=True):
            truth = task.targets(part)
            if head.scaler is None:
                values = truth.values.astype(np.int64)
            else:
                values = head.scaler.encode(truth.values).astype(np.float32)
            targets.append(torch.from_numpy(values[rows]))
            masks.append(torch.from_numpy(truth.learnable[rows] & real))
        return Batch(
            torch.from_numpy(inputs.codes[rows]),
            torch.from_numpy(inputs.numbers[rows]),
            torch.from_numpy(lengths),
            tuple(targets),
            tuple(masks),
            None if self.weights is None else torch.from_numpy(self.weights[cases]),
        )


def recency_weights(log: EventLog, half_life: float) -> NDArray[np.float32] | None:
    """Weights [C] that halve for every `half_life` of the cases that began later; None for 0.

    Cases stand in order of their start. The mean over events is 1, so that the learning rate keeps
    its meaning.
    """
    if half_life == 0 or log.cases == 0:
        return None
    age = np.arange(log.cases)[::-1] / log.cases
    weights = 0.5 ** (age / half_life)
    mean = float((weights * log.lengths).sum()) / max(log.events, 1)
    return (weights / mean).astype(np.float32)
